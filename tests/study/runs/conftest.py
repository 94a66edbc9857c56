"""What the tests of several modules need: a ledger, runs that wait, and processes that end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor
from sweeping import group

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import places
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord
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
    """No wait for other processes lasts for ever."""

    def give_up(*_: object) -> None:
        raise TimeoutError("other processes took too long")

    before = signal.signal(signal.SIGALRM, give_up)
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
