"""The ledger: what went in comes out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from record_checks import assert_same_record

import gmlib
from gmlib.init import LayerScale
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


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
