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
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["gm_layer", "gm_layer_monte_carlo", "relu_moments"]

_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
# exp(-z^2 / 2) is zero far inside this bound in every supported dtype; clipping z to it keeps
# z * exp(-z^2 / 2) from becoming inf * 0.
_Z_MAX = 200.0
# P, Q and S of `_rectified`, highest power first. P / Q has, of all such rational functions, the
# least largest relative error against 1/R(a) - a, up to where the density is zero (a = 15 in
# float32, 40 in float64), found by Lawson's algorithm in 60 digits: 9.4e-9 and 2.4e-18.
# fmt: off
_TAIL = {
    torch.float32: (
        (0.00154257954, 0.0172596762, 0.0915867534, 0.266897612, 0.39894228),
        (0.00154252925, 0.0172626282, 0.0945966767, 0.302526931, 0.562221616, 0.499999995),
        (0.00386654743, 0.043270992, 0.240985378, 0.801586151, 1.63885455, 1.92232723, 1.0),
    ),
    torch.float64: (
        (
            5.9640639404875716e-8, 1.9584330190096886e-6, 3.1942233923967715e-5,
            0.0003362262153403255, 0.0025117984292400293, 0.01387140169189651,
            0.057341851652347246, 0.17571209352806902, 0.38452657087983757, 0.54939675327890132,
            0.39894228040143268,
        ),
        (
            5.9640639404818626e-8, 1.9584330190236932e-6, 3.2061515201206557e-5,
            0.00034014308148576281, 0.0025753250482116043, 0.014532103697711361,
            0.062176295463350488, 0.20151988786362008, 0.48545480406824645, 0.83092439957923076,
            0.91628150613600063, 0.5,
        ),
        (
            1.4949691304919017e-7, 4.9090635794557415e-6, 8.051579744390532e-5,
            0.00085752132905175008, 0.0065354498889213468, 0.037269376156597243,
            0.16214900518315233, 0.5399058965090908, 1.360589444604389, 2.5232634958981519,
            3.2606423057162801, 2.6304475730748661, 1.0,
        ),
    ),
}
# fmt: on
# Entries of the largest intermediate result, Y: a large batch goes through in blocks of so many.
_BLOCK = 2**20
# Entries of a component's readout up to which all components fit a core's cache at once.
_SMALL = 2**14


def relu_moments(m: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""Moments of a rectified Gaussian, for :math:`s \sim \mathcal N(m, t^2)`.

    Args:
        m: Mean of the pre-activation, any shape, float32 or float64.
        t: Standard deviation of the pre-activation, not negative, broadcastable with `m`. At
            ``t = 0`` the moments are those of the point mass: ``F = relu(m)`` and ``G`` the unit
            step, 1/2 at ``m = 0``.

    Returns:
        ``(F, G)``, each of the broadcast shape: :math:`F = \mathbb E[\mathrm{relu}(s)]` (in the
        units of `m`) and :math:`G = \mathbb P(s > 0)`.

    Raises:
        TypeError: If the dtypes differ or are neither float32 nor float64.

    Notes:
        The textbook form :math:`m\Phi(z) + t\varphi(z)`, ``z = m / t``, cancels for ``z << 0``.
        With ``a = |z|`` and the Mills ratio :math:`R(a) = \Phi(-a)/\varphi(a)` it is
        :math:`F = \mathrm{relu}(m) + t\,\varphi(a)\,(1 - aR)`, and G is :math:`\varphi(a)R` or
        one less that. Here :math:`1 - aR` would still cancel. But :math:`1/R - a` is positive, and
        a ratio :math:`P/Q` of polynomials with positive coefficients equals it to the last digit
        (P of degree 4 in float32, 10 in float64). From it follow :math:`R = Q/(aQ + P)` and
        :math:`1 - aR = P/(aQ + P)`: of positive numbers, only sums, products and quotients, so
        that nothing cancels. The gradients are :math:`\partial F/\partial m = G`,
        :math:`\partial F/\partial t = \varphi(z)`, :math:`\partial G/\partial m = \varphi(z)/t`
        and :math:`\partial G/\partial t = -z\varphi(z)/t`; they are finite at ``t = 0``.

    Examples:
        >>> F, G = relu_moments(torch.tensor(0.0), torch.tensor(1.0))
        >>> print(f"{F:.4f} {G:.4f}")  # 1/sqrt(2 pi) and 1/2
        0.3989 0.5000
    """
    _check_tensors({"m": m, "t": t})
    _check_alike({"m": m, "t": t})
    _check_dtype("m", m)
    try:
        m, t = torch.broadcast_tensors(m, t)
    except RuntimeError:
        raise ValueError(
            f"m and t must have shapes that broadcast, got {tuple(m.shape)} and {tuple(t.shape)}"
        ) from None
    function = _ReLUMoments if torch.compiler.is_compiling() else _DualReLUMoments
    F, G = function.apply(m, t)
    return F, G


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
    _check_tensors({"x": x, "mu": mu, "sigma": sigma, "U": U, "v": v})
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
        x, mu, sigma, U, v: As in :func:`gm_layer`.
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
    _check_tensors({"x": x, "mu": mu, "sigma": sigma, "U": U, "v": v})
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


class _ReLUMoments(torch.autograd.Function):
    """`relu_moments` with exact gradients, differentiable any number of times."""

    generate_vmap_rule = True

    @staticmethod
    def forward(m: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z, _, bell = _standardized(m, t)
        return _rectified(m, t, z, bell)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        dF, dG = grads
        z, inv_t, phi, _, G = _moments(*ctx.saved_tensors)
        return _moment_gradients(dF, dG, z, inv_t, phi, G)


class _DualReLUMoments(_ReLUMoments):
    """With forward mode, which `torch.compile` refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor]:
        z, inv_t, phi, _, G = _moments(*ctx.saved_tensors)
        dm, dt = tangents
        return G * dm + phi * dt, phi * inv_t * (dm - z * dt)


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
    moments = _moments(mu @ x.T, t)
    return *moments, _Y(U, variance, x), _w(U, mu) + v


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
        dm, dt = _moment_gradients(w @ g, (Y * g).sum(1), z, inv_t, phi, G)
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


