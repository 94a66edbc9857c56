"""What the layer's functions in either coordinates share as functions of autograd."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "LayerFunction",
    "autocasts",
    "filled",
    "have_tangents",
    "is_traced",
    "is_transformed",
    "needs_operations",
    "without_autocast",
]


class LayerFunction(torch.autograd.Function):
    """A layer on a matrix of inputs, with hand-derived gradients.

    The outputs beyond the first are the intermediate results that the backward reads. They are
    constants to autograd, so a backward that is itself differentiated computes them anew from
    the inputs: one formula serves every order of differentiation.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.save_for_forward(*inputs, *output[1:])  # vmap wants the same in both


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of a tensor."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def is_traced() -> bool:
    """Whether `torch.jit.trace` is at work, which cannot save a call of a Python function."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_transformed() -> bool:
    """Whether a transform of `torch.func` is at work."""
    return bool(torch._C._are_functorch_transforms_active())


def needs_operations() -> bool:
    """Whether PyTorch's own operations are to be used, and autograd is to differentiate them.

    Of an autograd function `torch.jit.trace` saves nothing, `torch.compile` has no transforms, and
    `torch.func.functionalize` nothing at all.
    """
    if not is_transformed():
        return is_traced()
    return torch.compiler.is_compiling() or any(
        transform.key() == torch._C._functorch.TransformType.Functionalize
        for transform in torch._C._functorch.get_interpreter_stack() or ()
    )


def without_autocast(grad: Tensor) -> AbstractContextManager[object]:
    """For a backward: a compiled one would meet the autocasting that the forward had turned off."""
    if torch.compiler.is_compiling() or autocasts(grad):
        return torch.autocast(grad.device.type, enabled=False)
    return nullcontext()


def have_tangents(tensors: Sequence[Tensor]) -> bool:
    """Whether forward mode is differentiating any of them."""
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def filled(inputs: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> list[Tensor]:
    """The tangents of all inputs, zeros where there is none."""
    return [
        torch.zeros_like(x) if dx is None else dx for x, dx in zip(inputs, tangents, strict=True)
    ]
