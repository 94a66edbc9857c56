"""The layer in folded coordinates, whose gradients are autograd's but for two functions' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gmlib._moments import relu_moments

__all__ = ["folded_layer", "plain_product", "sheltered_product"]


def folded_layer(
    product: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    mu: Tensor,
    sigma: Tensor,
    A: Tensor,
    w: Tensor,
) -> Tensor:
    """`gm_layer_folded` on a matrix of inputs, (B, C), by one of the two products below."""
    # The floor goes in before the root: masked afterwards, 0 / 0 would still reach the gradients.
    variance = product(x.square(), sigma.square()).clamp_min(torch.finfo(x.dtype).tiny)
    F, G = relu_moments(product(x, mu), variance.sqrt())
    Y = product(x, A.flatten(0, 1)).unflatten(1, A.shape[:2])  # (B, K, C)
    out: Tensor = (Y * G.unsqueeze(2)).sum(1) + product(F, w.T)
    return out


def plain_product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T``."""
    return a @ b.T


def sheltered_product(a: Tensor, b: Tensor) -> Tensor:
    """The same for use under autocast, which would otherwise meet its backward.

    There autograd multiplies outside the region in which the forward had turned it off.
    """
    function = _Product if torch.compiler.is_compiling() else _DualProduct
    return function.apply(a, b)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """`sheltered_product`, differentiable any number of times."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return plain_product(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,), (a, b) = grads, ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        with torch.autocast(grad.device.type, enabled=False):
            return (
                sheltered_product(grad, b.T) if needs_a else None,
                sheltered_product(grad.T, a.T) if needs_b else None,
            )


class _DualProduct(_Product):
    """With forward mode, which `torch.compile` refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (a, b), (da, db) = ctx.saved_tensors, tangents
        return sheltered_product(da, b) + sheltered_product(a, db)
