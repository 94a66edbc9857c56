r"""Sets of coordinates for the readout of a layer's components: those of gmlib, and some between.

With :math:`\omega` the readout of a neuron :math:`\beta` of a component, the layers are all of

.. math::
    h(x) = \frac1K\sum_k\mathbb E\big[\omega\,\mathrm{relu}(\langle\beta, x\rangle)\big],

and differ in how :math:`\omega` is written: as :math:`U\beta + v` (affine), as
:math:`U(\beta-\mu) + w` (centered), as :math:`W(\beta/\sigma) + v` (whitened), or as
:math:`W((\beta-\mu)/\sigma) + w` (both).

Layers of a *rank* `r` are a smaller class, folded, with one :math:`\sigma` a component and with
:math:`A = PQ`, where :math:`P` has `r` columns. At rank 0, without `A`, such a layer is a dense
block of `K` neurons with a smoothed ReLU.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gmlib.functional import gm_layer_folded, relu_moments
from gmlib.layer import FoldedGaussianMixtureLayer, GaussianMixtureLayer, MixtureLayer

__all__ = ["COORDINATES", "RANKS", "LowRankLayer"]


class _Between(MixtureLayer):
    """A layer whose readout is folded anew at each call; made to be trained once, not fast."""

    def forward(self, x: Tensor) -> Tensor:
        """Exact outputs, shape ``(..., out_features)``, for `x` of shape ``(..., in_features)``."""
        A, w = self._sums()
        scale = 1.0 / self.num_components
        return gm_layer_folded(x, self.mu, self.sigma, scale * A, scale * w)

    @abstractmethod
    def _sums(self) -> tuple[Tensor, Tensor]:
        """The folded readout times `K`: ``U sigma^2`` and ``U mu + v``."""


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """A matrix times a vector by component, shape ``(K, C)``."""
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)


class _Centered(_Between):
    readout_names = ("U", "w")
    U: nn.Parameter
    w: nn.Parameter

    def _adopt(self) -> None:
        self.w.add_(_times(self.U, self.mu))

    def _sums(self) -> tuple[Tensor, Tensor]:
        return self.U * self.sigma.square().unsqueeze(1), self.w


class _Whitened(_Between):
    readout_names = ("W", "v")
    W: nn.Parameter
    v: nn.Parameter

    def _adopt(self) -> None:
        self.W.mul_(self.sigma.unsqueeze(1))

    def _sums(self) -> tuple[Tensor, Tensor]:
        return self.W * self.sigma.unsqueeze(1), _times(self.W, self.mu / self.sigma) + self.v


class _CenteredWhitened(_Between):
    readout_names = ("W", "w")
    W: nn.Parameter
    w: nn.Parameter

    def _adopt(self) -> None:
        self.w.add_(_times(self.W, self.mu))
        self.W.mul_(self.sigma.unsqueeze(1))

    def _sums(self) -> tuple[Tensor, Tensor]:
        return self.W * self.sigma.unsqueeze(1), self.w


class LowRankLayer(MixtureLayer):
    """A layer of a rank, see above; of the study, whose budgets it is for.

    Attributes:
        rank: Number `r` of columns of `P`.
    """

    readout_names = ("P", "w")
    rank: ClassVar[int]
    P: nn.Parameter
    Q: nn.Parameter
    w: nn.Parameter

    @classmethod
    def _shapes(cls, K: int, C: int, d: int) -> dict[str, tuple[int, ...]]:
        r = cls.rank
        return {"mu": (K, d), "sigma": (K, 1), "P": (K, C, r), "Q": (K, r, d), "w": (K, C)}

    def _draw(self, scale: float, generator: torch.Generator | None) -> None:
        super()._draw(scale, generator)
        self.Q.normal_(0.0, scale, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, shape ``(B, C)``, for `x` of shape ``(B, d)``."""
        # One sigma for all coordinates has the sum of their gradients; it shall move by the mean.
        still = self.sigma.detach()
        sigma = still + (self.sigma - still) / self.in_features
        t = x.norm(dim=-1, keepdim=True) * sigma.abs().T
        F, G = relu_moments(x @ self.mu.T, t)
        gated = G.unsqueeze(-1) * (x @ self.Q.flatten(0, 1).T).view(*G.shape, self.rank)
        return F @ self.w + gated.flatten(1) @ self.P.mT.flatten(0, 1)


def _low_rank(rank: int) -> type[LowRankLayer]:
    return type(f"_Rank{rank}", (LowRankLayer,), {"rank": rank})


RANKS = (0, 1, 2, 4)

COORDINATES: Mapping[str, type[MixtureLayer]] = {
    "affine": GaussianMixtureLayer,
    "folded": FoldedGaussianMixtureLayer,
    "centered": _Centered,
    "whitened": _Whitened,
    "centered and whitened": _CenteredWhitened,
    **{f"rank {rank}": _low_rank(rank) for rank in RANKS},
}
"""The layers of a mixture by the coordinates of their readouts."""
