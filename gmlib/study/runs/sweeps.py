"""Many runs: train those that the ledger lacks, in parallel, and return the records of all."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import joblib
import torch
from filelock import FileLock, Timeout
from joblib.parallel import BACKENDS, get_active_backend

import gmlib
from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.progress import post, progress_bar
from gmlib.study.runs.provenance import git_state
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import Progress, train, train_together

__all__ = ["SweepError", "sweep", "sweep_by"]

Key = TypeVar("Key")

_POLL_SECONDS = 0.5
_TOPIC = "gmlib-progress"


class SweepError(RuntimeError):
    """Some runs failed or were cut off. The others are in the ledger."""


def sweep(
    configs: Iterable[RunConfig],
    ledger: Ledger | None = None,
    jobs: int | None = None,
    device: torch.device | str = "cpu",
) -> list[RunRecord]:
    """Records of all `configs`, from the ledger where it has them and trained where it lacks them.

    On the CPU each run trains in a process of one thread, and its record is in the ledger as soon
    as it ends: a sweep that is interrupted goes on where it was. On an accelerator all seeds of a
    configuration train in this process as one program, on stacked parameters. A progress bar on
    the standard error shows runs done, the latest test error and the time left.

    The processes are joblib's, so that ``joblib.parallel_config`` says where they run: on this
    machine by default, and with ``"dask"`` on the workers of the cluster that a
    ``dask.distributed.Client`` is connected to. Whatever the place, the ledger is here, and this
    process writes to it. Of several sweeps on one ledger on one machine, one trains and the others
    wait: they would take each other's processors, and train the same runs.

    Args:
        configs: The runs.
        ledger: Where records are looked up and kept; the project's by default.
        jobs: Processes at once; by default as many as joblib was told, or as there are
            processors. A cluster uses all the workers that it has. The records do not depend on
            it.
        device: ``"cpu"``, or the accelerator, such as ``"cuda"``, that shall train the runs. The
            records agree within rounding, and say where they were made.

    Returns:
        The records, one a run, in the order of `configs`: configurations that name the same run
        count once.

    Raises:
        SweepError: If a run failed or its process was killed; the message says which and why.
        LedgerError: If a record cannot be read.
        ValueError: If `jobs` is not a positive integer, PyTorch has no such `device` here, or runs
            would have to share a process.
        TypeError: If something else than a configuration is among `configs`.
        KeyboardInterrupt: If interrupted; the message says how many runs are recorded.
    """
    ledger = Ledger() if ledger is None else ledger
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise ValueError(f"jobs must be an integer of at least 1, or None, got {jobs!r}")
    device = _usable(device)
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
                missing = _look_up(missing, ledger, records)  # while this waited, others trained
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
    """Records of groups of runs by the groups' names, as one `sweep`.

    A run may belong to several groups. All else is as `sweep` has it.
    """
    configs = [config for own in groups.values() for config in own]
    records = {record.config.run_id: record for record in sweep(configs, ledger, jobs, device)}
    return {name: [records[config.run_id] for config in own] for name, own in groups.items()}


def _look_up(
    configs: Iterable[RunConfig], ledger: Ledger, records: dict[str, RunRecord]
) -> list[RunConfig]:
    """Add to `records` what the ledger has, and return the configurations that it lacks."""
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
    # The number, not the name: in a container a user need not have one.
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
        path.unlink(missing_ok=True)  # while it is held: who waits for this file takes a new one
        lock.release()


def _standing(configs: Collection[RunConfig], ledger: Ledger) -> str:
    recorded = sum(config in ledger for config in configs)
    return (
        f"{recorded} of {len(configs)} runs are recorded in {ledger.folder}; "
        f"the same call goes on with the other {len(configs) - recorded}"
    )


@dataclass(frozen=True)
class _Failure:
    """An exception as text: that of somebody else's code may not survive between processes."""

    reason: str
    traceback: str


_Outcome = tuple[RunConfig, RunRecord | _Failure]
_Report = Callable[[str, float, float], None]  # the run, which part is done, its last test error


def _trained(
    configs: Sequence[RunConfig], jobs: int | None, device: torch.device
) -> Generator[RunRecord, None, None]:
    """The records of runs as these end, and after the last one an error if any has failed."""
    if not configs:
        return
    backend, wanted = get_active_backend()
    on_device = device.type != "cpu"
    on_cluster = isinstance(backend, BACKENDS.get("dask", ()))
    if on_cluster and on_device:
        raise ValueError(f"a cluster's workers train on their CPUs, not on {str(device)!r}")
    if on_cluster:
        _refuse_threads(backend.client.nthreads())
    elif not on_device:
        jobs = min(backend.effective_n_jobs(jobs or wanted or -1), len(configs))
        _refuse_shared_process(backend, jobs)
        for name, standardize in sorted({(c.dataset, c.standardize) for c in configs}):
            datasets.load(name, standardize)  # fetched once, here, where a download is seen

    failures: list[tuple[RunConfig, _Failure]] = []
    with tempfile.TemporaryDirectory() as folder, progress_bar(configs, Path(folder)):
        report = partial(post, Path(folder))
        if on_device:
            outcomes = _on_accelerator(configs, device, report)
        elif on_cluster:
            outcomes = _on_cluster(configs, backend, report)
        else:
            outcomes = _on_this_machine(configs, jobs or 1, report)
        with closing(outcomes):
            for config, outcome in outcomes:
                if isinstance(outcome, _Failure):
                    failures.append((config, outcome))
                else:
                    yield outcome
    if failures:
        reasons = "; ".join(f"{config.run_id}: {failure.reason}" for config, failure in failures)
        raise SweepError(
            f"{len(failures)} of {len(configs)} runs failed, the others are recorded: {reasons}"
        ) from RuntimeError(f"the first of them:\n{failures[0][1].traceback}")


