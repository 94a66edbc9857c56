"""The ledger: one JSON file a run, written whole, never edited, checked whenever it is read."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gmlib
from gmlib.init import LayerScale
from gmlib.study.config import RunConfig
from gmlib.study.training import CURVES, RunRecord

__all__ = ["SCHEMA", "Fault", "Ledger", "LedgerError", "project_root"]

SCHEMA = 1
"""Version of the file format."""

_DRAFT_SECONDS = 3600.0  # nobody writes one file for so long

_KEYS = (
    "schema",
    "run_id",
    "config",
    "provenance",
    "wall_time",
    "init_report",
    "curves",
    "snapshots",
)


_SET_ASIDE = "set-aside"  # folder in the ledger

_AGAIN = "move it away and run the sweep again, or restore it from version control"


class LedgerError(RuntimeError):
    """A file of the ledger is not what it should be; the message names it and the cure."""


class _NewerSchema(ValueError):
    """A file that may well be sound, and is not for this version to judge."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file of the ledger.

    Attributes:
        path: The file.
        reason: What is wrong, as a clause.
        cure: What to do, as a clause.
        bad: Whether `Ledger.repair` sets the file aside. It leaves what a newer version wrote.
    """

    path: Path
    reason: str
    cure: str = _AGAIN
    bad: bool = True

    def __str__(self) -> str:
        return f"{self.path} {self.reason}; {self.cure}"


class Ledger:
    """Records of runs in a folder, by the name that follows from each run's configuration.

    A record is the file ``<run_id>.json``; parameter snapshots sit beside it as ``<run_id>.npz``.
    Both appear under their names only when they are complete.

    Args:
        folder: Where the records are; made when the first is written. By default the folder that
            the environment variable ``GMLIB_RESULTS`` names, else ``results`` in the project.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = _default_folder() if folder is None else Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise LedgerError(f"the ledger {self.folder} is not a folder")

    def __repr__(self) -> str:
        return f"Ledger({str(self.folder)!r})"

    def path(self, config: RunConfig) -> Path:
        """Where the record of `config` is, or would be."""
        return self.folder / f"{config.run_id}.json"

    def __contains__(self, config: RunConfig) -> bool:
        return self.path(config).exists()

    def get(self, config: RunConfig) -> RunRecord | None:
        """The record of `config`, or None where there is none.

        Raises:
            LedgerError: If the file is torn, was altered, or is not the record of `config`.
        """
        return self._read(self.path(config)) if config in self else None

    def __iter__(self) -> Iterator[RunRecord]:
        """All records, in the order of their names."""
        return (self._read(path) for path in sorted(self.folder.glob("*.json")))

    def check(self) -> list[Fault]:
        """What is wrong in the folder: every file is read, nothing is changed."""
        faults = []
        for path in sorted(self.folder.iterdir()) if self.folder.exists() else ():
            if path.suffix == ".json":
                try:
                    self._parse(path)
                except _UNREADABLE as error:
                    faults.append(_fault(path, error))
            elif path.suffix == ".npz":
                if not path.with_suffix(".json").exists():
                    faults.append(Fault(path, "belongs to no record", "the sweep writes it again"))
            elif path.name.startswith(".") and path.suffix == ".tmp":
                if _is_old(path):
                    faults.append(
                        Fault(path, "was left by a process that ended", "it holds nothing")
                    )
            elif path.name != _SET_ASIDE:
                faults.append(Fault(path, "is no record", "it does not belong into a ledger"))
        return faults

    def repair(self) -> list[tuple[Fault, Path]]:
        """Move bad files, with what belongs to them, into the folder ``set-aside``; delete nothing.

        Returns:
            Each fault whose file was moved, and where the file is now.
        """
        moved = []
        aside = self.folder / _SET_ASIDE
        for fault in self.check():
            if not fault.bad:
                continue
            aside.mkdir(exist_ok=True)
            # One number for a record and its snapshots, so that they stay together.
            files = [fault.path]
            if fault.path.suffix == ".json" and fault.path.with_suffix(".npz").exists():
                files.append(fault.path.with_suffix(".npz"))
            number = 0
            while any((aside / _numbered(file, number)).exists() for file in files):
                number += 1
            for file in files:
                file.rename(aside / _numbered(file, number))
            moved.append((fault, aside / _numbered(fault.path, number)))
        return moved

    def put(self, record: RunRecord) -> Path:
        """Write `record`, unless the ledger has it: the first record of a run stays.

        Raises:
            LedgerError: If the file cannot be written. Nothing is left of it, then.
        """
        path = self.path(record.config)
        try:
            if not path.exists():
                self._put(record, path)
        except OSError as error:
            raise LedgerError(
                f"{path} cannot be written ({error.strerror or error}); see that its folder can be "
                "written and has room, and run the sweep again: what is recorded stays"
            ) from error
        return path

    def _put(self, record: RunRecord, path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clear_drafts(path)
        snapshots = None
        if record.snapshots:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **record.snapshots)  # type: ignore[arg-type]
            file = path.with_suffix(".npz")
            _write_whole(file, buffer.getvalue())
            snapshots = {"file": file.name, "sha256": _sha256(buffer.getvalue())}
        content = {
            "schema": SCHEMA,
            "run_id": record.config.run_id,
            "config": record.config.canonical(),
            "provenance": dict(record.provenance),
            "wall_time": record.wall_time,
            "init_report": [asdict(layer) for layer in record.init_report],
            "curves": {name: _to_json(record.curves[name]) for name in CURVES},
            "snapshots": snapshots,
        }
        if record.movement:
            content["movement"] = {
                name: _to_json(distances) for name, distances in record.movement.items()
            }
        _write_whole(path, _dump(content).encode())

    def _clear_drafts(self, path: Path) -> None:
        """Remove what somebody left behind who was killed while writing this record."""
        for draft in self.folder.glob(f".{path.stem}-*.tmp"):
            with suppress(FileNotFoundError):  # somebody else has just finished it
                if _is_old(draft):
                    draft.unlink()

    def _read(self, path: Path) -> RunRecord:
        try:
            return self._parse(path)
        except _UNREADABLE as error:
            raise LedgerError(str(_fault(path, error))) from error

    def _parse(self, path: Path) -> RunRecord:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        schema = content.get("schema")
        if schema != SCHEMA:
            newer = isinstance(schema, int) and schema > SCHEMA
            raise (_NewerSchema if newer else ValueError)(
                f"its schema is {schema!r}, this version reads {SCHEMA}"
            )
        if set(content) - {"movement"} != {*_KEYS, "digest"}:
            raise ValueError(f"its keys are {sorted(content)}")
        digest = content.pop("digest")
        if digest != _digest(content):
            raise ValueError("it was altered: its digest does not match its content")
        config = RunConfig.from_dict(content["config"])
        if not config.run_id == content["run_id"] == path.stem:
            raise ValueError(f"its configuration is that of {config.run_id}")
        curves = {name: _from_json(content["curves"][name]) for name in CURVES}
        movement = {name: _from_json(curve) for name, curve in content.get("movement", {}).items()}
        if len({len(curve) for curve in (*curves.values(), *movement.values())}) != 1:
            raise ValueError("its curves differ in length")
        return RunRecord(
            config=config,
            curves=curves,
            init_report=tuple(LayerScale(**layer) for layer in content["init_report"]),
            wall_time=content["wall_time"],
            provenance=content["provenance"],
            snapshots=_read_snapshots(path, content["snapshots"]),
            movement=movement,
        )


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def _fault(path: Path, error: Exception) -> Fault:
    reason = f"is not a valid record ({error})"
    if isinstance(error, _NewerSchema):
        return Fault(path, reason, "update gmlib to read it", bad=False)
    return Fault(path, reason)


