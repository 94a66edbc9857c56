"""Sweeps: train what is missing and nothing else, and lose nothing when something fails."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import psutil
import pytest
import torch
from distributed import Client
from joblib.externals.loky import get_reusable_executor

import gmlib
from gmlib.study import datasets
from gmlib.study.datasets.sources import DataError
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import progress
from gmlib.study.runs import sweeps as sweep_module
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import SweepError, sweep, sweep_by
from gmlib.study.runs.training import Progress, train, train_together

Configure = Callable[..., RunConfig]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "results")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Configurations that are trained from now on, with one job."""
    configs: list[RunConfig] = []

    def spy(config: RunConfig, on_progress: Callable[[Progress], None] | None) -> RunRecord:
        configs.append(config)
        return train(config, on_progress)

    monkeypatch.setattr(sweep_module, "train", spy)
    return configs


def assert_same_runs(ones: list[RunRecord], others: list[RunRecord]) -> None:
    """Equal but for time and place."""
    assert [record.config for record in ones] == [record.config for record in others]
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_equal(dict(one.curves), dict(other.curves))  # takes NaN as equal to NaN
        np.testing.assert_equal(dict(one.movement), dict(other.movement))
        assert one.init_report == other.init_report
        assert list(one.snapshots) == list(other.snapshots)
        for name, array in one.snapshots.items():
            np.testing.assert_array_equal(array, other.snapshots[name], strict=True)


# --- What is trained, and what is returned -------------------------------------------------------


