"""The ledger: what went in comes out, and what was damaged in between never does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gmlib
from gmlib.init import LayerScale
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import ledger as ledger_module
from gmlib.study.runs import records
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "results")


@pytest.fixture
def snapshots() -> dict[str, np.ndarray]:
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


def assert_same_record(one: RunRecord, other: RunRecord) -> None:
    assert one.config == other.config
    np.testing.assert_equal(dict(one.curves), dict(other.curves))  # takes NaN for equal to NaN
    assert one.init_report == other.init_report
    assert one.wall_time == other.wall_time
    assert one.provenance == other.provenance
    assert list(one.movement) == list(other.movement)
    np.testing.assert_equal(dict(one.movement), dict(other.movement))
    assert list(one.snapshots) == list(other.snapshots)
    for name, array in one.snapshots.items():
        np.testing.assert_array_equal(array, other.snapshots[name], strict=True)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file with its content, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record and make its digest fit, as an accident would not."""
    content = json.loads(path.read_text())
    del content["digest"]
    change(content)
    content["digest"] = ledger_module._digest(content)
    path.write_text(json.dumps(content))


def assert_refused(ledger: Ledger, config: RunConfig, reason: str) -> None:
    """Both ways of reading name the file, say what is wrong, and how to go on."""
    message = (
        f"^{re.escape(str(ledger.path(config)))} is not a valid record .*{reason}.*"
        "move it away and run the sweep again, or restore it from version control$"
    )
    with pytest.raises(LedgerError, match=message):
        ledger.get(config)
    with pytest.raises(LedgerError, match=message):
        list(ledger)


