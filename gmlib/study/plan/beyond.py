"""Runs beyond the note: other coordinates, what may move in them, learning rates, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gmlib.study.plan.config import RunConfig, run_configs

__all__ = [
    "PREDICTED",
    "SIZES",
    "both_coordinates",
    "causes",
    "predicted",
    "rate_grid",
    "rate_grids",
    "sizes",
    "tuned",
]


_STARTS = ("BL", "FAN-IN", "KUMAR")


def both_coordinates(seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs of a dense network, and of three starts in affine and in folded coordinates, by label.

    Args:
        seeds: Seeds, the same for all.
        **settings: Other settings of `RunConfig`, the same for all.
    """
    starts = [f"{arm}{own}" for own in ("", ", folded") for arm in _STARTS]
    return {label: run_configs([label], seeds, **settings) for label in ("FC", *starts)}


def causes(seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs of KUMAR in coordinates between, or in folded ones with part of the motion taken away.

    Args:
        seeds: Seeds, the same for all variants.
        **settings: Other settings of `RunConfig`, the same for all variants.
    """
    without = 1.0 / settings.get("num_components", RunConfig.num_components) ** 2
    slowed = {
        "A frozen": {"A": 0.0},
        "without 1/K": {"A": without, "w": without},
        "w at 1/30": {"w": 1.0 / 30.0},
        "μ frozen": {"mu": 0.0},
        "σ frozen": {"sigma": 0.0},
        "clouds frozen": {"mu": 0.0, "sigma": 0.0},
        "clouds frozen, A and w at 3/10": {"mu": 0.0, "sigma": 0.0, "A": 0.3, "w": 0.3},
    }
    variants: dict[str, dict[str, Any]] = {
        **{own: {"coordinates": own} for own in ("whitened", "centered and whitened", "centered")},
        **{
            f"folded, {name}": {"coordinates": "folded", "rate_factors": factors}
            for name, factors in slowed.items()
        },
    }
    return {
        name: run_configs(["KUMAR"], seeds, **{**settings, **own}) for name, own in variants.items()
    }


_ONE_LAYER = {"widths": (10,)}
_FREE = 10**2 * (784 / 2) ** 2  # K^2 / sigma^4 at fan-in scale: U at this rate moves A at rate 1

PREDICTED: Mapping[str, tuple[bool, str, dict[str, Any]]] = {
    "one layer, centered, U at K²/σ⁴, σ frozen": (
        True,
        "A moves at rate 1",
        {
            **_ONE_LAYER,
            "coordinates": "centered",
            "rate_factors": {"U": _FREE, "sigma": 0.0},
        },
    ),
    "one layer, centered and whitened, W at K²/(3σ²), σ frozen": (
        True,
        "A moves at 0.3",
        {
            **_ONE_LAYER,
            "coordinates": "centered and whitened",
            "rate_factors": {"W": 10**2 * 784 / 2 / 3, "sigma": 0.0},
        },
    ),
    "one layer, affine, U at K²/σ⁴": (
        False,
        "A moves at rate 1, but w at 300,000: it diverges",
        {**_ONE_LAYER, "rate_factors": {"U": _FREE}},
    ),
    "one layer, centered and whitened, W at K": (
        False,
        "A moves at 0.0003",
        {**_ONE_LAYER, "coordinates": "centered and whitened", "rate_factors": {"W": 10.0}},
    ),
    "one layer, folded, A at 1/10,000": (
        False,
        "A moves at 0.0001",
        {**_ONE_LAYER, "coordinates": "folded", "rate_factors": {"A": 1e-4}},
    ),
    "folded, A at 3/10": (
        True,
        "A moves at 0.3",
        {"coordinates": "folded", "rate_factors": {"A": 0.3}},
    ),
    "folded, all frozen but A": (
        True,
        "A moves at rate 1",
        {"coordinates": "folded", "rate_factors": {"mu": 0.0, "sigma": 0.0, "w": 0.0}},
    ),
    "folded, A frozen, all else three times as fast": (
        False,
        "A does not move",
        {"coordinates": "folded", "rate_factors": {"A": 0.0}, "lr": 0.3, "lr_sigma": 3.0},
    ),
    "affine, v at K²": (
        False,
        "w moves at rate 1, A at less than 0.00001",
        {"rate_factors": {"v": 100.0}},
    ),
    "folded, LSUV": (True, "A moves at rate 1", {"arm": "LSUV", "coordinates": "folded"}),
}
"""Which settings learn fast, predicted from the rate at which `A` moves, before any was run.

By name: whether it learns fast, why, and the settings that differ from KUMAR's. To learn fast is to
have, after five epochs, an error below the geometric mean of those of KUMAR in affine and in folded
coordinates, with as many layers: means over the seeds.
"""


def predicted(seeds: Sequence[int], epochs: int = 5) -> dict[str, list[RunConfig]]:
    """Runs of the `PREDICTED` settings, and of KUMAR in both coordinates, to judge them by.

    Args:
        seeds: Seeds, the same for all.
        epochs: Passes over the training set.
    """
    judges: dict[str, dict[str, Any]] = {
        f"{layers}{coordinates}": {**widths, "coordinates": coordinates}
        for layers, widths in (("one layer, ", _ONE_LAYER), ("", {}))
        for coordinates in ("affine", "folded")
    }
    runs = {**judges, **{name: own for name, (_, _, own) in PREDICTED.items()}}
    return {
        name: [
            RunConfig(**{"arm": "KUMAR", "seed": seed, "epochs": epochs, **own}) for seed in seeds
        ]
        for name, own in runs.items()
    }


def rate_grid(
    arms: Sequence[str], rates: Sequence[float], seeds: Sequence[int], **settings: Any
) -> list[RunConfig]:
    """Runs of arms at several learning rates.

    Under SGD the rate of `sigma` is ten times the others', as in the note; Adam, whose steps do not
    depend on the scale of a gradient, has one rate for all.

    Args:
        arms: Arms.
        rates: Learning rates.
        seeds: Seeds, the same for all.
        **settings: Other settings of `RunConfig`, the same for all.

    Raises:
        ValueError: If a value is not allowed, or there is no rate; the message names it.
    """
    if not isinstance(rates, (list, tuple)) or not rates:
        raise ValueError(f"rates must be a list of at least one entry, got {rates!r}")
    factor = 1.0 if settings.get("optimizer") == "adam" else 10.0
    return [
        config
        for rate in rates
        for config in run_configs(arms, seeds, lr=rate, lr_sigma=factor * rate, **settings)
    ]


def rate_grids(
    rates: Sequence[float],
    seeds: Sequence[int],
    starts: Sequence[str] = _STARTS,
    **settings: Any,
) -> dict[str, list[RunConfig]]:
    """A `rate_grid` for the dense network, and for each start in affine and folded coordinates.

    Args:
        rates: Learning rates.
        seeds: Seeds, the same for all.
        starts: Arms of GM stacks.
        **settings: Other settings of `RunConfig`, the same for all.

    Returns:
        Runs by the label of their arm.

    Raises:
        ValueError: If a value is not allowed, or there is no rate; the message names it.
    """
    labels = [f"{arm}{own}" for arm in starts for own in ("", ", folded")]
    return {label: rate_grid([label], rates, seeds, **settings) for label in ("FC", *labels)}


def tuned(
    best: Mapping[str, Mapping[str, float]], seeds: Sequence[int], **settings: Any
) -> dict[str, list[RunConfig]]:
    """Runs at rates that were chosen on a grid.

    Args:
        best: By optimizer and label of an arm, as in `rate_grids`, the learning rate.
        seeds: Seeds, the same for all.
        **settings: Other settings of `RunConfig`, the same for all.

    Returns:
        Runs by label and optimizer, such as ``"KUMAR, folded, sgd"``.
    """
    runs = {}
    for optimizer, rates in best.items():
        for label, rate in rates.items():
            own = {"optimizer": optimizer, **settings}
            runs[f"{label}, {optimizer}"] = rate_grid([label], [rate], seeds, **own)
    return runs


SIZES: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "components": {f"K = {K}": {"num_components": K} for K in (1, 2, 5, 10, 20, 40, 80)},
    "inputs": {
        f"d = {side**2}": {"dataset": "mnist" if side == 28 else f"mnist-{side}x{side}"}
        for side in (7, 14, 28)
    },
    "hidden units": {f"{units}": {"widths": (units, 10)} for units in (25, 50, 100, 200, 400)},
    "layers": {f"{n}": {"widths": (*[100] * (n - 1), 10)} for n in (1, 2, 3, 4, 5, 6)},
}
"""Sizes of networks, by what there is more of: settings that differ from the note's by name."""


def sizes(
    rates: Sequence[float], seeds: Sequence[int], **settings: Any
) -> dict[str, dict[str, list[RunConfig]]]:
    """Runs of KUMAR in folded coordinates over networks of all `SIZES`, at several learning rates.

    Args:
        rates: Learning rates; that of `sigma` is ten times as high.
        seeds: Seeds, the same for all.
        **settings: Other settings of `RunConfig`, the same for all.

    Raises:
        ValueError: If a value is not allowed, or there is no rate; the message names it.
    """
    shared = {"coordinates": "folded", **settings}
    return {
        kind: {
            name: rate_grid(["KUMAR"], rates, seeds, **{**shared, **own})
            for name, own in values.items()
        }
        for kind, values in SIZES.items()
    }
