"""The layer in affine coordinates as one function with hand-derived gradients."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gmlib._function import LayerFunction, filled, have_tangents, is_transformed, without_autocast
from gmlib._moments import moment_gradients, moments

__all__ = ["DualGMLayer", "GMLayer", "mean_readout"]

# Entries of a component's readout up to which all components fit a core's cache at once.
_SMALL = 2**14


class GMLayer(LayerFunction):
    """`gm_layer` on a matrix of inputs."""

    @staticmethod
    def forward(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        parts = _parts(x, mu, sigma, U, v)
        return _mixed(*parts[-4:]), *parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        if grad is None:
            return (None,) * 5
        saved = ctx.saved_tensors  # once: checkpointing computes them at the first look
        with without_autocast(grad):
            return _gradients(grad, saved[:5], saved[5:], ctx.needs_input_grad)


class DualGMLayer(GMLayer):
    """With forward mode, which `torch.compile` refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors[:5]
        return _tangent(inputs, filled(inputs, tangents)), *([None] * 7)


# PyTorch binds the arguments by signature at every call, and takes longer to find it out.
GMLayer.forward.__signature__ = inspect.signature(GMLayer.forward)  # type: ignore[attr-defined]


def _parts(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """By component: z, 1 / t, phi; F, G (all K, B), Y = U (sigma^2 x) (K, C, B) and w (K, C).

    `_mixed` makes the outputs of the last four.
    Components come first and inputs last: so no large product has its long operand transposed.
    """
    variance = sigma.square()
    # The floor goes in before the root and the division: masked afterwards, 0 / 0 would still
    # reach the gradients.
    t = (variance @ x.square().T).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return *moments(mu @ x.T, t), _Y(U, variance, x), mean_readout(U, mu) + v


def _Y(U: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    """U (variance x), (K, C, B)."""
    # Scale whichever is smaller; a compiler would take the batch of today for that of ever.
    if not torch.compiler.is_compiling() and len(x) < U.shape[1]:
        return torch.bmm(U, (variance.unsqueeze(1) * x).transpose(1, 2))
    return (_scaled_readout(U, variance) @ x.T).view(*U.shape[:2], x.shape[0])


def mean_readout(U: Tensor, mu: Tensor) -> Tensor:
    """U mu, (K, C), as a row times a matrix: a matrix times a column takes ten times as long."""
    return torch.bmm(mu.unsqueeze(1), U.transpose(1, 2)).squeeze(1)


def _mixed(F: Tensor, G: Tensor, Y: Tensor, w: Tensor) -> Tensor:
    """The layer's output: the mean of ``w F + Y G`` over the components, (B, C)."""
    scale = 1.0 / len(F)
    return torch.addmm((Y * G.unsqueeze(1)).sum(0).T, F.T, w, beta=scale, alpha=scale)


def _gradients(
    grad: Tensor, inputs: Sequence[Tensor], parts: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    r"""Gradients of the layer in ``(x, mu, sigma, U, v)``, those that `needs` asks for.

    With ``g`` the gradient in the output, ``A = G g`` and ``P = A x`` (one product):

    - ``dU = sigma^2 P + (F g) mu``, ``dv = F g``;
    - ``dsigma = sigma (2 sum_c U P + (dt / t) x^2)``;
    - ``dmu = U^T (F g) + dm x``;
    - ``dx = (U sigma^2)^T A + dm mu + x ((dt / t) sigma^2)``,

    where ``dm`` and ``dt`` follow from ``dF = w g`` and ``dG = Y g`` by `relu_moments`' rules.
    """
    x, mu, sigma, U, _ = inputs
    if torch.is_grad_enabled() or have_tangents(inputs):
        parts = _parts(*inputs)
    z, inv_t, phi, F, G, Y, w = parts
    K, C, d = U.shape
    needs_x, needs_mu, needs_sigma, needs_U, needs_v = needs
    dx = dmu = dsigma = dU = None
    variance = sigma.square()
    g = grad.T.contiguous() / K  # (C, B)
    A = (G.unsqueeze(1) * g).view(K * C, -1)
    gF = F @ g.T
    if needs_sigma or needs_U:
        P = (A @ x).view(K, C, d)

    if needs_x or needs_mu or needs_sigma:
        dm, dt = moment_gradients(w @ g, (Y * g).sum(1), z, inv_t, phi, G)
        dt_t = dt * inv_t
        if needs_mu:
            dmu = torch.addmm(torch.bmm(gF.unsqueeze(1), U).squeeze(1), dm, x)
        if needs_sigma:
            dsigma = sigma * torch.addmm(_column_sums(U, P), dt_t, x.square(), beta=2.0)
        if needs_x:
            dx = torch.addmm(A.T @ _scaled_readout(U, variance), dm.T, mu)
            dx = torch.addcmul(dx, x, dt_t.T @ variance)
    if needs_U:
        scale, row, column = variance.unsqueeze(1), gF.unsqueeze(-1), mu.unsqueeze(1)
        # Fresh memory can cost more than the product. But what is in place can't be differentiated
        # again, under vmap would go through one item at a time, and of a tensor that is spread over
        # devices can't add its shares up.
        if torch.is_grad_enabled() or is_transformed() or type(P) is not Tensor:
            dU = torch.addcmul(P * scale, row, column)
        else:
            dU = P.mul_(scale).addcmul_(row, column)
    return dx, dmu, dsigma, dU, gF if needs_v else None


def _tangent(inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """Tangent of the output: the derivative of `_mixed` by the product rule."""
    x, mu, sigma, U, _ = inputs
    dx, dmu, dsigma, dU, dv = tangents
    z, inv_t, phi, F, G, Y, w = _parts(*inputs)
    variance, half = sigma.square(), sigma * dsigma
    dm = dmu @ x.T + mu @ dx.T
    dt = (half @ x.square().T + variance @ (x * dx).T) * inv_t
    dF, dG = G * dm + phi * dt, phi * inv_t * (dm - z * dt)
    dY = _Y(dU, variance, x) + _Y(U, 2.0 * half, x) + _Y(U, variance, dx)
    dw = mean_readout(dU, mu) + mean_readout(U, dmu) + dv
    return _mixed(dF, G, dY, w) + _mixed(F, dG, Y, dw)


def _column_sums(U: Tensor, P: Tensor) -> Tensor:
    """``sum_c U P`` by component, (K, d)."""
    if U[0].numel() < _SMALL:
        return (U * P).sum(1)
    # Component by component, so that the product stays in the cache.
    return torch.stack([(u * p).sum(0) for u, p in zip(U.unbind(), P.unbind(), strict=True)])


def _scaled_readout(U: Tensor, variance: Tensor) -> Tensor:
    """U sigma^2 as a matrix, (K C, d)."""
    return (U * variance.unsqueeze(1)).reshape(-1, U.shape[-1])