def _run(config: RunConfig, report: _Report) -> _Outcome:
    """Train in whatever process this is."""
    try:
        return config, train(config, lambda progress: _pass_on(config, progress, report))
    except Exception as error:
        return config, _failure(error)


def _pass_on(config: RunConfig, progress: Progress, report: _Report) -> None:
    done = progress.step / progress.total_steps if progress.total_steps else 1.0
    report(config.run_id, done, progress.test_error)


def _failure(error: Exception) -> _Failure:
    trace = "".join(traceback.format_exception(error))
    return _Failure(f"{type(error).__name__}: {error}", trace)


# --- On an accelerator ---------------------------------------------------------------------------


def _usable(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device must be one that PyTorch has here, such as 'cpu', got {device!r}: {reason}"
        ) from None


def _on_accelerator(
    configs: Sequence[RunConfig], device: torch.device, report: _Report
) -> Generator[_Outcome, None, None]:
    """All seeds of a configuration as one program, one such program after the other."""
    groups: dict[str, list[RunConfig]] = {}
    for config in configs:
        groups.setdefault(replace(config, seed=0).run_id, []).append(config)
    for group in groups.values():
        try:
            records = train_together(
                group, device, lambda config, progress: _pass_on(config, progress, report)
            )
        except Exception as error:
            yield from ((config, _failure(error)) for config in group)
        else:
            yield from zip(group, records, strict=True)


# --- On this machine -----------------------------------------------------------------------------


def _refuse_shared_process(backend: Any, jobs: int) -> None:
    threads = getattr(backend, "uses_threads", False)
    if jobs > 1 and (threads or not backend.supports_return_generator):
        raise ValueError(
            f"joblib's {type(backend).__name__} does not give each run a process and hand over its "
            "record when it ends; use 'loky', the default, or 'dask'"
        )


def _on_this_machine(
    configs: Sequence[RunConfig], jobs: int, report: _Report
) -> Generator[_Outcome, None, None]:
    if jobs == 1:
        yield from (_run(config, report) for config in configs)
        return
    with ExitStack() as stack:
        with _interrupts_kept_from_children():
            outcomes = joblib.Parallel(
                n_jobs=jobs,
                batch_size=1,
                return_as="generator_unordered",
                initializer=_end_with,
                initargs=(os.getpid(),),
            )(joblib.delayed(_run)(config, report) for config in configs)
            stack.callback(_abandon, outcomes)
        for outcome in outcomes:  # noqa: UP028 (`yield from` would pass an exit on to `outcomes`)
            yield outcome


def _abandon(outcomes: Generator[_Outcome, None, None]) -> None:
    """Kill the processes of runs that are not done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib regrets the work that is lost
        outcomes.close()


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C, which a terminal sends to them as well.

    They are this process's to end. A blocked signal stays blocked in the processes that one
    starts, from their first instruction on; here it arrives when it is unblocked.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # would unblock the signal if it were started later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: int) -> None:
    """End this process soon after its parent, which may have been killed without a last word."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- On a cluster --------------------------------------------------------------------------------


def _on_cluster(
    configs: Sequence[RunConfig], backend: Any, report: _Report
) -> Generator[_Outcome, None, None]:
    """Each run a task of its own for the workers of a `dask.distributed` scheduler.

    Not through `joblib.Parallel`, which would wait for ever for a task that dask gave up, and
    which trains in the calling process if the cluster begins with one worker. Dask runs a task
    again whose worker died, and gives work to workers that come later.
    """
    from distributed import as_completed

    client = backend.client
    client.subscribe_topic(_TOPIC, lambda event: report(*event[1]))
    running: dict[Any, RunConfig] = {}
    try:
        for config in configs:
            future = client.submit(_run_on_worker, config, pure=False, **backend.submit_kwargs)
            running[future] = config
        for future in as_completed(list(running), loop=client.loop):
            config = running.pop(future)
            try:
                outcome = future.result()
            except CancelledError:  # the scheduler is gone
                raise
            except Exception as error:  # its workers died, or could not even import this module
                outcome = _failure(error)
            if isinstance(outcome, RunRecord):
                report(config.run_id, 1.0, outcome.curves["test_error"][-1])
                _warn_of_other_versions(outcome)
            yield config, outcome
    finally:
        client.unsubscribe_topic(_TOPIC)
        client.cancel(list(running))


def _run_on_worker(config: RunConfig) -> RunRecord | _Failure:
    """Train as a task of dask's, unless the worker does not fit, and only while it is wanted."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def report(run_id: str, done: float, test_error: float) -> None:
        if worker.state.tasks[key].state == "cancelled":
            raise CancelledError("nobody waits for this run any more")
        worker.log_event(_TOPIC, (run_id, done, test_error))

    try:
        _refuse_threads({worker.address: worker.state.nthreads})
    except ValueError as error:
        return _failure(error)
    return _run(config, report)[1]


def _refuse_threads(workers: Mapping[str, int]) -> None:
    """Raise if a worker has several threads: runs would share PyTorch's settings and randomness."""
    for address, threads in workers.items():
        if threads != 1:
            raise ValueError(
                f"the worker {address} has {threads} threads, and runs need a process each: "
                "start workers with `dask worker --nthreads 1`, as many as there are cores with "
                "`--nworkers`"
            )


def _warn_of_other_versions(record: RunRecord) -> None:
    here = {
        "gmlib": gmlib.__version__,
        "git_commit": git_state()[0],
        "torch": torch.__version__,
    }
    for name, ours in here.items():
        theirs = record.provenance[name]
        if None not in (ours, theirs) and ours != theirs:
            warnings.warn(
                f"a worker trains with {name} {theirs}, and here it is {ours}; its records say so",
                stacklevel=2,
            )
