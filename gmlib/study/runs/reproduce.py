"""Train every run of the note from scratch into a new ledger, and compare with the committed one.

Run as ``python -m gmlib.study.runs.reproduce``, or ``make reproduce``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np

from gmlib.study.datasets import DataError
from gmlib.study.plan.studies import STUDIES
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import sweep

__all__ = ["agreement"]

_PROGRAM = "python -m gmlib.study.runs.reproduce"


def agreement(ours: Sequence[RunRecord], committed: Sequence[RunRecord]) -> str:
    """Describe in one line how far two lists of records of the same runs are apart."""
    identical = sum(
        all(np.array_equal(a.curves[name], b.curves[name], equal_nan=True) for name in a.curves)
        for a, b in zip(ours, committed, strict=True)
    )
    errors = [
        100.0 * np.abs(np.subtract(a.curves["test_error"], b.curves["test_error"]))
        for a, b in zip(ours, committed, strict=True)
    ]
    return (
        f"{identical} of {len(ours)} runs equal bit for bit; largest difference in test error "
        f"{max(map(np.max, errors)):.2f} points anywhere, "
        f"{max(error[-1] for error in errors):.2f} at the end"
    )


@contextmanager
def _workers_of(scheduler: str | None) -> Iterator[None]:
    """Train runs on the workers of a dask scheduler, or on this machine if there is none."""
    if scheduler is None:
        yield
        return
    from distributed import Client

    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise SystemExit(f"--scheduler {scheduler}: {error}") from None
    with client, joblib.parallel_config("dask"):
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compare and print.

    Returns:
        1 if a committed record is missing, 2 if nothing can be done, 130 if interrupted.
    """
    try:
        return _reproduce(arguments)
    except (DataError, LedgerError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(str(interruption) or "interrupted", file=sys.stderr)
        return 130


def _reproduce(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument(
        "--ledger",
        type=Path,
        default=Path("_build/reproduce"),
        help="folder of the new records (default: %(default)s); if it holds all runs, they are "
        "trained again; if it holds some, the others are trained",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--jobs", type=int, help="processes at once (default: all processors)")
    place.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="train on the workers of the dask scheduler at ADDRESS, such as tcp://login:8786",
    )
    place.add_argument(
        "--device",
        default="cpu",
        help="train all seeds of an arm at once on this accelerator, such as cuda",
    )
    parser.add_argument(
        "--study",
        action="append",
        choices=STUDIES,
        help="train only this study; may be given several times (default: all)",
    )
    options = parser.parse_args(arguments)
    studies = {name: STUDIES[name] for name in options.study or STUDIES}

    ledger, committed = Ledger(options.ledger), Ledger()
    if ledger.folder.resolve() == committed.folder.resolve():
        parser.error(f"--ledger must not be the committed ledger {committed.folder}")
    try:
        sweep([], ledger, options.jobs, options.device)  # checks jobs and device first
    except ValueError as error:
        parser.error(str(error))
    configs = [config for study in studies.values() for config in study]
    with _workers_of(options.scheduler):
        if all(config in ledger for config in configs):
            for config in configs:  # only these: with --study there may be others
                for suffix in (".json", ".npz"):
                    ledger.path(config).with_suffix(suffix).unlink(missing_ok=True)
        trained = sweep(configs, ledger, options.jobs, options.device)
    records = {record.config.run_id: record for record in trained}

    status = 0
    for name, study in studies.items():
        pairs = [(records[config.run_id], committed.get(config)) for config in study]
        known = [(ours, theirs) for ours, theirs in pairs if theirs is not None]
        seconds = sum(ours.wall_time for ours, _ in pairs)
        print(f"{name}: {len(pairs)} runs, {seconds / 60:.1f} minutes of one core", end="; ")
        if len(known) < len(pairs):
            print(f"{len(pairs) - len(known)} are not in {committed.folder}", end="; ")
            status = 1
        print(agreement(*zip(*known, strict=True)) if known else "nothing to compare")
    return status


if __name__ == "__main__":
    sys.exit(main())
