"""The house: data go one way through the stages, and no file grows too long to be read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("validation", "datasets", "plan", "runs", "analysis", "figures", "claims", "cli")
STUDY = sorted(path for path in (ROOT / "gmlib/study").rglob("*.py"))
PYTHON = sorted(path for folder in ("gmlib", "tests") for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stage(module: str) -> int:
    """The place of a module of the study among the stages."""
    return STAGES.index(module.split(".")[2])


def test_the_stages_are_all_there_is() -> None:
    entries = {path.relative_to(ROOT / "gmlib/study").parts[0] for path in STUDY}
    assert {entry.removesuffix(".py") for entry in entries} == {"__init__", *STAGES}


@pytest.mark.parametrize("path", STUDY, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_stage_imports_from_one_below_it(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for module in imported(path):
        if module.startswith("gmlib.study."):
            assert stage(module) <= stage(own), module


def test_the_library_does_not_know_of_the_study() -> None:
    for path in (ROOT / "gmlib").glob("*.py"):
        if path.name != "__main__.py":  # the command
            assert not any("study" in module for module in imported(path)), path


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_has_more_than_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
