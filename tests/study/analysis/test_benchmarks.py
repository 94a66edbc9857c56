"""Figures of tests and mutants: from files to tables, and what the files of the project say."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

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


def test_tables_of_figures(file: Path) -> None:
    rows = benchmarks.torture_rows(file)
    wide = benchmarks.wide_table(rows, "ulps")
    assert list(wide.itertuples(name=None)) == [
        ("F, z ≥ −5", "3.4e-07", "2.5"),
        ("G, z < −5", "0.5", "0.75"),
    ]
    assert list(wide.columns) == ["single", "double"]
    table = benchmarks.figures_table(rows, "kills", "ulps")
    assert list(table.itertuples(name=None))[:3] == [
        ("killed", "100,000", "test_b.py: two of them"),
        ("a share", "some", "test_b.py: two of them"),
        ("F, z ≥ −5, single", "3.4e-07", "test_a.py: one"),
    ]


def test_counts_stay_counts(file: Path) -> None:
    file.write_text(json.dumps([ROWS[-2]]))
    table = benchmarks.figures_table(benchmarks.torture_rows(file), "kills")
    assert table["value"].tolist() == ["100,000"]


@pytest.mark.parametrize("table", [benchmarks.figures_table, benchmarks.wide_table])
def test_a_section_that_is_not_there_is_named(table, file: Path) -> None:
    with pytest.raises(KeyError, match="no figures of 'none', only of ulps, kills"):
        table(benchmarks.torture_rows(file), "none")


def test_tables_of_mutants() -> None:
    assert list(benchmarks.mutants_table(MUTANTS).itertuples(name=None)) == [
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
        with pytest.raises(ValueError, match="not figures of tests; `make torture` writes them"):
            benchmarks.torture_rows(path)


# --- The project's own ---------------------------------------------------------------------------


def names_in(file: str) -> set[str]:
    """Names of the tests and their classes, for a file by its name or path."""
    (path,) = (ROOT / "tests").rglob(Path(file).name)
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_figures_are_of_tests_that_there_are() -> None:
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
