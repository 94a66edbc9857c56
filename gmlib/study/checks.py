"""What needs a network but no training: the closed form's checks, and initializations compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.utils import skip_init

from gmlib.functional import gm_layer, gm_layer_monte_carlo
from gmlib.layer import GaussianMixtureLayer
from gmlib.study import data
from gmlib.study.config import RunConfig
from gmlib.study.metrics import labelled
from gmlib.study.neurons import draw_neurons
from gmlib.study.training import RunRecord, build_network, first_step, generator_of

__all__ = [
    "calibration_invariance",
    "first_outputs",
    "first_step_table",
    "fitted_slope",
    "monte_carlo_errors",
    "point_mass_errors",
    "sampling_errors",
]

_NUM_IMAGES = 256
_MAX_NEURONS = 10_000


@torch.no_grad()
def monte_carlo_errors(
    config: RunConfig, samples: Sequence[int], repetitions: int
) -> NDArray[np.float64]:
    """Error of Monte Carlo relative to the closed form, in the first layer of a run's network.

    Args:
        config: Fixes the layer (at initialization) and the data set of the test images.
        samples: Neurons drawn per component.
        repetitions: Independent estimates for each number of neurons.

    Returns:
        Root mean square error divided by the root mean square output, over 256 test images; shape
        ``(len(samples), repetitions)``.
    """
    x, parameters = _first_layer(config, data.load(config.dataset, config.standardize))
    exact = gm_layer(x, *parameters)
    # Not from the seed itself: the parameters are drawn from that, and samples that repeat their
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


@torch.no_grad()
def sampling_errors(
    record: RunRecord, epoch: int, neurons: Sequence[int], repetitions: int
) -> NDArray[np.float64]:
    """How far a layer of neurons drawn from a run's mixture is from the run's GM layer.

    Args:
        record: A run of a single GM layer, with snapshots.
        epoch: The mixture is that at the end of this epoch; 0 for the initialization, -1 for the
            last.
        neurons: Numbers of neurons, multiples of the number of components.
        repetitions: Independent draws of each number.

    Returns:
        Root mean square error divided by the root mean square output, over 256 test images; shape
        ``(len(neurons), repetitions)``.

    Raises:
        ValueError: If the record has no snapshots of a single GM layer, or a number of neurons is
            not a positive multiple of the number of components.
    """
    config = record.config
    if set(record.snapshots) != {"0.mu", "0.sigma", "0.U", "0.v"}:
        raise ValueError(f"the record of {config.run_id} has no snapshots of a single GM layer")
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
    x = data.load(config.dataset, config.standardize).x_test[:_NUM_IMAGES]
    exact = layer(x)
    generator = generator_of(config.seed, "neurons")

    def estimate(count: int) -> Tensor:
        # In parts: a hundred thousand neurons of 784 weights are a third of a gigabyte.
        part = layer.num_components * max(1, _MAX_NEURONS // layer.num_components)
        sizes = [part] * (count // part) + [count % part] * (count % part > 0)
        draws = (draw_neurons(layer, size, generator=generator) for size in sizes)
        means = [size * draw(x) for size, draw in zip(sizes, draws, strict=True)]
        return torch.stack(means).sum(0) / count

    return np.array(
        [[_relative(estimate(count), exact) for _ in range(repetitions)] for count in neurons]
    )


@torch.no_grad()
def point_mass_errors(
    config: RunConfig, factors: Sequence[float], repetitions: int
) -> NDArray[np.float64]:
    """Difference between a layer with `sigma` shrunk and the ReLU network of its means.

    Args:
        config: Fixes the layer and the data set; its seed is the first of `repetitions`.
        factors: What `sigma` is multiplied by.
        repetitions: Number of initializations.

    Returns:
        Relative root mean square differences, shape ``(len(factors), repetitions)``.
    """
    columns = []
    dataset = data.load(config.dataset, config.standardize)
    for seed in range(config.seed, config.seed + repetitions):
        x, parameters = _first_layer(replace(config, seed=seed), dataset)
        x, mu, sigma, U, v = (tensor.double() for tensor in (x, *parameters))
        readout = torch.einsum("kcd,kd->kc", U, mu) + v
        points = torch.relu(x @ mu.T) @ readout / len(mu)
        columns.append(
            [_relative(gm_layer(x, mu, factor * sigma, U, v), points) for factor in factors]
        )
    return np.array(columns).T


def fitted_slope(x: ArrayLike, errors: NDArray[np.float64]) -> float:
    """Exponent of the power law through the median errors, by least squares on log-log axes."""
    slope, _ = np.polyfit(np.log(x), np.log(np.median(errors, axis=1)), 1)
    return float(slope)


@torch.no_grad()
def first_outputs(configs: Sequence[RunConfig]) -> dict[str, NDArray[np.float32]]:
    """Outputs of the first layer at initialization on 256 test images, (256, C), by arm."""
    outputs = {}
    for config, dataset in _with_data(configs):
        x, parameters = _first_layer(config, dataset)
        outputs[config.arm] = gm_layer(x, *parameters).numpy()
    return outputs


@torch.no_grad()
def calibration_invariance(seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """A calibrated stack beside the fan-in stack of the same draws, on the test set.

    Args:
        seeds: Initializations to compare.
        **settings: What else `RunConfig` takes.

    Returns:
        By seed: the ratio of the logits' scales, how far the logits are from a multiple of each
        other (largest deviation relative to the largest logit), and the predictions that agree.
    """
    rows = []
    shared = RunConfig("KUMAR", 0, epochs=0, **settings)
    dataset = data.load(shared.dataset, shared.standardize)
    for seed in seeds:
        plain, calibrated = (
            build_network(replace(shared, arm=arm, seed=seed), dataset)[0](dataset.x_test)
            for arm in ("FAN-IN", "KUMAR")
        )
        ratio = (plain * calibrated).sum() / plain.square().sum()
        deviation = (calibrated - ratio * plain).abs().max() / calibrated.abs().max()
        same = (plain.argmax(1) == calibrated.argmax(1)).double().mean()
        rows.append(
            {
                "seed": seed,
                "logits multiplied by": f"{ratio:.3g}",
                "largest deviation": "below 1e-4" if deviation < 1e-4 else f"{deviation:.0e}",
                "same prediction": f"{same:.1%}",
            }
        )
    return labelled(pd.DataFrame(rows), "seed")


def first_step_table(configs: Sequence[RunConfig]) -> pd.DataFrame:
    """Relative size of the first SGD step, by parameter and arm: the median over seeds."""
    rows = []
    for config, dataset in _with_data(configs):
        for name, size in first_step(config, dataset).items():
            layer, _, parameter = name.partition(".")
            label = f"{parameter}, layer {int(layer) + 1}"
            rows.append({"parameter": label, "arm": config.arm, "step": size})
    medians = pd.DataFrame(rows).pivot_table(
        index="parameter", columns="arm", values="step", aggfunc="median", sort=False
    )
    percent = medians.map(lambda size: f"{100 * size:.2g} %")
    return percent.rename_axis(index=None, columns="parameter")


def _with_data(configs: Sequence[RunConfig]) -> Iterator[tuple[RunConfig, data.Dataset]]:
    """Each configuration with its data set, which is loaded once."""
    names = {(config.dataset, config.standardize) for config in configs}
    datasets = {name: data.load(*name) for name in names}
    for config in configs:
        yield config, datasets[config.dataset, config.standardize]


def _first_layer(
    config: RunConfig, dataset: data.Dataset
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Test images and the parameters of the first layer."""
    network, _ = build_network(config, dataset)
    layer = next(iter(network.children()))
    if not isinstance(layer, GaussianMixtureLayer):
        raise ValueError(f"arm {config.arm!r} has no GM layer")
    parameters = layer.mu.detach(), layer.sigma.detach(), layer.U.detach(), layer.v.detach()
    return dataset.x_test[:_NUM_IMAGES], parameters


def _relative(estimate: Tensor, exact: Tensor) -> float:
    return float((estimate - exact).norm() / exact.norm())
