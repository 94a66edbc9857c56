"""What arguments are refused, with an error that names what came and what is allowed."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor

__all__ = [
    "DTYPES",
    "LOW_PRECISION",
    "check_alike",
    "check_bool",
    "check_dtype",
    "check_generator",
    "check_positive",
    "check_size",
    "check_tensors",
]

LOW_PRECISION = (torch.float16, torch.bfloat16)
DTYPES = (*LOW_PRECISION, torch.float32, torch.float64)


def check_tensors(tensors: Mapping[str, object]) -> None:
    """Raise unless all are tensors that hold an entry at every place."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if isinstance(tensor, torch.masked.MaskedTensor):
            raise TypeError(
                f"{name} must be a plain tensor, got a MaskedTensor: its to_tensor(value) is plain"
            )
        if tensor.is_nested:
            raise TypeError(
                f"{name} must be a plain tensor, got a nested one: each of its unbind() is plain, "
                "and so are its values() in the layout torch.jagged"
            )
        if tensor.layout is not torch.strided:
            raise TypeError(
                f"{name} must be dense, got the layout {tensor.layout}: to_dense() converts it"
            )


def check_dtype(name: str, dtype: torch.dtype) -> None:
    """Raise unless it is one of the types that layers can have."""
    if dtype not in DTYPES:
        *names, last = (str(each).removeprefix("torch.") for each in DTYPES)
        raise TypeError(f"{name} must be {', '.join(names)} or {last}, got {dtype!r}")


def check_alike(tensors: Mapping[str, Tensor], *, mixed: bool = False) -> None:
    """Raise unless all have the dtype of the first, and are on its device.

    With `mixed` a low precision counts as float32.
    """
    (first, head), *others = tensors.items()
    for name, tensor in others:
        dtypes = {tensor.dtype, head.dtype}
        castable = dtypes <= {*LOW_PRECISION, torch.float32}
        if len(dtypes) == 2 and not (mixed and castable):
            raise TypeError(
                f"{first} and {name} must share a dtype, got {head.dtype} and {tensor.dtype}: "
                f".to(dtype) converts{', and torch.autocast takes both' if castable else ''}"
            )
        # With tensors that hold no numbers PyTorch would go on, and compute with others.
        if tensor.device != head.device:
            raise ValueError(
                f"{first} and {name} must be on one device, got {head.device} and {tensor.device}"
            )


def check_size(name: str, size: object) -> int:
    """The size as an int; raise unless it is an integer, NumPy's or another, of at least 1."""
    try:
        number = 0 if isinstance(size, bool) else operator.index(size)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {size!r}")
    return number


def check_bool(name: str, value: object) -> None:
    """Raise unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")


def check_generator(generator: object) -> None:
    """Raise unless it is a source of random numbers or None."""
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {type(generator).__name__}"
        )


def check_positive(name: str, value: object) -> None:
    """Raise unless it is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and float(value) > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
