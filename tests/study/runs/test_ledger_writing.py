"""Writing to the ledger: a record is whole or not there, and the first one stays."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ledger_files import listing
from record_checks import assert_same_record

from gmlib.study.runs import ledger as ledger_module
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


def test_the_first_record_of_a_run_stays(
    ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    first = make_record(snapshots=snapshots)
    path = ledger.put(first)
    before = listing(ledger.folder)
    later = make_record(errors=[0.8, 0.4, 0.2], snapshots={"0.mu": snapshots["0.mu"] + 1})
    assert ledger.put(later) == path
    assert listing(ledger.folder) == before


@pytest.mark.parametrize("fails_at", [".npz", ".json"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing_behind(
    fails_at: str,
    error: BaseException,
    ledger: Ledger,
    make_record: MakeRecord,
    snapshots: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other, record = make_record(seed=1), make_record(snapshots=snapshots)
    ledger.put(other)
    before = listing(ledger.folder)
    replace = os.replace

    def fail(source: str, target: Path) -> None:
        if Path(target).suffix == fails_at:
            raise error
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises((LedgerError, KeyboardInterrupt)) as raised:
            ledger.put(record)
    if isinstance(error, OSError):
        assert str(raised.value) == (
            f"{ledger.path(record.config)} cannot be written (No space left); see that its folder "
            "can be written and has room, and run the sweep again: what is recorded stays"
        )
    assert record.config not in ledger
    assert ledger.get(record.config) is None
    (only,) = ledger
    assert_same_record(only, other)
    left = listing(ledger.folder)
    left.pop(ledger.path(record.config).with_suffix(".npz").name, None)  # whole, and unnamed
    assert left == before

    ledger.put(record)
    found = ledger.get(record.config)
    assert found is not None
    assert_same_record(found, record)


def test_a_record_appears_only_when_it_is_complete(
    ledger: Ledger,
    make_record: MakeRecord,
    snapshots: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a process that is killed at any write leaves is what another one sees then.
    record = make_record(snapshots=snapshots)
    seen = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        fsync(descriptor)
        seen.append((record.config in ledger, len(list(ledger))))
        (draft,) = (path for path in ledger.folder.iterdir() if path.suffix != ".npz")
        # By which the next who writes this record knows whose it is.
        assert re.fullmatch(rf"\.{record.config.run_id}-\w+\.tmp", draft.name)
        assert [fault for fault in ledger.check() if fault.path == draft] == []

    monkeypatch.setattr(os, "fsync", look)
    ledger.put(record)
    assert seen == [(False, 0), (False, 0)]
    assert len(list(ledger)) == 1


def test_the_folder_is_made_with_those_above_it(tmp_path: Path, make_record: MakeRecord) -> None:
    ledger = Ledger(tmp_path / "a/b/results")
    ledger.put(make_record())
    assert len(list(ledger)) == 1


def test_everybody_may_read_a_record(
    ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    path = ledger.put(make_record(snapshots=snapshots))
    assert [file.stat().st_mode & 0o777 for file in (path, path.with_suffix(".npz"))] == [0o644] * 2


def test_a_draft_that_is_gone_or_cannot_go_is_no_trouble(
    ledger: Ledger, make_record: MakeRecord
) -> None:
    draft = ledger.folder / f".{ledger.path(make_record().config).stem}-1.tmp"
    assert not ledger_module._is_old(draft)
    draft.mkdir(parents=True)
    os.utime(draft, (0, 0))
    ledger.put(make_record())
    assert len(list(ledger)) == 1


def test_many_may_write_the_same_run_at_once(
    ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    record = make_record(snapshots=snapshots)
    threads = [threading.Thread(target=ledger.put, args=(record,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = ledger.get(record.config)
    assert found is not None
    assert_same_record(found, record)
    name = ledger.path(record.config).stem
    assert sorted(listing(ledger.folder)) == [f"{name}.json", f"{name}.npz"]


def test_what_a_killed_process_leaves_is_no_record(
    ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    record = make_record(snapshots=snapshots)
    path = ledger.path(record.config)
    ledger.folder.mkdir()
    path.with_suffix(".npz").write_bytes(b"snapshots whose record was never written")
    old, new = (ledger.folder / f".{path.stem}-{name}.tmp" for name in ("old", "new"))
    for draft in (old, new):
        draft.write_text("{")
    os.utime(old, (0, 0))
    assert list(ledger) == []
    assert ledger.get(record.config) is None
    ledger.put(record)
    found = ledger.get(record.config)
    assert found is not None
    assert_same_record(found, record)
    assert not old.exists()
    assert new.exists()  # it may be somebody else's, who is about to finish it
