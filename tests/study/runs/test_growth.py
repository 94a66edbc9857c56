"""The ledger outlives the code: settings and versions are added to a copy of the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmlib.study import cli
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord

ROOT = Path(__file__).parents[3]
CONFIG, RECORDS = "gmlib/study/plan/config.py", "gmlib/study/runs/records.py"

SETTING = (CONFIG, "    snapshots: bool = False\n", "    momentum: float = 0.0\n")
VERSION = (RECORDS, "SCHEMA = 1\n", "SCHEMA = 2\n")
MIGRATION = (
    RECORDS,
    "MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}\n",
    "MIGRATIONS = {1: lambda content: {**content, 'provenance': {}}}\n",
)


@pytest.fixture
def grown(tmp_path: Path) -> Callable[..., Any]:
    """Change lines in a copy of the package, and run a script with it beside a copied ledger."""
    copied = shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.copytree(ROOT / "gmlib", tmp_path / "gmlib")

    def run(script: str, *changes: tuple[str, str, str]) -> str:
        for file, line, new in changes:
            path = tmp_path / file
            text = path.read_text()
            assert text.count(line) == 1
            path.write_text(text.replace(line, line + new if file == CONFIG else new))
        before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
        result = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "GMLIB_RESULTS": str(copied)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
        assert after == before
        return result.stdout

    return run


WHOLE = """
from gmlib.study import cli
from gmlib.study.plan import config
from gmlib.study.runs import records
from gmlib.study.runs.ledger import Ledger
from gmlib.study.plan.studies import STUDIES
assert cli.main(["ledger", "check"]) == 0
assert cli.main(["ledger", "repair"]) == 0
assert all(config in Ledger() for config in STUDIES["main study"])
"""


def test_a_new_setting_renames_nothing(grown: Callable[..., Any]) -> None:
    script = (
        WHOLE
        + """
plain = config.RunConfig("KUMAR", 0)
assert config.RunConfig("KUMAR", 0, momentum=0.9).run_id != plain.run_id
assert "momentum" not in plain.canonical()
assert next(iter(Ledger())).config.momentum == 0.0
"""
    )
    assert "0 faults" in grown(script, SETTING)


def test_an_older_version_is_read_and_left_as_it_is(grown: Callable[..., Any]) -> None:
    script = (
        WHOLE
        + """
assert next(iter(Ledger())).provenance == {}  # as the migration has it
assert next(iter(Ledger())).to_json()["schema"] == 2
"""
    )
    assert "0 faults" in grown(script, VERSION, MIGRATION)


def test_a_version_without_a_migration_is_a_fault_of_the_code(grown: Callable[..., Any]) -> None:
    script = """
from gmlib.study.runs.ledger import Ledger
assert "its schema is 1, this version reads 2" in str(Ledger().check()[0])
"""
    grown(script, VERSION)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.update(schema=2, more=1), "its schema is 2"),
        (lambda content: content["config"].update(momentum=0.9), "unknown here, ['momentum']"),
    ],
)
def test_what_a_newer_version_wrote_is_left_alone(
    change: Callable[[dict[str, Any]], None],
    reason: str,
    tmp_path: Path,
    make_record: Callable[..., RunRecord],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from gmlib.study.runs.ledger import _digest

    ledger = Ledger(tmp_path)
    path = ledger.put(make_record())
    content = json.loads(path.read_text())
    del content["digest"]
    change(content)
    path.write_text(json.dumps({**content, "digest": _digest(content)}))
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="update gmlib to read it"):
        list(ledger)
    assert cli.main(["ledger", "repair", "--ledger", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert reason in out
    assert "update gmlib" in out
    assert path.read_bytes() == before