def _standardized(m: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z = m / t, 1 / t and exp(-z^2 / 2), finite for every t >= 0."""
    t = t.clamp_min(torch.finfo(t.dtype).tiny)
    z = (m / t).clamp(-_Z_MAX, _Z_MAX)
    # The square of z would be rounded, and exp would make much of that. The square of its leading
    # digits is exact, and the rest is small.
    leading = torch.round(64.0 * z) / 64.0
    rest = (leading - z) * (leading + z)
    bell = torch.exp(-0.5 * leading.square())
    return z, t.reciprocal(), torch.addcmul(bell, bell, torch.expm1(0.5 * rest))


def _rectified(m: Tensor, t: Tensor, z: Tensor, bell: Tensor) -> tuple[Tensor, Tensor]:
    """F and G; for P, Q and S, which is the square root of 2 pi times a Q + P, see `relu_moments`.

    0.5 (1 + erf), or ndtr, would lose the lower tail.
    """
    below = z < 0.0
    a = torch.where(below, -z, z)  # not abs, whose slope is 0 at 0
    P, Q, S = (_polynomial(coefficients, a) for coefficients in _TAIL[a.dtype])
    tail = bell * (Q / S)
    F = torch.addcmul(m.clamp_min(0.0), t, bell * (P / S))
    return F, torch.where(below, tail, 1.0 - tail)


def _polynomial(coefficients: Sequence[float], a: Tensor) -> Tensor:
    """By Horner's rule; the highest power comes first."""
    value = coefficients[0] * a + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value.mul_(a).add_(coefficient)
    return value


def _moments(m: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """z, 1 / t, phi(z), F and G, each differentiable where gradients are on."""
    z, inv_t, bell = _standardized(m, t)
    phi = bell * _INV_SQRT_2PI
    if torch.is_grad_enabled():
        return z, inv_t, phi, *relu_moments(m, t)
    return z, inv_t, phi, *_rectified(m, t, z, bell)


def _moment_gradients(
    dF: Tensor, dG: Tensor, z: Tensor, inv_t: Tensor, phi: Tensor, G: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients in m and t from those in F and G."""
    dz = dG * phi * inv_t
    return torch.addcmul(dz, dF, G), torch.addcmul(dF * phi, z, dz, value=-1.0)


def _autocasts(x: Tensor) -> bool:
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}")


def _check_tensors(tensors: Mapping[str, object]) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")


def _check_alike(tensors: Mapping[str, Tensor]) -> None:
    """Raise unless all have the dtype of the first, and are on its device."""
    (first, head), *others = tensors.items()
    for name, tensor in others:
        if tensor.dtype != head.dtype:
            raise TypeError(
                f"{first} and {name} must share a dtype, got {head.dtype} and {tensor.dtype}"
            )
        # With tensors that hold no numbers PyTorch would go on, and compute with others.
        if tensor.device != head.device:
            raise ValueError(
                f"{first} and {name} must be on one device, got {head.device} and {tensor.device}"
            )


def _check_layer(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> None:
    parameters = {"mu": mu, "sigma": sigma, "U": U, "v": v}
    _check_dtype("x", x)
    _check_alike({"x": x, **parameters})
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
