"""What a run is: a validated configuration, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from gmlib.study.datasets.catalogue import DATASETS
from gmlib.study.datasets.standardization import STANDARDIZATIONS
from gmlib.study.plan.arms import ARM_SETTINGS, ARMS, arm_of
from gmlib.study.plan.coordinates import COORDINATES
from gmlib.study.plan.families import BETWEEN, Family
from gmlib.study.validation import integer, is_import_path, positive

__all__ = ["OPTIMIZERS", "RunConfig", "run_configs"]

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}
"""The optimizers, with PyTorch's defaults in all but the learning rates."""

_FIRST_SETTINGS = frozenset(
    {
        *("arm", "seed", "dataset", "standardize", "widths", "num_components", "epochs"),
        *("batch_size", "lr", "lr_sigma", "gamma", "target_std", "calibration_size"),
        *("num_neurons", "snapshots"),
    }
)
"""Settings that the first records have. Any other is left out of a run's name at its default."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run's result depends on; the defaults are the note's main study.

    Args:
        arm: One of `plan.arms.ARMS`, or ``"package.module:function"``.
        seed: Fixes parameters, order of data and calibration inputs, each through a generator of
            its own, so that all arms of one seed see the same batches.
        dataset: One of `datasets.DATASETS`, or ``"package.module:function"``.
        standardize: ``"image"`` for mean 0 and standard deviation 1 per image, ``"dataset"`` for
            one mean and standard deviation of the training set, ``"pixel"`` for those of each
            pixel, ``"range"`` for pixels from 0 to 1.
        widths: Sizes of the hidden layers and the output; the input size comes from the data.
        num_components: Components `K` of every GM layer.
        epochs: Passes over the training set; 0 records the initialization alone.
        batch_size: Inputs per step. The last batch of an epoch may be smaller.
        lr: Learning rate for all parameters but `sigma`.
        lr_sigma: Learning rate for `sigma`.
        gamma: Scale of the baseline initialization.
        target_std: Standard deviation that KUMAR gives each layer's outputs.
        calibration_size: Training inputs, drawn without labels, that an initialization is shown;
            all of them where the data set has fewer. The scales of arms that are shown none are
            reported on the default number.
        num_neurons: Neurons of every layer of a network of neurons, a multiple of
            `num_components`.
        snapshots: Whether to keep the parameters at the start and after every epoch.
        coordinates: Of the readouts of GM layers: ``"affine"``, the note's, or ``"folded"``, see
            `gmlib.functional`; or another of `plan.coordinates.COORDINATES`.
        between: What stands between GM layers: ``"none"``, as in the note, or ``"relu"``.
        rate_factors: Factors of the learning rates of GM layers by parameter, such as
            ``{"A": 0.0}``, which freezes the `A` of all layers; a mapping, or pairs.
        scaled_rates: Whether the readouts of folded layers of `K` components learn at ``10 / K`` of
            the rate: for more than ten components as `gmlib.param_groups` has it.
        gates: Whether to record the shares of test images to which the components of GM layers are
            open and shut.
        optimizer: ``"sgd"``, vanilla SGD, or ``"adam"``.
        warmup: Steps over which the learning rates rise, in equal parts, to what they are.
        held_out: Training images set aside, the same for all seeds, on which a run is evaluated
            in place of the test images.

    Raises:
        ValueError: If a value is not allowed; the message names the field, what came and what is
            allowed.
    """

    arm: str
    seed: int
    dataset: str = "mnist"
    standardize: str = "image"
    widths: tuple[int, ...] = (100, 10)
    num_components: int = 10
    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.1
    lr_sigma: float = 1.0
    gamma: float = 0.5
    target_std: float = 0.5
    calibration_size: int = 2048
    num_neurons: int = 1000
    snapshots: bool = False
    coordinates: str = "affine"
    between: str = "none"
    rate_factors: tuple[tuple[str, float], ...] = ()
    scaled_rates: bool = False
    gates: bool = False
    optimizer: str = "sgd"
    warmup: int = 0
    held_out: int = 0

    def __post_init__(self) -> None:
        self._validate_choice("arm", tuple(ARMS), own=True)
        self._validate_choice("dataset", tuple(DATASETS), own=True)
        self._validate_choice("standardize", tuple(STANDARDIZATIONS), own=False)
        self._validate_choice("coordinates", tuple(COORDINATES), own=False)
        self._validate_choice("between", tuple(BETWEEN), own=False)
        self._validate_choice("optimizer", tuple(OPTIMIZERS), own=False)
        widths = self.widths
        if not isinstance(widths, (tuple, list)) or not widths:
            raise ValueError(f"widths must be a non-empty sequence of layer sizes, got {widths!r}")
        checked: dict[str, Any] = {
            "widths": tuple(integer("every entry of widths", width, 1) for width in widths),
            "rate_factors": _rate_factors(self.rate_factors),
        }
        for name in ("seed", "epochs", "warmup", "held_out"):
            checked[name] = integer(name, getattr(self, name), 0)
        for name in ("num_components", "batch_size", "calibration_size", "num_neurons"):
            checked[name] = integer(name, getattr(self, name), 1)
        for name in ("lr", "lr_sigma", "gamma", "target_std"):
            checked[name] = positive(name, getattr(self, name))
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name in ("snapshots", "gates", "scaled_rates"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        self.family.validate(self)

    def _validate_choice(self, name: str, allowed: tuple[str, ...], *, own: bool) -> None:
        value = getattr(self, name)
        if value in allowed or (own and is_import_path(value)):
            return
        alternatives = ", ".join(map(repr, allowed)) + (
            " or of the form 'package.module:function'" if own else ""
        )
        raise ValueError(f"{name} must be one of {alternatives}, got {value!r}")

    @property
    def family(self) -> Family:
        """Of the arm's networks."""
        return arm_of(self.arm).family

    @property
    def label(self) -> str:
        """What tables and figures call the run: its arm, and the coordinates unless affine."""
        return ", ".join([self.arm, *filter(None, [self.canonical().get("coordinates")])])

    def canonical(self) -> dict[str, Any]:
        """The settings that the result depends on, which name the run.

        Without those that the arm does not use, and without those that are younger than the first
        records and have their default: whoever adds a setting renames no record.
        """
        used = arm_of(self.arm).settings
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name: _as_lists(value)
            for name, value in asdict(self).items()
            if (name not in ARM_SETTINGS or name in used)
            and (name in _FIRST_SETTINGS or value != defaults[name])
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> RunConfig:
        """The configuration with the given settings, as `canonical` returns them."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
        missing = sorted({"arm", "seed"} - set(settings))
        if missing:
            raise ValueError(f"settings lack {missing}")
        return cls(**settings)

    @property
    def run_id(self) -> str:
        """Name of the run: what it is, for people, and a hash of `canonical`, for certainty."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        label = re.sub(r"[^a-z0-9]+", "-", f"{self.dataset}-{self.arm}".lower())
        return f"{label}-seed{self.seed}-{digest}"


def _rate_factors(value: Any) -> tuple[tuple[str, float], ...]:
    """The factors by name as sorted pairs, each name once."""
    try:
        pairs = sorted((str(name), float(factor)) for name, factor in dict(value).items())
    except (TypeError, ValueError):
        pairs = [("", math.nan)]
    if not all(math.isfinite(factor) and factor >= 0.0 for _, factor in pairs):
        raise ValueError(
            "rate_factors must map names of parameters to finite numbers of at least 0, got "
            f"{value!r}"
        )
    return tuple(pairs)


def _as_lists(value: Any) -> Any:
    """The value with lists, which JSON has, in place of tuples."""
    return [_as_lists(entry) for entry in value] if isinstance(value, tuple) else value


def run_configs(arms: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """One configuration for every arm and seed, arm by arm.

    Args:
        arms: Arms, at least one, none twice; or labels of arms in coordinates of their own, such as
            ``"KUMAR, folded"`` and ``"KUMAR, rank 1"``, see `RunConfig.label`.
        seeds: Seeds, at least one, none twice.
        **settings: Whatever else `RunConfig` takes, the same for all.

    Raises:
        ValueError: If a value is not allowed; the message names it.
    """
    for name, values in {"arms": arms, "seeds": seeds}.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"{name} must be a list of at least one entry, got {values!r}")
        if len(set(map(repr, values))) < len(values):
            raise ValueError(f"{name} must not repeat an entry, got {values!r}")
    return [
        RunConfig(seed=seed, **{**settings, **_of_label(arm)}) for arm in arms for seed in seeds
    ]


def _of_label(label: str) -> dict[str, str]:
    """The arm, and the coordinates if there are any in its label."""
    if ", " not in str(label):
        return {"arm": label}
    return dict(zip(("arm", "coordinates"), label.split(", ", 1), strict=True))
