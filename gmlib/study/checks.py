"""What needs a network but no training: the closed form's checks, and initializations compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gmlib.functional import gm_layer, gm_layer_monte_carlo
from gmlib.init import kumar_
from gmlib.layer import GaussianMixtureLayer
from gmlib.study import data
from gmlib.study.config import RunConfig
from gmlib.study.measurements import Load, measurement
from gmlib.study.metrics import labelled
from gmlib.study.neurons import draw_neurons
from gmlib.study.records import RunRecord
from gmlib.study.training import build_network, first_step, generator_of

__all__ = [
    "calibration_invariance",
    "first_outputs",
    "first_step_table",
    "first_steps",
    "fitted_slope",
    "invariance_table",
    "monte_carlo_errors",
    "num_features",
    "point_mass_errors",
    "sampling_errors",
    "stack_report",
]

_NUM_IMAGES = 256
_MAX_NEURONS = 10_000


@measurement(version=1)
@torch.no_grad()
def monte_carlo_errors(
    config: RunConfig, samples: Sequence[int], repetitions: int, *, load: Load = data.load
) -> NDArray[np.float64]:
    """Error of Monte Carlo relative to the closed form, in the first layer of a run's network.

    Args:
        config: Fixes the layer (at initialization) and the data set of the test images.
        samples: Neurons drawn per component.
        repetitions: Independent estimates for each number of neurons.
        load: Where data sets come from.

    Returns:
        Root mean square error divided by the root mean square output, over 256 test images; shape
        ``(len(samples), repetitions)``.
    """
    x, parameters = _first_layer(config, load(config.dataset, config.standardize))
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


@measurement(version=1)
@torch.no_grad()
def sampling_errors(
    record: RunRecord,
    epoch: int,
    neurons: Sequence[int],
    repetitions: int,
    *,
    load: Load = data.load,
) -> NDArray[np.float64]:
    """How far a layer of neurons drawn from a run's mixture is from the run's GM layer.

    Args:
        record: A run of a single GM layer, with snapshots.
        epoch: The mixture is that at the end of this epoch; 0 for the initialization, -1 for the
            last.
        neurons: Numbers of neurons, multiples of the number of components.
        repetitions: Independent draws of each number.
        load: Where data sets come from.

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
    x = load(config.dataset, config.standardize).x_test[:_NUM_IMAGES]
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


@measurement(version=1)
@torch.no_grad()
def point_mass_errors(
    config: RunConfig, factors: Sequence[float], repetitions: int, *, load: Load = data.load
) -> NDArray[np.float64]:
    """Difference between a layer with `sigma` shrunk and the ReLU network of its means.

    Args:
        config: Fixes the layer and the data set; its seed is the first of `repetitions`.
        factors: What `sigma` is multiplied by.
        repetitions: Number of initializations.
        load: Where data sets come from.

    Returns:
        Relative root mean square differences, shape ``(len(factors), repetitions)``.
    """
    columns = []
    dataset = load(config.dataset, config.standardize)
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


@measurement(version=1)
@torch.no_grad()
def first_outputs(
    configs: Sequence[RunConfig], *, load: Load = data.load
) -> dict[str, NDArray[np.float32]]:
    """Outputs of the first layer at initialization on 256 test images, (256, C), by arm."""
    datasets = _loaded(configs, load)
    outputs = {}
    for config in configs:
        x, parameters = _first_layer(config, datasets[config.dataset, config.standardize])
        outputs[config.arm] = gm_layer(x, *parameters).numpy()
    return outputs


@measurement(version=1)
@torch.no_grad()
def calibration_invariance(
    seeds: Sequence[int], *, load: Load = data.load, **settings: Any
) -> pd.DataFrame:
    """A calibrated stack beside the fan-in stack of the same draws, on the test set.

    Args:
        seeds: Initializations to compare.
        load: Where data sets come from.
        **settings: What else `RunConfig` takes.

    Returns:
        One row a seed: seed; ratio, of the logits' scales; deviation, the largest of the logits
        from that multiple of each other, relative to the largest logit; agreement, the share of
        predictions that agree.
    """
    rows = []
    shared = RunConfig("KUMAR", 0, epochs=0, **settings)
    dataset = load(shared.dataset, shared.standardize)
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
                "ratio": float(ratio),
                "deviation": float(deviation),
                "agreement": float(same),
            }
        )
    return pd.DataFrame(rows)


def invariance_table(measured: pd.DataFrame) -> pd.DataFrame:
    """`calibration_invariance` as a table to read."""
    small = measured.deviation < 1e-4
    table = pd.DataFrame(
        {
            "seed": measured.seed,
            "logits multiplied by": measured.ratio.map("{:.3g}".format),
            "largest deviation": measured.deviation.map("{:.0e}".format).mask(small, "below 1e-4"),
            "same prediction": measured.agreement.map("{:.1%}".format),
        }
    )
    return labelled(table, "seed")


@measurement(version=1)
def first_steps(configs: Sequence[RunConfig], *, load: Load = data.load) -> pd.DataFrame:
    """Relative size of the first SGD step, one row a run and parameter.

    Returns:
        Columns parameter, layer (from 1), arm, seed, and step: see `training.first_step`.
    """
    datasets = _loaded(configs, load)
    rows = []
    for config in configs:
        dataset = datasets[config.dataset, config.standardize]
        for name, size in first_step(config, dataset).items():
            layer, _, parameter = name.partition(".")
            named = {"parameter": parameter, "layer": int(layer) + 1}
            rows.append({**named, "arm": config.arm, "seed": config.seed, "step": size})
    return pd.DataFrame(rows)


def first_step_table(steps: pd.DataFrame) -> pd.DataFrame:
    """`first_steps` by parameter and arm: the median over seeds."""
    labels = [f"{row.parameter}, layer {row.layer}" for row in steps.itertuples()]
    medians = steps.assign(parameter=labels).pivot_table(
        index="parameter", columns="arm", values="step", aggfunc="median", sort=False
    )
    percent = medians.map(lambda size: f"{100 * size:.2g} %")
    return percent.rename_axis(index=None, columns="parameter")


@measurement(version=1)
def stack_report(
    dataset: str,
    widths: Sequence[int],
    num_components: int,
    seed: int,
    *,
    load: Load = data.load,
) -> pd.DataFrame:
    """What KUMAR reports of a stack, calibrated on the first 2048 training images.

    Args:
        dataset: The data set.
        widths: Outputs of the layers.
        num_components: Components of each.
        seed: Of the draw.
        load: Where data sets come from.

    Returns:
        One row a layer: name, std_before, scale, std_after.
    """
    inputs = load(dataset).x_train[:2048]
    pairs = pairwise([inputs.shape[1], *widths])
    stack = nn.Sequential(*(GaussianMixtureLayer(d, width, num_components) for d, width in pairs))
    report = kumar_(stack, inputs, generator=torch.Generator().manual_seed(seed))
    return pd.DataFrame([asdict(layer) for layer in report])


@measurement(version=1)
def num_features(dataset: str, *, load: Load = data.load) -> int:
    """The numbers that an input of a data set consists of."""
    return load(dataset).num_features


def _loaded(configs: Sequence[RunConfig], load: Load) -> dict[tuple[str, str], data.Dataset]:
    """The data sets of configurations, each loaded once, by name and standardization."""
    names = {(config.dataset, config.standardize) for config in configs}
    return {name: load(*name) for name in sorted(names)}


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
