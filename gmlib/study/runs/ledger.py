"""The ledger: one JSON file per record, written atomically, never edited, checked when read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

import gmlib
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import (
    MeasurementConfig,
    MeasurementRecord,
    NewerRecordError,
    RunRecord,
    migrated,
)

__all__ = ["Fault", "Ledger", "LedgerError", "printable", "project_root"]

_BY_LINE = ("curves", "movement", "value")  # keys whose entries have a line each
_DRAFT_SECONDS = 3600.0  # no process writes one file for so long

_MEASUREMENTS = "measurements"  # folder in the ledger
_SET_ASIDE = "set-aside"  # folder beside the records

_AGAIN = "move it away and run the sweep again, or restore it from version control"


class LedgerError(RuntimeError):
    """A file of the ledger is invalid; the message names the file and the cure."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file of the ledger.

    Attributes:
        path: The file.
        reason: What is wrong, as a clause.
        cure: What to do, as a clause.
        bad: Whether `Ledger.repair` sets the file aside. It leaves files of newer versions.
    """

    path: Path
    reason: str
    cure: str = _AGAIN
    bad: bool = True

    def __str__(self) -> str:
        return printable(f"{self.path} {self.reason}; {self.cure}")


class Ledger:
    """Records in a folder, each in a file named after its configuration.

    The record of a run is ``<run_id>.json``, with parameter snapshots beside it in
    ``<run_id>.npz``. The record of a measurement is ``measurements/<measurement_id>.json``. Files
    appear under their names only when they are complete.

    Args:
        folder: Folder of the records, created when the first is written. By default the folder that
            the environment variable ``GMLIB_RESULTS`` names, else ``results`` in the project.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = _default_folder() if folder is None else Path(folder)
        if _exists(self.folder) and not self.folder.is_dir():
            raise LedgerError(f"the ledger {self.folder} is not a folder")

    def __repr__(self) -> str:
        return f"Ledger({str(self.folder)!r})"

    def path(self, config: RunConfig | MeasurementConfig) -> Path:
        """Return the path of the record of `config`, whether or not it exists."""
        if isinstance(config, MeasurementConfig):
            return self.folder / _MEASUREMENTS / f"{config.measurement_id}.json"
        return self.folder / f"{config.run_id}.json"

    def __contains__(self, config: RunConfig | MeasurementConfig) -> bool:
        return _exists(self.path(config))

    @overload
    def get(self, config: RunConfig) -> RunRecord | None: ...
    @overload
    def get(self, config: MeasurementConfig) -> MeasurementRecord | None: ...
    def get(self, config: RunConfig | MeasurementConfig) -> RunRecord | MeasurementRecord | None:
        """Return the record of `config`, or None if there is none.

        Raises:
            LedgerError: If the file is incomplete, was altered, or is not the record of `config`.
        """
        if config not in self:
            return None
        if isinstance(config, RunConfig):
            return _read(self.path(config), _parse_run)
        return _read(self.path(config), _parse_measurement)

    def __iter__(self) -> Iterator[RunRecord]:
        """All records of runs, in the order of their names."""
        return (_read(path, _parse_run) for path in _files(self.folder) if path.suffix == ".json")

    def measurements(self) -> Iterator[MeasurementRecord]:
        """All records of measurements, in the order of their names."""
        files = _files(self.folder / _MEASUREMENTS)
        return (_read(path, _parse_measurement) for path in files if path.suffix == ".json")

    def check(self) -> list[Fault]:
        """Read every file in the folder and return its faults; nothing is changed."""
        runs = _check(self.folder, _parse_run, {_SET_ASIDE, _MEASUREMENTS})
        return runs + _check(self.folder / _MEASUREMENTS, _parse_measurement, {_SET_ASIDE})

    def repair(self) -> list[tuple[Fault, Path]]:
        """Move bad files, with their snapshots, into the folder ``set-aside``; delete nothing.

        Returns:
            Each fault whose file was moved, and the new path of the file.

        Raises:
            LedgerError: If a file cannot be moved.
        """
        moved = []
        for fault in self.check():
            if not fault.bad:
                continue
            try:
                moved.append((fault, _set_aside(fault.path)))
            except OSError as error:
                raise LedgerError(
                    f"{fault.path} cannot be set aside ({error.strerror or error}); see that its "
                    "folder can be written, and repair it again: nothing is lost"
                ) from error
        return moved

    def put(self, record: RunRecord | MeasurementRecord) -> Path:
        """Write `record`, unless the ledger already has a record of that name.

        Raises:
            LedgerError: If the file cannot be written. No part of it is left.
        """
        path = self.path(record.config)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _held(path.parent):
                if record.config not in self:
                    _put(record, path)
        except OSError as error:
            raise LedgerError(
                f"{path} cannot be written ({error.strerror or error}); see that its folder can be "
                "written and has room, and run the sweep again: what is recorded stays"
            ) from error
        return path


