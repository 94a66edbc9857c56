"""Moments of a rectified Gaussian, with exact gradients, accurate in both tails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gmlib._calls import of_tensors
from gmlib._function import needs_operations

__all__ = ["moment_gradients", "moments", "relu_moments"]

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


@of_tensors
def relu_moments(m: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""Moments of a rectified Gaussian, for :math:`s \sim \mathcal N(m, t^2)`.

    Args:
        m: Mean of the pre-activation, any shape.
        t: Standard deviation of the pre-activation, not negative, broadcastable with `m`. At
            ``t = 0`` the moments are those of the point mass: ``F = relu(m)`` and ``G`` the unit
            step, 1/2 at ``m = 0``.

    Returns:
        ``(F, G)``, each of the broadcast shape: :math:`F = \mathbb E[\mathrm{relu}(s)]` (in the
        units of `m`) and :math:`G = \mathbb P(s > 0)`.

    Raises:
        TypeError: If a tensor is sparse, nested or masked, or the dtypes differ or are none of
            float32, float64, bfloat16 and float16; the last two are computed in float32.

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
    try:
        m, t = torch.broadcast_tensors(m, t)
    except RuntimeError:
        raise ValueError(
            f"m and t must have shapes that broadcast, got {tuple(m.shape)} and {tuple(t.shape)}"
        ) from None
    if needs_operations():
        z, _, bell = _standardized(m, t)
        return _rectified(m, t, z, bell)
    function = _ReLUMoments if torch.compiler.is_compiling() else _DualReLUMoments
    F, G = function.apply(m, t)
    return F, G


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
        z, inv_t, phi, _, G = moments(*ctx.saved_tensors)
        return moment_gradients(dF, dG, z, inv_t, phi, G)


class _DualReLUMoments(_ReLUMoments):
    """With forward mode, which `torch.compile` refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor]:
        z, inv_t, phi, _, G = moments(*ctx.saved_tensors)
        dm, dt = tangents
        return G * dm + phi * dt, phi * inv_t * (dm - z * dt)


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
        value = value * a + coefficient
    return value


def moments(m: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """z, 1 / t, phi(z), F and G, each differentiable where gradients are on."""
    z, inv_t, bell = _standardized(m, t)
    phi = bell * _INV_SQRT_2PI
    if torch.is_grad_enabled() and not needs_operations():
        return z, inv_t, phi, *relu_moments(m, t)
    return z, inv_t, phi, *_rectified(m, t, z, bell)


def moment_gradients(
    dF: Tensor, dG: Tensor, z: Tensor, inv_t: Tensor, phi: Tensor, G: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients in m and t from those in F and G."""
    dz = dG * phi * inv_t
    return torch.addcmul(dz, dF, G), torch.addcmul(dF * phi, z, dz, value=-1.0)
