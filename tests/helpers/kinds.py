"""The two kinds of GM layer, by their readout's coordinates: what holds of one is tested of both.

A test that takes `kind` runs once for each, one that takes `kinds` also on networks of both. What
is drawn here are affine arguments, in the coordinates of the kind: so both stand for one function.
Where a test is about one argument it goes by roles, and ``kind.names`` has what the kind calls it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from draws import seeded
from torch import Tensor

from gmlib import FoldedGaussianMixtureLayer, GaussianMixtureLayer
from gmlib.functional import gm_layer, gm_layer_folded, unfold
from gmlib.layer import MixtureLayer

ROLES = ("x", "mu", "sigma", "weights", "offsets")
PARAMETERS = ROLES[1:]


def folded(mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A and w, as the book defines them."""
    A = torch.einsum("kcd,kd->kcd", U, sigma**2) / len(mu)
    w = (torch.einsum("kcd,kd->kc", U, mu) + v) / len(mu)
    return A, w


def folded_reference(x: Tensor, mu: Tensor, sigma: Tensor, A: Tensor, w: Tensor) -> Tensor:
    """The formula as the book writes it, for autograd to differentiate."""
    m = torch.einsum("...d,kd->...k", x, mu)
    t = torch.einsum("...d,kd->...k", x**2, sigma**2).sqrt()
    z = m / t
    Phi = 0.5 * torch.erfc(-z / math.sqrt(2))
    phi = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    F = m * Phi + t * phi
    covariance = torch.einsum("kcd,...d->...kc", A, x)
    return (w * F.unsqueeze(-1) + covariance * Phi.unsqueeze(-1)).sum(-2)


def reference(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> Tensor:
    """The same in affine coordinates."""
    return folded_reference(x, mu, sigma, *folded(mu, sigma, U, v))


@dataclass(frozen=True)
class Kind:
    """A kind of layer.

    Attributes:
        layer: Its class.
        function: What the layer computes.
        reference: The same as the book writes it, for autograd to differentiate.
        names: By role, what its arguments are called.
        coordinates: From mu, sigma, U and v to its own readout.
    """

    layer: type[MixtureLayer]
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    names: Mapping[str, str]
    coordinates: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Their names, in the layer's order."""
        return tuple(self.names[role] for role in PARAMETERS)

    @property
    def readout(self) -> tuple[str, str]:
        """The names of its weights and offsets."""
        return self.names["weights"], self.names["offsets"]

    def own(self, affine: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arguments of its function that stand for what those of `gm_layer` stand for."""
        x, mu, sigma, U, v = affine.values()
        values = (x, mu, sigma, *self.coordinates(mu, sigma, U, v))
        return dict(zip(self.names.values(), values, strict=True))


AFFINE = Kind(
    GaussianMixtureLayer,
    gm_layer,
    reference,
    dict(zip(ROLES, ("x", "mu", "sigma", "U", "v"), strict=True)),
    lambda mu, sigma, U, v: (U, v),
)
FOLDED = Kind(
    FoldedGaussianMixtureLayer,
    gm_layer_folded,
    folded_reference,
    dict(zip(ROLES, ("x", "mu", "sigma", "A", "w"), strict=True)),
    folded,
)
KINDS = {"affine": AFFINE, "folded": FOLDED}
# Of a network's layers, each in its turn.
NETWORKS = {"affine": [AFFINE], "folded": [FOLDED], "both": [AFFINE, FOLDED]}


def affine_readout(layer: MixtureLayer) -> tuple[Tensor, Tensor]:
    """The U and v of a layer of either kind."""
    if isinstance(layer, AFFINE.layer):
        return layer.readout
    return unfold(layer.mu, layer.sigma, *layer.readout)


Kinds = Kind | Sequence[Kind]


def classes(kinds: Kinds) -> Iterator[type[MixtureLayer]]:
    """Classes for the layers of a network, without end: of one kind, or of several in turn."""
    return itertools.cycle(kind.layer for kind in ([kinds] if isinstance(kinds, Kind) else kinds))


def arguments(
    kind: Kind,
    B: int = 5,
    d: int = 4,
    C: int = 3,
    K: int = 2,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    requires_grad: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Arguments of the kind's function by name; those of some roles require a gradient.

    They stand for one function, whatever the kind, but for rounding to the dtype. sigma has both
    signs.
    """
    generator = seeded(seed)
    shapes = {"x": (B, d), "mu": (K, d), "sigma": (K, d), "U": (K, C, d), "v": (K, C)}
    affine = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    drawn = {name: tensor.to(dtype) for name, tensor in kind.own(affine).items()}
    for role in requires_grad:
        drawn[kind.names[role]].requires_grad_()
    return drawn


def small_arguments(
    kind: Kind, B: int = 3, C: int = 2, *, requires_grad: Iterable[str] = ()
) -> tuple[Tensor, ...]:
    """The same of two inputs and two components, in order."""
    return tuple(arguments(kind, B, 2, C, 2, requires_grad=requires_grad).values())