def test_only_what_is_missing_is_trained(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    configs = [tiny("KUMAR", 0), tiny("FC", 0), tiny("BL", 1)]
    ledger.put(train(configs[1]))
    sweep(configs, ledger, jobs=1)
    assert trained == [configs[0], configs[2]]
    assert all(config in ledger for config in configs)


def test_records_come_in_the_order_of_the_configurations(tiny: Configure, ledger: Ledger) -> None:
    configs = [tiny(arm, seed) for seed in (2, 0) for arm in ("KUMAR", "FC", "BL")]
    ledger.put(train(configs[3]))
    records = sweep(iter(configs), ledger, jobs=1)
    assert [record.config.run_id for record in records] == [config.run_id for config in configs]


def test_a_run_that_is_named_twice_is_one_run(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    # FC has no components: these are three names of one run, and one run counts once in a mean.
    configs = [tiny("FC", num_components=2), tiny("BL"), tiny("FC", num_components=5), tiny("FC")]
    records = sweep(configs, ledger, jobs=1)
    assert len(trained) == len(list(ledger)) == 2
    assert [record.config.arm for record in records] == ["FC", "BL"]


def test_groups_keep_their_names_and_may_share_runs(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    bl, kumar, fc = tiny("BL", 0), tiny("KUMAR", 0), tiny("FC", 0)
    groups = {2: [kumar, bl], "one": [bl], "none": [], 4.0: [fc, kumar]}
    records = sweep_by(groups, ledger, jobs=1)
    assert {name: [r.config for r in own] for name, own in records.items()} == groups
    assert list(records) == list(groups)
    assert trained == [kumar, bl, fc]  # each once


def test_no_runs_are_no_trouble(
    ledger: Ledger, trained: list[RunConfig], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep([], ledger) == []
    assert capfd.readouterr() == ("", "")


def test_a_second_sweep_trains_nothing(
    tiny: Configure,
    ledger: Ledger,
    trained: list[RunConfig],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = [tiny("KUMAR", 0, snapshots=True), tiny("FC", 1)]
    first = sweep(configs, ledger, jobs=1)
    trained.clear()
    capfd.readouterr()
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("nothing needs the data"))
    second = sweep(configs, ledger)
    assert trained == []
    assert capfd.readouterr() == ("", "")
    for one, other in zip(first, second, strict=True):
        assert one.config.run_id == other.config.run_id
        np.testing.assert_equal(dict(one.curves), dict(other.curves))
        assert one.provenance == other.provenance
    np.testing.assert_array_equal(first[0].snapshots["0.mu"], second[0].snapshots["0.mu"])


def test_the_default_ledger_is_the_projects(
    tiny: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "mine"))
    sweep([tiny("FC")], jobs=1)
    assert tiny("FC") in Ledger(tmp_path / "mine")


@pytest.mark.parametrize("jobs", [0, -1, 1.0, 0.5, True, "2", [1]])
def test_bad_numbers_of_jobs_are_refused(
    jobs: object, tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    message = f"jobs must be an integer of at least 1, or None, got {jobs!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sweep([tiny()], ledger, jobs=jobs)  # type: ignore[arg-type]
    assert trained == []


def test_a_damaged_record_stops_a_sweep_before_it_trains(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    ledger.put(train(tiny("FC"))).write_text("{}")
    with pytest.raises(LedgerError, match=re.escape(str(ledger.path(tiny("FC"))))):
        sweep([tiny("BL"), tiny("FC")], ledger, jobs=1)
    assert trained == []


def test_missing_data_stop_a_sweep_before_it_trains(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    with pytest.raises(DataError, match="'own_runs:no_such_data' cannot be imported"):
        sweep([tiny("FC"), tiny("BL", dataset="own_runs:no_such_data")], ledger, jobs=1)
    assert trained == []


# --- Processes -----------------------------------------------------------------------------------


def test_records_do_not_depend_on_the_number_of_jobs(
    tiny: Configure, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arms = ("KUMAR", "BL", "FC", "own_runs:draw")
    configs = [tiny(arm, seed, snapshots=seed == 1) for arm in arms for seed in (0, 1)]
    alone = sweep(configs, Ledger(tmp_path / "one"), jobs=1)
    together = sweep(configs, Ledger(tmp_path / "two"), jobs=2)
    assert_same_runs(alone, together)
    assert_same_runs(list(Ledger(tmp_path / "one")), list(Ledger(tmp_path / "two")))
    assert "8/8 runs" in capfd.readouterr().err.split("\r")[-1]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("own_runs:failing", "no luck with seed 3"),
        ("own_runs:picky", "misfortune number 3"),  # an exception that stands no transport
        ("own_runs:missing", "arm 'own_runs:missing' cannot be imported"),
    ],
)
def test_a_failing_run_is_reported_and_the_others_are_recorded(
    arm: str, reason: str, jobs: int, tiny: Configure, ledger: Ledger
) -> None:
    bad, good = tiny(arm, 3), [tiny("FC", 0), tiny("KUMAR", 0)]
    message = rf"^1 of 3 runs failed, the others are recorded: {bad.run_id}: .*{reason}"
    with pytest.raises(SweepError, match=message):
        sweep([good[0], bad, good[1]], ledger, jobs=jobs)
    assert all(config in ledger for config in good)
    assert bad not in ledger


def test_every_failing_run_is_named(tiny: Configure, ledger: Ledger) -> None:
    configs = [tiny("own_runs:failing", seed) for seed in (0, 1)]
    with pytest.raises(SweepError, match="2 of 2 runs failed") as error:
        sweep(configs, ledger, jobs=1)
    for config in configs:
        assert f"{config.run_id}: " in str(error.value)
        assert f"no luck with seed {config.seed}" in str(error.value)
    assert re.search(r'own_runs\.py", line \d+, in failing', str(error.value.__cause__))


def test_what_was_finished_before_an_interruption_stays(
    tiny: Configure, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [tiny("FC", seed) for seed in range(4)]
    started: list[int] = []

    def interrupted(config: RunConfig, on_progress: object) -> RunRecord:
        started.append(config.seed)
        if config.seed == 2 and len(started) == 3:
            raise KeyboardInterrupt
        return train(config)

    monkeypatch.setattr(sweep_module, "train", interrupted)
    message = f"2 of 4 runs are recorded in {ledger.folder}; the same call goes on with the other 2"
    with pytest.raises(KeyboardInterrupt, match=f"^{re.escape(message)}$"):
        sweep(configs, ledger, jobs=1)
    assert [config in ledger for config in configs] == [True, True, False, False]
    records = sweep(configs, ledger, jobs=1)
    assert started == [0, 1, 2, 2, 3]
    assert len(records) == 4


def test_nothing_but_the_ledger_is_left(
    tiny: Configure, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards = tmp_path / "boards"
    boards.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(boards))
    monkeypatch.chdir(tmp_path)
    sweep([tiny("FC")], ledger, jobs=1)
    with pytest.raises(SweepError):
        sweep([tiny("own_runs:failing")], ledger, jobs=1)
    assert os.listdir(boards) == []
    assert sorted(os.listdir(tmp_path)) == ["boards", "results"]


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_runs_do_not_share_a_process(
    backend: str, tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    configs = [tiny("FC", seed) for seed in (0, 1)]
    with joblib.parallel_config(backend):
        with pytest.raises(ValueError, match="does not give each run a process"):
            sweep(configs, ledger, jobs=2)
        assert trained == []
        assert len(sweep(configs, ledger, jobs=1)) == 2


def test_joblib_may_say_how_many_processes(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    configs = [tiny("FC", seed) for seed in (0, 1)]
    with joblib.parallel_config(n_jobs=1):
        sweep(configs, ledger)
    assert trained == configs  # in this process


# --- Stop and go ---------------------------------------------------------------------------------


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; while it exists, some runs stop in the middle and leave their processes' ids."""
    folder = tmp_path / "hold"
    folder.mkdir()
    monkeypatch.setenv("HOLD", str(folder))
    get_reusable_executor().shutdown()  # processes of earlier sweeps do not know the variable
    return folder


@pytest.fixture
def bounded() -> Iterator[None]:
    """No wait for other processes lasts for ever."""

    def give_up(*_: object) -> None:
        raise TimeoutError("other processes took too long")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def wait_until(condition: Callable[[], object], *running: subprocess.Popen[bytes]) -> None:
    """Wait for something that needs processes to go on `running`."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        for process in running:
            assert process.poll() is None, f"{process.args} has ended"
        time.sleep(0.05)


Reproduce = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_reproduce(
    tmp_path: Path, bounded: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reproduce]:
    """Start `gmlib.study.runs.reproduce` as a shell does: in a process group of its own."""
    processes: list[subprocess.Popen[bytes]] = []
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "committed"))

    def start(configs: list[RunConfig], *arguments: str) -> subprocess.Popen[bytes]:
        script = (
            "import signal, sys\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background
            "from gmlib.study.runs import reproduce\n"  # of a script ignores it, as this one would
            "from gmlib.study.plan import RunConfig\n"
            f"reproduce.STUDIES = {{'study': {configs!r}}}\n"
            "sys.exit(reproduce.main(sys.argv[1:]))\n"
        )
        with (tmp_path / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", script, "--ledger", str(tmp_path / "results"), *arguments],
                stderr=stderr,
                start_new_session=True,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        for member in group(process):
            member.kill()
        process.wait()


def group(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What lives of the process's group."""
    members = []
    for member in psutil.process_iter():
        try:
            alive = member.status() != psutil.STATUS_ZOMBIE
            if alive and os.getpgid(member.pid) == process.pid:
                members.append(member)
        except (psutil.NoSuchProcess, ProcessLookupError):
            pass
    return members


def after_the_bar(text: str) -> list[str]:
    return [line for line in bars(text) if " epochs [" not in line]


def test_an_interruption_ends_in_one_line_and_the_rest_follows(
    tiny: Configure, ledger: Ledger, tmp_path: Path, hold: Path, start_reproduce: Reproduce
) -> None:
    configs = [tiny("own_runs:held", seed, epochs=3) for seed in range(6)]
    process = start_reproduce(configs, "--jobs", "2")
    wait_until(lambda: len(list(hold.iterdir())) == 2, process)
    wait_until(lambda: len(list(ledger)) == 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
    assert process.wait() == 130
    wait_until(lambda: not group(process))
    assert after_the_bar((tmp_path / "stderr").read_text()) == [
        f"2 of 6 runs are recorded in {ledger.folder}; the same call goes on with the other 4"
    ]
    assert {path.suffix for path in ledger.folder.iterdir()} == {".json"}

    shutil.rmtree(hold)
    resumed = sweep(configs, ledger, jobs=1)
    assert_same_runs(resumed, sweep(configs, Ledger(tmp_path / "at once"), jobs=1))


def test_an_interruption_while_processes_start(
    tiny: Configure, ledger: Ledger, tmp_path: Path, start_reproduce: Reproduce
) -> None:
    process = start_reproduce([tiny("FC", seed, epochs=1000) for seed in (0, 1)], "--jobs", "2")
    # Two, and two that keep track of resources.
    wait_until(lambda: len(group(process)) == 5, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    wait_until(lambda: not group(process))
    assert after_the_bar((tmp_path / "stderr").read_text()) == [
        f"0 of 2 runs are recorded in {ledger.folder}; the same call goes on with the other 2"
    ]


def test_processes_end_with_the_one_that_started_them(
    tiny: Configure, ledger: Ledger, tmp_path: Path, hold: Path, start_reproduce: Reproduce
) -> None:
    configs = [tiny("own_runs:held", seed, epochs=3, snapshots=True) for seed in range(6)]
    process = start_reproduce(configs, "--jobs", "2")
    wait_until(lambda: len(list(hold.iterdir())) == 2, process)
    wait_until(lambda: len(list(ledger)) == 2, process)
    process.kill()
    wait_until(lambda: not group(process))
    assert len(list(ledger)) == 2

    shutil.rmtree(hold)
    resumed = sweep(configs, ledger, jobs=1)
    assert_same_runs(resumed, sweep(configs, Ledger(tmp_path / "at once"), jobs=1))


@pytest.mark.parametrize("killed", [False, True])
def test_of_two_sweeps_on_one_ledger_one_waits(
    killed: bool,
    tiny: Configure,
    ledger: Ledger,
    hold: Path,
    start_reproduce: Reproduce,
    trained: list[RunConfig],
    capsys: pytest.CaptureFixture[str],
) -> None:
    configs = [tiny("own_runs:held", seed) for seed in range(4)]
    other = start_reproduce(configs, "--jobs", "2")
    wait_until(lambda: len(list(hold.iterdir())) == 2, other)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(sweep, [*configs, tiny("FC")], ledger, jobs=1)
        wait_until(lambda: "another sweep trains into" in capsys.readouterr().err, other)
        assert trained == []
        if killed:
            other.kill()
        shutil.rmtree(hold)
        assert len(waiting.result()) == 5
    left = configs[2:] if killed else []
    assert trained == [*left, tiny("FC")]


def test_a_killed_process_is_reported_and_the_rest_follows(
    tiny: Configure, ledger: Ledger, hold: Path
) -> None:
    configs = [tiny("own_runs:killed", 0), *(tiny("FC", seed) for seed in range(3))]
    with pytest.raises(SweepError, match=r"^the sweep broke off .*terminated") as error:
        sweep(configs, ledger, jobs=2)
    recorded = len(list(ledger))
    assert str(error.value).endswith(
        f"; {recorded} of 4 runs are recorded in {ledger.folder}; "
        f"the same call goes on with the other {4 - recorded}"
    )
    hold.rmdir()
    assert len(sweep(configs, ledger, jobs=1)) == 4


# --- On an accelerator ---------------------------------------------------------------------------


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[list[RunConfig]]:
    """What is trained together from now on, on the CPU in the place of an accelerator."""
    groups: list[list[RunConfig]] = []

    def spy(group, device, on_progress):
        groups.append(list(group))
        assert device.type == "cuda"
        return train_together(group, "cpu", on_progress)

    monkeypatch.setattr(sweep_module, "_usable", torch.device)
    monkeypatch.setattr(sweep_module, "train_together", spy)
    return groups


def test_on_an_accelerator_the_seeds_of_an_arm_train_together(
    tiny: Configure,
    ledger: Ledger,
    together: list[list[RunConfig]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    configs = [tiny(arm, seed) for seed in (0, 1, 2) for arm in ("KUMAR", "FC")]
    known = train(configs[0])
    ledger.put(known)
    records = sweep(configs, ledger, device="cuda")
    assert together == [[configs[1], configs[3], configs[5]], [configs[2], configs[4]]]
    assert [record.config.run_id for record in records] == [config.run_id for config in configs]
    assert [record.provenance["runs_together"] for record in records] == [1, 3, 2, 3, 2, 3]
    assert all(config in ledger for config in configs)
    assert bars(capfd.readouterr().err)[-1].startswith("5/5 runs")


def test_an_arm_that_fails_on_an_accelerator_costs_no_other(
    tiny: Configure, ledger: Ledger, together: list[list[RunConfig]]
) -> None:
    configs = [tiny("own_runs:failing", 0), tiny("own_runs:failing", 1), tiny("FC", 0)]
    with pytest.raises(SweepError, match=r"2 of 3 runs failed, the others are recorded"):
        sweep(configs, ledger, device="cuda")
    assert [config in ledger for config in configs] == [False, False, True]


@pytest.mark.parametrize(
    "device",
    [
        "gpu",
        7.5,
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here"),
        ),
    ],
)
def test_devices_that_are_not_there_are_refused(
    device: object, tiny: Configure, ledger: Ledger
) -> None:
    with pytest.raises(ValueError, match=rf"device must be .* got {device!r}: "):
        sweep([tiny("FC")], ledger, device=device)  # type: ignore[arg-type]


# --- A cluster -----------------------------------------------------------------------------------


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
    told: dict[str, list[float]] = {config.run_id: [] for config in configs}
    post = sweep_module.post

    def heard(board: Path, run_id: str, done: float, test_error: float) -> None:
        told[run_id].append(done)
        post(board, run_id, done, test_error)

    monkeypatch.setattr(sweep_module, "post", heard)
    monkeypatch.setattr(sweep_module, "train", lambda *_: pytest.fail("trained here"))
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("loaded here"))
    monkeypatch.setattr(gmlib, "__version__", "0.0.1")
    with ThreadPoolExecutor() as pool:
        coming = pool.submit(cluster.add, workers=1)
        with pytest.warns(UserWarning, match=r"trains with gmlib \S+, and here it is 0\.0\.1"):
            records = sweep(configs, ledger)
        coming.result()
    assert [record.provenance["gmlib"] for record in records] != ["0.0.1", "0.0.1"]
    assert bars(capfd.readouterr().err)[-1].startswith("2/2 runs")
    for parts in told.values():
        assert parts == sorted(parts)
        assert any(0 < done < 1 for done in parts)


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
    monkeypatch.setattr(sweep_module, "_refuse_threads", lambda _: None)  # as if it came late
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


# --- The progress bar ----------------------------------------------------------------------------


def bars(text: str) -> list[str]:
    """The states of the bar, one after the other."""
    return [state.strip() for state in text.replace("\n", "\r").split("\r") if state.strip()]


def test_the_bar_ends_with_all_runs_done(
    tiny: Configure, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    records = sweep([tiny("FC", 0), tiny("KUMAR", 7, epochs=2)], ledger, jobs=1)
    out, err = capfd.readouterr()
    assert out == ""
    states = bars(err)
    assert states[0].startswith("0/2 runs")
    assert "0/3 epochs [00:00<?]" in states[0]
    assert states[-1].startswith("2/2 runs")
    assert re.search(r"3/3 epochs \[\d\d:\d\d<00:00\], ", states[-1])
    error = 100 * records[1].curves["test_error"][-1]
    assert states[-1].endswith(f"KUMAR seed 7: {error:.2f} % error")


def test_the_bar_tells_how_far_a_run_is(
    tiny: Configure,
    ledger: Ledger,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(config: RunConfig, on_progress: Callable[[Progress], None]) -> RunRecord:
        if config.seed == 1:
            on_progress(Progress(3, 12, 0.4321))
            time.sleep(0.5)
        return train(config, on_progress)

    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(sweep_module, "train", slow)
    sweep([tiny("FC", 0), tiny("BL", 1, epochs=2)], ledger, jobs=1)
    states = bars(capfd.readouterr().err)
    # One epoch of the first run and a quarter of the second's two.
    pattern = r"^1/2 runs.* 1\.5/3 epochs \[\d\d:\d\d<\d\d:\d\d\], BL seed 1: 43\.21 % error$"
    assert any(re.search(pattern, state) for state in states), states


def test_the_bar_does_not_count_a_failed_run_as_done(
    tiny: Configure, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SweepError):
        sweep([tiny("FC"), tiny("own_runs:failing")], ledger, jobs=1)
    assert bars(capfd.readouterr().err)[-1].startswith("1/2 runs")


def test_runs_without_epochs_count_as_one(
    tiny: Configure, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep([tiny("FC", seed, epochs=0) for seed in (0, 1)], ledger, jobs=1)
    assert re.search(r"^2/2 runs.* 2/2 epochs", bars(capfd.readouterr().err)[-1])


def test_from_a_notebook_the_bar_reaches_the_terminal_too(
    tiny: Configure, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KernelStream(io.StringIO):
        """As ipykernel's: what is written goes to the notebook, and a copy of descriptor 2."""

        _original_stdstream_copy: int

    stream = KernelStream()
    with (tmp_path / "terminal").open("wb") as terminal:
        stream._original_stdstream_copy = terminal.fileno()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            sweep([tiny("FC")], ledger, jobs=1)
        os.fstat(terminal.fileno())  # still open: it belongs to the kernel
    assert bars(stream.getvalue())[-1].startswith("1/1 runs")
    assert bars((tmp_path / "terminal").read_text())[-1].startswith("1/1 runs")
