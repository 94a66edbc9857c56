"""Initializations of the study by the name of their arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor, nn

from gmlib.init import analytic_, baseline_, calibrate_, fan_in_, kumar_, lsuv_
from gmlib.layer import GaussianMixtureLayer
from gmlib.study.config import RunConfig

__all__ = ["INITIALIZATIONS", "Initialization"]

Initialization = Callable[[nn.Module, Tensor, RunConfig, Generator], object]
"""Initializes a network in place, given the calibration inputs, the run and its randomness.

What it returns is kept in the run's record if it is a `gmlib.init.ScaleReport`.
"""


def _baseline_calibrated(
    network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator
) -> object:
    baseline_(network, config.gamma, generator=generator)
    return calibrate_(network, inputs, config.target_std)


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


@torch.no_grad()
def _zero_readout(
    network: nn.Module, inputs: Tensor, config: RunConfig, generator: Generator
) -> None:
    """Fan-in with readouts of zero: in all layers, or in the last alone."""
    fan_in_(network, generator=generator)
    layers = [layer for layer in network.modules() if isinstance(layer, GaussianMixtureLayer)]
    for layer in layers if config.arm == "ZERO" else layers[-1:]:
        layer.U.zero_()
        layer.v.zero_()


INITIALIZATIONS: Mapping[str, Initialization] = {
    "BL": lambda net, x, config, rng: baseline_(net, config.gamma, generator=rng),
    "FAN-IN": lambda net, x, config, rng: fan_in_(net, generator=rng),
    "KUMAR": lambda net, x, config, rng: kumar_(net, x, config.target_std, generator=rng),
    "BL+CAL": _baseline_calibrated,
    "NOISE": _calibrated_on_noise,
    "ANALYTIC": _analytic,
    "LSUV": lambda net, x, config, rng: lsuv_(net, x, generator=rng),
    "ZERO": _zero_readout,
    "ZERO-LAST": _zero_readout,
}
