"""The scale of outputs at initialization: measured on real inputs, and in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.nn.utils import skip_init

from gmlib.init import baseline_, fan_in_, output_std, scale_report
from gmlib.layer import GaussianMixtureLayer
from gmlib.study import datasets
from gmlib.study.analysis.text import Table
from gmlib.study.runs.measurements import Load, measurement

__all__ = [
    "fan_in_scale",
    "first_layer_scales",
    "stack_scales",
    "stack_summary",
    "worst_disagreement",
]

_NUM_IMAGES = 256
_NUM_OUTPUTS = 10


def fan_in_scale(in_features: int) -> float:
    """The scale ``sqrt(2 / d)`` of the fan-in initialization."""
    return math.sqrt(2.0 / in_features)


@measurement(version=1)
def first_layer_scales(
    datasets: Sequence[str],
    sides: Sequence[int],
    components: Sequence[int],
    gammas: Sequence[float | None],
    seed: int = 0,
    *,
    load: Load = datasets.load,
) -> pd.DataFrame:
    """Predicted and measured output std of one layer on test images, over a grid of settings.

    Args:
        datasets: Data sets of square images, by name.
        sides: Side lengths in pixels, at least 2, that divide the side length of the data's images.
            Images are averaged over blocks down to that size, and standardized again.
        components: Numbers `K` of components.
        gammas: Scales of the parameters; None for that of the fan-in initialization.
        seed: Seed of the first draw.
        load: Function that loads data sets.

    Returns:
        One row per setting: dataset, d, K, gamma, init (``"fan-in"`` or the scale), draws,
        predicted, measured, low and high. Each draw gives the std over 256 images and 10 outputs;
        the last three columns are its root mean square, minimum and maximum over draws. The fewer
        components a draw averages over, the more draws are taken.

    Raises:
        ValueError: If the images are not square, or a side is below 2 or does not divide theirs.
    """
    rows = []
    for name in datasets:
        images = load(name).x_test[:_NUM_IMAGES]
        for side in sides:
            inputs = _resized(images, side)
            for num_components in components:
                for gamma in gammas:
                    scale = _scale(gamma, side**2)
                    draws = max(10, 400 // num_components)
                    seeds = range(seed, seed + draws)
                    stds = _drawn_stds(
                        scale, [side**2, _NUM_OUTPUTS], num_components, seeds, inputs
                    )
                    rows.append(
                        {
                            "dataset": name,
                            "d": side**2,
                            "K": num_components,
                            "gamma": scale,
                            "init": _label(gamma),
                            "draws": draws,
                            "predicted": output_std(scale, side**2, num_components, float(side**2)),
                            **_summary(stds[:, 0]),
                        }
                    )
    return pd.DataFrame(rows)


@measurement(version=1)
def stack_scales(
    dataset: str,
    widths: Sequence[int],
    num_components: int,
    gammas: Sequence[float | None],
    draws: int,
    seed: int = 0,
    *,
    load: Load = datasets.load,
) -> pd.DataFrame:
    """Predicted and measured output std in a deep stack, layer by layer.

    The output variance of a layer is linear in the squared norm of its input, and draws of layers
    are independent. The predicted mean variance of a layer, times its number of outputs, is
    therefore the squared norm from which the next layer's variance is predicted, at any depth.

    Returns:
        One row per layer and initialization: init, layer (from 1), predicted, measured, low, high
        as in `first_layer_scales`.
    """
    inputs = load(dataset).x_test[:_NUM_IMAGES]
    features = inputs.shape[1]
    rows = []
    for gamma in gammas:
        seeds = range(seed, seed + draws)
        stds = _drawn_stds(gamma, [features, *widths], num_components, seeds, inputs)
        squared_norm = float(features)
        for layer, (d, width) in enumerate(zip((features, *widths), widths, strict=False)):
            scale = _scale(gamma, d)
            predicted = output_std(scale, d, num_components, squared_norm)
            rows.append(
                {
                    "init": _label(gamma),
                    "layer": layer + 1,
                    "predicted": predicted,
                    **_summary(stds[:, layer]),
                }
            )
            squared_norm = width * predicted**2
    return pd.DataFrame(rows)


def stack_summary(table: pd.DataFrame) -> Table:
    """Format the output of `stack_scales`."""
    names = {"predicted": "predicted", "measured": "measured", "lowest": "low", "highest": "high"}
    return Table(
        table,
        {"init": "{init}", "layer": "{layer}"},
        {name: f"{{{column}:two digits}}" for name, column in names.items()},
    )


def worst_disagreement(table: pd.DataFrame) -> float:
    """Largest relative difference between the predicted and the measured std."""
    return float((table.measured / table.predicted - 1.0).abs().max())


def _resized(images: Tensor, side: int) -> Tensor:
    whole = math.isqrt(images.shape[1])
    # A single pixel would be standardized to zero.
    if whole**2 != images.shape[1] or side < 2 or whole % side:
        raise ValueError(
            "sides must be at least 2 and divide that of square images, "
            f"got {side!r} for {images.shape[1]} features"
        )
    blocks = avg_pool2d(images.view(-1, 1, whole, whole), whole // side)
    return datasets.standardize_images(blocks.squeeze(1))


def _drawn_stds(
    gamma: float | None,
    widths: Sequence[int],
    num_components: int,
    seeds: Iterable[int],
    inputs: Tensor,
) -> NDArray[np.float64]:
    """Return the output std by draw and layer of random stacks, one stack for each of `seeds`."""
    network = nn.Sequential(
        *(
            skip_init(GaussianMixtureLayer, d, width, num_components)
            for d, width in pairwise(widths)
        )
    )
    stds = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        if gamma is None:
            fan_in_(network, generator=generator)
        else:
            baseline_(network, gamma, generator=generator)
        stds.append([layer.std_after for layer in scale_report(network, inputs)])
    return np.array(stds)


def _scale(gamma: float | None, in_features: int) -> float:
    return fan_in_scale(in_features) if gamma is None else gamma


def _label(gamma: float | None) -> str:
    return "fan-in" if gamma is None else f"{gamma:g}"


def _summary(stds: ArrayLike) -> dict[str, float]:
    values = np.asarray(stds)
    return {
        "measured": float(np.sqrt(np.mean(values**2))),
        "low": float(values.min()),
        "high": float(values.max()),
    }
