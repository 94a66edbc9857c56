"""Checks of settings and arguments, each kind in one place."""

from __future__ import annotations

import math
import re
from numbers import Integral
from typing import Any

__all__ = ["integer", "is_import_path", "positive"]

_NAME = r"[^\W\d]\w*"
_IMPORT_PATH = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")


def integer(name: str, value: Any, minimum: int) -> int:
    """Return the value as an int, so that NumPy's integers name the same runs as Python's.

    Raises:
        ValueError: If the value is no integer, below `minimum`, or not below 2**63.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    number = int(value)
    if number >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {value!r}")
    return number


def positive(name: str, value: Any) -> float:
    """Return the value as a float, so that 1 and 1.0 name the same run.

    Raises:
        ValueError: If the value is not a positive, finite number.
    """
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} must be a positive, finite number, got {value!r}")
    return number


def is_import_path(value: Any) -> bool:
    """Whether the value has the form ``"package.module:function"``."""
    return isinstance(value, str) and _IMPORT_PATH.fullmatch(value) is not None
