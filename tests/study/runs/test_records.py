"""A record as text: it reads well in a diff, and holds nothing else than JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ledger_files import listing

from gmlib.study.runs import records
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


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


def test_what_json_has_no_word_for_is_not_written(ledger: Ledger, make_record: MakeRecord) -> None:
    for wrong in ({"wall_time": math.nan}, {"provenance": {"temperature": math.inf}}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            ledger.put(dataclasses.replace(make_record(), **wrong))
        assert listing(ledger.folder) == {}