# --- There and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["KUMAR", "FC", "BL+CAL", "NEURONS", "package.module:function"])
def test_round_trip(
    arm: str, ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    record = make_record(
        arm,
        seed=3,
        errors=[0.1 + 0.2, 1 / 3, 5e-324, 0.0],
        losses=[2.302585092994046, math.nan, 1e308, 0.0],
        init=[LayerScale("0", 0.1, 1.0, 0.1), LayerScale("head.1", 7e-9, 1e9, 7.0)],
        snapshots=snapshots,
        movement={"0.mu": [0.0, 0.1, 1 / 3, math.nan], "head.1": [math.nan] * 4},
        widths=(20, 10),
        lr=0.3,
    )
    path = ledger.put(record)
    assert path == ledger.path(record.config) == ledger.folder / f"{record.config.run_id}.json"
    found = ledger.get(record.config)
    assert found is not None
    assert_same_record(found, record)
    assert [type(step) for step in found.curves["step"]] == [int] * 4
    assert math.isnan(found.curves["train_loss"][0])
    (only,) = ledger
    assert_same_record(only, record)


def test_what_is_not_finite_comes_back_as_nan(ledger: Ledger, make_record: MakeRecord) -> None:
    record = make_record(losses=[math.inf, -math.inf, math.nan])
    ledger.put(record)
    found = ledger.get(record.config)
    assert found is not None
    assert all(map(math.isnan, found.curves["test_loss"]))


def test_movement_comes_back(
    ledger: Ledger, make_record: MakeRecord, movement: dict[str, list[float]]
) -> None:
    record = make_record(movement=movement)
    content = json.loads(ledger.put(record).read_text())
    assert content["movement"] == {
        "0.mu": [0.0, 0.012346, 1.5e-7],
        "0.sigma": [0.0, 1e30, None],
        "0.U": [None, None, None],
    }
    found = ledger.get(record.config)
    assert found is not None
    assert list(found.movement) == ["0.mu", "0.sigma", "0.U"]
    np.testing.assert_equal(dict(found.movement), movement)
    assert [type(distance) for distance in found.movement["0.mu"]] == [float] * 3


def test_infinite_movement_comes_back_as_nan(ledger: Ledger, make_record: MakeRecord) -> None:
    record = make_record(movement={"0.mu": [0.0, math.inf, -math.inf]})
    ledger.put(record)
    found = ledger.get(record.config)
    assert found is not None
    np.testing.assert_equal(dict(found.movement), {"0.mu": [0.0, math.nan, math.nan]})


def test_records_from_before_movement_was_measured_are_read(
    ledger: Ledger, make_record: MakeRecord
) -> None:
    record = make_record()
    path = ledger.put(record)
    assert "movement" not in path.read_text()  # such a record is written as it always was
    found = ledger.get(record.config)
    assert found is not None
    assert found.movement == {}
    # Movement changes neither the name of a run nor which of two records stays.
    assert make_record(movement={"0.mu": [0.0] * 3}).config.run_id == record.config.run_id
    ledger.put(make_record(movement={"0.mu": [0.0] * 3}))
    found = ledger.get(record.config)
    assert found is not None
    assert found.movement == {}


def test_a_ledger_has_what_was_put_into_it(ledger: Ledger, make_record: MakeRecord) -> None:
    records = [make_record(arm, seed) for arm in ("KUMAR", "BL") for seed in (1, 0)]
    assert list(ledger) == []
    for record in records[1:]:
        ledger.put(record)
    assert records[0].config not in ledger
    assert ledger.get(records[0].config) is None
    assert all(record.config in ledger for record in records[1:])
    names = [record.config.run_id for record in ledger]
    assert names == sorted(record.config.run_id for record in records[1:])


def test_settings_that_an_arm_does_not_use_do_not_hide_its_record(
    ledger: Ledger, make_record: MakeRecord
) -> None:
    ledger.put(make_record("FC", num_components=5))
    assert RunConfig("FC", 0, epochs=2, num_components=7) in ledger
    assert RunConfig("FC", 0, epochs=3) not in ledger


def test_looking_makes_no_folder(ledger: Ledger, make_record: MakeRecord) -> None:
    assert ledger.get(make_record().config) is None
    assert list(ledger) == []
    assert not ledger.folder.exists()
    assert repr(ledger) == f"Ledger({str(ledger.folder)!r})"


def test_a_file_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(LedgerError, match=f"{re.escape(str(tmp_path / 'results'))} is not a fold"):
        Ledger(tmp_path / "results")


# --- The file ------------------------------------------------------------------------------------


def test_a_record_reads_well_in_a_diff(ledger: Ledger, make_record: MakeRecord) -> None:
    text = ledger.put(make_record(errors=[0.9, 0.125, 0.1])).read_text()
    lines = text.splitlines()
    assert text.isascii()
    assert text.endswith("}\n")
    assert [line.split(":")[0].strip() for line in lines] == [
        *("{", '"schema"', '"run_id"', '"config"', '"provenance"', '"wall_time"'),
        *('"init_report"', '"snapshots"', '"curves"', '"step"', '"test_error"', '"test_loss"'),
        *('"train_loss"', "},", '"digest"', "}"),
    ]
    assert '  "test_error": [0.9, 0.125, 0.1],' in lines
    assert lines[12].startswith('  "train_loss": [null, 0.375, ')
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["schema"] == records.SCHEMA == 1
    assert content["config"] == make_record().config.canonical()


def test_movement_reads_well_in_a_diff_too(
    ledger: Ledger, make_record: MakeRecord, movement: dict[str, list[float]]
) -> None:
    text = ledger.put(make_record(movement=movement)).read_text()
    lines = text.splitlines()
    assert [line.split(":")[0].strip() for line in lines[12:]] == [
        *('"train_loss"', "},", '"movement"', '"0.mu"', '"0.sigma"', '"0.U"', "},"),
        *('"digest"', "}"),
    ]
    assert lines[14:19] == [
        ' "movement": {',
        '  "0.mu": [0.0, 0.012346, 1.5e-07],',
        '  "0.sigma": [0.0, 1e+30, null],',
        '  "0.U": [null, null, null]',
        " },",
    ]
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_another_number_changes_one_line_beside_the_digest(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    texts = [
        Ledger(tmp_path / name).put(make_record(errors=errors, losses=[3, 2, 1])).read_text()
        for name, errors in {"one": [0.9, 0.5, 0.25], "other": [0.9, 0.5, 0.26]}.items()
    ]
    lines = zip(*(text.splitlines() for text in texts), strict=True)
    changed = [one.split(":")[0].strip() for one, other in lines if one != other]
    assert changed == ['"test_error"', '"train_loss"', '"digest"']


def test_another_movement_changes_one_line_beside_the_digest(
    tmp_path: Path, make_record: MakeRecord, movement: dict[str, list[float]]
) -> None:
    texts = [
        Ledger(tmp_path / name).put(make_record(movement=moved)).read_text()
        for name, moved in {"one": movement, "other": {**movement, "0.U": [0, 0, 1]}}.items()
    ]
    lines = zip(*(text.splitlines() for text in texts), strict=True)
    changed = [one.split(":")[0].strip() for one, other in lines if one != other]
    assert changed == ['"0.U"', '"digest"']


def test_the_same_record_gives_the_same_bytes(
    tmp_path: Path,
    make_record: MakeRecord,
    snapshots: dict[str, np.ndarray],
    movement: dict[str, list[float]],
) -> None:
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        Ledger(folder).put(make_record(snapshots=snapshots, movement=movement))
    assert len(listing(folders[0])) == 2
    assert listing(folders[0]) == listing(folders[1])


def test_everybody_may_read_a_record(
    ledger: Ledger, make_record: MakeRecord, snapshots: dict[str, np.ndarray]
) -> None:
    path = ledger.put(make_record(snapshots=snapshots))
    assert [file.stat().st_mode & 0o777 for file in (path, path.with_suffix(".npz"))] == [0o644] * 2


# --- The folder ----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder far from the project, without GMLIB_RESULTS."""
    monkeypatch.delenv("GMLIB_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_default_folder_does_not_depend_on_the_working_directory(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path(__file__).resolve().parents[3]
    for folder in (elsewhere, project, project / "tests" / "study", Path("/")):
        monkeypatch.chdir(folder)
        assert Ledger().folder == project / "results"


@pytest.mark.parametrize("depth", ["", "notebooks", "book/notebooks"])
def test_an_installed_package_finds_the_project_around_the_working_directory(
    depth: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gmlib, "__file__", str(elsewhere / "site-packages/gmlib/__init__.py"))
    project = elsewhere / "project"
    (project / "gmlib").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    (project / depth).mkdir(parents=True, exist_ok=True)
    (project / "book").mkdir(exist_ok=True)
    (project / "book" / "pyproject.toml").touch()  # of something else: no gmlib beside it
    monkeypatch.chdir(project / depth)
    assert Ledger().folder == project / "results"


def test_without_a_project_the_folder_has_to_be_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gmlib, "__file__", str(elsewhere / "site-packages/gmlib/__init__.py"))
    with pytest.raises(
        LedgerError,
        match=rf"^neither {re.escape(str(elsewhere))} nor a folder above it is this project; "
        "name the folder of the ledger, or set GMLIB_RESULTS$",
    ):
        Ledger()
    assert Ledger("anywhere").folder == Path("anywhere")


def test_the_environment_names_the_folder(
    elsewhere: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMLIB_RESULTS", str(elsewhere / "mine"))
    assert Ledger().folder == elsewhere / "mine"
    assert Ledger("other").folder == Path("other")
    assert Ledger().put(make_record()).parent == elsewhere / "mine"
    monkeypatch.setenv("GMLIB_RESULTS", "")
    assert Ledger().folder == Path(__file__).resolve().parents[3] / "results"


# --- Damage --------------------------------------------------------------------------------------


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


# --- Damage to snapshots -------------------------------------------------------------------------


def replace_by(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


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
        (replace_by(b""), "snapshots .* were altered"),
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


# --- Writing -------------------------------------------------------------------------------------


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
    content = json.loads(path.read_text())
    entry = content
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    del content["digest"]
    path.write_text(json.dumps(content | {"digest": ledger_module._digest(content)}))
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


def test_what_json_has_no_word_for_is_not_written(ledger: Ledger, make_record: MakeRecord) -> None:
    for wrong in ({"wall_time": math.nan}, {"provenance": {"temperature": math.inf}}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            ledger.put(dataclasses.replace(make_record(), **wrong))
        assert listing(ledger.folder) == {}


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
