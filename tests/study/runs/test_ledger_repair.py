"""Checks of a ledger name every bad file, and repairs lose none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledger_files import forge, listing

from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


# --- What is named -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".hidden", "draft.tmp", ".tmp"])
def test_what_only_resembles_a_draft_is_no_record(
    name: str, ledger: Ledger, make_record: MakeRecord
) -> None:
    ledger.put(make_record())
    (ledger.folder / name).touch()
    (fault,) = ledger.check()
    assert (fault.path.name, fault.reason) == (name, "is no record")


CURVE = ("curves", "test_loss")


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (CURVE, "abc", "a curve holds something else than numbers"),
        (CURVE, [1.0], "its curves differ in length"),
        (("curves", "step"), [0, 2, 1], "its steps do not rise from 0 on"),
        (("curves", "step"), [-1, 0, 1], "its steps do not rise from 0 on"),
        (("wall_time",), -1.0, "its wall_time is -1.0"),
    ],
)
def test_what_makes_no_sense_is_named(
    place: tuple[str, ...], value: Any, reason: str, ledger: Ledger, make_record: MakeRecord
) -> None:
    path = ledger.put(make_record())

    def change(content: dict[str, Any]) -> None:
        entry = content
        for key in place[:-1]:
            entry = entry[key]
        entry[place[-1]] = value

    forge(path, change)
    (fault,) = ledger.check()
    assert fault.reason == f"is not a valid record ({reason})"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "it holds no JSON object"),
        ('{"schema": 1, "schema": 1}', "an entry hides another of the same name"),
    ],
)
def test_what_is_no_object_is_named(
    text: str, reason: str, ledger: Ledger, make_record: MakeRecord
) -> None:
    ledger.put(make_record()).write_text(text)
    (fault,) = ledger.check()
    assert fault.reason == f"is not a valid record ({reason})"


def test_a_folder_that_cannot_be_read_is_named(
    ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.put(make_record())

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(LedgerError) as raised:
        list(ledger)
    assert str(raised.value) == (
        f"{ledger.folder} cannot be read (Permission denied); see that the ledger is a folder that "
        "may be entered and read"
    )


def test_a_file_that_cannot_be_set_aside_is_named(
    ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ledger.put(make_record())
    path.write_text("")

    def refuse(*_: Path) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(LedgerError) as raised:
            ledger.repair()
    assert str(raised.value) == (
        f"{path} cannot be set aside (Read-only file system); see that its folder can be written, "
        "and repair it again: nothing is lost"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_named(ledger: Ledger, make_record: MakeRecord) -> None:
    path = ledger.put(make_record())
    path.unlink()
    os.mkfifo(path)
    (fault,) = ledger.check()
    assert fault.reason == "is not a valid record (it is no regular file)"


# --- Check and repair ----------------------------------------------------------------------------


@pytest.fixture
def damaged(ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]) -> Ledger:
    """Two sound records, and one file of every kind that should not be there."""
    for seed in (0, 1):
        ledger.put(make_record(seed=seed, snapshots=snapshots))
    torn, edited, shot, newer = (
        ledger.put(make_record(seed=seed, snapshots=snapshots)) for seed in (2, 3, 4, 5)
    )
    torn.write_bytes(torn.read_bytes()[:-50])
    edited.write_text(edited.read_text().replace("0.25", "0.24", 1))
    shot.with_suffix(".npz").write_bytes(b"PK")
    newer.write_text(newer.read_text().replace('"schema": 1', '"schema": 2'))
    (ledger.folder / "orphan.npz").write_bytes(b"PK")
    (ledger.folder / "notes.txt").write_text("mine")
    old, new = ledger.folder / ".a-1.tmp", ledger.folder / ".b-1.tmp"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    return ledger


REASONS = {
    2: "is not a valid record (Unterminated",
    3: "is not a valid record (it was altered",
    4: "is not a valid record (its snapshots",
    5: "is not a valid record (its schema is 2",
}


def test_a_check_names_every_bad_file_and_changes_none(
    damaged: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    paths = {
        seed: damaged.path(make_record(seed=seed, snapshots=snapshots).config) for seed in REASONS
    }
    before = listing(damaged.folder)
    faults = {fault.path.name: fault for fault in damaged.check()}
    assert listing(damaged.folder) == before
    expected = {path.name for path in paths.values()}
    assert set(faults) == expected | {"orphan.npz", "notes.txt", ".a-1.tmp"}
    others = {
        "orphan.npz": "belongs to no record; the sweep writes it again",
        "notes.txt": "is no record; it does not belong into a ledger",
        ".a-1.tmp": "was left by a process that ended; it holds nothing",
    }
    for name, sentence in others.items():
        assert str(faults[name]) == f"{damaged.folder / name} {sentence}"
        assert faults[name].bad
    for seed, reason in REASONS.items():
        fault = faults[paths[seed].name]
        assert str(fault).startswith(f"{paths[seed]} {reason}")
        assert fault.bad == (seed != 5)
    with pytest.raises(LedgerError, match=r"this version reads 1\); update gmlib to read it$"):
        damaged.get(make_record(seed=5, snapshots=snapshots).config)


def test_a_sound_ledger_has_no_faults(ledger: Ledger, make_record: MakeRecord) -> None:
    assert ledger.check() == []
    assert not ledger.folder.exists()
    ledger.put(make_record())
    assert ledger.check() == []
    assert ledger.repair() == []


def test_a_repair_moves_bad_files_and_loses_nothing(
    damaged: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    before = listing(damaged.folder)
    moved = {fault.path.name: target for fault, target in damaged.repair()}
    aside = damaged.folder / "set-aside"
    configs = [make_record(seed=seed, snapshots=snapshots).config for seed in (2, 3, 4)]
    records = [damaged.path(config) for config in configs]
    assert set(moved) == {path.name for path in records} | {"orphan.npz", "notes.txt", ".a-1.tmp"}
    assert all(target == aside / name for name, target in moved.items())
    expected = set(moved) | {path.with_suffix(".npz").name for path in records}
    there, here = listing(aside), {p.name: p.read_bytes() for p in damaged.folder.glob("*.*")}
    assert set(there) == expected
    assert here | there == before
    assert [fault.bad for fault in damaged.check()] == [False]  # what a newer version wrote stays


def test_a_repair_overwrites_nothing_that_was_set_aside(
    ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    record = make_record(snapshots=snapshots)
    path = ledger.path(record.config)
    for attempt in (b"first", b"second", b"third"):
        ledger.put(record)
        path.write_bytes(attempt)
        ledger.repair()
    found = listing(ledger.folder / "set-aside")
    names = [path.stem, f"{path.stem}-1", f"{path.stem}-2"]
    assert set(found) == {f"{name}{suffix}" for name in names for suffix in (".json", ".npz")}
    assert [found[f"{name}.json"] for name in names] == [b"first", b"second", b"third"]
