"""The arms: each an initialization of a family of networks, with all that depends on it.

Here and nowhere else is an arm told by its name. Whoever adds one adds an entry to `ARMS`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from gmlib.init import analytic_, baseline_, calibrate_, fan_in_, kumar_, lsuv_
from gmlib.layer import MixtureLayer
from gmlib.study.plan.families import DENSE, MIXTURE, NEURONS, Family

if TYPE_CHECKING:
    from gmlib.study.plan.config import RunConfig

__all__ = ["ARMS", "ARM_SETTINGS", "Arm", "Initialization", "arm_of"]

Initialization = Callable[[nn.Module, Tensor, "RunConfig", Generator], object]
"""Initializes a network in place, given the calibration inputs, the run and its randomness.

What it returns is kept in the run's record if it is a `gmlib.init.ScaleReport`.
"""


@dataclass(frozen=True)
class Arm:
    """What is trained beside what.

    Attributes:
        family: Of its networks.
        initialize: How they start.
        reads: The settings, beyond the common ones and the family's, that the start depends on.
        label: For tables and figures where variants are set beside each other; the arm's name by
            default.
        color: In figures; by default one that follows from the name.
    """

    family: Family
    initialize: Initialization
    reads: tuple[str, ...] = ()
    label: str = ""
    color: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """All settings beyond the common ones that its runs depend on."""
        return self.family.settings + self.reads


def _kaiming(network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)


def _baseline(network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator) -> None:
    baseline_(network, config.gamma, generator=generator)


def _baseline_calibrated(
    network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator
) -> object:
    baseline_(network, config.gamma, generator=generator)
    return calibrate_(network, inputs, config.target_std)


def _fan_in(network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator) -> None:
    fan_in_(network, generator=generator)


def _kumar(network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator) -> object:
    return kumar_(network, inputs, config.target_std, generator=generator)


def _calibrated_on_noise(
    network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator
) -> None:
    """KUMAR, shown Gaussian noise instead of images: each input as long as the image it replaces.

    The noise is drawn after the parameters, which are therefore those of KUMAR.
    """
    fan_in_(network, generator=generator)
    noise = torch.empty_like(inputs).normal_(generator=generator)
    noise *= inputs.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    calibrate_(network, noise, config.target_std)


def _analytic(network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator) -> None:
    # Standardized inputs have a mean square of 1, and no look at them is needed.
    analytic_(network, float(inputs.shape[1]), config.target_std, generator=generator)


def _lsuv(network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator) -> object:
    return lsuv_(network, inputs, generator=generator)


@torch.no_grad()
def _zero_readout(
    layers: slice, network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator
) -> None:
    """Fan-in with readouts of zero in some of the layers."""
    fan_in_(network, generator=generator)
    all_layers = [layer for layer in network.modules() if isinstance(layer, MixtureLayer)]
    for layer in all_layers[layers]:
        for tensor in layer.readout:
            tensor.zero_()


_CALIBRATED = ("target_std", "calibration_size")

ARMS: Mapping[str, Arm] = {
    "FC": Arm(DENSE, _kaiming, color="#7f7f7f"),
    "BL": Arm(MIXTURE, _baseline, ("gamma",), color="#2f6db5"),
    "FAN-IN": Arm(MIXTURE, _fan_in, label="fan-in", color="#e39b28"),
    "KUMAR": Arm(MIXTURE, _kumar, _CALIBRATED, color="#c8322b"),
    "BL+CAL": Arm(
        MIXTURE,
        _baseline_calibrated,
        ("gamma", *_CALIBRATED),
        label="BL, calibrated",
        color="#8357a4",
    ),
    "NOISE": Arm(MIXTURE, _calibrated_on_noise, _CALIBRATED, label="KUMAR on noise"),
    "ANALYTIC": Arm(MIXTURE, _analytic, ("target_std",), label="analytic"),
    "LSUV": Arm(MIXTURE, _lsuv, ("calibration_size",)),
    "ZERO": Arm(MIXTURE, partial(_zero_readout, slice(None)), label="zero readout"),
    "ZERO-LAST": Arm(
        MIXTURE, partial(_zero_readout, slice(-1, None)), label="zero readout, last layer"
    ),
    "NEURONS": Arm(NEURONS, _kumar, _CALIBRATED),
}
"""The arms by name.

``FC`` is the dense reference; ``NEURONS`` is a network of neurons drawn from KUMAR's mixtures; all
others are stacks of GM layers that differ in their initialization.
``"package.module:function"`` names an initialization of your own for such a stack.
"""

ARM_SETTINGS = tuple(dict.fromkeys(name for arm in ARMS.values() for name in arm.settings))
"""Settings that some arms depend on and others do not. An initialization of one's own does."""


def arm_of(name: str) -> Arm:
    """The arm of a name.

    Raises:
        ValueError: If it names a function that cannot be imported.
    """
    if name in ARMS:
        return ARMS[name]
    own = tuple(setting for setting in ARM_SETTINGS if setting not in MIXTURE.settings)

    def initialize(
        network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator
    ) -> object:
        return _imported(name)(network, inputs, config, generator)

    return Arm(MIXTURE, initialize, own)


def _imported(path: str) -> Initialization:
    """The function that ``"package.module:function"`` names."""
    try:
        function: Initialization = pkgutil.resolve_name(path)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"arm {path!r} cannot be imported: {error}") from error
    if not callable(function):
        raise ValueError(f"arm {path!r} must name a function, got {function!r}")
    return function
