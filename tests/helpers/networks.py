"""Make small layers and networks of them."""

from __future__ import annotations

import itertools

import torch
from draws import seeded
from kinds import Kind, Kinds, classes
from torch import Tensor, nn

from gmlib.init import baseline_
from gmlib.layer import MixtureLayer


def make_layer(
    kind: Kind,
    d: int = 4,
    C: int = 3,
    K: int = 2,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> MixtureLayer:
    layer = kind.layer(d, C, K, dtype=dtype)
    layer.reset_parameters(generator=seeded(seed))
    return layer


def stack(
    kinds: Kinds, *widths: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> nn.Sequential:
    """GM layers of three components, one after the other."""
    sizes = zip(classes(kinds), itertools.pairwise(widths), strict=False)
    network = nn.Sequential(*(layer(d, C, 3, dtype=dtype) for layer, (d, C) in sizes))
    baseline_(network, generator=seeded(seed))
    return network


def make_network(kinds: Kinds, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """GM layers between others; from 6 features to 2."""
    layers = classes(kinds)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 5),
            next(layers)(5, 4, 3),
            nn.LayerNorm(4),
            nn.Tanh(),
            next(layers)(4, 7, 2),
            nn.Linear(7, 2),
        ).to(dtype)


def mixed(kinds: Kinds, seed: int = 0) -> nn.Sequential:
    """GM layers among others, in training mode but for one, and with a history."""
    layers = classes(kinds)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            next(layers)(8, 7, 3),
            nn.Dropout(0.5),
            nn.ModuleDict({"inner": next(layers)(7, 5, 2)})["inner"],
            nn.ReLU(),
            nn.Linear(5, 4),
            nn.Dropout(0.5),
            next(layers)(4, 3, 1),
        )
        network(2.0 * torch.randn(32, 6) + 1.0)
    network[3].eval()
    return network


class Unreached(nn.Module):
    """Has a layer that it never calls."""

    def __init__(self, kinds: Kinds) -> None:
        super().__init__()
        layers = classes(kinds)
        self.used, self.unused = next(layers)(6, 5, 2), next(layers)(6, 5, 2)

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
