"""What the tests of several modules need: ledgers, runs to look at, processes that end."""

from __future__ import annotations

import math
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from ledger_files import Contents, lasting
from sweeping import group
from training_checks import Spied

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import places, training
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import sweep
from gmlib.study.runs.training import train


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "results")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Configurations that are trained from now on, with one job."""
    configs: list[RunConfig] = []

    def spy(config: RunConfig, on_evaluation: object) -> RunRecord:
        configs.append(config)
        return train(config)

    monkeypatch.setattr(places, "train", spy)
    return configs


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
    """What hangs fails."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


Reproduce = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_reproduce(
    tmp_path: Path, bounded: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reproduce]:
    """Start `gmlib.study.runs.reproduce` as a shell does: in a process group of its own."""
    processes: list[subprocess.Popen[bytes]] = []
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "committed"))
    # An interruption may fall between the two halves of what loky does to a semaphore. Its tracker,
    # a process of its own, then puts that right and says so.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")

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


# --- Training ------------------------------------------------------------------------------------


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    """Networks that are built from now on, and the batches that they are trained on."""
    spy = Spied()
    monkeypatch.setattr(training, "build_network", spy.build)
    return spy


@pytest.fixture(params=[False, True], ids=["denormals kept", "denormals flushed"])
def state(request: pytest.FixtureRequest) -> Iterator[Callable[[], object]]:
    """Set up an unusual global state; the value reads it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.set_flush_denormal(request.param)

    def flushed() -> bool:
        return bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0) == 0.0)

    def read() -> object:
        return {
            "threads": torch.get_num_threads(),
            "denormals flushed": flushed(),
            "torch's generator": hash(torch.random.get_rng_state().numpy().tobytes()),
            "random's generator": hash(random.getstate()),
            "NumPy's generator": hash(str(np.random.get_state())),  # noqa: NPY002
            "gradients": torch.is_grad_enabled(),
            "type": torch.get_default_dtype(),
        }

    assert flushed() == request.param
    yield read
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


# --- Ledgers -------------------------------------------------------------------------------------


@pytest.fixture
def snapshots() -> dict[str, np.ndarray]:
    """Arrays at three epochs, by parameter, of all kinds of numbers."""
    rng = np.random.default_rng(0)
    return {
        "0.mu": rng.standard_normal((3, 2, 5)).astype(np.float32),
        "0.sigma": np.float32([[[math.nan, math.inf]], [[-0.0, 1e-45]], [[1, 2]]]),
    }


@pytest.fixture
def movement() -> dict[str, list[float]]:
    """Distances at three evaluations, by parameter."""
    return {
        "0.mu": [0.0, 0.012346, 1.5e-7],
        "0.sigma": [0.0, 1e30, math.nan],
        "0.U": [math.nan, math.nan, math.nan],
    }


@pytest.fixture
def configs(tiny: Callable[..., RunConfig]) -> list[RunConfig]:
    """Three runs, two of them with snapshots."""
    return [tiny(snapshots=True), tiny(seed=1, snapshots=True), tiny("FC")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Where a module's tests find the runs that the first of them has trained."""
    return Ledger(tmp_path_factory.mktemp("store") / "results")


@pytest.fixture
def whole(configs: list[RunConfig], store: Ledger, tmp_path: Path) -> Ledger:
    """A ledger with the records of all of `configs`."""
    sweep(configs, store, jobs=1)
    return Ledger(shutil.copytree(store.folder, tmp_path / "whole"))


@pytest.fixture
def expected(whole: Ledger) -> Contents:
    """What lasts of the records of `configs`."""
    return lasting(whole)
