"""What data may be: batches, of which labels never enter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map_only

__all__ = ["Batches", "Forward", "batches_of", "run"]

Batches = Tensor | Iterable[Any]
Forward = Callable[[nn.Module, Any], object]


def batches_of(data: Batches, forward: Forward | None) -> list[Any]:
    """The batches of `data`: whole where a `forward` is given, else the inputs of each.

    All are kept: every layer wants to see them, and an iterator yields them once.
    """
    if not (forward is None or callable(forward)):
        raise TypeError(
            f"forward must be a function of a module and a batch, got {type(forward).__name__}"
        )
    if isinstance(data, list | tuple) and len(data) > 1:
        raise ValueError(
            f"data is a {type(data).__name__} of {len(data)} items, which may be one batch, of "
            "inputs and labels, or several: pass [data] for one batch, iter(data) for several"
        )
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise TypeError(
            f"data must be a tensor or an iterable of batches, got {type(data).__name__}"
        )
    several = [data] if isinstance(data, Tensor | Mapping) else data
    batches = list(several) if forward else [_inputs(batch) for batch in several]
    if not any(batch.numel() if isinstance(batch, Tensor) else True for batch in batches):
        raise ValueError(f"data is empty: {len(batches)} batches with no inputs in them")
    return batches


def _inputs(batch: object) -> Tensor:
    inputs = batch
    if isinstance(batch, list | tuple) and not isinstance(batch, PackedSequence):
        inputs = next(iter(batch), batch)
    if not isinstance(inputs, Tensor):
        raise TypeError(
            "each batch of data must be a tensor, or a tuple or list that begins with one, got "
            f"{type(inputs).__name__}; `forward` runs a network on all else, such as "
            "forward=lambda module, batch: module(**batch) on dictionaries"
        )
    if inputs.ndim == 0:
        raise ValueError("each batch of data needs a batch dimension, got a scalar")
    return inputs


def run(module: nn.Module, batch: Any, forward: Forward | None) -> None:
    """Run a network on a batch that is its own, to change if it likes, and on its device."""
    devices = {parameter.device for parameter in module.parameters()}
    device = devices.pop() if len(devices) == 1 else None
    own = tree_map_only(Tensor, lambda tensor: tensor.detach().to(device, copy=True), batch)
    if forward is not None:
        forward(module, own)
    elif own.numel():
        module(own)
