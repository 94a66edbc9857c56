"""Sweeps that are interrupted or killed: what is done stays, the rest follows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sweeping import after_the_bar, assert_same_runs, group, wait_until

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import SweepError, sweep

Configure = Callable[..., RunConfig]
Reproduce = Callable[..., subprocess.Popen[bytes]]


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
