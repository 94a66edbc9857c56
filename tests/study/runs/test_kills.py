"""Sweeps killed at a random instant, again and again: nothing is torn, lost or counted twice.

Five times by default, two hundred under ``--torture``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import sweep

SCRIPT = """
import sys
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import sweep
print("ready", flush=True)
sweep({configs!r}, Ledger(sys.argv[1]), jobs=2)
"""


def content(ledger: Ledger) -> dict[str, Any]:
    """All that the files hold but for times, and the snapshots byte by byte."""
    found: dict[str, Any] = {}
    for path in ledger.folder.iterdir():
        if path.suffix == ".json":
            record = json.loads(path.read_text())
            for key in ("wall_time", "digest"):
                del record[key]
            del record["provenance"]["utc"]
            found[path.name] = record
        elif path.suffix == ".npz":
            found[path.name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def seed() -> int:
    """Of the instants, in the name of a failure."""
    return int(os.environ.get("GMLIB_KILLS_SEED", random.randrange(10**6)))


def test_killed_at_any_instant(
    tiny: Callable[..., RunConfig], tmp_path: Path, seed: int, torture: bool, measured: Any
) -> None:
    kills = 200 if torture else 5
    instants = random.Random(seed)
    configs = [
        tiny(arm, number, epochs=2, snapshots=number == 0)
        for arm in ("FC", "BL", "KUMAR")
        for number in range(3)
    ]
    whole = Ledger(tmp_path / "whole")
    sweep(configs, whole, jobs=1)
    expected = content(whole)
    ended = partly = 0
    for number in range(kills):
        ledger = Ledger(tmp_path / f"killed-{number}")
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(configs=configs), str(ledger.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        # Some files are there, and the next is being trained or written.
        files = instants.randrange(len(expected))
        while process.poll() is None and len(list(ledger.folder.glob("*.[jn]*"))) < files:
            time.sleep(0.001)
        time.sleep(instants.uniform(0.0, 0.3) if files else instants.uniform(0.0, 3.0))
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, signal.SIGKILL)
        ended += process.wait() == 0
        process.stdout.close()
        # Whatever is there under a record's name is whole and true; drafts are neither.
        faults = [fault for fault in ledger.check() if "belongs to no record" not in fault.reason]
        assert faults == [], f"seed {seed}, kill {number}"
        left = content(ledger) if ledger.folder.exists() else {}
        partly += 0 < len(left) < len(expected)
        assert left.items() <= expected.items(), f"seed {seed}, kill {number}"
        sweep(configs, ledger, jobs=1)
        assert content(ledger) == expected, f"seed {seed}, kill {number}"
        assert ledger.check() == []
    assert ended < kills, f"no kill came before the end, seed {seed}"
    measured("kills", "sweeps killed at a random instant, and whole after the next", kills)
    measured("kills", "of these, killed while some runs were recorded and others not", partly)
