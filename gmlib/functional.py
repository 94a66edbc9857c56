r"""The closed form of a Gaussian mixture (GM) layer.

A GM layer averages, over ``K`` Gaussian clouds of neurons, the output of a ReLU neuron with an
affine readout. With :math:`\beta \sim \mathcal N(\mu_k, \mathrm{diag}\,\sigma_k^2)` and the
pre-activation :math:`s = \langle\beta, x\rangle \sim \mathcal N(m_k, t_k^2)`,

.. math::
    h(x) = \frac1K \sum_{k=1}^K \mathbb E\big[(U_k\beta + v_k)\,\mathrm{relu}(s)\big]
         = \frac1K \sum_{k=1}^K \Big[(U_k\mu_k + v_k)\,F_k + U_k(\sigma_k^2\odot x)\,G_k\Big],

where :math:`F = \mathbb E[\mathrm{relu}(s)] = m\Phi(m/t) + t\varphi(m/t)` and
:math:`G = \mathbb P(s > 0) = \Phi(m/t)`. The second term is Stein's lemma,
:math:`\mathbb E[(\beta-\mu)\,\mathrm{relu}(s)] = \mathrm{Cov}(\beta, s)\,\mathbb P(s>0)`.
The layer is due to Chewi, Rigollet and Yan, "Gaussian mixture layers for neural networks",
arXiv:2508.04883 (2025).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gmlib._moments import moment_gradients, moments, relu_moments
from gmlib._validation import check_alike, check_dtype, check_tensors

__all__ = ["gm_layer", "gm_layer_monte_carlo", "relu_moments"]

# Entries of the largest intermediate result, Y: a large batch goes through in blocks of so many.
_BLOCK = 2**20
# Entries of a component's readout up to which all components fit a core's cache at once.
_SMALL = 2**14


def gm_layer(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> Tensor:
    r"""Closed-form forward pass of a Gaussian mixture layer.

    Args:
        x: Inputs, shape ``(..., d)``; the leading shape may be empty or hold zeros.
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations per coordinate, shape ``(K, d)``. Only
            :math:`\sigma^2` enters, so that the sign is immaterial.
        U: Readout weights, shape ``(K, C, d)``.
        v: Readout offsets, shape ``(K, C)``.

    Returns:
        Outputs, shape ``(..., C)``: the mean over the `K` components of
        :math:`\mathbb E[(U_k\beta + v_k)\,\mathrm{relu}(\langle\beta, x\rangle)]`.

    Raises:
        ValueError: If the shapes do not fit together.
        TypeError: If the dtypes differ or are neither float32 nor float64.

    Notes:
        One `torch.autograd.Function` with hand-derived gradients. For a batch of `B` inputs it
        takes, in multiplications up to terms of lower order,

        - ``B K C d`` forward, for :math:`U(\sigma^2\odot x)`;
        - ``B K C d`` backward, for the gradient in `U`, from which that in `sigma` follows;
        - ``B K C d`` more backward only if `x` needs a gradient.

        The rest are passes over memory. Forward reads `U` twice (for the product and for
        :math:`U\mu`); backward reads it twice (for the gradients in `mu` and `sigma`), writes its
        gradient once and passes over that three times. Kept for the backward are the inputs and
        ``K (B C + 5 B + C)`` numbers, of 4 bytes in float32. Beside its results forward holds
        ``K (d min(B, C) + B C)`` numbers for a while, backward ``K B C``, and ``K C d`` where `x`
        needs a gradient. A batch goes through in blocks of some :math:`10^6/(KC)` inputs, so that
        evaluation needs little memory however many there are.

        Differentiable any number of times, and in forward mode, which may go over the backward
        (as in `torch.func.hessian`) but not over itself: there PyTorch's custom functions give
        wrong results. Works under `torch.func`'s transforms, `torch.compile` (without a graph
        break) and `torch.export`. Under autocast it computes in float32, as its tails need, and so
        returns float32. A derivative of the backward computes the forward anew; take it outside
        autocast, which would reach its products.

    Examples:
        >>> x, mu, sigma = torch.ones(5, 3), torch.ones(2, 3), torch.ones(2, 3)
        >>> gm_layer(x, mu, sigma, torch.ones(2, 4, 3), torch.zeros(2, 4)).shape
        torch.Size([5, 4])
    """
    check_tensors({"x": x, "mu": mu, "sigma": sigma, "U": U, "v": v})
    if _autocasts(x):
        with torch.autocast(x.device.type, enabled=False):
            return gm_layer(*map(_at_least_float32, (x, mu, sigma, U, v)))
    _check_layer(x, mu, sigma, U, v)
    if torch.compiler.is_compiling():  # it would fix the number of blocks
        out = _GMLayer.apply(x.reshape(-1, x.shape[-1]), mu, sigma, U, v)[0]
    elif x.ndim == 2 and len(x) * v.numel() <= _BLOCK:  # as below, at less expense
        return _DualGMLayer.apply(x, mu, sigma, U, v)[0]  # type: ignore[no-any-return]
    else:
        blocks = x.reshape(-1, x.shape[-1]).split(max(1, _BLOCK // v.numel()))
        out = torch.cat([_DualGMLayer.apply(block, mu, sigma, U, v)[0] for block in blocks])
    return out.view(*x.shape[:-1], U.shape[1])  # type: ignore[no-any-return]


def gm_layer_monte_carlo(
    x: Tensor,
    mu: Tensor,
    sigma: Tensor,
    U: Tensor,
    v: Tensor,
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Unbiased Monte Carlo estimate of :func:`gm_layer`, for tests and illustrations only.

    Draws `num_samples` neurons :math:`\beta` from every component and averages
    :math:`(U_k\beta + v_k)\,\mathrm{relu}(\langle\beta, x\rangle)` over them: a finite two-layer
    ReLU network of ``K * num_samples`` neurons whose infinite-width limit is the GM layer.

    Args:
        x: Inputs, shape ``(..., d)``.
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations, shape ``(K, d)``.
        U: Readout weights, shape ``(K, C, d)``.
        v: Readout offsets, shape ``(K, C)``.
        num_samples: Neurons drawn per component, at least 1.
        generator: Source of randomness; the global one by default.

    Returns:
        Outputs, shape ``(..., C)``, with an error of order ``num_samples ** -0.5``.

    Raises:
        ValueError: If the shapes do not fit together, or `num_samples` is below 1.
        TypeError: As :func:`gm_layer`.

    Examples:
        >>> x, mu, sigma = torch.ones(1, 3), torch.ones(2, 3), torch.ones(2, 3)
        >>> parameters = (mu, sigma, torch.ones(2, 4, 3), torch.zeros(2, 4))
        >>> exact = gm_layer(x, *parameters)
        >>> sampled = gm_layer_monte_carlo(x, *parameters, 100_000)
        >>> bool((sampled / exact - 1.0).abs().max() < 0.05)
        True
    """
    check_tensors({"x": x, "mu": mu, "sigma": sigma, "U": U, "v": v})
    _check_layer(x, mu, sigma, U, v)
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be an integer of at least 1, got {num_samples!r}")
    noise = torch.randn(
        num_samples, *mu.shape, dtype=mu.dtype, device=mu.device, generator=generator
    )
    beta = mu + sigma * noise  # (S, K, d)
    activation = torch.relu(torch.einsum("skd,...d->...sk", beta, x))
    readout = torch.einsum("kcd,skd->skc", U, beta) + v
    return torch.einsum("...sk,skc->...c", activation, readout) / (num_samples * mu.shape[0])


