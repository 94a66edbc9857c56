"""What a run is: a validated configuration, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from gmlib.study.datasets.catalogue import DATASETS
from gmlib.study.datasets.standardization import STANDARDIZATIONS
from gmlib.study.plan.arms import ARM_SETTINGS, ARMS, arm_of
from gmlib.study.plan.families import COORDINATES, Family
from gmlib.study.validation import integer, is_import_path, positive

__all__ = ["RunConfig", "run_configs"]

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
            one mean and standard deviation of the training set.
        widths: Sizes of the hidden layers and the output; the input size comes from the data.
        num_components: Components `K` of every GM layer.
        epochs: Passes over the training set; 0 records the initialization alone.
        batch_size: Inputs per step. The last batch of an epoch may be smaller.
        lr: Learning rate of vanilla SGD for all parameters but `sigma`.
        lr_sigma: Learning rate for `sigma`.
        gamma: Scale of the baseline initialization.
        target_std: Standard deviation that KUMAR gives each layer's outputs.
        calibration_size: Training inputs, drawn without labels, that an initialization is shown;
            all of them where the data set has fewer. The scales of arms that are shown none are
            reported on the default number.
        num_neurons: Neurons of every layer of a network of neurons, a multiple of
            `num_components`.
        snapshots: Whether to keep the parameters at the start and after every epoch.
        coordinates: Of the readouts of GM layers: ``"affine"``, the note's, or ``"folded"``; see
            `gmlib.functional`.

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

    def __post_init__(self) -> None:
        self._validate_choice("arm", tuple(ARMS), own=True)
        self._validate_choice("dataset", tuple(DATASETS), own=True)
        self._validate_choice("standardize", STANDARDIZATIONS, own=False)
        self._validate_choice("coordinates", tuple(COORDINATES), own=False)
        widths = self.widths
        if not isinstance(widths, (tuple, list)) or not widths:
            raise ValueError(f"widths must be a non-empty sequence of layer sizes, got {widths!r}")
        checked: dict[str, Any] = {
            "widths": tuple(integer("every entry of widths", width, 1) for width in widths),
            "seed": integer("seed", self.seed, 0),
            "epochs": integer("epochs", self.epochs, 0),
        }
        for name in ("num_components", "batch_size", "calibration_size", "num_neurons"):
            checked[name] = integer(name, getattr(self, name), 1)
        for name in ("lr", "lr_sigma", "gamma", "target_std"):
            checked[name] = positive(name, getattr(self, name))
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self.family.validate(self)
        if not isinstance(self.snapshots, bool):
            raise ValueError(f"snapshots must be true or false, got {self.snapshots!r}")

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
            name: list(value) if isinstance(value, tuple) else value
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


def run_configs(arms: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """One configuration for every arm and seed, arm by arm.

    Args:
        arms: Arms, at least one, none twice.
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
    return [RunConfig(arm=arm, seed=seed, **settings) for arm in arms for seed in seeds]
