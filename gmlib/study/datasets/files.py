"""Data sets that are files: fetched once, verified whenever they are read.

A `FileSet` lies in a cache folder, in the layout that torchvision reads and writes
(``MNIST/raw/train-images-idx3-ubyte`` and so on), and its MD5s are checked whenever it is read: a
digit that changed on disk would otherwise change every curve in silence.
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
    """A data set could not be fetched, or is not what it should be."""


@dataclass(frozen=True)
class Source:
    """A place that files come from; `fill(folder)` writes there what it has of a `FileSet`."""

    name: str
    fill: Callable[[Path], None]


@dataclass(frozen=True)
class FileSet:
    """A published data set, as files.

    Attributes:
        folder: Where the files lie below the cache folder: where torchvision's class looks for
            them.
        md5: File name to MD5 of the uncompressed file.
        sources: Asked in this order for files that are not in the cache.
        decode: Makes x_train, y_train, x_test and y_test of the contents by file name.
    """

    folder: str
    md5: Mapping[str, str]
    sources: tuple[Source, ...]
    decode: Callable[[Mapping[str, bytes]], tuple[Tensor, Tensor, Tensor, Tensor]]

    def path(self, root: Path | None) -> Path:
        """Return the folder of the files in the cache folder `root`, if not `data_root()`."""
        return Path(root or data_root()) / self.folder


# --- The cache -----------------------------------------------------------------------------------


def data_root() -> Path:
    """Return the cache folder: ``GMLIB_DATA`` if set, else the user's cache folder for gmlib."""
    override = os.environ.get("GMLIB_DATA")
    return Path(override or platformdirs.user_cache_dir("gmlib")).expanduser().absolute()


def obtain(name: str, files: FileSet, root: Path | None) -> dict[str, bytes]:
    """Read the verified files, after fetching those that are missing or fail.

    Args:
        name: What errors call the data set.
        files: Which files, and where to get them.
        root: The cache folder, if not `data_root()`.

    Returns:
        File name to contents.

    Raises:
        DataError: If no source has the files; names each source that was tried and why it failed.
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
    """Contents of the files with the right MD5, and what is wrong with the others."""
    contents: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    for file, expected in md5.items():
        try:
            payload = (folder / file).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            faults[file] = "is missing"
            continue
        except OSError as error:  # a folder of its name, say
            faults[file] = f"cannot be read ({reason(error)})"
            continue
        actual = hashlib.md5(payload, usedforsecurity=False).hexdigest()
        if actual == expected:
            contents[file] = payload
        else:
            faults[file] = f"has MD5 {actual}, not {expected}"
    return contents, faults


def _fetch(name: str, files: FileSet, raw: Path, faults: Mapping[str, str]) -> dict[str, bytes]:
    """Put verified files in the place of the faulty ones, from the first source that has them.

    Sources write into a folder of their own within `raw`, hence on the same file system, and only
    whole and verified files are renamed into place: no reader ever sees half a file. The folder of
    a process that was killed is left to the next fetch, which holds the lock and may remove it.
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
            except Exception as error:  # whatever ails one source, the next may be well
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
    """Rename what is no file of the right checksum, warn, and return the sentence that says so."""
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
    """Say on one line what an exception is and says."""
    sentence = " ".join(str(error).split())
    return sentence if isinstance(error, DataError) else f"{type(error).__name__}: {sentence}"


def from_folder(files: Iterable[str], origin: Path, folder: Path) -> None:
    """Copy those of the files that `origin` has, plain or compressed."""
    for file in files:
        plain, packed = origin / file, origin / f"{file}.gz"
        if plain.exists():
            shutil.copyfile(plain, folder / file)
        elif packed.exists():
            (folder / file).write_bytes(gzip.decompress(packed.read_bytes()))
