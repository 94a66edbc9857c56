"""The layer in folded coordinates as one function with hand-derived gradients."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gmlib._function import LayerFunction, filled, have_tangents, without_autocast
from gmlib._moments import moment_gradients, moments

__all__ = ["DualFoldedLayer", "FoldedLayer"]


class FoldedLayer(LayerFunction):
    """`gm_layer_folded` on a matrix of inputs."""

    @staticmethod
    def forward(x: Tensor, mu: Tensor, sigma: Tensor, A: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        parts = _parts(x, mu, sigma, A)
        F, G, Y = parts[-3:]
        return _summed(F, G, Y, w), *parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        if grad is None:
            return (None,) * 5
        saved = ctx.saved_tensors  # once: checkpointing computes them at the first look
        with without_autocast(grad):
            return _gradients(grad, saved[:5], saved[5:], ctx.needs_input_grad)


class DualFoldedLayer(FoldedLayer):
    """With forward mode, which `torch.compile` refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors[:5]
        return _tangent(inputs, filled(inputs, tangents)), *([None] * 6)


# PyTorch binds the arguments by signature at every call, and takes longer to find it out.
FoldedLayer.forward.__signature__ = inspect.signature(FoldedLayer.forward)  # type: ignore[attr-defined]


def _parts(x: Tensor, mu: Tensor, sigma: Tensor, A: Tensor) -> tuple[Tensor, ...]:
    """By component: z, 1 / t, phi; F, G (all K, B) and Y = A x (K, C, B).

    Components come first and inputs last: so no large product has its long operand transposed.
    """
    # The floor goes in before the root and the division: masked afterwards, 0 / 0 would still
    # reach the gradients.
    t = (sigma.square() @ x.square().T).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return *moments(mu @ x.T, t), _Y(A, x)


def _Y(A: Tensor, x: Tensor) -> Tensor:
    """A x, (K, C, B)."""
    return (A.reshape(-1, A.shape[-1]) @ x.T).view(*A.shape[:2], x.shape[0])


def _summed(F: Tensor, G: Tensor, Y: Tensor, w: Tensor) -> Tensor:
    """The layer's output: the sum of ``w F + Y G`` over the components, (B, C)."""
    return torch.addmm((Y * G.unsqueeze(1)).sum(0).T, F.T, w)


def _gradients(
    grad: Tensor, inputs: Sequence[Tensor], parts: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    r"""Gradients of the layer in ``(x, mu, sigma, A, w)``, those that `needs` asks for.

    With ``g`` the gradient in the output:

    - ``dA = (G g) x`` (one product), ``dw = F g``;
    - ``dmu = dm x``, ``dsigma = sigma ((dt / t) x^2)``;
    - ``dx = A^T (G g) + dm mu + x ((dt / t) sigma^2)``,

    where ``dm`` and ``dt`` follow from ``dF = w g`` and ``dG = Y g`` by `relu_moments`' rules.
    """
    x, mu, sigma, A, w = inputs
    if torch.is_grad_enabled() or have_tangents(inputs):
        parts = _parts(x, mu, sigma, A)
    z, inv_t, phi, F, G, Y = parts
    needs_x, needs_mu, needs_sigma, needs_A, needs_w = needs
    dx = dmu = dsigma = dA = None
    g = grad.T.contiguous()  # (C, B)
    if needs_x or needs_A:
        dY = (G.unsqueeze(1) * g).view(A.shape[0] * A.shape[1], len(x))
    if needs_A:
        dA = (dY @ x).view(A.shape)
    if needs_x or needs_mu or needs_sigma:
        dm, dt = moment_gradients(w @ g, (Y * g).sum(1), z, inv_t, phi, G)
        # At its floor t does not depend on sigma, and the slope there may overflow: times a sigma
        # of zero it would be no number.
        dt_t = torch.where(inv_t < torch.finfo(x.dtype).tiny ** -0.5, dt * inv_t, 0.0)
        if needs_mu:
            dmu = dm @ x
        if needs_sigma:
            dsigma = sigma * (dt_t @ x.square())
        if needs_x:
            dx = torch.addmm(dY.T @ A.reshape(-1, A.shape[-1]), dm.T, mu)
            dx = torch.addcmul(dx, x, dt_t.T @ sigma.square())
    return dx, dmu, dsigma, dA, F @ g.T if needs_w else None


def _tangent(inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """Tangent of the output: the derivative of `_summed` by the product rule."""
    x, mu, sigma, A, w = inputs
    dx, dmu, dsigma, dA, dw = tangents
    z, inv_t, phi, F, G, Y = _parts(x, mu, sigma, A)
    dm = dmu @ x.T + mu @ dx.T
    dt = ((sigma * dsigma) @ x.square().T + sigma.square() @ (x * dx).T) * inv_t
    dF, dG = G * dm + phi * dt, phi * inv_t * (dm - z * dt)
    dY = _Y(dA, x) + _Y(A, dx)
    return _summed(dF, G, dY, w) + _summed(F, dG, Y, dw)
