"""Read, compare and change the files of a ledger."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmlib.study import cli
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import ledger as ledger_module
from gmlib.study.runs.ledger import Ledger, LedgerError

Contents = dict[str, list[bytes]]
Damage = Callable[[Path], object]


def content(path: Path) -> Any:
    """All that a repair must not lose, of whatever kind the file is."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "link", os.readlink(path)
    if stat.S_ISDIR(mode):
        return {child.name: content(child) for child in path.iterdir()}
    return path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)


def lasting(ledger: Ledger) -> Contents:
    """The files' bytes, but for the lines that tell when and where a run was made."""
    passing = (b' "wall_time"', b' "provenance"', b' "digest"')
    return {
        path.name: [line for line in path.read_bytes().splitlines() if not line.startswith(passing)]
        for path in ledger.folder.iterdir()
        if path.suffix in (".json", ".npz")
    }


def listing(folder: Path) -> dict[str, Any]:
    """Every file with its content, hidden ones too."""
    return content(folder) if folder.exists() else {}


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record and make its digest fit, as an accident would not."""
    record = json.loads(path.read_text())
    del record["digest"]
    change(record)
    record["digest"] = ledger_module._digest(record)
    path.write_text(json.dumps(record))


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


def aged(seconds: float) -> Damage:
    """A draft of the record that was written so long ago."""

    def leave(path: Path) -> None:
        draft = path.with_name(f".{path.stem}-1.tmp")
        draft.write_text("{")
        os.utime(draft, (time.time() - seconds,) * 2)

    return leave


def ledger_command(ledger: Ledger, action: str) -> int:
    """Run `gmlib ledger`; the status that it exits with."""
    return cli.main(["ledger", action, "--ledger", str(ledger.folder)])
