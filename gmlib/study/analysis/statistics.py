"""Ranges, intervals and tests for a few values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy

__all__ = [
    "mean_interval",
    "mean_range",
    "median_range",
    "sign_test",
    "t_interval",
    "wins",
]


def mean_range(name: str, values: pd.Series) -> dict[str, float]:
    """Mean, minimum and maximum as ``name``, ``name_low`` and ``name_high``; NaN if empty."""
    return _range(name, values, values.mean())


def median_range(name: str, values: pd.Series) -> dict[str, float]:
    """Median, minimum and maximum as ``name``, ``name_low`` and ``name_high``; NaN if empty."""
    return _range(name, values, values.median())


def _range(name: str, values: pd.Series, middle: float) -> dict[str, float]:
    return {name: middle, f"{name}_low": values.min(), f"{name}_high": values.max()}


def mean_interval(name: str, values: pd.Series) -> dict[str, float]:
    """Mean and its `t_interval` as ``name``, ``name_low`` and ``name_high``; NaN if unknown."""
    low, high = t_interval(values)
    return {name: values.mean(), f"{name}_low": low, f"{name}_high": high}


def t_interval(values: pd.Series, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean; NaN for fewer than 2 values."""
    if len(values) < 2:
        return np.nan, np.nan
    if values.min() == values.max():  # SciPy would return NaN
        return float(values.min()), float(values.max())
    low, high = scipy.stats.t.interval(
        level, len(values) - 1, values.mean(), scipy.stats.sem(values)
    )
    return float(low), float(high)


def wins(differences: pd.Series) -> int:
    """How many differences are negative."""
    return int((differences < 0).sum())


def sign_test(differences: pd.Series) -> float:
    """Two-sided p-value of the number of negative differences among those that are not zero."""
    decided = int((differences != 0).sum())
    if not decided:
        return np.nan
    return float(scipy.stats.binomtest(wins(differences), decided).pvalue)
