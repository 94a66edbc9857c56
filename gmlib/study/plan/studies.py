"""The committed runs, by study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gmlib.optim import readout_factor
from gmlib.study.plan import beyond
from gmlib.study.plan.arms import ARMS, arm_of
from gmlib.study.plan.config import RunConfig, run_configs
from gmlib.study.validation import integer

__all__ = [
    "CALIBRATION_SIZES",
    "COMPONENTS",
    "READINGS",
    "STUDIES",
    "TARGETS",
    "WIDE",
    "ablation",
    "beside_wide",
    "budget",
    "depths",
    "dial",
    "gates",
    "neurons",
    "readings",
    "steady",
    "two_by_two",
    "warmups",
    "with_relu",
]

TARGETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Target standard deviations that KUMAR is tried with."""

CALIBRATION_SIZES = (64, 256, 2048, 16384)
"""Numbers of calibration images that KUMAR is tried with."""

COMPONENTS: Mapping[str, list[int]] = {
    "KUMAR, folded": [1, 2, 5, 10, 20, 40],
    "KUMAR, rank 0": [1, 2, 5, 10, 20, 50, 100, 200, 400],
    "KUMAR, rank 1": [1, 2, 5, 10, 25, 50, 100, 200],
    "KUMAR, rank 2": [1, 2, 4, 8, 16, 32, 64, 128],
    "KUMAR, rank 4": [1, 2, 5, 10, 20, 40, 80],
}
"""Numbers of components by label. Those of a rank span the parameters of the dense networks."""

WIDE = 1055
"""Hidden units with which a dense network has as many parameters as GM layers on MNIST-1D."""


