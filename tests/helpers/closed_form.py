"""Other ways to the closed form: plain autograd and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath
import torch
from draws import weight_like
from kinds import Kind, arguments
from torch import Tensor
from torch.testing import assert_close


def gradients(
    function: Callable[..., Tensor], tensors: Mapping[str, Tensor], seed: int = 1
) -> dict[str, Tensor]:
    """The gradients, by name, of a random weighting of the outputs."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    out = function(**leaves)
    grads = torch.autograd.grad(out, list(leaves.values()), weight_like(out, seed))
    return dict(zip(leaves, grads, strict=True))


def equals_the_reference(kind: Kind, leading: Sequence[int]) -> None:
    """Check the outputs and all gradients for inputs of a leading shape."""
    drawn = arguments(kind)
    drawn["x"] = arguments(kind, B=math.prod(leading), seed=1)["x"].view(*leading, 4)
    out = kind.function(**drawn)
    assert out.shape == (*leading, 3)
    assert_close(out, kind.reference(**drawn), rtol=1e-12, atol=1e-12)
    gradients_equal_the_reference(kind, drawn)


def gradients_equal_the_reference(kind: Kind, drawn: Mapping[str, Tensor]) -> None:
    """Check all gradients in double precision."""
    fast, plain = gradients(kind.function, drawn), gradients(kind.reference, drawn)
    for name in drawn:
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
