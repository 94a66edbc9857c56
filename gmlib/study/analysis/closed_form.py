"""Comparison of the closed form with what it stands for: draws of neurons, and point masses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.utils import skip_init

from gmlib.functional import gm_layer, gm_layer_monte_carlo
from gmlib.layer import GaussianMixtureLayer
from gmlib.study import datasets
from gmlib.study.analysis.starts import NUM_IMAGES, first_layer
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.neurons import draw_neurons
from gmlib.study.runs.measurements import Load, measurement
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import generator_of

__all__ = [
    "fitted_slope",
    "monte_carlo_errors",
    "point_mass_errors",
    "sampling_errors",
]

_MAX_NEURONS = 10_000


@measurement(version=1)
@torch.no_grad()
def monte_carlo_errors(
    config: RunConfig, samples: Sequence[int], repetitions: int, *, load: Load = datasets.load
) -> NDArray[np.float64]:
    """Measure the error of Monte Carlo relative to the closed form, in a run's first layer.

    Args:
        config: Determines the layer (at initialization) and the data set of the test images.
        samples: Numbers of neurons drawn per component.
        repetitions: Number of independent estimates for each number of neurons.
        load: Function that loads data sets.

    Returns:
        Root mean square error divided by the root mean square output, over 256 test images; shape
        ``(len(samples), repetitions)``.
    """
    x, parameters = first_layer(config, load(config.dataset, config.standardize))
    exact = gm_layer(x, *parameters)
    # Not seeded by the seed itself, from which the parameters are drawn: samples that repeat their
    # draws would be correlated with them.
    generator = generator_of(config.seed, "neurons")
    return np.array(
        [
            [
                _relative(gm_layer_monte_carlo(x, *parameters, count, generator=generator), exact)
                for _ in range(repetitions)
            ]
            for count in samples
        ]
    )


@measurement(version=1)
@torch.no_grad()
def sampling_errors(
    record: RunRecord,
    epoch: int,
    neurons: Sequence[int],
    repetitions: int,
    *,
    load: Load = datasets.load,
) -> NDArray[np.float64]:
    """Measure the error of layers of neurons drawn from a run's mixture, relative to its GM layer.

    Args:
        record: A run of a single GM layer, with snapshots.
        epoch: Epoch at whose end the mixture is taken; 0 for the initialization, -1 for the last
            epoch.
        neurons: Numbers of neurons, multiples of the number of components.
        repetitions: Number of independent draws for each number of neurons.
        load: Function that loads data sets.

    Returns:
        Root mean square error divided by the root mean square output, over 256 test images; shape
        ``(len(neurons), repetitions)``.

    Raises:
        ValueError: If the record has no snapshots of a single GM layer, or a number of neurons is
            not a positive multiple of the number of components.
    """
    config = record.config
    if set(record.snapshots) != {"0.mu", "0.sigma", "0.U", "0.v"}:
        raise ValueError(
            f"the record of {config.run_id} has no snapshots of a single GM layer (mu, sigma, U, v)"
        )
    parameters = {name[2:]: values[epoch] for name, values in record.snapshots.items()}
    num_components, num_outputs, d = parameters["U"].shape
    for count in neurons:
        if count < 1 or count % num_components:
            raise ValueError(
                f"neurons must be positive multiples of the {num_components} components, "
                f"got {count!r}"
            )
    layer = skip_init(GaussianMixtureLayer, d, num_outputs, num_components)
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in parameters.items()})
    x = load(config.dataset, config.standardize).x_test[:NUM_IMAGES]
    exact = layer(x)
    generator = generator_of(config.seed, "neurons")

    def estimate(count: int) -> Tensor:
        # Draw in parts: a hundred thousand neurons of 784 weights take a third of a gigabyte.
        part = layer.num_components * max(1, _MAX_NEURONS // layer.num_components)
        sizes = [part] * (count // part) + [count % part] * (count % part > 0)
        draws = (draw_neurons(layer, size, generator=generator) for size in sizes)
        means = [size * draw(x) for size, draw in zip(sizes, draws, strict=True)]
        return torch.stack(means).sum(0) / count

    return np.array(
        [[_relative(estimate(count), exact) for _ in range(repetitions)] for count in neurons]
    )


@measurement(version=1)
@torch.no_grad()
def point_mass_errors(
    config: RunConfig, factors: Sequence[float], repetitions: int, *, load: Load = datasets.load
) -> NDArray[np.float64]:
    """Measure the difference between a layer with `sigma` shrunk and the ReLU network of its means.

    Args:
        config: Determines the layer and the data set; its seed is the first of `repetitions`.
        factors: Factors by which `sigma` is multiplied.
        repetitions: Number of initializations.
        load: Function that loads data sets.

    Returns:
        Relative root mean square differences, shape ``(len(factors), repetitions)``.
    """
    columns = []
    dataset = load(config.dataset, config.standardize)
    for seed in range(config.seed, config.seed + repetitions):
        x, parameters = first_layer(replace(config, seed=seed), dataset)
        x, mu, sigma, U, v = (tensor.double() for tensor in (x, *parameters))
        readout = torch.einsum("kcd,kd->kc", U, mu) + v
        points = torch.relu(x @ mu.T) @ readout / len(mu)
        columns.append(
            [_relative(gm_layer(x, mu, factor * sigma, U, v), points) for factor in factors]
        )
    return np.array(columns).T


def fitted_slope(x: ArrayLike, errors: NDArray[np.float64]) -> float:
    """Exponent of a power law fitted to the median errors by least squares on log-log axes."""
    slope, _ = np.polyfit(np.log(x), np.log(np.median(errors, axis=1)), 1)
    return float(slope)


def _relative(estimate: Tensor, exact: Tensor) -> float:
    return float((estimate - exact).norm() / exact.norm())
