"""The ledger under clocks that jump."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from ledger_files import Contents, aged, lasting

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import provenance
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import sweep

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.mark.filterwarnings("error")  # of the bar, say
def test_a_clock_that_jumps(
    ledger: Ledger, expected: Contents, configs: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time

    def jumping() -> Callable[[], float]:
        jumps = itertools.cycle([0.0, -3e8, 3e8, 7200.0, -7200.0])
        return lambda: now() + next(jumps)

    dates = jumping()

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Jumping:
            return cls.fromtimestamp(dates(), tz)

    monkeypatch.setattr(time, "time", jumping())
    monkeypatch.setattr("tqdm.std.time", jumping())
    monkeypatch.setattr(provenance, "datetime", Jumping)
    records = sweep(configs, ledger, jobs=1)
    assert all(0.0 <= record.wall_time < 60.0 for record in records)
    assert len({record.provenance["utc"][:4] for record in records}) == 3
    assert lasting(ledger) == expected
    assert ledger.check() == []
    assert len(sweep(configs, ledger)) == 3


@pytest.mark.parametrize(
    ("age", "is_cleared"),
    [(3e9, True), (7200, True), (1800, False), (0, False), (-1800, False), (-7200, True)],
)
def test_a_draft_is_cleared_when_nobody_can_be_at_work_on_it(
    age: float, is_cleared: bool, ledger: Ledger, configs: list[RunConfig]
) -> None:
    ledger.folder.mkdir()
    path = ledger.path(configs[2])
    aged(age)(path)
    assert bool(ledger.check()) == is_cleared
    sweep(configs[2:], ledger, jobs=1)
    assert {file.suffix for file in ledger.folder.iterdir()} == {".json"} | (
        set() if is_cleared else {".tmp"}
    )
    assert lasting(ledger).keys() == {path.name}


def test_a_draft_that_cannot_be_cleared_stops_nobody(
    ledger: Ledger, configs: list[RunConfig]
) -> None:
    draft = ledger.folder / f".{ledger.path(configs[2]).stem}-1.tmp"
    draft.mkdir(parents=True)
    os.utime(draft, (0, 0))
    sweep(configs[2:], ledger, jobs=1)
    assert [fault.path for fault in ledger.check()] == [draft]
