"""Data sets: load, check, standardize.

`load` returns flat, standardized float32 images with integer labels and the checksums that a run's
record stores. `datasets.catalogue` defines where the images come from.
"""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gmlib.study.datasets.catalogue import DATASETS
from gmlib.study.datasets.files import DataError, FileSet, obtain, reason
from gmlib.study.datasets.standardization import STANDARDIZATIONS
from gmlib.study.validation import is_import_path

__all__ = [
    "Dataset",
    "fetch",
    "load",
]


@dataclass(frozen=True)
class Dataset:
    """A standardized data set, split into training and test examples.

    Attributes:
        name: The name given to `load`.
        x_train: Flattened training images, float32, standardized.
        y_train: Their labels, int64.
        x_test: Flattened test images, float32, standardized.
        y_test: Their labels, int64.
        checksums: Checksums of the source data, for a run's record: the MD5 of each uncompressed
            file by file name or, for a function, the SHA-256 of each returned tensor by its name.

    Shape:
        - x_train, x_test: :math:`(N, d)` and :math:`(M, d)`, with :math:`d` pixels per image.
        - y_train, y_test: :math:`(N,)` and :math:`(M,)`, each label in :math:`0, ..., C - 1`.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    checksums: dict[str, str]

    @property
    def num_features(self) -> int:
        """d, the number of pixels per image."""
        return self.x_train.shape[1]

    @property
    def num_classes(self) -> int:
        """C, one more than the largest label of either split."""
        return 1 + int(max(self.y_train.max(), self.y_test.max()))


# --- Loading -------------------------------------------------------------------------------------


def load(name: str, standardize: str = "image", root: Path | None = None) -> Dataset:
    """Load a data set, fetching it first if necessary.

    Args:
        name: One of `DATASETS`, or ``"package.module:function"``. Such a function takes no argument
            and returns ``(x_train, y_train, x_test, y_test)``: real-valued images of shape (N, ...)
            and integer labels of shape (N,), as tensors or NumPy arrays, not yet standardized.
        standardize: ``"image"``: see `standardize_images`. ``"dataset"``: see
            `standardize_dataset`. ``"pixel"``: see `standardize_pixels`. ``"range"``: see
            `scale_range`.
        root: The cache folder; `data_root()` by default.

    Returns:
        A new :class:`Dataset` at each call, so that callers share no tensors. Loading takes a
        second or two, about four seconds for CIFAR-10, and two for MNIST-1D, which is generated.

    Raises:
        ValueError: If `name` or `standardize` is not one of the above.
        DataError: If no source has the files, or the function cannot be imported or returns
            anything else.
    """
    if standardize not in STANDARDIZATIONS:
        allowed = ", ".join(map(repr, STANDARDIZATIONS))
        raise ValueError(f"standardize must be one of {allowed}, got {standardize!r}")
    origin = DATASETS[name].origin if name in DATASETS else _import(name)
    if isinstance(origin, FileSet):
        x_train, y_train, x_test, y_test = origin.decode(obtain(name, origin, root))
        checksums = dict(origin.md5)
    else:
        splits = _call(name, origin)
        x_train, y_train, x_test, y_test = splits.values()
        checksums = {key: _sha256(tensor) for key, tensor in splits.items()}
    try:
        x_train, x_test = STANDARDIZATIONS[standardize](x_train, x_test)
    except ValueError as error:
        raise DataError(f"data set {name!r}: {error}") from error
    return Dataset(name, x_train, y_train.long(), x_test, y_test.long(), checksums)


def fetch(name: str, root: Path | None = None) -> Path:
    """Verify the files of a published data set, and fetch them if necessary.

    Args:
        name: One of `DATASETS` that consists of files.
        root: The cache folder; `data_root()` by default.

    Returns:
        The folder of the files, such as ``root / "MNIST" / "raw"``. Torchvision's data set classes
        find the files if they are given `root`.

    Raises:
        ValueError: If `name` is not such a data set.
        DataError: If no source has the files. The message says why each source failed.
    """
    published = {
        key: entry.origin for key, entry in DATASETS.items() if isinstance(entry.origin, FileSet)
    }
    if name not in published:
        raise ValueError(f"data set must be one of {', '.join(map(repr, published))}, got {name!r}")
    files = published[name]
    obtain(name, files, root)
    return files.path(root)


# --- Data sets from functions --------------------------------------------------------------------


def _import(name: str) -> Callable[[], object]:
    """Import ``package.module:function``."""
    if not is_import_path(name):
        known = ", ".join(map(repr, DATASETS))
        raise ValueError(
            f"data set must be one of {known} or of the form 'package.module:function', "
            f"got {name!r}"
        )
    try:
        function: Callable[[], object] = pkgutil.resolve_name(name)
    except Exception as error:
        raise DataError(f"data set {name!r} cannot be imported: {reason(error)}") from error
    if not callable(function):
        raise DataError(f"data set {name!r} must be a function, got {type(function).__name__}")
    return function


def _call(name: str, function: Callable[[], object]) -> dict[str, Tensor]:
    """Call the function behind a data set and check what it returns."""
    try:
        returned = function()
    except Exception as error:
        raise DataError(f"data set {name!r} failed when called: {reason(error)}") from error
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
        # Copy an array, since it may be read-only or have negative strides.
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
