"""Values of speed, tests and mutants: from files to tables, and the files of the project."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from gmlib.study.analysis import benchmarks

ROOT = Path(__file__).parents[3]
ROWS = [
    {
        **{"section": section, "what": what, "value": value, "test": test},
        **{"cpu": "a", "commit": "b", "date": "c"},
    }
    for section, what, value, test in [
        ("ulps", "F, z ≥ −5, single", 3.4e-07, "tests/test_a.py::test_one"),
        ("ulps", "F, z ≥ −5, double", 2.5, "tests/test_a.py::test_one"),
        ("ulps", "G, z < −5, single", 0.5, "tests/test_a.py::test_one"),
        ("ulps", "G, z < −5, double", 0.75, "tests/test_a.py::test_one"),
        ("kills", "killed", 100_000, "tests/study/test_b.py::TestAll::test_two_of_them"),
        ("kills", "a share", "some", "tests/study/test_b.py::TestAll::test_two_of_them"),
    ]
]
MUTANTS = {
    "gmlib/a.py": {
        "mutants": 8,
        "survivors": [
            {"change": "f: 1 => 2", "reason": "alike"},
            {"change": "f: 1 => 3", "reason": "alike"},
        ],
    },
    "gmlib/b.py": {"mutants": 4, "survivors": [{"change": "g: + => -", "reason": "other"}]},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "torture.json"
    path.write_text(json.dumps(ROWS))
    return path


def test_tables_of_values(file: Path) -> None:
    rows = benchmarks.torture_rows(file)
    wide = benchmarks.wide_table(rows, "ulps")
    assert wide.numbers[["what", "case", "value"]].to_numpy().tolist() == [
        ["F, z ≥ −5", "single", 3.4e-07],
        ["F, z ≥ −5", "double", 2.5],
        ["G, z < −5", "single", 0.5],
        ["G, z < −5", "double", 0.75],
    ]
    assert list(wide.text.itertuples(name=None)) == [
        ("F, z ≥ −5", "3.4e-07", "2.5"),
        ("G, z < −5", "0.5", "0.75"),
    ]
    assert list(wide.text.columns) == ["single", "double"]
    table = benchmarks.values_table(rows, "kills", "ulps")
    assert table.numbers.value.tolist() == [100_000, "some", 3.4e-07, 2.5, 0.5, 0.75]
    assert list(table.text.itertuples(name=None))[:3] == [
        ("killed", "100,000", "test_b.py: two of them"),
        ("a share", "some", "test_b.py: two of them"),
        ("F, z ≥ −5, single", "3.4e-07", "test_a.py: one"),
    ]


def test_counts_stay_counts(file: Path) -> None:
    file.write_text(json.dumps([ROWS[-2]]))
    table = benchmarks.values_table(benchmarks.torture_rows(file), "kills")
    assert table.numbers.value.dtype == int
    assert table.text["value"].tolist() == ["100,000"]
    file.write_text(json.dumps(ROWS[:-1]))
    beside_others = benchmarks.values_table(benchmarks.torture_rows(file), "kills", "ulps")
    assert beside_others.text["value"].tolist()[:2] == ["100,000", "3.4e-07"]


@pytest.mark.parametrize("table", [benchmarks.values_table, benchmarks.wide_table])
def test_a_section_that_is_not_there_is_named(table, file: Path) -> None:
    with pytest.raises(KeyError, match="no values of 'none', only of ulps, kills"):
        table(benchmarks.torture_rows(file), "none")


def test_tables_of_mutants() -> None:
    table = benchmarks.mutants_table(MUTANTS)
    assert list(table.numbers.itertuples(index=False, name=None)) == [
        ("gmlib/a.py", 8, 2, 6, 0.75),
        ("gmlib/b.py", 4, 1, 3, 0.75),
    ]
    assert list(table.text.itertuples(name=None)) == [
        ("gmlib/a.py", 8, 6, "75.0%"),
        ("gmlib/b.py", 4, 3, "75.0%"),
    ]
    assert list(benchmarks.survivors_table(MUTANTS).itertuples(name=None)) == [
        ("alike", 2, "f: 1 => 2"),
        ("other", 1, "g: + => -"),
    ]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "torture.json"
    with pytest.raises(FileNotFoundError, match="does not exist; `make torture` writes it"):
        benchmarks.torture_rows(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"is not JSON \(.*\); `make torture` writes it anew"):
        benchmarks.torture_rows(path)
    for content in ({}, [{"what": 1}]):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="not values of tests; `make torture` writes them"):
            benchmarks.torture_rows(path)


# --- Speed ---------------------------------------------------------------------------------------

QUARTILES = {"low": 1.9, "median": 2.0, "high": 2.2}


@pytest.fixture
def speed() -> dict[str, Any]:
    return {
        "machine": {"cpu": "a processor", "torch": "2.13.0"},
        "step": {
            "paths": {
                "gmlib": {"ms": {"median": 4.0}, "bare_products": QUARTILES},
                "bare products": {
                    "ms": {"median": 2.0},
                    "bare_products": {"low": 1.0, "median": 1.0, "high": 1.0},
                },
            },
            "ratios": {
                "gmlib / bare products": {**QUARTILES, "required": 3.0, "target": 2.0},
                "plain / gmlib": {**QUARTILES, "required": 1.5, "target": None},
                "compiled / gmlib": {**QUARTILES, "required": 2.1, "target": 3.0},
                "gmlib, folded / bare products": {**QUARTILES, "required": 2.0, "target": 1.5},
            },
        },
        "scaling": {
            "K": {"values": [4, 8], "ms": [{"median": 1.0}, {"median": 1.9}], "exponent": 0.93},
            "d": {"values": [7], "ms": [{"median": 3.0}], "exponent": 0.5},
        },
        "sampling": {},
    }


def test_tables_of_speed(speed: dict[str, Any]) -> None:
    steps = benchmarks.step_table(speed)
    assert list(steps.index) == ["bare products", "gmlib"]  # the quickest first
    assert steps.loc["gmlib"].to_dict() == {**QUARTILES, "ms": 4.0}
    ratios = benchmarks.ratio_table(speed)
    assert ratios.loc["gmlib / bare products", "high"] == 2.2
    assert list(ratios.met) == ["target", "required", "missed", "required"]
    scaling = benchmarks.scaling_table(speed)
    assert scaling.to_dict("list") == {
        "size": ["K", "K", "d"],
        "value": [4, 8, 7],
        "ms": [1.0, 1.9, 3.0],
        "exponent": [0.93, 0.93, 0.5],
    }


def test_reads_what_was_written(speed: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text(json.dumps(speed))
    assert benchmarks.read(file) == speed


def test_a_missing_file_of_speed_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.json does not exist; `make bench`"):
        benchmarks.read(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("content", "match"),
    [("{", "is not JSON"), ('{"step": {}}', r"lacks \['machine', 'sampling', 'scaling'")],
)
def test_a_bad_file_of_speed_is_refused(content: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=match):
        benchmarks.read(file)


# --- The project's own ---------------------------------------------------------------------------


def names_in(file: str) -> set[str]:
    """Names of the tests and their classes in the file of a path, or in those of a name."""
    paths = [ROOT / file] if "/" in file else list((ROOT / "tests").rglob(file))
    assert paths, file
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_values_are_of_tests_that_there_are() -> None:
    for test in benchmarks.torture_rows().test:
        file, *names = test.split("::")
        assert (ROOT / file).exists()
        assert set(names) <= names_in(file), test


def test_the_page_names_tests_that_there_are() -> None:
    page = nbformat.read(ROOT / "notebooks/reliability.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    named, file = 0, ""
    for match in re.finditer(r"`(?:(test_\w+\.py)(?:::(\w+))?|::(\w+))`", text):
        file = match[1] or file
        name = match[2] or match[3]
        assert {name} - {None} <= names_in(file), match[0]
        named += 1
    assert named > 20


def test_mutants_die_and_survivors_have_reasons() -> None:
    mutants = benchmarks.load(None, "mutants.json", "make mutants")["modules"]
    assert set(mutants) == {
        *("gmlib/functional.py", "gmlib/init.py", "gmlib/study/ledger.py"),
        "gmlib/study/metrics.py",
    }
    for module, own in mutants.items():
        assert len(own["survivors"]) <= 0.1 * own["mutants"], module
        assert all(survivor["reason"] for survivor in own["survivors"]), module


def test_the_file_of_speed_is_complete() -> None:
    own = benchmarks.read()
    assert own["study"]["runs"] == 15
    assert {"gmlib", "bare products", "plain autograd"} <= set(benchmarks.step_table(own).index)
    assert (benchmarks.scaling_table(own).exponent <= 1.1).all()
