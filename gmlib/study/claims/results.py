"""Results of metrics, and comparisons of results, which are results again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from gmlib.study.analysis.statistics import t_interval
from gmlib.study.runs.records import RunRecord

__all__ = ["COMPARISONS", "Result", "Runs"]

Runs = Sequence[RunRecord]
"""The runs of one arm."""

_SAMPLED = (
    "seeds",
    "pairs",
    "groups of five seeds",
)  # entries that are samples, which have an interval


@dataclass(frozen=True, eq=False)
class Result:
    """The measured result for a statement.

    Attributes:
        values: Numbers or truth values, indexed by what distinguishes the entries, for example the
            seed. Empty if the runs do not determine any. Numbers that are not finite are ignored.
        entries: What each value belongs to, in the plural; empty for a single value.
        compared: The two numbers whose ratio is the single value; empty for all other results.
        ratio_interval: The 95 % interval of that ratio, if one is known.
    """

    values: pd.Series
    entries: str = ""
    compared: tuple[float, ...] = ()
    ratio_interval: tuple[float, ...] = ()

    @property
    def are_truths(self) -> bool:
        """Whether the values are truth values, not numbers."""
        return bool(self.values.dtype == bool)

    @property
    def finite(self) -> NDArray[Any]:
        """The finite values."""
        values: NDArray[Any] = self.values.to_numpy()
        finite: NDArray[Any] = values[np.isfinite(values)]
        return finite

    @property
    def interval(self) -> tuple[float, ...]:
        """The 95 % interval of the ratio, share of true values or mean; empty if there is none.

        Shares and means have one if the entries are a sample: Clopper and Pearson's exact interval
        for shares, and Student's t interval for means.
        """
        values = self.finite
        if self.entries not in _SAMPLED or len(values) < 2:
            return self.ratio_interval
        if self.are_truths:
            share = scipy.stats.binomtest(int(values.sum()), len(values)).proportion_ci()
            return float(share.low), float(share.high)
        return t_interval(pd.Series(values))


_NOTHING = Result(pd.Series(dtype=float))


def difference(first: Result, other: Result) -> Result:
    """The first minus the other, by entry."""
    return Result((first.values - other.values).dropna(), _paired(first))


def ratio(first: Result, other: Result) -> Result:
    """The first divided by the other, by entry, where both are finite."""
    values = (first.values / other.values)[np.isfinite(first.values - other.values)]
    return Result(values, _paired(first))


def lower(first: Result, *others: Result) -> Result:
    """Whether each entry of the first is lower than those of all others, by every measure."""
    table = pd.concat([result.values for result in (first, *others)], axis=1, join="inner").dropna()
    lowest = table.iloc[:, 0] < table.iloc[:, 1:].min(axis=1)
    return Result(lowest.groupby(level=-1).all(), _paired(first))


def below_all(first: Result, other: Result) -> Result:
    """Whether each entry of the first is lower than every entry of the other."""
    if other.values.empty:
        return _NOTHING
    return Result(first.values < other.values.min(), first.entries)


def means(first: Result, other: Result) -> Result:
    """The means of both, as a ratio."""
    if not (len(first.finite) and len(other.finite)):
        return _NOTHING
    return _compare(first.finite.mean(), other.finite.mean())


def spread(first: Result, other: Result) -> Result:
    """The standard deviations of both, as a ratio; the interval is that of the F test."""
    if min(len(first.finite), len(other.finite)) < 2:
        return _NOTHING
    ours, theirs = first.finite.std(ddof=1), other.finite.std(ddof=1)
    degrees = len(first.finite) - 1, len(other.finite) - 1
    low, high = (math.sqrt(scipy.stats.f.ppf(q, *degrees)) for q in (0.975, 0.025))
    value = np.divide(ours, theirs)
    return _compare(ours, theirs, (float(value / low), float(value / high)))


def _compare(first: float, second: float, interval: tuple[float, ...] = ()) -> Result:
    """Two numbers as a result whose value is their ratio."""
    value = pd.Series([np.divide(first, second)], dtype=float)
    return Result(value, compared=(float(first), float(second)), ratio_interval=interval)


def _paired(result: Result) -> str:
    """What values belong to when each is compared with its counterpart in another arm."""
    return "pairs" if result.entries == "seeds" else result.entries


COMPARISONS: Mapping[str, Callable[..., Result]] = {
    function.__name__: function for function in (difference, ratio, lower, below_all, means, spread)
}
"""The comparisons of results by name."""