def steady(arms: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """The configurations of `run_configs`, with learning rates that suit layers of any `K`.

    Folded layers of more components than the note's ten have `scaled_rates`: with the note's own
    rates their steps would be the longer the more components there are, see `gmlib.optim`. All
    other networks have the note's, folded ones of fewer components among them, whose rates
    `scaled_rates` would raise.

    Args:
        arms: Arms or labels, as `run_configs` takes them.
        seeds: Seeds, the same for all arms.
        **settings: Other settings of `RunConfig`, the same for all arms.
    """
    return [
        replace(config, scaled_rates=True)
        if config.coordinates == "folded" and readout_factor(config.num_components) < 1.0
        else config
        for config in run_configs(arms, seeds, **settings)
    ]


def ablation(seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs by variant: with and without each ingredient of KUMAR, and with others in its place.

    Args:
        seeds: Seeds, the same for all variants.
        **settings: Other settings of `RunConfig`, the same for all variants.
    """
    arms = ["BL", "BL+CAL", "FAN-IN", "KUMAR", "NOISE", "ANALYTIC", "LSUV", "ZERO-LAST"]
    return {ARMS[arm].label or arm: run_configs([arm], seeds, **settings) for arm in arms}


def two_by_two(seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs by variant: with and without fan-in scale, with and without calibration.

    Args:
        seeds: Seeds, the same for all variants.
        **settings: Other settings of `RunConfig`, the same for all variants.
    """
    corners = ("BL", "BL+CAL", "FAN-IN", "KUMAR")
    return {ARMS[arm].label or arm: run_configs([arm], seeds, **settings) for arm in corners}


def dial(
    name: str, values: Sequence[float], seeds: Sequence[int], **settings: Any
) -> dict[float, list[RunConfig]]:
    """Runs of KUMAR by the value of one of its settings, such as ``target_std``.

    Raises:
        ValueError: If a value is not allowed, or there is none; the message names the setting.
    """
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"{name} must be given a list of at least one value, got {values!r}")
    return {value: run_configs(["KUMAR"], seeds, **{**settings, name: value}) for value in values}


def beside_wide(
    seeds: Sequence[int],
    wide: int,
    arms: Sequence[str] = ("BL", "KUMAR"),
    *,
    widths: Sequence[int] = (100, 10),
    **settings: Any,
) -> dict[str, list[RunConfig]]:
    """Runs of GM stacks, and of dense networks with one hidden layer: as wide as theirs, and wider.

    Args:
        seeds: Seeds, the same for all networks.
        wide: Hidden units of the wider dense network.
        arms: Of the GM stacks, by label.
        widths: Sizes of the hidden layers and the output of all others.
        **settings: Other settings of `RunConfig`, the same for all networks.
    """
    return {
        "FC": run_configs(["FC"], seeds, widths=widths, **settings),
        "FC, wide": run_configs(["FC"], seeds, widths=(wide, widths[-1]), **settings),
        **{arm: steady([arm], seeds, widths=widths, **settings) for arm in arms},
    }


def depths(
    numbers: Sequence[int],
    seeds: Sequence[int],
    arms: Sequence[str] = ("BL", "KUMAR"),
    *,
    hidden: int = 100,
    outputs: int = 10,
    **settings: Any,
) -> dict[int, list[RunConfig]]:
    """Runs of GM stacks by the number of layers.

    Args:
        numbers: Numbers of layers.
        seeds: Seeds, the same for all depths.
        arms: Of the stacks, by label.
        hidden: Units of every layer but the last.
        outputs: Units of the last layer.
        **settings: Other settings of `RunConfig`, the same for all depths.

    Raises:
        ValueError: If a value is not allowed; the message names it.
    """
    if not isinstance(numbers, (list, tuple)) or not numbers:
        raise ValueError(f"depths must be a list of at least one entry, got {numbers!r}")
    for number in numbers:
        integer("every depth", number, 1)
    return {
        number: steady(arms, seeds, widths=(*[hidden] * (number - 1), outputs), **settings)
        for number in numbers
    }


def gates(arms: Sequence[str], seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs by arm that record to which images the components are open and shut.

    Args:
        arms: Arms.
        seeds: Seeds, the same for all arms.
        **settings: Other settings of `RunConfig`, the same for all arms.
    """
    by_arm: dict[str, list[RunConfig]] = {}
    for config in run_configs(arms, seeds, gates=True, **settings):
        by_arm.setdefault(arm_of(config.arm).label or config.arm, []).append(config)
    return by_arm


def warmups(
    steps: Sequence[int], seeds: Sequence[int], **settings: Any
) -> dict[str, list[RunConfig]]:
    """Runs of BL as it is, with warm-up, and of KUMAR, all of which record their gates.

    Args:
        steps: Numbers of steps over which the rates rise.
        seeds: Seeds, the same for all variants.
        **settings: Other settings of `RunConfig`, the same for all variants.
    """
    warmed = {
        f"BL, {number:,} steps": run_configs(["BL"], seeds, warmup=number, gates=True, **settings)
        for number in steps
    }
    plain = gates(["BL", "KUMAR"], seeds, **settings)
    return {"BL": plain.pop("BL"), **warmed, **plain}


def neurons(
    numbers: Sequence[int],
    seeds: Sequence[int],
    arms: Sequence[str] = ("KUMAR",),
    **settings: Any,
) -> dict[str, list[RunConfig]]:
    """Runs of networks of neurons by number of neurons, and of GM layers.

    Args:
        numbers: Numbers of neurons of a layer, multiples of the number of components.
        seeds: Seeds, the same for all networks.
        arms: Of the GM layers, by label; the neurons are drawn from KUMAR's.
        **settings: Other settings of `RunConfig`, the same for all networks.
    """
    runs = {
        f"{number:,} neurons": run_configs(["NEURONS"], seeds, num_neurons=number, **settings)
        for number in numbers
    }
    return {**runs, **{arm: steady([arm], seeds, **settings) for arm in arms}}


def budget(
    arms: Sequence[str],
    components: Sequence[int],
    hidden: Sequence[int],
    dense_hidden: Sequence[int],
    seeds: Sequence[int],
    *,
    outputs: int = 10,
    **settings: Any,
) -> list[RunConfig]:
    """Runs of dense networks and of GM stacks over a range of sizes.

    Args:
        arms: Of the GM stacks, by label.
        components: Numbers of components of a GM layer.
        hidden: Numbers of hidden units of a GM stack; 0 for a single layer.
        dense_hidden: Numbers of hidden units of a dense network; 0 for softmax regression.
        seeds: Seeds, the same for all networks.
        outputs: Units of the last layer.
        **settings: Other settings of `RunConfig`, the same for all networks.

    Raises:
        ValueError: If a value is not allowed; the message names it.
    """
    lists = {
        "arms": arms,
        "components": components,
        "hidden": hidden,
        "dense_hidden": dense_hidden,
    }
    for name, values in lists.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"{name} must be a list of at least one entry, got {values!r}")

    def widths(units: int) -> tuple[int, ...]:
        return (outputs,) if units == 0 else (units, outputs)

    dense = [run_configs(["FC"], seeds, widths=widths(h), **settings) for h in dense_hidden]
    stacks = [
        steady([arm], seeds, widths=widths(units), num_components=K, **settings)
        for arm in arms
        for units in hidden
        for K in components
    ]
    return [config for configs in (*dense, *stacks) for config in configs]


READINGS: Mapping[str, dict[str, Any]] = {
    "as in this book": {},
    "one standardization for all pixels": {"standardize": "dataset"},
    "a standardization for each pixel": {"standardize": "pixel"},
    "pixels from 0 to 1": {"standardize": "range"},
    "γ = 0.25": {"gamma": 0.25},
    "rate 0.1 for σ, too": {"lr_sigma": 0.1},
}
"""Readings of what the note leaves open: settings that differ from this project's, by name."""


def readings(seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs of BL by reading of the note, see `READINGS`.

    Args:
        seeds: Seeds, the same for all readings.
        **settings: Other settings of `RunConfig`, the same for all readings.
    """
    return {
        name: run_configs(["BL"], seeds, **{**settings, **own}) for name, own in READINGS.items()
    }


def with_relu(seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs of the note's arms, and of KUMAR in folded coordinates, with a ReLU between the layers.

    Args:
        seeds: Seeds, the same for all arms.
        **settings: Other settings of `RunConfig`, the same for all arms.
    """
    relu = {**settings, "between": "relu"}
    return {
        "FC": run_configs(["FC"], seeds, **settings),  # has one anyway
        "BL, ReLU between": run_configs(["BL"], seeds, **relu),
        "KUMAR, ReLU between": run_configs(["KUMAR"], seeds, **relu),
        "KUMAR, ReLU between, folded": run_configs(
            ["KUMAR"], seeds, **{**relu, "coordinates": "folded"}
        ),
    }


def _flat(runs: Mapping[Any, list[RunConfig]]) -> list[RunConfig]:
    return [config for configs in runs.values() for config in configs]


def _distinct(*studies: list[RunConfig]) -> list[RunConfig]:
    return list(dict.fromkeys(config for configs in studies for config in configs))


_THREE, _FIVE, _TEN = (list(range(number)) for number in (3, 5, 10))

STUDIES: Mapping[str, list[RunConfig]] = {
    "main study": run_configs(["FC", "BL", "KUMAR"], _FIVE),
    "main study, fashion-mnist": run_configs(["FC", "BL", "KUMAR"], _FIVE, dataset="fashion-mnist"),
    **{
        f"mnist-1d, standardized by {by}": _flat(
            beside_wide(_FIVE, WIDE, dataset="mnist-1d", epochs=300, standardize=by)
        )
        for by in ("image", "dataset")
    },
    "depth": _flat(depths([1, 2, 3, 4, 5, 6], _THREE)),
    "propagation": run_configs(
        ["BL", "KUMAR"], [0], widths=(10,), num_components=5, snapshots=True
    ),
    "initialization": run_configs(["BL", "FAN-IN", "KUMAR"], _FIVE, epochs=0),
    "divergence": run_configs(["BL", "KUMAR"], list(range(100, 140)), epochs=1),
    **{
        f"screen, {dataset}": run_configs(
            ["BL", "KUMAR"],
            list(range(5, 15)),
            dataset=dataset,
            widths=(10,),
            num_components=20,
            epochs=30,
        )
        for dataset in ("mnist", "fashion-mnist")
    },
    "ablation": _flat(ablation(_FIVE)),
    "target std": _flat(dial("target_std", TARGETS, _FIVE)),
    "neurons": _flat(neurons([10, 100, 1000], _THREE, num_components=5, widths=(10,))),
    "calibration size": _flat(dial("calibration_size", CALIBRATION_SIZES, _FIVE)),
    "budget": _distinct(
        budget(
            ["BL", "KUMAR"],
            [1, 2, 5, 10, 20, 40],
            [0, 100],
            [0, 2, 3, 4, 5, 6, 8, 16, 32, 64, 100, 128, 256, 512, 1000],
            _THREE,
        ),
        budget(["BL", "KUMAR"], [1, 2, 5], [4, 16], [2], _THREE),
    ),
    "gates": _flat(gates(["BL", "BL+CAL", "FAN-IN", "KUMAR"], _TEN)),
    "gates, single layer": _flat(
        gates(["BL", "BL+CAL", "FAN-IN", "KUMAR"], _TEN, widths=(10,), num_components=5)
    ),
    "warm-up": _flat(warmups([100, 1000], _FIVE)),
    "folded": run_configs(["BL", "FAN-IN", "KUMAR"], _FIVE, coordinates="folded"),
    "gates, folded": _flat(gates(["BL", "FAN-IN", "KUMAR"], _TEN, coordinates="folded")),
    "coordinates": _flat(beyond.both_coordinates(_TEN, gates=True)),
    "causes": _flat(beyond.causes(_FIVE)),
    "predictions": _flat(beyond.predicted(_THREE)),
}
"""The committed runs, by study; some belong to several."""
