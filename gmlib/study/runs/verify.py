"""Records made again and held against what they say, to see whether it is true."""

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
    """What came of making a record again.

    Attributes:
        what: The record, and how much of it was made again.
        holds: Whether the record can be true.
        differs: What of it is farthest off, in relation to its band; empty if all is equal bit
            for bit.
        share: How far that is off at its worst, as a share of the band there.
    """

    what: str
    holds: bool
    differs: str = ""
    share: float = 0.0

    def __str__(self) -> str:
        if not self.differs:
            return f"holds: {self.what}, bit for bit"
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{verdict}: {self.what}, {self.differs} is off by {self.share:.2g} of what may be"


def choose(
    ledger: Ledger, runs: int, arms: Sequence[str] | None = None, seed: int | None = None
) -> list[RunRecord]:
    """Records drawn at random, all different.

    Args:
        ledger: Where from.
        runs: How many; all of them if there are fewer.
        arms: Of these arms, in turn; of any by default.
        seed: Of the draw; by default another each time.

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
    """Measurements drawn at random, all different, of those that this version of gmlib makes.

    Args:
        ledger: Where from.
        number: How many; all of them if there are fewer.
        seed: Of the draw; by default another each time.
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
    """Train the first epochs of a recorded run again, and hold the curves against the record.

    On the machine and at the commit that made a record they come out bit for bit. Elsewhere they
    are rounded otherwise, and training carries such differences on. How far is found by training
    again on inputs each moved by at most one unit in the last place, see `spread`; a record
    holds if no curve of it is off by more than three times that anywhere.

    Args:
        record: The record.
        epochs: How many; all of the run's if it has fewer.
        exact: Whether nothing but equality bit for bit will do.
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
    """Measure again what is recorded, and hold the values against the record.

    As `verify` does: bit for bit, or within three times what moving the data by one unit in the
    last place does, and at least three thousandths of a value. Whole numbers and words are equal.

    Args:
        record: The record.
        ledger: Where it is from: it may be made of runs there.
        exact: Whether nothing but equality bit for bit will do.

    Raises:
        LedgerError: If this version of gmlib does not measure that.
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
                # Of many values some happen to stay where they are: no less than is usual.
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
    """Whether what was found is what is recorded, or within three times a band around it."""
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
    """The arrays of a measurement's value by name, as they are in the record."""
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
    """How far rounding carries each curve of a run, by evaluation.

    The run is trained again on `nudged` inputs. The spread is the largest difference at this or
    an earlier evaluation: at least one test image in the error, and a thousandth of the value in
    all else. From where one of the runs has a loss that is not finite it is infinite.

    Args:
        record: As `train` gave it on this machine.
        repeats: How often to train.
    """
    config = record.config
    dataset = datasets.load(config.dataset, config.standardize)
    curves = _curves(record)
    widest = {name: 1e-3 * np.abs(np.nan_to_num(values)) for name, values in curves.items()}
    widest["test_error"] = np.full(len(curves["step"]), 1.0 / len(dataset.y_test))
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
    curves = {name: record.curves[name] for name in CURVES} | movement
    floats = {name: np.asarray(values, dtype=np.float64) for name, values in curves.items()}
    return floats | {"step": np.asarray(record.curves["step"], dtype=np.int64)}


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute differences: zero between what is NaN in both, infinite where one alone is."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    either = np.isnan(one) | np.isnan(other)
    with np.errstate(invalid="ignore"):  # infinity less itself
        return np.where(same, 0.0, np.where(either, np.inf, np.abs(one - other)))


def _share(
    one: NDArray[np.float64], other: NDArray[np.float64], band: NDArray[np.float64]
) -> float:
    """The largest difference, as a share of the band; anything is within an infinite one."""
    distance = np.where(np.isinf(band), 0.0, _distance(one, other))
    shares = np.where(distance > 0.0, np.inf, 0.0)
    return float(np.divide(distance, band, out=shares, where=band > 0.0).max())


def nudged(values: Tensor, generator: torch.Generator) -> Tensor:
    """Each of `values` as it is, or moved to the next number above or below, drawn at random."""
    direction = torch.randint(-1, 2, values.shape, generator=generator)
    return torch.nextafter(values, values + direction)
