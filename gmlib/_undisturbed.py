"""Running what may stop anywhere, and networks that may change as they run, without a trace."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from gmlib._networks import gathers_statistics, gm_layers
from gmlib._validation import check_generator

__all__ = ["random_states_kept", "restored_on_error", "undisturbed"]


@contextmanager
def restored_on_error(
    module: nn.Module, generator: torch.Generator | None = None
) -> Iterator[None]:
    """Put the GM layers' parameters and random states back if the body raises."""
    check_generator(generator)
    put_back = _random_states(generator)
    saved = [
        (tensor, tensor.detach().clone())
        for layer in gm_layers(module).values()
        for tensor in chain(layer.parameters(), layer.buffers())
    ]
    try:
        yield
    except BaseException:
        put_back()
        with torch.no_grad():
            for tensor, value in saved:
                if not torch.equal(tensor, value):  # what could not be written to cannot be now
                    tensor.copy_(value)
        raise


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put the global sources of random numbers back afterwards."""
    put_back = _random_states()
    try:
        yield
    finally:
        put_back()


def _random_states(generator: torch.Generator | None = None) -> Callable[[], None]:
    """Where the sources of random numbers are now; to call it is to put them back there."""
    states: list[tuple[Callable[[Any], object], Any]] = [
        (torch.set_rng_state, torch.get_rng_state()),
        (random.setstate, random.getstate()),
    ]
    if numpy := sys.modules.get("numpy.random"):
        states.append((numpy.set_state, numpy.get_state()))
    if accelerator := torch.accelerator.current_accelerator():
        device = torch.get_device_module(accelerator)
        every = "_all" if hasattr(device, "get_rng_state_all") else ""  # MPS is but one
        # One that is not in use is left alone: to ask for its state would start it.
        if getattr(device, "is_initialized", device.is_available)():
            get, put = getattr(device, f"get_rng_state{every}"), f"set_rng_state{every}"
            states.append((getattr(device, put), get()))
    if generator is not None:
        states.append((generator.set_state, generator.get_state()))

    def put_back() -> None:
        for put, state in states:
            put(state)

    return put_back


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Have a network ready to be looked at, and put its modes and buffers back afterwards.

    Modules are in evaluation mode, but those that gather statistics stay in their own. No
    `train` or `eval` is called: some networks write to their parameters there. What compiled
    networks hold runs as it is written, because no hooks run in what is compiled.
    """
    children = list(module.modules())
    # Frozen scripts have no mode.
    modes = {child: child.training for child in children if hasattr(child, "training")}
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(_put_back_modes, modes)
        for child in modes:
            if not gathers_statistics(child):
                child.training = False
        stack.enter_context(_own_buffers(children))
        yield


def _put_back_modes(modes: dict[nn.Module, bool]) -> None:
    for child, mode in modes.items():
        child.training = mode


@contextmanager
def _own_buffers(children: list[nn.Module]) -> Iterator[None]:
    """Have copies in the place of buffers, for the network to change."""
    originals = [
        (child, name, buffer)
        for child in children
        for name, buffer in child._buffers.items()
        if buffer is not None
    ]
    copies = {buffer: buffer.clone() for _, _, buffer in originals}  # shared ones stay shared
    try:
        for child, name, buffer in originals:
            child._buffers[name] = copies[buffer]
        yield
    finally:
        for child, name, buffer in originals:
            found = getattr(child, name, None)
            # A table that has grown for long inputs stays: the module knows how far it goes.
            if found is copies[buffer] or getattr(found, "shape", buffer.shape) == buffer.shape:
                child._buffers[name] = buffer
