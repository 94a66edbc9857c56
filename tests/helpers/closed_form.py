"""Other ways to the closed form: plain autograd and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath
import torch
from draws import NAMES, arguments, weight_like
from torch import Tensor
from torch.testing import assert_close

from gmlib.functional import gm_layer


def reference(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> Tensor:
    """The formula as the book writes it, for autograd to differentiate."""
    m = torch.einsum("...d,kd->...k", x, mu)
    t = torch.einsum("...d,kd->...k", x**2, sigma**2).sqrt()
    z = m / t
    Phi = 0.5 * torch.erfc(-z / math.sqrt(2))
    phi = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    F = m * Phi + t * phi
    at_the_mean = torch.einsum("kcd,kd->kc", U, mu) + v
    covariance = torch.einsum("kcd,kd,...d->...kc", U, sigma**2, x)
    return (at_the_mean * F.unsqueeze(-1) + covariance * Phi.unsqueeze(-1)).mean(-2)


def gradients(
    function: Callable[..., Tensor], tensors: Mapping[str, Tensor], seed: int = 1
) -> dict[str, Tensor]:
    """The gradients, by name, of a random weighting of the outputs."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    out = function(**leaves)
    grads = torch.autograd.grad(out, list(leaves.values()), weight_like(out, seed))
    return dict(zip(leaves, grads, strict=True))


def equals_the_reference(leading: Sequence[int]) -> None:
    """Check the outputs and all gradients for inputs of a leading shape."""
    drawn = arguments()
    drawn["x"] = arguments(B=math.prod(leading), seed=1)["x"].view(*leading, 4)
    assert gm_layer(**drawn).shape == (*leading, 3)
    assert_close(gm_layer(**drawn), reference(**drawn), rtol=1e-12, atol=1e-12)
    fast, plain = gradients(gm_layer, drawn), gradients(reference, drawn)
    for name in NAMES:
        assert_close(fast[name], plain[name], rtol=1e-12, atol=1e-12, msg=name)


def integrate_over_positive(function: Callable[[Any], Any], m: float, t: float) -> Any:
    """The integral over s > 0 of function(s) times the density of N(m, t^2) at s."""
    m, t = mpmath.mpf(m), mpmath.mpf(t)
    if m > -t:
        cuts = [m + k * t for k in (-12, -6, -3, -1, 0, 1, 3, 6, 12)]
    else:  # the density falls off like exp(-|m| s / t^2)
        cuts = [k * t * t / -m for k in (1, 2, 4, 8, 16, 32, 64)]
    with mpmath.workdps(25):
        peak = mpmath.npdf(max(m, 0), m, t)  # taken out, since mpmath stops at an absolute error
        value, error = mpmath.quad(
            lambda s: function(s) * mpmath.npdf(s, m, t) / peak,
            [0, *(cut for cut in cuts if cut > 0)],
            error=True,
        )
    assert error < 1e-11 * abs(value)
    return peak * value
