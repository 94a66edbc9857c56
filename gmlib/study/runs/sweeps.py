"""Sweeps: train the runs that the ledger lacks, in parallel, and return the records of all."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock, Timeout

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.places import Failure, choose_place, usable_device
from gmlib.study.runs.progress import progress_bar
from gmlib.study.runs.records import RunRecord

__all__ = ["SweepError", "sweep", "sweep_by"]

Key = TypeVar("Key")


class SweepError(RuntimeError):
    """Some runs failed or were cut off. The others are in the ledger."""


def sweep(
    configs: Iterable[RunConfig],
    ledger: Ledger | None = None,
    jobs: int | None = None,
    device: torch.device | str = "cpu",
) -> list[RunRecord]:
    """Return the records of all `configs`, training the runs that the ledger lacks.

    On the CPU each run trains in a single-threaded process, and its record is in the ledger as soon
    as it ends. An interrupted sweep therefore continues where it stopped. On an accelerator all
    seeds of a configuration train in this process as one program, on stacked parameters. A progress
    bar on standard error shows runs done, the last run's test error and the time left.

    joblib starts the processes, and ``joblib.parallel_config`` selects where: on this machine by
    default, or with ``"dask"`` on the workers of the cluster that a ``dask.distributed.Client`` is
    connected to. In either case the ledger is on this machine, and this process writes to it. If
    several sweeps on one machine use one ledger, one trains and the others wait. They would
    otherwise compete for processors and train the same runs.

    Args:
        configs: The runs.
        ledger: Ledger in which records are looked up and stored; the project's by default.
        jobs: Number of processes; by default joblib's setting, or else the number of processors.
            A cluster uses all its workers. The records do not depend on `jobs`.
        device: Device that trains the runs, ``"cpu"`` or an accelerator such as ``"cuda"``.
            Records of different devices agree within rounding, and name their device.

    Returns:
        The records, one per run, in the order of `configs`. Configurations that name the same run
        count once.

    Raises:
        SweepError: If a run failed or its process was killed; the message says which and why.
        LedgerError: If a record cannot be read.
        ValueError: If `jobs` is not a positive integer, PyTorch has no such `device` here, or runs
            would have to share a process.
        TypeError: If `configs` contains anything but configurations.
        KeyboardInterrupt: If interrupted; the message says how many runs are recorded.
    """
    ledger = Ledger() if ledger is None else ledger
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise ValueError(f"jobs must be an integer of at least 1, or None, got {jobs!r}")
    device = usable_device(device)
    configs = list(configs)
    for config in configs:
        if not isinstance(config, RunConfig):
            raise TypeError(f"configs must hold RunConfigs only, got {config!r}")
    unique = {config.run_id: config for config in configs}
    records: dict[str, RunRecord] = {}
    try:
        missing = _look_up(unique.values(), ledger, records)
        if missing:
            with _alone(ledger.folder):
                missing = _look_up(missing, ledger, records)  # others may have trained
                with closing(_trained(missing, jobs, device)) as trained:
                    for record in trained:
                        ledger.put(record)
                        records[record.config.run_id] = record
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_standing(unique.values(), ledger)) from None
    except (BrokenExecutor, CancelledError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise SweepError(
            f"the sweep broke off ({reason}); {_standing(unique.values(), ledger)}"
        ) from error
    return [records[run_id] for run_id in unique]


def sweep_by(
    groups: Mapping[Key, Sequence[RunConfig]],
    ledger: Ledger | None = None,
    jobs: int | None = None,
    device: torch.device | str = "cpu",
) -> dict[Key, list[RunRecord]]:
    """Return the records of groups of runs by group name, from one `sweep`.

    A run may belong to several groups. All else is as in `sweep`.
    """
    configs = [config for own in groups.values() for config in own]
    records = {record.config.run_id: record for record in sweep(configs, ledger, jobs, device)}
    return {name: [records[config.run_id] for config in own] for name, own in groups.items()}


def _look_up(
    configs: Iterable[RunConfig], ledger: Ledger, records: dict[str, RunRecord]
) -> list[RunConfig]:
    """Add the ledger's records to `records`, and return the configurations that it lacks."""
    missing = []
    for config in configs:
        record = ledger.get(config)
        if record is None:
            missing.append(config)
        else:
            records[config.run_id] = record
    return missing


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other sweep of this user trains into `folder` on this machine."""
    # The user's number, not name: in a container a user may have no name.
    owner = f"{getattr(os, 'getuid', int)()}:{folder.resolve()}"
    name = f"gmlib-{hashlib.sha256(owner.encode()).hexdigest()[:16]}.lock"
    path = Path(tempfile.gettempdir()) / name
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another sweep trains into {folder}; waiting for it to end", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while held: waiting sweeps then lock a new file
        lock.release()


def _standing(configs: Collection[RunConfig], ledger: Ledger) -> str:
    recorded = sum(config in ledger for config in configs)
    return (
        f"{recorded} of {len(configs)} runs are recorded in {ledger.folder}; "
        f"the same call goes on with the other {len(configs) - recorded}"
    )


def _trained(
    configs: Sequence[RunConfig], jobs: int | None, device: torch.device
) -> Generator[RunRecord, None, None]:
    """Yield the records of runs as they end, and raise after the last run if any failed."""
    if not configs:
        return
    place = choose_place(jobs, device)
    place.prepare(configs)
    failures: list[tuple[RunConfig, Failure]] = []
    with progress_bar(configs) as tell, closing(place.outcomes(configs)) as outcomes:
        for config, outcome in outcomes:
            if isinstance(outcome, Failure):
                failures.append((config, outcome))
            else:
                tell(outcome)
                yield outcome
    if failures:
        reasons = "; ".join(f"{config.run_id}: {failure.reason}" for config, failure in failures)
        raise SweepError(
            f"{len(failures)} of {len(configs)} runs failed, the others are recorded: {reasons}"
        ) from RuntimeError(f"the first of them:\n{failures[0][1].traceback}")
