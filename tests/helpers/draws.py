"""Draw tensors at random, the same every time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Standard normal numbers, the same in every dtype but for their rounding."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def moments(*, requires_grad: Iterable[str] = ()) -> tuple[Tensor, Tensor]:
    """m (3, 6) and t (3, 1) for `relu_moments`, not at random: from one tail to the other."""
    z = torch.tensor([-6.0, -2.5, -0.3, 0.0, 0.4, 3.0], dtype=torch.float64)
    t = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64).unsqueeze(1)
    return (z * t).requires_grad_("m" in requires_grad), t.requires_grad_("t" in requires_grad)


def weight_like(out: Tensor, seed: int = 1) -> Tensor:
    """A weighting of outputs, so that their gradients are those of a sum of different terms."""
    return torch.randn(out.shape, generator=seeded(seed)).to(out.dtype)
