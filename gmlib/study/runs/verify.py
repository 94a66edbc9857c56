"""Verification of records: repeat runs and measurements and compare the results."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmlib.study import datasets
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.measurements import MEASUREMENTS, recompute
from gmlib.study.runs.records import CURVES, MeasurementRecord, RunRecord
from gmlib.study.runs.training import generator_of, train

__all__ = [
    "Verdict",
    "choose",
    "choose_measurements",
    "nudged",
    "spread",
    "verify",
    "verify_measurement",
]

Values = NDArray[Any]

_REPEATS = 3
_FACTOR = 3.0


@dataclass(frozen=True)
class Verdict:
    """The result of repeating what a record describes.

    Attributes:
        what: The record, and how much of it was repeated.
        holds: Whether the record can be true.
        differs: Name of the values that are farthest off relative to their tolerance; empty if all
            are equal bit for bit.
        share: Largest difference of these values, as a share of the tolerance there.
    """

    what: str
    holds: bool
    differs: str = ""
    share: float = 0.0

    def __str__(self) -> str:
        if not self.differs:
            return f"holds: {self.what}, bit for bit"
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{verdict}: {self.what}, {self.differs} is off by {self.share:.2g} tolerances"


def choose(
    ledger: Ledger, runs: int, arms: Sequence[str] | None = None, seed: int | None = None
) -> list[RunRecord]:
    """Draw records of runs at random, without replacement.

    Args:
        ledger: The ledger to draw from.
        runs: Number of records; all of them if there are fewer.
        arms: Arms to draw from, in turn; any arms by default.
        seed: Seed of the draw; a different one each time by default.

    Raises:
        LedgerError: If the ledger has no record of an arm, or a record cannot be read.
    """
    records = list(ledger)
    random.Random(seed).shuffle(records)
    known = {record.config.arm for record in records}
    for arm in arms or ():
        if arm not in known:
            raise LedgerError(
                f"{ledger.folder} has no run of arm {arm!r}, only of {', '.join(sorted(known))}"
            )
    if not arms:
        return records[:runs]
    decks = [[record for record in records if record.config.arm == arm] for arm in arms]
    turns = [deck[turn] for turn in range(len(records)) for deck in decks if turn < len(deck)]
    return turns[:runs]


def choose_measurements(
    ledger: Ledger, number: int, seed: int | None = None
) -> list[MeasurementRecord]:
    """Draw at random, without replacement, measurements that this version of gmlib makes.

    Args:
        ledger: The ledger to draw from.
        number: Number of records; all of them if there are fewer.
        seed: Seed of the draw; a different one each time by default.
    """
    records = [
        record
        for record in ledger.measurements()
        if (known := MEASUREMENTS.get(record.config.name))
        and known.version == record.config.version
    ]
    random.Random(seed).shuffle(records)
    return records[:number]


def verify(record: RunRecord, epochs: int = 1, *, exact: bool = False) -> Verdict:
    """Train the first epochs of a recorded run again, and compare the curves with the record.

    On the machine and at the commit that made the record, the curves are equal bit for bit.
    Elsewhere rounding differs, and training propagates the differences. `spread` measures how far,
    by training again on inputs that are moved by at most one unit in the last place. A record
    holds if none of its curves is off by more than three times the spread anywhere.

    Args:
        record: The record.
        epochs: Number of epochs; all of the run's if it has fewer.
        exact: Whether to require equality bit for bit.
    """
    epochs = min(epochs, record.config.epochs)
    what = f"{record.config.run_id}, {epochs} of {record.config.epochs} epochs"
    ours = train(replace(record.config, epochs=epochs, snapshots=False))
    found = _curves(ours)
    recorded = {name: values[: len(found["step"])] for name, values in _curves(record).items()}
    return _verdict(what, found, recorded, lambda: spread(ours), exact)


def verify_measurement(
    record: MeasurementRecord, ledger: Ledger, *, exact: bool = False
) -> Verdict:
    """Repeat a recorded measurement, and compare the values with the record.

    As in `verify`, values must be equal bit for bit or within a tolerance: three times the change
    that moving the data by one unit in the last place causes, but at least three thousandths of a
    value. Integers and strings must be equal.

    Args:
        record: The record.
        ledger: The ledger of the record, which has the runs that were measured, if any.
        exact: Whether to require equality bit for bit.

    Raises:
        LedgerError: If this version of gmlib has no such measurement.
    """
    what = record.config.measurement_id
    found, recorded = _values(recompute(record, ledger)), _values(record)
    if found.keys() != recorded.keys():
        return Verdict(what, False, "the names of its values", np.inf)

    def band() -> dict[str, Values]:
        floats = [name for name, values in found.items() if values.dtype.kind == "f"]
        widest = {name: 1e-3 * np.abs(np.nan_to_num(found[name])) for name in floats}
        for seed in range(_REPEATS):
            nudging = partial(_load_nudged, generator_of(seed, "nudges"))
            other = _values(recompute(record, ledger, nudging))
            for name in floats:
                apart = _distance(found[name], other[name])
                # Some of many values do not move by chance: their band is at least the median.
                widest[name] = np.maximum(widest[name], np.maximum(apart, np.median(apart)))
        return widest

    return _verdict(what, found, recorded, band, exact)


def _verdict(
    what: str,
    found: Mapping[str, Values],
    recorded: Mapping[str, Values],
    band: Callable[[], Mapping[str, Values]],
    exact: bool,
) -> Verdict:
    """Judge whether the values found are the recorded ones, or within three times a band."""
    names = [name for name in found if name in recorded]  # old records lack the movement
    different = [name for name in names if not _same(found[name], recorded[name])]
    if not different:
        return Verdict(what, True)
    discrete = [
        name
        for name in different
        if found[name].dtype.kind != "f" or found[name].shape != recorded[name].shape
    ]
    if exact or discrete:
        return Verdict(what, False, (discrete or different)[0], np.inf)
    widths = band()
    shares = {
        name: _share(found[name], recorded[name], _FACTOR * widths[name]) for name in different
    }
    worst = max(shares, key=lambda name: shares[name])
    return Verdict(what, shares[worst] <= 1.0, worst, shares[worst])


def _same(one: Values, other: Values) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _values(record: MeasurementRecord) -> dict[str, Values]:
    """Return the arrays of a recorded measurement's value, by name."""
    found: dict[str, Values] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, pd.DataFrame):
            visit(name, {column: value[column].to_numpy() for column in value.columns})
        elif isinstance(value, Mapping):
            for key, entry in value.items():
                visit(f"{name}, {key}" if name else str(key), entry)
        else:
            found[name or "value"] = np.asarray(value)

    visit("", record.value)
    return found