class _GMLayer(torch.autograd.Function):
    """`gm_layer` on a matrix of inputs, with hand-derived gradients.

    The outputs beyond the first are the intermediate results that the backward reads. They are
    constants to autograd, so a backward that is itself differentiated computes them anew from
    the inputs: one formula serves every order of differentiation.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        parts = _parts(x, mu, sigma, U, v)
        return _mixed(*parts[-4:]), *parts

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.save_for_forward(*inputs, *output[1:])  # vmap wants the same in both

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        if grad is None:
            return (None,) * 5
        saved = ctx.saved_tensors  # once: checkpointing computes them at the first look
        inputs, parts = saved[:5], saved[5:]
        # A compiled backward would meet the autocasting that the forward had turned off.
        with (
            torch.autocast(grad.device.type, enabled=False)
            if (torch.compiler.is_compiling() or _autocasts(grad))
            else nullcontext()
        ):
            return _gradients(grad, inputs, parts, ctx.needs_input_grad)


class _DualGMLayer(_GMLayer):
    """With forward mode, which `torch.compile` refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors[:5]
        tangent = _tangent(
            inputs,
            [
                torch.zeros_like(x) if dx is None else dx
                for x, dx in zip(inputs, tangents, strict=True)
            ],
        )
        return tangent, *([None] * 7)


