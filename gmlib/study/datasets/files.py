"""Data sets stored as files, fetched once and verified whenever they are read.

A `FileSet` is stored in a cache folder, in the layout that torchvision reads and writes
(``MNIST/raw/train-images-idx3-ubyte`` and so on). Its MD5s are checked whenever it is read, since
a digit that changed on disk would otherwise change every curve silently.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path

import platformdirs
from filelock import FileLock
from torch import Tensor

__all__ = [
    "DataError",
    "FileSet",
    "Source",
    "data_root",
    "from_folder",
    "obtain",
    "reason",
]

_LOCK_SECONDS = 3600.0  # the process that holds the lock may download slowly, or hang


class DataError(RuntimeError):
    """A data set could not be fetched or is invalid."""


@dataclass(frozen=True)
class Source:
    """A source of files; `fill(folder)` writes those files of a `FileSet` that it has."""

    name: str
    fill: Callable[[Path], None]


@dataclass(frozen=True)
class FileSet:
    """A published data set that consists of files.

    Attributes:
        folder: Folder of the files within the cache folder, where torchvision's class looks for
            them.
        md5: MD5 of each uncompressed file, by file name.
        sources: Sources of files that are not in the cache, tried in this order.
        decode: Converts file contents by file name to x_train, y_train, x_test and y_test.
    """

    folder: str
    md5: Mapping[str, str]
    sources: tuple[Source, ...]
    decode: Callable[[Mapping[str, bytes]], tuple[Tensor, Tensor, Tensor, Tensor]]

    def path(self, root: Path | None) -> Path:
        """Return the folder of the files in the cache folder `root` (default: `data_root()`)."""
        return Path(root or data_root()) / self.folder


# --- The cache -----------------------------------------------------------------------------------


def data_root() -> Path:
    """Return the cache folder: ``GMLIB_DATA`` if set, else the user's cache folder for gmlib."""
    override = os.environ.get("GMLIB_DATA")
    return Path(override or platformdirs.user_cache_dir("gmlib")).expanduser().absolute()


def obtain(name: str, files: FileSet, root: Path | None) -> dict[str, bytes]:
    """Read and verify the files, after fetching those that are missing or invalid.

    Args:
        name: Name of the data set in error messages.
        files: The files and their sources.
        root: The cache folder; `data_root()` by default.

    Returns:
        Contents by file name.

    Raises:
        DataError: If no source has the files. The message says why each source failed.
    """
    raw = files.path(root)
    contents, faults = _read(raw, files.md5)
    if not faults:
        return contents
    try:
        raw.mkdir(parents=True, exist_ok=True)
        lock = FileLock(raw / ".lock", timeout=_LOCK_SECONDS).acquire()
    except OSError as error:
        raise DataError(
            f"{name} is not in {raw}, and cannot be fetched into it ({reason(error)}); "
            "set GMLIB_DATA to a folder that can be written"
        ) from error
    with lock:
        # Another process may have fetched them meanwhile.
        contents, faults = _read(raw, files.md5)
        if faults:
            contents |= _fetch(name, files, raw, faults)
    return contents


def _read(folder: Path, md5: Mapping[str, str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the contents of the files with the right MD5, and the faults of the others."""
    contents: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    for file, expected in md5.items():
        try:
            payload = (folder / file).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            faults[file] = "is missing"
            continue
        except OSError as error:  # for example, a folder of that name
            faults[file] = f"cannot be read ({reason(error)})"
            continue
        actual = hashlib.md5(payload, usedforsecurity=False).hexdigest()
        if actual == expected:
            contents[file] = payload
        else:
            faults[file] = f"has MD5 {actual}, not {expected}"
    return contents, faults


def _fetch(name: str, files: FileSet, raw: Path, faults: Mapping[str, str]) -> dict[str, bytes]:
    """Replace the faulty files by verified ones from the first source that has them all.

    Each source writes into a temporary folder within `raw`, hence on the same file system. Only
    complete, verified files are renamed into place, so no reader sees a partial file. The next
    fetch, which holds the lock, removes the temporary folder of a process that was killed.
    """
    for abandoned in raw.glob(".fetch-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    set_aside = [_set_aside(raw / file, why) for file, why in faults.items()]
    sources = files.sources
    if any(raw.glob("*.gz")):
        by_hand = partial(from_folder, tuple(files.md5), raw)
        sources = (Source(f"the .gz files in {raw}", by_hand), *sources)
    failures: list[str] = []
    for source in sources:
        with tempfile.TemporaryDirectory(dir=raw, prefix=".fetch-") as temporary:
            folder = Path(temporary)
            try:
                source.fill(folder)
                contents, wrong = _read(folder, {file: files.md5[file] for file in faults})
            except Exception as error:  # whatever the error, the next source may work
                failures.append(f"{source.name}: {reason(error)}")
                continue
            if wrong:
                failures.append(f"{source.name}: {_describe(wrong)}")
                continue
            for file in faults:
                os.replace(folder / file, raw / file)
            return contents
    tried = "".join(f"\n  - {failure}" for failure in failures)
    aside = "".join(f"\nSet aside: {sentence}" for sentence in set_aside if sentence)
    raise DataError(
        f"{name} could not be fetched. Tried in this order:{tried}{aside}\n"
        f"To put the files there by hand, copy {', '.join(files.md5)} (plain or .gz) into {raw}; "
        "GMLIB_DATA names another cache folder."
    )


def _set_aside(path: Path, why: str) -> str | None:
    """Rename an existing path that failed verification, warn, and return the warning's text."""
    if not path.exists():
        return None
    names = chain([f"{path.name}.corrupt"], (f"{path.name}.corrupt-{n}" for n in count(1)))
    target = next(target for target in map(path.with_name, names) if not target.exists())
    path.rename(target)
    sentence = f"{path} {why}; renamed to {target.name}"
    warnings.warn(sentence, stacklevel=2)
    return sentence


def _describe(faults: Mapping[str, str]) -> str:
    return ", ".join(f"{file} {why}" for file, why in faults.items())


def reason(error: BaseException) -> str:
    """Return an exception's type and message on one line; of a `DataError`, only the message."""
    sentence = " ".join(str(error).split())
    return sentence if isinstance(error, DataError) else f"{type(error).__name__}: {sentence}"


def from_folder(files: Iterable[str], origin: Path, folder: Path) -> None:
    """Copy the `files` that `origin` has, plain or as .gz, to `folder`, decompressed."""
    for file in files:
        plain, packed = origin / file, origin / f"{file}.gz"
        if plain.exists():
            shutil.copyfile(plain, folder / file)
        elif packed.exists():
            (folder / file).write_bytes(gzip.decompress(packed.read_bytes()))
