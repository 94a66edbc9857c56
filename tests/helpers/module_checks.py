"""Compare modules, what they return and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close


def snapshot(module: nn.Module) -> dict[str, bytes]:
    """Parameters and buffers as bytes, so that NaN equals itself and -0 is not 0."""
    return {name: bytes(t.numpy().tobytes()) for name, t in module.state_dict().items()}


def modes(module: nn.Module) -> list[bool]:
    return [child.training for child in module.modules()]


def num_hooks(module: nn.Module) -> int:
    return sum(
        len(child._forward_hooks) + len(child._forward_pre_hooks) + len(child._backward_hooks)
        for child in module.modules()
    )


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Check that a module and the global random state come out as they went in."""
    before = snapshot(module), modes(module), num_hooks(module)
    state = torch.get_rng_state()
    yield
    assert (snapshot(module), modes(module), num_hooks(module)) == before
    assert torch.equal(torch.get_rng_state(), state)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def outcome(
    module: Callable[[Tensor], Tensor], x: Tensor, parameters: Iterable[Tensor] | None = None
) -> tuple[Tensor, ...]:
    """Outputs, and the gradients of a weighting of them in `x` and the parameters."""
    x = x.detach().requires_grad_()
    parameters = list(module.parameters() if parameters is None else parameters)
    out = module(x)
    weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view(out.shape).to(out.device)
    return out.detach(), *torch.autograd.grad(out, [x, *parameters], weight)


def parameter_gradients(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Those of `outcome`, by name of the parameter."""
    names = [name for name, _ in module.named_parameters()]
    return dict(zip(names, outcome(module, x)[2:], strict=True))


def assert_all_close(
    actual: Iterable[Tensor], expected: Iterable[Tensor], **tolerances: Any
) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, **tolerances)