def _is_old(draft: Path) -> bool:
    return time.time() - draft.stat().st_mtime > _DRAFT_SECONDS


def _numbered(path: Path, number: int) -> str:
    return path.name if number == 0 else f"{path.stem}-{number}{path.suffix}"


def _read_snapshots(path: Path, entry: Mapping[str, str] | None) -> dict[str, NDArray[np.float32]]:
    if entry is None:
        return {}
    file = path.with_suffix(".npz")
    if entry["file"] != file.name:
        raise ValueError(f"it names snapshots {entry['file']!r}, not {file.name!r}")
    content = file.read_bytes()
    if _sha256(content) != entry["sha256"]:
        raise ValueError(f"its snapshots {file.name} were altered")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _default_folder() -> Path:
    override = os.environ.get("GMLIB_RESULTS")
    if override:
        return Path(override)
    root = project_root()
    if root is None:
        raise LedgerError(
            f"neither {Path.cwd()} nor a folder above it is this project; name the folder of the "
            "ledger, or set GMLIB_RESULTS"
        )
    return root / "results"


def project_root() -> Path | None:
    """The checkout that the package is in, or that the working directory is in."""
    here = Path.cwd()
    for root in (Path(gmlib.__file__).parents[1], here, *here.parents):
        if (root / "pyproject.toml").exists() and (root / "gmlib").is_dir():
            return root
    return None


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's files are for their owner only
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _dump(content: dict[str, Any]) -> str:
    """JSON with one line for each top-level key and each curve: short, and fit for a diff."""
    lines = [
        f' "{key}": {json.dumps(content[key], allow_nan=False)}' for key in _KEYS if key != "curves"
    ]
    for key in ("curves", "movement"):
        if key in content:
            curves = ",\n".join(
                f'  "{name}": {json.dumps(curve, allow_nan=False)}'
                for name, curve in content[key].items()
            )
            lines.append(f' "{key}": {{\n{curves}\n }}')
    lines.append(f' "digest": "{_digest(content)}"')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _digest(content: dict[str, Any]) -> str:
    return _sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _to_json(curve: list[float]) -> list[float | None]:
    """JSON has no NaN and no infinity: a value that is not finite becomes null."""
    return [value if math.isfinite(value) else None for value in curve]


def _from_json(curve: list[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in curve]
