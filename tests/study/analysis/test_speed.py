"""Speed: from the file that `make bench` writes to tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gmlib.study.analysis import benchmarks

QUARTILES = {"low": 1.9, "median": 2.0, "high": 2.2}


@pytest.fixture
def figures() -> dict:
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
            "ratios": {"gmlib / bare products": QUARTILES},
        },
        "scaling": {
            "K": {"values": [4, 8], "ms": [{"median": 1.0}, {"median": 1.9}], "exponent": 0.93},
            "d": {"values": [7], "ms": [{"median": 3.0}], "exponent": 0.5},
        },
        "sampling": {},
        "together": None,
    }


def test_tables(figures: dict) -> None:
    steps = benchmarks.step_table(figures)
    assert list(steps.index) == ["bare products", "gmlib"]  # the quickest first
    assert steps.loc["gmlib"].to_dict() == {**QUARTILES, "ms": 4.0}
    assert benchmarks.ratio_table(figures).loc["gmlib / bare products", "high"] == 2.2
    scaling = benchmarks.scaling_table(figures)
    assert scaling.to_dict("list") == {
        "size": ["K", "K", "d"],
        "value": [4, 8, 7],
        "ms": [1.0, 1.9, 3.0],
        "exponent": [0.93, 0.93, 0.5],
    }


def test_reads_what_was_written(figures: dict, tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text(json.dumps(figures))
    assert benchmarks.read(file) == figures


def test_the_projects_own_file_is_complete() -> None:
    own = benchmarks.read()
    assert own["study"]["runs"] == 15
    assert {"gmlib", "bare products", "plain autograd"} <= set(benchmarks.step_table(own).index)
    assert (benchmarks.scaling_table(own).exponent <= 1.1).all()


def test_a_missing_file_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.json does not exist; `make bench`"):
        benchmarks.read(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("content", "match"),
    [("{", "is not JSON"), ('{"step": {}}', r"lacks \['machine', 'sampling', 'scaling'")],
)
def test_a_bad_file_is_refused(content: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=match):
        benchmarks.read(file)
