"""The committed runs, by study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from gmlib.study.plan.arms import ARMS
from gmlib.study.plan.config import RunConfig, run_configs
from gmlib.study.validation import integer

__all__ = [
    "CALIBRATION_SIZES",
    "PREDICTED",
    "READINGS",
    "SIZES",
    "STUDIES",
    "TARGETS",
    "WIDE",
    "ablation",
    "beside_wide",
    "both_coordinates",
    "budget",
    "causes",
    "depths",
    "dial",
    "neurons",
    "predicted",
    "rate_grid",
    "rate_grids",
    "readings",
    "sizes",
    "tuned",
    "two_by_two",
    "with_relu",
]

TARGETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Target standard deviations that KUMAR is tried with."""

CALIBRATION_SIZES = (64, 256, 2048, 16384)
"""Numbers of calibration images that KUMAR is tried with."""


WIDE = 1055
"""Hidden units with which a dense network has as many parameters as GM layers on MNIST-1D."""


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
    seeds: Sequence[int], wide: int, *, widths: Sequence[int] = (100, 10), **settings: Any
) -> dict[str, list[RunConfig]]:
    """Runs of the note's arms, and of a dense network with one hidden layer of another width.

    Args:
        seeds: Seeds, the same for all networks.
        wide: Hidden units of the other dense network.
        widths: Sizes of the hidden layers and the output of the note's arms.
        **settings: Other settings of `RunConfig`, the same for all networks.
    """
    arms = ["FC", "BL", "KUMAR"]
    runs = {arm: run_configs([arm], seeds, widths=widths, **settings) for arm in arms}
    return {
        "FC": runs.pop("FC"),
        "FC, wide": run_configs(["FC"], seeds, widths=(wide, widths[-1]), **settings),
        **runs,
    }


def depths(
    numbers: Sequence[int],
    seeds: Sequence[int],
    *,
    hidden: int = 100,
    outputs: int = 10,
    **settings: Any,
) -> dict[int, list[RunConfig]]:
    """Runs of BL and KUMAR by the number of GM layers.

    Args:
        numbers: Numbers of layers.
        seeds: Seeds, the same for all depths.
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
        number: run_configs(
            ["BL", "KUMAR"], seeds, widths=(*[hidden] * (number - 1), outputs), **settings
        )
        for number in numbers
    }


def neurons(
    numbers: Sequence[int], seeds: Sequence[int], **settings: Any
) -> dict[str, list[RunConfig]]:
    """Runs of networks of neurons by number of neurons, and of the GM layers they are drawn from.

    Args:
        numbers: Numbers of neurons of a layer, multiples of the number of components.
        seeds: Seeds, the same for all networks.
        **settings: Other settings of `RunConfig`, the same for all networks.
    """
    runs = {
        f"{number:,} neurons": run_configs(["NEURONS"], seeds, num_neurons=number, **settings)
        for number in numbers
    }
    return {**runs, "KUMAR": run_configs(["KUMAR"], seeds, **settings)}


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
        arms: Arms, which initialize the GM stacks.
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
        run_configs([arm], seeds, widths=widths(units), num_components=K, **settings)
        for arm in arms
        for units in hidden
        for K in components
    ]
    return [config for configs in (*dense, *stacks) for config in configs]


def both_coordinates(seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """Runs of a dense network, and of three starts in affine and in folded coordinates.

    Args:
        seeds: Seeds, the same for all.
        **settings: Other settings of `RunConfig`, the same for all.
    """
    starts = ["BL", "FAN-IN", "KUMAR"]
    return [
        *run_configs(["FC", *starts], seeds, **settings),
        *run_configs(starts, seeds, coordinates="folded", **settings),
    ]


def causes(seeds: Sequence[int], **settings: Any) -> dict[str, list[RunConfig]]:
    """Runs of KUMAR from one start, with part of the readout's or the clouds' motion taken away.

    Args:
        seeds: Seeds, the same for all variants.
        **settings: Other settings of `RunConfig`, the same for all variants.
    """
    without = 1.0 / settings.get("num_components", RunConfig.num_components) ** 2
    variants: dict[str, dict[str, Any]] = {
        "affine": {},
        "centered": {"coordinates": "centered"},
        "centered and whitened": {"coordinates": "centered and whitened"},
        "whitened": {"coordinates": "whitened"},
        "folded, A frozen": {"coordinates": "folded", "rate_factors": {"A": 0.0}},
        "folded, without 1/K": {
            "coordinates": "folded",
            "rate_factors": {"A": without, "w": without},
        },
        "folded, clouds frozen": {
            "coordinates": "folded",
            "rate_factors": {"mu": 0.0, "sigma": 0.0},
        },
        "folded, w at 1/30": {"coordinates": "folded", "rate_factors": {"w": 1.0 / 30.0}},
        "folded": {"coordinates": "folded"},
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
    starts: Sequence[str] = ("BL", "FAN-IN", "KUMAR"),
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
    arms = [("FC", "affine"), *product(starts, ("affine", "folded"))]
    grids = [
        rate_grid([arm], rates, seeds, coordinates=coordinates, **settings)
        for arm, coordinates in arms
    ]
    return {grid[0].label: grid for grid in grids}


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
            arm, _, coordinates = label.partition(", ")
            own = {"optimizer": optimizer, "coordinates": coordinates or "affine", **settings}
            runs[f"{label}, {optimizer}"] = rate_grid([arm], [rate], seeds, **own)
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


_FIVE, _THREE = list(range(5)), list(range(3))
_FRESH = list(range(200, 215))

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
    "readings": _flat(readings(_FRESH, epochs=1)),
    "ReLU between": _flat(with_relu(_FRESH)),
}
"""The committed runs, by study; some belong to several."""
