"""Ranges, intervals and tests for a few values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

__all__ = [
    "bootstrap_interval",
    "mean_range",
    "median_interval",
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


def median_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Return the exact interval of the median between two of the values, and its coverage.

    Of n independent draws from a continuous distribution, the number below its median is binomial
    with probability 1/2. The median therefore lies between the r-th lowest and the r-th highest
    with probability ``1 - 2 P(binomial < r)``, whatever the distribution. The interval returned is
    the narrowest of these that covers the median with probability `level` or more. If there is none
    (for 95 %: below six values), it reaches from the lowest to the highest value.

    Returns:
        Lower end, upper end and coverage; NaN for fewer than 2 values.
    """
    values = np.sort(np.asarray(values, dtype=float))
    n = len(values)
    if n < 2:
        return np.nan, np.nan, np.nan
    ranks = np.arange(1, n // 2 + 1)
    coverages = 1.0 - 2.0 * scipy.stats.binom.cdf(ranks - 1, n, 0.5)  # falls as the rank grows
    rank = max(1, int((coverages >= level).sum()))
    return float(values[rank - 1]), float(values[n - rank]), float(coverages[rank - 1])


def bootstrap_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, with a fixed seed; NaN for fewer than 2 values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    result = scipy.stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


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
