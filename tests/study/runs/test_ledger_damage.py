"""What was damaged in the ledger never comes out."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledger_files import assert_refused, forge
from record_checks import assert_same_record

from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


# --- Records -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.8, 0.99])
def test_a_torn_record_is_refused(
    share: float, ledger: Ledger, make_record: MakeRecord, movement: dict[str, list[float]]
) -> None:
    record = make_record(movement=movement)
    path = ledger.put(record)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(ledger, record.config, "")


def test_no_flipped_bit_goes_unnoticed(
    ledger: Ledger, make_record: MakeRecord, movement: dict[str, list[float]]
) -> None:
    record = make_record(movement=movement)
    path = ledger.put(record)
    content = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = ledger.get(record.config)
        except LedgerError:
            refused += 1
        else:  # white space, perhaps, but nothing that is read
            assert found is not None
            assert_same_record(found, record)
    assert refused > 250


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0.25", "0.24", "it was altered: its digest does not match"),
        ("0.25", "0.250000001", "it was altered"),
        ("null", "1.5", "it was altered"),
        ('"lr": 0.1', '"lr": 0.2', "it was altered"),
        ('"epochs": 2', '"epochs": 3', "it was altered"),
        ('"git_commit": null', '"git_commit": "abc"', "it was altered"),
        ('"wall_time": 12.5', '"wall_time": 2.5', "it was altered"),
        ('"digest": "', '"digest": "0', "it was altered"),
        ('"schema": 1', '"schema": 0', "its schema is 0, this version reads 1"),
        ('"schema": 1', '"schema": "2"', "its schema is '2', this version reads 1"),
        ('"schema": 1', '"schema": "1"', "its schema is '1'"),
        ('"schema": 1,', "", "its schema is None"),
        ('"wall_time": 12.5,', "", "its keys are"),
        ('"wall_time": 12.5,', '"wall_time": 12.5, "note": 1,', "its keys are .*'note'"),
        ('"digest"', '"Digest"', "its keys are"),
        ("0.012346", "0.012345", "it was altered"),
        ("0.012346", "0.0123460000001", "it was altered"),
        ('"0.sigma"', '"0.Sigma"', "it was altered"),
        ('"0.U": [null, null, null]', '"0.U": [null, null]', "it was altered"),
        ('"movement": {', '"Movement": {', "its keys are .*'Movement'"),
        ('"movement": {', '"movement": [', "Expecting"),
        ("null", "nul", "Expecting value"),
        ("{", "", ""),
        ("0.25", "NaN", ""),
    ],
)
def test_an_edited_record_is_refused(
    old: str,
    new: str,
    reason: str,
    ledger: Ledger,
    make_record: MakeRecord,
    movement: dict[str, list[float]],
) -> None:
    record = make_record(movement=movement)
    path = ledger.put(record)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert_refused(ledger, record.config, reason)


def test_movement_cannot_be_removed_from_a_record_or_put_into_one(
    ledger: Ledger, make_record: MakeRecord, movement: dict[str, list[float]]
) -> None:
    one, other = make_record(movement=movement), make_record(seed=1)
    for record, change in (
        (one, lambda content: content.pop("movement")),
        (other, lambda content: content.update(movement={"0.mu": [0.0, 0.0, 0.0]})),
    ):
        path = ledger.put(record)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(LedgerError, match="it was altered: its digest does not match"):
            ledger.get(record.config)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"[]", "it holds no JSON object"),
        (b"null", "it holds no JSON object"),
        (b"{}", "its schema is None"),
        (b'{"schema": 1}', "its keys are"),
        (b"\x80\x04\x95 pickled", "codec can't decode"),
        (b"<<<<<<< HEAD\n{}", "Expecting value"),
    ],
)
def test_another_file_is_refused(
    content: bytes, reason: str, ledger: Ledger, make_record: MakeRecord
) -> None:
    record = make_record()
    ledger.put(record).write_bytes(content)
    assert_refused(ledger, record.config, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.update(schema=0), "its schema is 0, this version reads 1"),
        (lambda content: content["config"].update(seed=1), "its configuration is that of mnist-"),
        (lambda content: content["config"].update(seed="0"), "seed must be an integer"),
        (lambda content: content["config"].pop("arm"), "settings lack .'arm'"),
        (lambda content: content.update(config=None), ""),
        (lambda content: content.update(run_id="mine"), "its configuration is that of"),
        (lambda content: content["curves"]["step"].pop(), "its curves differ in length"),
        (lambda content: content["curves"].pop("test_loss"), "test_loss"),
        (lambda content: content.update(curves=[]), ""),
        (lambda content: content["movement"]["0.mu"].pop(), "its curves differ in length"),
        (lambda content: content["movement"]["0.U"].append(0.1), "its curves differ in length"),
        (lambda content: content["movement"].update(new=[]), "its curves differ in length"),
        (lambda content: content["movement"].update(new=3), ""),
        (lambda content: content.update(movement=None), ""),
        (lambda content: content.update(movement=[]), ""),
        (lambda content: content.update(movement="0.mu"), ""),
        (lambda content: content["init_report"][0].pop("scale"), "scale"),
        (lambda content: content.update(init_report=3), ""),
        (lambda content: content.update(snapshots="here.npz"), ""),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(
    change: Callable[[dict[str, Any]], object],
    reason: str,
    ledger: Ledger,
    make_record: MakeRecord,
    movement: dict[str, list[float]],
) -> None:
    record = make_record(movement=movement)
    forge(ledger.put(record), change)
    assert_refused(ledger, record.config, reason)


def test_a_renamed_record_is_refused(ledger: Ledger, make_record: MakeRecord) -> None:
    record, other = make_record(seed=0), make_record(seed=1)
    ledger.put(record).rename(ledger.path(other.config))
    assert ledger.get(record.config) is None
    assert_refused(ledger, other.config, f"its configuration is that of {record.config.run_id}")


def test_an_unreadable_record_is_refused(ledger: Ledger, make_record: MakeRecord) -> None:
    record = make_record()
    ledger.path(record.config).mkdir(parents=True)
    assert_refused(ledger, record.config, "Is a directory")


def test_a_damaged_record_does_not_hide_the_others(ledger: Ledger, make_record: MakeRecord) -> None:
    good, bad = make_record(seed=0), make_record(seed=1)
    ledger.put(good)
    ledger.put(bad).write_text("")
    found = ledger.get(good.config)
    assert found is not None
    assert_same_record(found, good)


# --- Snapshots -----------------------------------------------------------------------------------


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "No such file"),
        (flip, "snapshots .* were altered"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "snapshots .* were altered"),
        (lambda file: file.write_bytes(file.read_bytes()[:100]), "snapshots .* were altered"),
        (lambda file: file.write_bytes(b""), "snapshots .* were altered"),
    ],
    ids=["missing", "one bit", "last byte", "torn", "empty"],
)
def test_damaged_snapshots_are_refused(
    damage: Callable[[Path], object],
    reason: str,
    ledger: Ledger,
    make_record: MakeRecord,
    snapshots: dict[str, np.ndarray],
) -> None:
    record = make_record(snapshots=snapshots)
    damage(ledger.put(record).with_suffix(".npz"))
    assert_refused(ledger, record.config, reason)


def test_snapshots_of_another_run_are_refused(
    ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    record = make_record(snapshots=snapshots)
    other = make_record(seed=1, snapshots={"0.mu": snapshots["0.mu"] + 1})
    files = [ledger.put(r).with_suffix(".npz") for r in (record, other)]
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(LedgerError, match=r"snapshots .* were altered"):
        ledger.get(record.config)


@pytest.mark.parametrize("name", ["../../etc/passwd", "other.npz", ""])
def test_a_record_cannot_name_files_elsewhere(
    name: str, ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    record = make_record(snapshots=snapshots)
    forge(ledger.put(record), lambda content: content["snapshots"].update(file=name))
    assert_refused(ledger, record.config, f"it names snapshots {name!r}")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def as_npz(bomb: Bomb, file: Path) -> None:
    np.savez(file, **{"0.mu": np.array([bomb], dtype=object)})


def as_npy(bomb: Bomb, file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.array([bomb], dtype=object))


def as_pickle(bomb: Bomb, file: Path) -> None:
    np.array([bomb], dtype=object).dump(file)


@pytest.mark.parametrize("write", [as_npz, as_npy, as_pickle])
def test_pickled_objects_never_run(
    write: Callable[[Bomb, Path], None],
    ledger: Ledger,
    make_record: MakeRecord,
    snapshots: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    record = make_record(snapshots=snapshots)
    path = ledger.put(record)
    file = path.with_suffix(".npz")
    write(Bomb(tmp_path / "marker"), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    forge(path, lambda content: content["snapshots"].update(sha256=sha256))
    assert_refused(ledger, record.config, "allow_pickle=")
    assert not (tmp_path / "marker").exists()