# --- Files ---------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _closed(folder, error) from error


def _check(folder: Path, parse: Callable[[Path], object], folders: Collection[str]) -> list[Fault]:
    """Return the faults of the files in a folder; `folders` are allowed subfolders."""
    faults = []
    for path in _files(folder):
        if path.suffix == ".json":
            try:
                parse(path)
            except _UNREADABLE as error:
                faults.append(_fault(path, error))
        elif path.suffix == ".npz":
            if not _exists(path.with_suffix(".json")):
                faults.append(Fault(path, "belongs to no record", "the sweep writes it again"))
        elif path.name.startswith(".") and path.suffix == ".tmp":
            if _is_old(path):
                faults.append(Fault(path, "was left by a process that ended", "it holds nothing"))
        elif path.name not in folders or not path.is_dir():
            faults.append(Fault(path, "is no record", "it does not belong into a ledger"))
    return faults


def _set_aside(path: Path) -> Path:
    aside = path.parent / _SET_ASIDE
    aside.mkdir(exist_ok=True)
    # A record and its snapshots get the same number, so that they stay together.
    files = [path]
    if path.suffix == ".json" and _exists(path.with_suffix(".npz")):
        files.append(path.with_suffix(".npz"))
    number = 0
    while any(_exists(aside / _numbered(file, number)) for file in files):
        number += 1
    for file in files:
        file.rename(aside / _numbered(file, number))
    return aside / _numbered(path, number)


def _put(record: RunRecord | MeasurementRecord, path: Path) -> None:
    _clear_drafts(path)
    content = record.to_json()
    if isinstance(record, RunRecord):
        content["snapshots"] = _write_snapshots(record, path)
    _write_whole(path, _dump(content).encode())


def _write_snapshots(record: RunRecord, path: Path) -> dict[str, str] | None:
    if not record.snapshots:
        return None
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **record.snapshots)  # type: ignore[arg-type]
    file = path.with_suffix(".npz")
    _write_whole(file, buffer.getvalue())
    return {"file": file.name, "sha256": _sha256(buffer.getvalue())}


def _clear_drafts(path: Path) -> None:
    """Remove drafts left by processes that were killed while writing this record."""
    for draft in path.parent.glob(f".{path.stem}-*.tmp"):
        with suppress(OSError):  # another process has just finished it, or it is a folder
            if _is_old(draft):
                draft.unlink()


Record = TypeVar("Record")


def _read(path: Path, parse: Callable[[Path], Record]) -> Record:
    try:
        return parse(path)
    except _UNREADABLE as error:
        raise LedgerError(str(_fault(path, error))) from error


def _parse_run(path: Path) -> RunRecord:
    content = _parse(path, RunRecord)
    if content["run_id"] != path.stem:
        raise ValueError(f"its configuration is that of {content['run_id']}")
    return RunRecord.from_json(content, _read_snapshots(path, content["snapshots"]))


