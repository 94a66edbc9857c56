"""Many runs: train those that the ledger lacks, in parallel, and return the records of all."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib
from tqdm import tqdm

from gmlib.study import data
from gmlib.study.config import RunConfig
from gmlib.study.ledger import Ledger
from gmlib.study.training import Progress, RunRecord, train

__all__ = ["SweepError", "sweep"]

_POLL_SECONDS = 0.5


class SweepError(RuntimeError):
    """Some runs failed. The others are in the ledger."""


def sweep(
    configs: Iterable[RunConfig], ledger: Ledger | None = None, jobs: int | None = None
) -> list[RunRecord]:
    """Records of all `configs`, from the ledger where it has them and trained where it lacks them.

    Each run trains in a process of one thread, and its record is in the ledger as soon as it ends:
    a sweep that is interrupted goes on where it was. A progress bar on the standard error shows
    runs done, the latest test error and the time left.

    Args:
        configs: The runs.
        ledger: Where records are looked up and kept; the project's by default.
        jobs: Processes at once; as many as there are processors by default. The records do not
            depend on it.

    Returns:
        The records, one a run, in the order of `configs`: configurations that name the same run
        count once.

    Raises:
        SweepError: If a run failed; the message says which and why.
        LedgerError: If a record cannot be read.
        ValueError: If `jobs` is not a positive integer.
    """
    ledger = Ledger() if ledger is None else ledger
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise ValueError(f"jobs must be an integer of at least 1, or None, got {jobs!r}")
    unique = {config.run_id: config for config in configs}
    found = {run_id: ledger.get(config) for run_id, config in unique.items()}
    records = {run_id: record for run_id, record in found.items() if record is not None}
    missing = [config for run_id, config in unique.items() if run_id not in records]
    if missing:
        for name, standardize in sorted({(c.dataset, c.standardize) for c in missing}):
            data.load(name, standardize)  # fetched once, here, where a download is seen
        for record in _trained(missing, ledger, min(jobs or joblib.cpu_count(), len(missing))):
            records[record.config.run_id] = record
    return [records[run_id] for run_id in unique]


def _trained(configs: Sequence[RunConfig], ledger: Ledger, jobs: int) -> Iterator[RunRecord]:
    failures: list[tuple[RunConfig, _Failure]] = []
    with tempfile.TemporaryDirectory() as board, _progress_bar(configs, Path(board)):
        outcomes = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
            joblib.delayed(_run)(config, Path(board)) for config in configs
        )
        for config, outcome in outcomes:
            if isinstance(outcome, _Failure):
                failures.append((config, outcome))
            else:
                ledger.put(outcome)
                yield outcome
    if failures:
        reasons = "; ".join(f"{config.run_id}: {failure.reason}" for config, failure in failures)
        raise SweepError(
            f"{len(failures)} of {len(configs)} runs failed, the others are recorded: {reasons}"
        ) from RuntimeError(f"the first of them:\n{failures[0][1].traceback}")


@dataclass(frozen=True)
class _Failure:
    """An exception as text: that of somebody else's code may not survive between processes."""

    reason: str
    traceback: str


def _run(config: RunConfig, board: Path) -> tuple[RunConfig, RunRecord | _Failure]:
    """Train in whatever process this is, posting progress as a small file on `board`."""
    note = board / config.run_id

    def post(progress: Progress) -> None:
        done = progress.step / progress.total_steps if progress.total_steps else 1.0
        draft = note.with_suffix(".draft")
        draft.write_text(f"{done} {progress.test_error}")
        draft.replace(note)

    try:
        return config, train(config, post if board.is_dir() else None)
    except Exception as error:
        return config, _Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


class _Terminal(io.TextIOBase):
    """The standard error, and in a notebook's kernel the terminal that started it as well.

    A kernel sends its standard error to the notebook alone, where somebody who runs it with
    papermill would not see how far it is.
    """

    def __init__(self) -> None:
        self._streams = [sys.stderr]
        descriptor = getattr(sys.stderr, "_original_stdstream_copy", None)  # ipykernel's
        if descriptor is not None:
            self._streams.append(os.fdopen(os.dup(descriptor), "w"))

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()

    def close(self) -> None:
        super().close()  # flushes the streams, which have to be open for that
        for stream in self._streams[1:]:
            stream.close()


@contextmanager
def _progress_bar(configs: Sequence[RunConfig], board: Path) -> Iterator[None]:
    """A bar that counts epochs over all runs, fed by the notes on `board`."""
    work = {config.run_id: max(config.epochs, 1) for config in configs}
    done = dict.fromkeys(work, 0.0)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            refresh()

    def refresh() -> None:
        latest = ""
        for config in configs:
            note = board / config.run_id
            if not note.exists():
                continue
            fraction, error = map(float, note.read_text().split())
            if fraction > done[config.run_id]:
                done[config.run_id] = fraction
                latest = f"{config.arm} seed {config.seed}: {100 * error:.2f} % error"
        finished = sum(fraction >= 1.0 for fraction in done.values())
        bar.set_description_str(f"{finished}/{len(work)} runs", refresh=False)
        if latest:
            bar.set_postfix_str(latest, refresh=False)
        bar.n = round(sum(work[run_id] * fraction for run_id, fraction in done.items()), 2)
        bar.refresh()

    with (
        closing(_Terminal()) as terminal,
        tqdm(
            file=terminal,
            total=sum(work.values()),
            unit="epoch",
            ascii=False,
            desc=f"0/{len(work)} runs",
            bar_format="{desc} |{bar}| {n:.4g}/{total} epochs [{elapsed}<{remaining}]{postfix}",
        ) as bar,
    ):
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            refresh()
