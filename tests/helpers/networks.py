"""Make small layers and networks of them."""

from __future__ import annotations

import itertools

import torch
from draws import seeded
from torch import Tensor, nn

from gmlib import GaussianMixtureLayer
from gmlib.init import baseline_


def make_layer(
    d: int = 4, C: int = 3, K: int = 2, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> GaussianMixtureLayer:
    layer = GaussianMixtureLayer(d, C, K, dtype=dtype)
    layer.reset_parameters(generator=seeded(seed))
    return layer


def stack(*widths: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """GM layers of three components, one after the other."""
    network = nn.Sequential(
        *(GaussianMixtureLayer(d, C, 3, dtype=dtype) for d, C in itertools.pairwise(widths))
    )
    baseline_(network, generator=seeded(seed))
    return network


def make_network(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """GM layers between others; from 6 features to 2."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 5),
            GaussianMixtureLayer(5, 4, 3),
            nn.LayerNorm(4),
            nn.Tanh(),
            GaussianMixtureLayer(4, 7, 2),
            nn.Linear(7, 2),
        ).to(dtype)


def mixed(seed: int = 0) -> nn.Sequential:
    """GM layers among others, in training mode but for one, and with a history."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            GaussianMixtureLayer(8, 7, 3),
            nn.Dropout(0.5),
            nn.ModuleDict({"inner": GaussianMixtureLayer(7, 5, 2)})["inner"],
            nn.ReLU(),
            nn.Linear(5, 4),
            nn.Dropout(0.5),
            GaussianMixtureLayer(4, 3, 1),
        )
        network(2.0 * torch.randn(32, 6) + 1.0)
    network[3].eval()
    return network


class Unreached(nn.Module):
    """Has a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = GaussianMixtureLayer(6, 5, 2), GaussianMixtureLayer(6, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Times(nn.Module):
    """Multiplies by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Raises(nn.Module):
    """Raises an error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error
