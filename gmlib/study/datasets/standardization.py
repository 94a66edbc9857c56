"""Standardization: of each image by itself, or of all or of each pixel by the training set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmlib.study.datasets.formats import Array

__all__ = [
    "STANDARDIZATIONS",
    "scale_range",
    "standardize_dataset",
    "standardize_images",
    "standardize_pixels",
]


def standardize_images(images: Tensor) -> Tensor:
    """Flatten each image and give it mean 0 and standard deviation 1.

    Both are computed over the d pixels of the image, with the population's divisor d. A constant
    image has nothing to scale and becomes all zeros.

    Args:
        images: Real numbers.

    Returns:
        The standardized images, computed in float64 and rounded to float32.

    Raises:
        ValueError: If there are no pixels, or a pixel is NaN or infinite.

    Shape:
        - images: :math:`(N, *)`, with :math:`d` pixels each.
        - Output: :math:`(N, d)`.
    """
    flat = _flatten(images)
    result = np.empty(flat.shape, dtype=np.float32)
    for part in _parts(flat):
        rows = flat[part].astype(np.float64)
        centered = rows - rows.mean(axis=1, keepdims=True)
        std = np.sqrt(np.square(centered).mean(axis=1, keepdims=True))
        # Detect constant images by range, not std: the mean of equal floats may have a rounding
        # error, which division by the equally small std would amplify into an image of noise.
        std[np.ptp(rows, axis=1) == 0] = np.inf
        result[part] = centered / std
    return torch.from_numpy(result)


def standardize_dataset(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten both splits and standardize them by the training set's mean and std.

    One mean and one standard deviation (divisor N d) are computed over all pixels of all training
    images.

    Args:
        train: Real numbers, the training images.
        test: Real numbers, the test images.

    Returns:
        Both splits, standardized, computed in float64 and rounded to float32.

    Raises:
        ValueError: If there are no pixels, a pixel is NaN or infinite, or all training pixels are
            equal.

    Shape:
        - train: :math:`(N, *)`, with :math:`d` pixels each.
        - test: :math:`(M, *)`, with :math:`d` pixels each.
        - Output: :math:`(N, d)` and :math:`(M, d)`.
    """
    flat = _flatten(train)
    if all((flat[part] == flat[0, 0]).all() for part in _parts(flat)):
        raise ValueError("all training pixels are equal, so that their deviation is 0")
    mean = math.fsum(flat[part].sum(dtype=np.float64) for part in _parts(flat)) / flat.size
    squares = math.fsum(
        np.square(np.subtract(flat[part], mean, dtype=np.float64)).sum() for part in _parts(flat)
    )
    std = math.sqrt(squares / flat.size)
    return _scaled(flat, mean, std), _scaled(_flatten(test), mean, std)


def standardize_pixels(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten both splits and standardize each pixel by its mean and std over the training set.

    A pixel that has one value in all training images has nothing to scale and becomes zero in both
    splits.

    Args:
        train: Real numbers, the training images.
        test: Real numbers, the test images.

    Returns:
        Both splits, standardized, computed in float64 and rounded to float32.

    Raises:
        ValueError: If there are no pixels, or a pixel is NaN or infinite.

    Shape:
        - train: :math:`(N, *)`, with :math:`d` pixels each.
        - test: :math:`(M, *)`, with :math:`d` pixels each.
        - Output: :math:`(N, d)` and :math:`(M, d)`.
    """
    flat = _flatten(train)
    mean = sum(flat[part].sum(axis=0, dtype=np.float64) for part in _parts(flat)) / len(flat)
    squares = sum(
        np.square(np.subtract(flat[part], mean, dtype=np.float64)).sum(axis=0)
        for part in _parts(flat)
    )
    std = np.sqrt(squares / len(flat))
    std[np.ptp(flat, axis=0) == 0] = np.inf
    return _scaled(flat, mean, std), _scaled(_flatten(test), mean, std)


def scale_range(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten both splits and map the range of the training pixels to [0, 1].

    Args:
        train: Real numbers, the training images.
        test: Real numbers, the test images.

    Returns:
        Both splits, scaled, computed in float64 and rounded to float32.

    Raises:
        ValueError: If there are no pixels, a pixel is NaN or infinite, or all training pixels are
            equal.

    Shape:
        - train: :math:`(N, *)`, with :math:`d` pixels each.
        - test: :math:`(M, *)`, with :math:`d` pixels each.
        - Output: :math:`(N, d)` and :math:`(M, d)`.
    """
    flat = _flatten(train)
    low, high = float(flat.min()), float(flat.max())
    if low == high:
        raise ValueError("all training pixels are equal, so that their range is 0")
    return _scaled(flat, low, high - low), _scaled(_flatten(test), low, high - low)


STANDARDIZATIONS: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "image": lambda train, test: (standardize_images(train), standardize_images(test)),
    "dataset": standardize_dataset,
    "pixel": standardize_pixels,
    "range": scale_range,
}
"""The standardizations of training and test images by name."""


def _scaled(flat: Array, offset: Any, scale: Any) -> Tensor:
    """The rows less an offset, over a scale."""
    result = np.empty(flat.shape, dtype=np.float32)
    for part in _parts(flat):
        result[part] = np.subtract(flat[part], offset, dtype=np.float64) / scale
    return torch.from_numpy(result)


def _flatten(images: Tensor) -> Array:
    """Check images and view them as a NumPy array of shape (N, d).

    NumPy computes on one thread, so the sums do not depend on the number of threads and do not
    wait for threads on a machine that trains on all cores.
    """
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} have no pixels")
    if images.is_floating_point() and not bool(images.isfinite().all()):
        raise ValueError("some pixels are NaN or infinite")
    if images.dtype == torch.bfloat16:  # NumPy has no bfloat16
        images = images.float()
    return images.detach().cpu().reshape(len(images), -1).numpy()


def _parts(flat: Array) -> Iterator[slice]:
    """Divide the rows so that float64 intermediates stay in the processor's cache."""
    return (slice(start, start + 256) for start in range(0, len(flat), 256))
