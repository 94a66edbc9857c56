"""Where runs are trained: in processes of this machine, on its accelerator, or on a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from typing import Any

import joblib
import torch
from joblib.parallel import BACKENDS, get_active_backend

import gmlib
from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.provenance import git_state
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import train, train_together

__all__ = ["Failure", "Outcome", "Place", "choose_place", "usable_device"]

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Failure:
    """The error of a run, as text.

    Exceptions of other packages may not survive the transfer between processes.
    """

    reason: str
    traceback: str


Outcome = tuple[RunConfig, RunRecord | Failure]
"""A run, and its record or failure."""


class Place(ABC):
    """A place where runs are trained."""

    def prepare(self, configs: Sequence[RunConfig]) -> None:  # noqa: B027 (not all need to)
        """Prepare once, before the first run, and refuse what cannot work.

        Raises:
            ValueError: If runs would have to share a process.
            DataError: If a data set cannot be loaded.
        """

    @abstractmethod
    def outcomes(self, configs: Sequence[RunConfig]) -> Generator[Outcome, None, None]:
        """Train and yield each run's outcome as it ends; closing early ends the remaining runs."""


def choose_place(jobs: int | None, device: torch.device) -> Place:
    """Return the place that a sweep's arguments and ``joblib.parallel_config`` select.

    Raises:
        ValueError: If they ask a cluster to train on this machine's accelerator.
    """
    backend, wanted = get_active_backend()
    on_cluster = isinstance(backend, BACKENDS.get("dask", ()))
    if device.type == "cpu":
        return _Cluster(backend) if on_cluster else _ThisMachine(backend, jobs or wanted or -1)
    if on_cluster:
        raise ValueError(f"a cluster's workers train on their CPUs, not on {str(device)!r}")
    return _Accelerator(device)


def usable_device(device: torch.device | str) -> torch.device:
    """Return the device, if PyTorch can use it on this machine.

    Raises:
        ValueError: If PyTorch cannot use it.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device must be one that PyTorch has here, such as 'cpu', got {device!r}: {reason}"
        ) from None


def _run(config: RunConfig, on_evaluation: Callable[[], object] | None = None) -> Outcome:
    """Train in the current process."""
    try:
        return config, train(config, on_evaluation)
    except Exception as error:
        return config, _failure(error)


def _failure(error: Exception) -> Failure:
    trace = "".join(traceback.format_exception(error))
    return Failure(f"{type(error).__name__}: {error}", trace)


class _Accelerator(Place):
    """Trains all seeds of a configuration as one program, one such program after another."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def outcomes(self, configs: Sequence[RunConfig]) -> Generator[Outcome, None, None]:
        groups: dict[str, list[RunConfig]] = {}
        for config in configs:
            groups.setdefault(replace(config, seed=0).run_id, []).append(config)
        for group in groups.values():
            try:
                records = train_together(group, self._device)
            except Exception as error:
                yield from ((config, _failure(error)) for config in group)
            else:
                yield from zip(group, records, strict=True)


# --- This machine --------------------------------------------------------------------------------


class _ThisMachine(Place):
    """Trains each run in a single-threaded process that joblib starts."""

    def __init__(self, backend: Any, jobs: int) -> None:
        self._backend, self._jobs = backend, jobs

    def prepare(self, configs: Sequence[RunConfig]) -> None:
        self._jobs = min(self._backend.effective_n_jobs(self._jobs), len(configs))
        threads = getattr(self._backend, "uses_threads", False)
        if self._jobs > 1 and (threads or not self._backend.supports_return_generator):
            raise ValueError(
                f"joblib's {type(self._backend).__name__} does not give each run a process and "
                "hand over its record when it ends; use 'loky', the default, or 'dask'"
            )
        for name, standardize in sorted({(c.dataset, c.standardize) for c in configs}):
            datasets.load(name, standardize)  # fetch once, here, where downloads are visible

    def outcomes(self, configs: Sequence[RunConfig]) -> Generator[Outcome, None, None]:
        if self._jobs == 1:
            yield from map(_run, configs)
            return
        with ExitStack() as stack:
            with _interrupts_kept_from_children():
                outcomes = joblib.Parallel(
                    n_jobs=self._jobs,
                    batch_size=1,
                    return_as="generator_unordered",
                    initializer=_end_with,
                    initargs=(os.getpid(),),
                )(joblib.delayed(_run)(config) for config in configs)
                stack.callback(_abandon, outcomes)
            for outcome in outcomes:  # noqa: UP028 (`yield from` would forward GeneratorExit)
                yield outcome


def _abandon(outcomes: Generator[Outcome, None, None]) -> None:
    """Kill the processes of runs that are not done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib warns about lost work
        outcomes.close()


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Keep Ctrl-C, which a terminal sends to all its processes, from processes started meanwhile.

    This process ends them. A signal that is blocked here stays blocked in them from their first
    instruction on. In this process it arrives when it is unblocked.
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
    """End this process soon after its parent, which may have been killed without notice."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- A cluster -----------------------------------------------------------------------------------


class _Cluster(Place):
    """Trains each run as a task on the workers of a `dask.distributed` scheduler.

    It does not use `joblib.Parallel`, which would wait forever for a task that dask gave up, and
    which trains in the calling process if the cluster begins with one worker. Dask itself repeats
    a task whose worker died, and gives work to workers that join later.
    """

    def __init__(self, backend: Any) -> None:
        self._client, self._submit_kwargs = backend.client, backend.submit_kwargs

    def prepare(self, configs: Sequence[RunConfig]) -> None:
        _refuse_threads(self._client.nthreads())

    def outcomes(self, configs: Sequence[RunConfig]) -> Generator[Outcome, None, None]:
        from distributed import as_completed

        running: dict[Any, RunConfig] = {}
        try:
            for config in configs:
                future = self._client.submit(
                    _run_on_worker, config, pure=False, **self._submit_kwargs
                )
                running[future] = config
            for future in as_completed(list(running), loop=self._client.loop):
                config = running.pop(future)
                try:
                    outcome = future.result()
                except CancelledError:  # the scheduler is gone
                    raise
                except Exception as error:  # its workers died, or could not import this module
                    outcome = _failure(error)
                if isinstance(outcome, RunRecord):
                    _warn_of_other_versions(outcome)
                yield config, outcome
        finally:
            self._client.cancel(list(running))


def _run_on_worker(config: RunConfig) -> RunRecord | Failure:
    """Train as a dask task, unless the worker is unsuitable; stop if the task is cancelled."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def stop_if_cancelled() -> None:
        if worker.state.tasks[key].state == "cancelled":
            raise CancelledError("nobody waits for this run any more")

    try:
        _refuse_threads({worker.address: worker.state.nthreads})
    except ValueError as error:
        return _failure(error)
    return _run(config, stop_if_cancelled)[1]


def _refuse_threads(workers: Mapping[str, int]) -> None:
    """Raise if a worker has several threads: runs would share PyTorch's settings and generator."""
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
