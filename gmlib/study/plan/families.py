r"""Families of networks: how each is built, what it costs, how fast its parameters learn.

Costs are counted from sizes. Multiplications are those of a trained network that answers one input:
what depends on parameters alone is computed once, beforehand, and costs an input nothing. Not
counted are the thirty or so multiplications and the two special functions by which `F` and `G` of a
component follow from mean and variance of its pre-activation: they are as many in a layer of 784
inputs as in a layer of one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Generator, nn

from gmlib.layer import FoldedGaussianMixtureLayer, GaussianMixtureLayer, MixtureLayer
from gmlib.study.plan.coordinates import COORDINATES, LowRankLayer
from gmlib.study.plan.neurons import NeuronLayer, draw_neurons

if TYPE_CHECKING:
    from gmlib.study.plan.config import RunConfig

__all__ = ["BETWEEN", "DENSE", "MIXTURE", "NEURONS", "Family"]

BETWEEN: Mapping[str, type[nn.Module] | None] = {"none": None, "relu": nn.ReLU}
"""What may stand between the layers of a mixture."""

_SCALED = 10.0  # components with which scaled rates are as the others: the note's


class Family(ABC):
    """Networks of one kind.

    Attributes:
        name: For people and tables.
        settings: Those of `RunConfig`, beyond the common ones, that the networks depend on.
        layer: The class of the layers whose scale is reported.
    """

    name: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()
    layer: ClassVar[type[nn.Module]]

    def validate(self, config: RunConfig) -> None:  # noqa: B027 (most have nothing to refuse)
        """Refuse settings that do not fit each other, with a `ValueError`."""

    @abstractmethod
    def build(self, pairs: Iterable[tuple[int, int]], config: RunConfig) -> nn.Sequential:
        """What an initialization is given: a network of layers by their inputs and outputs."""

    def finish(
        self, network: nn.Sequential, config: RunConfig, generator: Generator
    ) -> nn.Sequential:
        """The network that is trained, once that of `build` is initialized."""
        return network

    def learning_rate(self, config: RunConfig, parameter: str) -> float:
        """Of the parameters of a name, that within their layer."""
        return config.lr

    @abstractmethod
    def num_parameters(self, config: RunConfig, d: int, C: int) -> int:
        """Trained parameters of a layer of `d` inputs and `C` outputs."""

    @abstractmethod
    def multiplications(self, config: RunConfig, d: int, C: int) -> int:
        """By which such a layer answers one input."""

    @abstractmethod
    def size(self, config: RunConfig) -> str:
        """What there is more of in a larger network: hidden units, neurons or components."""


class _Dense(Family):
    """Linear layers with ReLUs between them: ``C (d + 1)`` parameters, ``C d`` multiplications."""

    name = "dense"
    layer = nn.Linear

    def build(self, pairs: Iterable[tuple[int, int]], config: RunConfig) -> nn.Sequential:
        layers = [layer for d, C in pairs for layer in (nn.Linear(d, C), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    def num_parameters(self, config: RunConfig, d: int, C: int) -> int:
        return C * (d + 1)

    def multiplications(self, config: RunConfig, d: int, C: int) -> int:
        return C * d

    def size(self, config: RunConfig) -> str:
        return f"n = {', '.join(map(str, config.widths[:-1])) or 0}"


class _Mixture(Family):
    r"""Stacks of GM layers of `K` components.

    A layer has ``K (2 d + C d + C)`` parameters (`mu` and `sigma`, `U`, `v`). Written as

    .. math::
        h(x) = \sum_k\big[w_k F_k + (A_k x)\,G_k\big],\qquad
        w_k = \tfrac1K(U_k\mu_k + v_k),\quad A_k = \tfrac1KU_k\,\mathrm{diag}(\sigma_k^2),

    it takes ``d`` multiplications for the squares of `x`, and for each of its components ``d`` for
    the mean :math:`\langle\mu_k, x\rangle` of the pre-activation, ``d`` for its variance
    :math:`\langle\sigma_k^2, x^2\rangle`, ``C d`` for :math:`A_k x`, ``C`` for `F` and ``C`` for
    `G`: together ``d + K (d (C + 2) + 2 C)``. :math:`w_k`, :math:`A_k` and :math:`\sigma_k^2` do
    not depend on the input. `gm_layer` forms what it needs of them anew for every batch, at no more
    than ``K d (2 C + 1)`` a batch.

    Of a rank `r` it has ``K (d (r + 1) + C (r + 1) + 1)`` parameters. With one variance a component
    it takes ``d`` multiplications for the squares of `x`, and for each component ``d`` for the
    mean, one for the variance, ``r d`` for :math:`Qx`, ``r`` for `G`, ``r C`` for `P` and ``C`` for
    `F`.
    """

    name = "mixture"
    settings: ClassVar[tuple[str, ...]] = (
        *("num_components", "lr_sigma", "coordinates", "between", "rate_factors", "scaled_rates"),
        "gates",
    )
    layer: ClassVar[type[nn.Module]] = MixtureLayer

    def validate(self, config: RunConfig) -> None:
        if config.scaled_rates and config.coordinates != "folded":
            raise ValueError(
                "scaled_rates must be false but in 'folded' coordinates, got coordinates "
                f"{config.coordinates!r}"
            )
        names = COORDINATES[config.coordinates]._shapes(1, 1, 1)
        for name, _ in config.rate_factors:
            if name not in names:
                raise ValueError(
                    f"rate_factors must name parameters of layers in {config.coordinates!r} "
                    f"coordinates, {', '.join(map(repr, names))}, got {name!r}"
                )

    def build(self, pairs: Iterable[tuple[int, int]], config: RunConfig) -> nn.Sequential:
        layer, between = COORDINATES[config.coordinates], BETWEEN[config.between]
        modules: list[nn.Module] = []
        for d, C in pairs:
            if modules and between is not None:
                modules.append(between())
            modules.append(layer(d, C, config.num_components))
        return nn.Sequential(*modules)

    def learning_rate(self, config: RunConfig, parameter: str) -> float:
        rate = config.lr_sigma if parameter == "sigma" else config.lr
        if config.scaled_rates and parameter in FoldedGaussianMixtureLayer.readout_names:
            rate *= _SCALED / config.num_components
        return rate * dict(config.rate_factors).get(parameter, 1.0)

    def num_parameters(self, config: RunConfig, d: int, C: int) -> int:
        shapes = COORDINATES[config.coordinates]._shapes(config.num_components, C, d)
        return sum(map(math.prod, shapes.values()))

    def multiplications(self, config: RunConfig, d: int, C: int) -> int:
        layer = COORDINATES[config.coordinates]
        if issubclass(layer, LowRankLayer):
            r = layer.rank
            return d + config.num_components * (d * (r + 1) + C * (r + 1) + r + 1)
        return d + config.num_components * (d * (C + 2) + 2 * C)

    def size(self, config: RunConfig) -> str:
        return f"K = {config.num_components}"


class _Neurons(_Mixture):
    """Layers of `n` neurons drawn from GM layers: ``n (d + C)`` parameters and multiplications."""

    name = "neurons"
    settings = ("num_components", "num_neurons")
    layer = NeuronLayer

    def validate(self, config: RunConfig) -> None:
        if config.num_neurons % config.num_components:
            raise ValueError(
                f"num_neurons must be a multiple of the {config.num_components} components, got "
                f"{config.num_neurons!r}"
            )

    def build(self, pairs: Iterable[tuple[int, int]], config: RunConfig) -> nn.Sequential:
        return nn.Sequential(*(GaussianMixtureLayer(d, C, config.num_components) for d, C in pairs))

    def finish(
        self, network: nn.Sequential, config: RunConfig, generator: Generator
    ) -> nn.Sequential:
        layers = [layer for layer in network if isinstance(layer, GaussianMixtureLayer)]
        draws = (draw_neurons(layer, config.num_neurons, generator=generator) for layer in layers)
        return nn.Sequential(*draws)

    def learning_rate(self, config: RunConfig, parameter: str) -> float:
        """With which a neuron moves as fast as the center of a cloud would.

        The mean over n neurons divides each one's gradient by n, that over K clouds by K.
        """
        return config.lr * (config.num_neurons / config.num_components)

    def num_parameters(self, config: RunConfig, d: int, C: int) -> int:
        return config.num_neurons * (d + C)

    def multiplications(self, config: RunConfig, d: int, C: int) -> int:
        return config.num_neurons * (d + C)

    def size(self, config: RunConfig) -> str:
        return f"n = {config.num_neurons}"


DENSE: Family = _Dense()
MIXTURE: Family = _Mixture()
NEURONS: Family = _Neurons()
