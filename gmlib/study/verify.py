"""Runs trained again and held against their records, to see whether these are true."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmlib.study import data
from gmlib.study.config import RunConfig
from gmlib.study.ledger import Ledger, LedgerError
from gmlib.study.training import CURVES, RunRecord, generator_of, train

__all__ = ["Verdict", "choose", "nudged", "spread", "verify"]

_REPEATS = 3
_FACTOR = 3.0


@dataclass(frozen=True)
class Verdict:
    """What came of training a recorded run again.

    Attributes:
        config: The recorded run.
        epochs: How many of its epochs were trained again.
        holds: Whether the record can be true.
        differs: The curve that is farthest off, in relation to its band; empty if all are equal
            bit for bit.
        share: How far it is off at the worst evaluation, as a share of the band there.
    """

    config: RunConfig
    epochs: int
    holds: bool
    differs: str = ""
    share: float = 0.0

    def __str__(self) -> str:
        what = f"{self.config.run_id}, {self.epochs} of {self.config.epochs} epochs"
        if not self.differs:
            return f"holds: {what}, bit for bit"
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{verdict}: {what}, {self.differs} is off by {self.share:.2g} of what may be"


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
    ours = train(replace(record.config, epochs=epochs, snapshots=False))
    found = _curves(ours)
    recorded = {name: values[: len(found["step"])] for name, values in _curves(record).items()}
    names = [name for name in found if name in recorded]  # old records lack the movement
    different = [
        name for name in names if not np.array_equal(found[name], recorded[name], equal_nan=True)
    ]
    if not different:
        return Verdict(record.config, epochs, True)
    if exact or "step" in different:
        return Verdict(record.config, epochs, False, different[0], np.inf)
    band = spread(ours)
    shares = {name: _share(found[name], recorded[name], _FACTOR * band[name]) for name in different}
    worst = max(shares, key=lambda name: shares[name])
    return Verdict(record.config, epochs, shares[worst] <= 1.0, worst, shares[worst])


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
    dataset = data.load(config.dataset, config.standardize)
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


def _curves(record: RunRecord) -> dict[str, NDArray[np.float64]]:
    movement = {f"movement of {name}": values for name, values in record.movement.items()}
    curves = {name: record.curves[name] for name in CURVES} | movement
    return {name: np.asarray(values, dtype=np.float64) for name, values in curves.items()}


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute differences: zero between what is NaN in both, infinite where one alone is."""
    both, either = np.isnan(one) & np.isnan(other), np.isnan(one) | np.isnan(other)
    return np.where(both, 0.0, np.where(either, np.inf, np.abs(one - other)))


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