# PyTorch binds the arguments by signature at every call, and takes longer to find it out.
_GMLayer.forward.__signature__ = inspect.signature(_GMLayer.forward)  # type: ignore[attr-defined]


def _parts(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """By component: z, 1 / t, phi; F, G (all K, B), Y = U (sigma^2 x) (K, C, B) and w (K, C).

    `_mixed` makes the outputs of the last four.
    Components come first and inputs last: so no large product has its long operand transposed.
    """
    variance = sigma.square()
    # The floor goes in before the root and the division: masked afterwards, 0 / 0 would still
    # reach the gradients.
    t = (variance @ x.square().T).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return *moments(mu @ x.T, t), _Y(U, variance, x), _w(U, mu) + v


def _Y(U: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    """U (variance x), (K, C, B)."""
    # Scale whichever is smaller; a compiler would take the batch of today for that of ever.
    if not torch.compiler.is_compiling() and len(x) < U.shape[1]:
        return torch.bmm(U, (variance.unsqueeze(1) * x).transpose(1, 2))
    return (_scaled_readout(U, variance) @ x.T).view(*U.shape[:2], x.shape[0])


def _w(U: Tensor, mu: Tensor) -> Tensor:
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
    if torch.is_grad_enabled() or _have_tangents(inputs):
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
        # again, and under vmap would go through one item at a time.
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
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
    dw = _w(dU, mu) + _w(U, dmu) + dv
    return _mixed(dF, G, dY, w) + _mixed(F, dG, Y, dw)


def _have_tangents(tensors: Sequence[Tensor]) -> bool:
    """Whether forward mode is differentiating any of them."""
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def _column_sums(U: Tensor, P: Tensor) -> Tensor:
    """``sum_c U P`` by component, (K, d)."""
    if U[0].numel() < _SMALL:
        return (U * P).sum(1)
    # Component by component, so that the product stays in the cache.
    return torch.stack([(u * p).sum(0) for u, p in zip(U.unbind(), P.unbind(), strict=True)])


def _scaled_readout(U: Tensor, variance: Tensor) -> Tensor:
    """U sigma^2 as a matrix, (K C, d)."""
    return (U * variance.unsqueeze(1)).reshape(-1, U.shape[-1])


def _autocasts(x: Tensor) -> bool:
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_layer(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> None:
    parameters = {"mu": mu, "sigma": sigma, "U": U, "v": v}
    check_dtype("x", x)
    check_alike({"x": x, **parameters})
    if U.ndim != 3 or 0 in U.shape:
        raise ValueError(f"U must have shape (K, C, d), none of them zero, got {tuple(U.shape)}")
    K, C, d = U.shape
    for name, shape in {"mu": (K, d), "sigma": (K, d), "v": (K, C)}.items():
        if parameters[name].shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} to fit U of shape {(K, C, d)}, "
                f"got {tuple(parameters[name].shape)}"
            )
    if x.ndim == 0 or x.shape[-1] != d:
        raise ValueError(f"x must have shape (..., {d}), got {tuple(x.shape)}")