def _load_nudged(
    generator: torch.Generator, name: str, standardize: str = "image"
) -> datasets.Dataset:
    dataset = datasets.load(name, standardize)
    splits = (dataset.x_train, dataset.x_test)
    x_train, x_test = (nudged(images, generator) for images in splits)
    return replace(dataset, x_train=x_train, x_test=x_test)


def spread(record: RunRecord, repeats: int = _REPEATS) -> dict[str, NDArray[np.float64]]:
    """Measure how far rounding moves each curve of a run, by evaluation.

    The run is trained again on `nudged` inputs. The spread is the largest difference at this or an
    earlier evaluation, but at least one test image for the error and the gates, and a thousandth of
    the value for all else. It is infinite from the first evaluation at which a run's loss is not
    finite.

    Args:
        record: A record that `train` returned on this machine.
        repeats: Number of times to train again.
    """
    config = record.config
    dataset = datasets.load(config.dataset, config.standardize)
    curves = _curves(record)
    widest = {name: 1e-3 * np.abs(np.nan_to_num(values)) for name, values in curves.items()}
    one = 1.0 / (config.held_out or len(dataset.y_test))
    for name in curves:
        if name == "test_error" or name.startswith("gate"):
            widest[name] = np.full(len(curves["step"]), one)
    for seed in range(repeats):
        generator = generator_of(seed, "nudges")
        other = _curves(
            train(config, dataset=replace(dataset, x_train=nudged(dataset.x_train, generator)))
        )
        lost = ~(np.isfinite(curves["test_loss"]) & np.isfinite(other["test_loss"]))
        for name, values in curves.items():
            apart = np.where(lost, np.inf, _distance(values, other[name]))
            widest[name] = np.maximum.accumulate(np.maximum(widest[name], apart))
    return widest


def _curves(record: RunRecord) -> dict[str, Values]:
    movement = {f"movement of {name}": values for name, values in record.movement.items()}
    gates = {
        f"gate {component} of {name}": values
        for name, shares in record.gates.items()
        for component, values in enumerate(zip(*shares, strict=True))
    }
    curves = {name: record.curves[name] for name in CURVES} | movement | gates
    floats = {name: np.asarray(values, dtype=np.float64) for name, values in curves.items()}
    return floats | {"step": np.asarray(record.curves["step"], dtype=np.int64)}


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return absolute differences: zero where both are NaN, infinite where only one is."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    either = np.isnan(one) | np.isnan(other)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return np.where(same, 0.0, np.where(either, np.inf, np.abs(one - other)))


def _share(
    one: NDArray[np.float64], other: NDArray[np.float64], band: NDArray[np.float64]
) -> float:
    """Return the largest difference as a share of the band; an infinite band admits any."""
    distance = np.where(np.isinf(band), 0.0, _distance(one, other))
    shares = np.where(distance > 0.0, np.inf, 0.0)
    return float(np.divide(distance, band, out=shares, where=band > 0.0).max())


def nudged(values: Tensor, generator: torch.Generator) -> Tensor:
    """Keep each value or move it to the next number above or below, at random."""
    direction = torch.randint(-1, 2, values.shape, generator=generator)
    return torch.nextafter(values, values + direction)
