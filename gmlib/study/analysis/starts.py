"""Networks at their start: what they give out, and their first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gmlib.functional import gm_layer
from gmlib.init import kumar_
from gmlib.layer import GaussianMixtureLayer, MixtureLayer, unfold
from gmlib.study import datasets
from gmlib.study.analysis.text import Table
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.measurements import Load, measurement
from gmlib.study.runs.training import build_network, first_step

__all__ = [
    "NUM_IMAGES",
    "calibration_invariance",
    "first_layer",
    "first_outputs",
    "first_step_table",
    "first_steps",
    "invariance_table",
    "stack_report",
]

NUM_IMAGES = 256


@measurement(version=1)
@torch.no_grad()
def first_outputs(
    configs: Sequence[RunConfig], *, load: Load = datasets.load
) -> dict[str, NDArray[np.float32]]:
    """Outputs of the first layer at initialization on 256 test images, (256, C), by arm."""
    datasets = _loaded(configs, load)
    outputs = {}
    for config in configs:
        x, parameters = first_layer(config, datasets[config.dataset, config.standardize])
        outputs[config.label] = gm_layer(x, *parameters).numpy()
    return outputs


@measurement(version=1)
@torch.no_grad()
def calibration_invariance(
    seeds: Sequence[int], *, load: Load = datasets.load, **settings: Any
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


def invariance_table(invariance: pd.DataFrame) -> Table:
    """`calibration_invariance` as a table to read."""
    return Table(
        invariance,
        {"seed": "{seed}"},
        {
            "logits multiplied by": "{ratio:.3g}",
            "largest deviation": "{deviation:.0e or below 1e-4}",
            "same prediction": "{agreement:.1%}",
        },
    )


@measurement(version=1)
def first_steps(configs: Sequence[RunConfig], *, load: Load = datasets.load) -> pd.DataFrame:
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
            rows.append({**named, "arm": config.label, "seed": config.seed, "step": size})
    return pd.DataFrame(rows)


def first_step_table(steps: pd.DataFrame) -> Table:
    """`first_steps` by parameter and arm: the median over seeds."""
    keys = ["parameter", "layer", "arm"]
    return Table(
        steps.groupby(keys, sort=False).step.median().reset_index(),
        {"parameter": "{parameter}, layer {layer}"},
        {"{arm}": "{step:.2g %}"},
    )


@measurement(version=1)
def stack_report(
    dataset: str,
    widths: Sequence[int],
    num_components: int,
    seed: int,
    *,
    load: Load = datasets.load,
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


def _loaded(configs: Sequence[RunConfig], load: Load) -> dict[tuple[str, str], datasets.Dataset]:
    """The data sets of configurations, each loaded once, by name and standardization."""
    names = {(config.dataset, config.standardize) for config in configs}
    return {name: load(*name) for name in sorted(names)}


def first_layer(
    config: RunConfig, dataset: datasets.Dataset
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Test images and the parameters of the first layer, its readout in affine coordinates."""
    network, _ = build_network(config, dataset)
    layer = next(iter(network.children()))
    if not isinstance(layer, MixtureLayer):
        raise ValueError(f"arm {config.arm!r} has no GM layer")
    layer = unfold(layer)
    assert isinstance(layer, GaussianMixtureLayer)
    parameters = layer.mu.detach(), layer.sigma.detach(), layer.U.detach(), layer.v.detach()
    return dataset.x_test[:NUM_IMAGES], parameters
