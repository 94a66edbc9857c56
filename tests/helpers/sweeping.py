"""What tests of sweeps share: comparing runs, waiting for processes, reading the bar."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import psutil
from record_checks import assert_same_run

from gmlib.study.runs.records import RunRecord


def assert_same_runs(ones: list[RunRecord], others: list[RunRecord]) -> None:
    """Equal but for time and place."""
    for one, other in zip(ones, others, strict=True):
        assert_same_run(one, other)


def wait_until(condition: Callable[[], object], *running: subprocess.Popen[bytes]) -> None:
    """Wait for something that needs processes to go on `running`."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        for process in running:
            assert process.poll() is None, f"{process.args} has ended"
        time.sleep(0.05)


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


def bars(text: str) -> list[str]:
    """The states of the bar, one after the other."""
    return [state.strip() for state in text.replace("\n", "\r").split("\r") if state.strip()]


def after_the_bar(text: str) -> list[str]:
    return [line for line in bars(text) if " epochs [" not in line]