def _parse_measurement(path: Path) -> MeasurementRecord:
    content = _parse(path, MeasurementRecord)
    if content["measurement_id"] != path.stem:
        raise ValueError(f"its configuration is that of {content['measurement_id']}")
    return MeasurementRecord.from_json(content)


def _parse(path: Path, kind: type[RunRecord] | type[MeasurementRecord]) -> dict[str, Any]:
    """Check the digest of a record and return its content in the form of this version."""
    content = json.loads(_content(path).decode(), object_pairs_hook=_object)
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    current = migrated(content)
    if set(current) - kind.OPTIONAL_KEYS != {*kind.KEYS, "digest"}:
        raise ValueError(f"its keys are {sorted(content)}")
    if content["digest"] != _digest({key: content[key] for key in content if key != "digest"}):
        raise ValueError("it was altered: its digest does not match its content")
    return current


# Brackets nested too deep and archives with unsupported compression raise RuntimeError.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)


def printable(text: str) -> str:
    """Escape characters that cannot be encoded: names of files may be any bytes."""
    return text.encode(errors="backslashreplace").decode()


def _fault(path: Path, error: Exception) -> Fault:
    reason = f"is not a valid record ({error})"
    if isinstance(error, NewerRecordError):
        return Fault(path, reason, "update gmlib to read it", bad=False)
    return Fault(path, reason)


def _closed(path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        f"{path} cannot be read ({error.strerror or error}); see that the ledger is a folder that "
        "may be entered and read"
    )


def _exists(path: Path) -> bool:
    """Whether the path exists, even as a broken link."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _closed(path, error) from error
    return True


def _is_old(draft: Path) -> bool:
    """Whether no process can still be writing the draft. A time far ahead is from a wrong clock."""
    with suppress(FileNotFoundError):  # another process has just finished it
        return abs(time.time() - draft.lstat().st_mtime) > _DRAFT_SECONDS
    return False


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes from writing records to `folder` meanwhile.

    Sweeps that do not share a lock, for example in two containers, may end the same run at once.
    The record of one would then lie beside the snapshots of the other.
    """
    with ExitStack() as stack:
        with suppress(ImportError, OSError):  # not every system or file system can
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _content(path: Path) -> bytes:
    """Read a file, refusing pipes and devices, which might never end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError("it is no regular file")
    return path.read_bytes()  # raises IsADirectoryError for a folder


def _numbered(path: Path, number: int) -> str:
    return path.name if number == 0 else f"{path.stem}-{number}{path.suffix}"


def _read_snapshots(path: Path, entry: Mapping[str, str] | None) -> dict[str, NDArray[np.float32]]:
    if entry is None:
        return {}
    file = path.with_suffix(".npz")
    if entry["file"] != file.name:
        raise ValueError(f"it names snapshots {entry['file']!r}, not {file.name!r}")
    content = _content(file)
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
    """Return the checkout that contains the package or else the working directory, if any."""
    here = Path.cwd()
    for root in (Path(gmlib.__file__).parents[1], here, *here.parents):
        if (root / "pyproject.toml").exists() and (root / "gmlib").is_dir():
            return root
    return None


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it exists completely or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # only the owner can read mkstemp's files
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _dump(content: dict[str, Any]) -> str:
    """JSON with one line for each top-level key and each curve: short, and fit for a diff."""
    order = [key for key in content if key not in _BY_LINE]
    lines = [f' "{key}": {json.dumps(content[key])}' for key in order]
    for key in _BY_LINE:
        if isinstance(content.get(key), dict):
            entries = ",\n".join(
                f'  "{name}": {json.dumps(entry)}' for name, entry in content[key].items()
            )
            lines.append(f' "{key}": {{\n{entries}\n }}')
        elif key in content:
            lines.append(f' "{key}": {json.dumps(content[key])}')
    lines.append(f' "digest": "{_digest(content)}"')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _digest(content: dict[str, Any]) -> str:
    # NaN, which JSON cannot represent, raises here: content with NaN has no digest.
    return _sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an entry hides another of the same name")
    return content
