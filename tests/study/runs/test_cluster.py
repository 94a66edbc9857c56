"""Sweeps on a cluster whose workers come, go, and do not fit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import pytest
from distributed import Client
from sweeping import after_the_bar, assert_same_runs, bars, wait_until

import gmlib
from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import places
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import SweepError, sweep

Configure = Callable[..., RunConfig]
Reproduce = Callable[..., subprocess.Popen[bytes]]


class Cluster:
    """A scheduler, workers, each a process as on a machine of its own, and a client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.client: Client | None = None

    def start(self) -> None:
        file = self._folder / "scheduler.json"
        self.scheduler = self._run("scheduler", "--port", "0", "--scheduler-file", str(file))
        wait_until(file.exists, self.scheduler)
        self.client = Client(scheduler_file=str(file), timeout=10)
        self.address: str = self.client.scheduler.address

    def add(self, workers: int, nthreads: int = 1) -> None:
        for _ in range(workers):
            self._run("worker", self.address, "--no-nanny", "--nthreads", str(nthreads))
        self.client.wait_for_workers(workers, timeout=120)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}"]
        options = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        with (self._folder / "cluster.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *options, *arguments], stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(
    tmp_path: Path, bounded: None, hold: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """A cluster without workers as yet, where sweeps are sent to."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(tmp_path))
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        with joblib.parallel_config("dask"):
            yield cluster
    finally:
        cluster.close()


def test_a_worker_dies_in_the_middle_of_a_run(
    tiny: Configure,
    ledger: Ledger,
    tmp_path: Path,
    hold: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = [tiny("own_runs:held", seed, epochs=3, snapshots=seed == 5) for seed in range(12)]
    arrived: Counter[str] = Counter()
    put = Ledger.put

    def counted(ledger: Ledger, record: RunRecord) -> Path:
        arrived[record.config.run_id] += 1
        return put(ledger, record)

    def kill_one() -> None:
        wait_until(lambda: list(hold.iterdir()))
        os.kill(int(next(hold.iterdir()).name), signal.SIGKILL)
        shutil.rmtree(hold)

    monkeypatch.setattr(Ledger, "put", counted)
    cluster.add(workers=2)
    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill_one)
        records = sweep(configs, ledger)
        killing.result()
    wait_until(lambda: len(cluster.client.nthreads()) == 1)
    assert arrived == Counter(config.run_id for config in configs)
    with joblib.parallel_config("loky"):
        here = sweep(configs, Ledger(tmp_path / "here"), jobs=1)
    assert_same_runs(records, here)
    assert_same_runs(list(ledger), list(Ledger(tmp_path / "here")))


def test_a_single_worker_may_come_late(
    tiny: Configure,
    ledger: Ledger,
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = [tiny(arm) for arm in ("FC", "KUMAR")]
    monkeypatch.setattr(places, "train", lambda *_: pytest.fail("trained here"))
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("loaded here"))
    monkeypatch.setattr(gmlib, "__version__", "0.0.1")
    with ThreadPoolExecutor() as pool:
        coming = pool.submit(cluster.add, workers=1)
        with pytest.warns(UserWarning, match=r"trains with gmlib \S+, and here it is 0\.0\.1"):
            records = sweep(configs, ledger)
        coming.result()
    assert [record.provenance["gmlib"] for record in records] != ["0.0.1", "0.0.1"]
    assert bars(capfd.readouterr().err)[-1].startswith("2/2 runs")


def test_an_interruption_leaves_the_cluster_as_it_was(
    tiny: Configure,
    ledger: Ledger,
    tmp_path: Path,
    hold: Path,
    cluster: Cluster,
    start_reproduce: Reproduce,
) -> None:
    cluster.add(workers=2)
    endless = [tiny("own_runs:held", seed, epochs=10**5) for seed in range(2, 6)]
    process = start_reproduce(endless, "--scheduler", cluster.address)
    wait_until(lambda: len(list(hold.iterdir())) == 2, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert after_the_bar((tmp_path / "stderr").read_text()) == [
        f"0 of 4 runs are recorded in {ledger.folder}; the same call goes on with the other 4"
    ]
    shutil.rmtree(hold)
    # Nor do the workers finish what nobody waits for.
    wait_until(
        lambda: (
            not any(
                cluster.client.run(lambda dask_worker: dask_worker.state.executing_count).values()
            )
        )
    )
    assert len(sweep([tiny("FC", seed) for seed in range(3)], ledger)) == 3


def test_workers_of_several_threads_are_refused(
    tiny: Configure, ledger: Ledger, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add(workers=1, nthreads=2)
    message = r"the worker tcp://\S+ has 2 threads, .* `dask worker --nthreads 1`"
    with pytest.raises(ValueError, match=message):
        sweep([tiny("FC")], ledger)
    monkeypatch.setattr(places, "_refuse_threads", lambda _: None)  # as if it came late
    with pytest.raises(SweepError, match=f"^1 of 1 runs failed, .*{message}"):
        sweep([tiny("FC")], ledger)


def test_a_run_that_kills_its_workers_is_reported(
    tiny: Configure, ledger: Ledger, hold: Path, cluster: Cluster
) -> None:
    cluster.add(workers=2)
    bad = tiny("own_runs:killed")
    with pytest.raises(SweepError, match=f"^1 of 1 runs failed, .*{bad.run_id}: KilledWorker: "):
        sweep([bad], ledger)


def test_a_lost_scheduler_is_reported(
    tiny: Configure, ledger: Ledger, hold: Path, cluster: Cluster
) -> None:
    def kill_scheduler() -> None:
        wait_until(lambda: list(hold.iterdir()))
        cluster.scheduler.kill()

    cluster.add(workers=1)
    message = (
        rf"^the sweep broke off \(.*scheduler-connection-lost\); 0 of 1 runs are recorded in "
        rf"{re.escape(str(ledger.folder))}; the same call goes on with the other 1$"
    )
    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill_scheduler)
        with pytest.raises(SweepError, match=message):
            sweep([tiny("own_runs:held", 2)], ledger)
        killing.result()
