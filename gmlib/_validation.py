"""What arguments are refused, with an error that names what came and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["check_alike", "check_dtype", "check_generator", "check_positive", "check_tensors"]


def check_tensors(tensors: Mapping[str, object]) -> None:
    """Raise unless all are tensors."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")


def check_dtype(name: str, tensor: Tensor) -> None:
    """Raise unless the tensor is of single or double precision."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}")


def check_alike(tensors: Mapping[str, Tensor]) -> None:
    """Raise unless all have the dtype of the first, and are on its device."""
    (first, head), *others = tensors.items()
    for name, tensor in others:
        if tensor.dtype != head.dtype:
            raise TypeError(
                f"{first} and {name} must share a dtype, got {head.dtype} and {tensor.dtype}"
            )
        # With tensors that hold no numbers PyTorch would go on, and compute with others.
        if tensor.device != head.device:
            raise ValueError(
                f"{first} and {name} must be on one device, got {head.device} and {tensor.device}"
            )


def check_generator(generator: object) -> None:
    """Raise unless it is a source of random numbers or None."""
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {type(generator).__name__}"
        )


def check_positive(name: str, value: float) -> None:
    """Raise unless it is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
