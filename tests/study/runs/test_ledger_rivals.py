"""Several sweeps and machines on one ledger."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from ledger_files import content, lasting

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import sweeps as sweep_module
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import sweep

pytestmark = pytest.mark.usefixtures("bounded")

Configure = Callable[..., RunConfig]
MakeRecord = Callable[..., RunRecord]

RIVAL = """
import sys
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import places
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import sweep

train = places.train

def spy(config, on_evaluation):
    print(config.run_id, flush=True)
    return train(config, on_evaluation)

places.train = spy
print("ready", flush=True)
sys.stdin.readline()
records = sweep({configs!r}, Ledger(sys.argv[1]), jobs=1)
print("returns", *(record.config.run_id for record in records))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that sweeps as soon as it is told to."""
    with ExitStack() as stack:

        def start(
            configs: list[RunConfig], ledger: Ledger, **environment: str
        ) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", RIVAL.format(configs=configs), str(ledger.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def end(process: subprocess.Popen[str], configs: list[RunConfig]) -> list[str]:
    """The runs that a process has trained, after it has returned the records of all."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    *trained, returned = out.splitlines()
    assert returned.split() == ["returns", *(config.run_id for config in configs)]
    return trained


@pytest.fixture
def many(tiny: Configure) -> list[RunConfig]:
    return [
        tiny(arm, seed, epochs=2, snapshots=seed == 1)
        for seed in range(4)
        for arm in ("FC", "BL", "KUMAR")
    ]


def test_two_sweeps_train_what_they_share_once(
    many: list[RunConfig], ledger: Ledger, tmp_path: Path, start: Start
) -> None:
    one, other = many[:8], many[:3:-1]
    rivals = start(one, ledger), start(other, ledger)
    go(*rivals)
    trained = end(rivals[0], one) + end(rivals[1], other)
    assert sorted(trained) == sorted(config.run_id for config in many)
    alone = Ledger(tmp_path / "alone")
    sweep(many, alone, jobs=1)
    assert lasting(ledger) == lasting(alone)
    assert ledger.check() == []


@pytest.mark.parametrize("begun", [1, 6])
def test_a_sweep_starts_while_the_one_that_trains_is_killed(
    begun: int,
    many: list[RunConfig],
    ledger: Ledger,
    tmp_path: Path,
    start: Start,
    trained: list[RunConfig],
) -> None:
    rival = start(many, ledger)
    go(rival)
    assert rival.stdout is not None
    for _ in range(begun):
        rival.stdout.readline()
    with ThreadPoolExecutor() as pool:
        records = pool.submit(sweep, many, ledger, jobs=1)
        rival.kill()
        assert [r.config.run_id for r in records.result()] == [c.run_id for c in many]
    assert trained == many[len(many) - len(trained) :]
    assert len(trained) <= len(many) - begun + 1
    sweep(many, Ledger(tmp_path / "alone"), jobs=1)
    assert lasting(ledger) == lasting(Ledger(tmp_path / "alone"))
    assert ledger.check() == []


def test_sweeps_on_machines_of_their_own(
    many: list[RunConfig], ledger: Ledger, tmp_path: Path, start: Start
) -> None:
    """They cannot know of each other, and both train; of each run the first record stays."""
    rivals = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        rivals.append(start(many, ledger, TMPDIR=str(tmp_path / name)))
    go(*rivals)
    first: dict[str, bytes] = {}
    while any(rival.poll() is None for rival in rivals):
        for path in ledger.folder.glob("own-*.json"):
            first.setdefault(path.name, path.read_bytes())
        time.sleep(0.001)
    trained = [end(rival, many) for rival in rivals]
    assert {*trained[0], *trained[1]} == {config.run_id for config in many}
    sweep(many, Ledger(tmp_path / "alone"), jobs=1)
    assert lasting(ledger) == lasting(Ledger(tmp_path / "alone"))
    assert ledger.check() == []
    assert first.items() <= content(ledger.folder).items()


def test_records_of_two_machines_are_not_mixed(
    ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that round in their own ways end the same run in the same instant."""
    records = [
        make_record(errors=[0.9, error], snapshots={"0.mu": np.full((2, 3), error, np.float32)})
        for error in (0.25, 0.26)
    ]
    replaced = os.replace
    both = threading.Barrier(2)

    def slowly(source: str, target: Path) -> None:
        with suppress(threading.BrokenBarrierError):  # the other is kept waiting, rightly
            both.wait(timeout=0.2)
        replaced(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    threads = [threading.Thread(target=ledger.put, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    first: dict[str, bytes] = {}
    while any(thread.is_alive() for thread in threads):
        for path in ledger.folder.glob("mnist-*.json"):
            first.setdefault(path.name, path.read_bytes())
    assert ledger.check() == []
    assert first.items() <= content(ledger.folder).items()


def test_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    """Whoever ends removes the lock's file under those who wait for it."""
    inside: list[int] = []

    def enter(number: int) -> None:
        with sweep_module._alone(tmp_path):
            inside.append(number)
            time.sleep(0.002)
            assert inside == [number]
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(40)))
