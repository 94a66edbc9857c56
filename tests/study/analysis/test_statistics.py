"""Ranges, intervals and tests: by counting, by simulation, and beside SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gmlib.study.analysis import statistics

# --- Ranges --------------------------------------------------------------------------------------


def test_a_range_has_its_middle_and_its_ends() -> None:
    values = pd.Series([4.0, 1.0, 1.0])
    assert statistics.mean_range("x", values) == {"x": 2.0, "x_low": 1.0, "x_high": 4.0}
    assert statistics.median_range("x", values) == {"x": 1.0, "x_low": 1.0, "x_high": 4.0}


@pytest.mark.parametrize("of", [statistics.mean_range, statistics.median_range])
def test_the_range_of_no_values_is_missing(of: object) -> None:
    missing = {"x": math.nan, "x_low": math.nan, "x_high": math.nan}
    np.testing.assert_equal(of("x", pd.Series(dtype=float)), missing)


def test_ties_are_no_wins() -> None:
    differences = pd.Series([-1.0, 0.0, 2.0, -3.0])
    assert statistics.wins(differences) == 2
    assert statistics.sign_test(differences) == 1.0  # two of three that are decided
    assert math.isnan(statistics.sign_test(differences[1:2]))


# --- The median ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "rank", "coverage"),
    [
        (2, 1, 0.5),  # 1 - 2 / 4
        (5, 1, 0.9375),  # 1 - 2 / 32
        (6, 1, 0.96875),  # 1 - 2 / 64
        (8, 1, 0.9921875),  # 1 - 2 / 256
        (9, 2, 0.9609375),  # 1 - 2 (1 + 9) / 512
        (10, 2, 0.978515625),  # 1 - 2 (1 + 10) / 1024
        (11, 2, 0.98828125),  # 1 - 2 (1 + 11) / 2048
        (12, 3, 0.96142578125),  # 1 - 2 (1 + 12 + 66) / 4096
    ],
)
def test_the_median_interval_by_counting(n: int, rank: int, coverage: float) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, n + 1.0))
    expected = (rank, n + 1 - rank, pytest.approx(coverage, abs=1e-12))
    assert statistics.median_interval(values) == expected


def test_the_median_interval_of_another_level() -> None:
    values = range(1, 11)
    # Of ten, the third and eighth cover 1 - 2 (1 + 10 + 45) / 1024.
    assert statistics.median_interval(values, 0.89) == (3, 8, pytest.approx(0.890625))
    assert statistics.median_interval(values, 0.99) == (1, 10, pytest.approx(1 - 2 / 1024))
    assert statistics.median_interval(values, 0.9999) == (1, 10, pytest.approx(1 - 2 / 1024))
    # A level that is met exactly, and one that any interval meets, be it between two values.
    coverage = 1.0 - 2.0 * float(stats.binom.cdf(1, 10, 0.5))
    assert statistics.median_interval(values, coverage)[:2] == (2, 9)
    assert statistics.median_interval(range(1, 6), 0.0) == (2, 4, pytest.approx(0.625))
    assert statistics.median_interval(range(1, 5), 0.0) == (2, 3, pytest.approx(0.375))


@pytest.mark.parametrize("n", [6, 10, 23])
def test_the_median_interval_is_that_of_the_test_it_inverts(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    low, high, _ = statistics.median_interval(values)
    theirs = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (low, high) == (theirs.low, theirs.high)


def test_the_median_interval_covers_the_median_as_often_as_it_says() -> None:
    draws = np.random.default_rng(7).exponential(size=(20_000, 10))  # of median ln 2, and skewed
    intervals = np.array([statistics.median_interval(values) for values in draws])
    covered = ((intervals[:, 0] <= math.log(2)) & (math.log(2) <= intervals[:, 1])).mean()
    assert covered == pytest.approx(intervals[0, 2], abs=0.004)  # four standard errors


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_have_no_median_interval(values: list[float]) -> None:
    np.testing.assert_equal(statistics.median_interval(values), (math.nan,) * 3)


# --- The mean ------------------------------------------------------------------------------------


def test_the_bootstrap_interval_is_reproducible() -> None:
    values = np.random.default_rng(1).normal(size=8)
    first = statistics.bootstrap_interval(values)
    np.random.default_rng(2).normal(size=100)
    assert statistics.bootstrap_interval(list(values)) == first


def test_the_bootstrap_interval_approaches_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    error = values.std() / math.sqrt(len(values))
    low, high = statistics.bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.05 * error)
    narrow = statistics.bootstrap_interval(values, level=0.68)
    assert narrow[1] - narrow[0] == pytest.approx(2 * error, rel=0.05)


def test_the_bootstrap_interval_is_what_it_was() -> None:
    values = [-3.1, 0.2, -1.7, 0.9, 0.33, 2.71828, -1.234]
    assert statistics.bootstrap_interval(values) == pytest.approx((-1.572, 1.0264057), abs=1e-7)


def test_the_bootstrap_interval_of_two_values() -> None:
    # A quarter of the resamples is (0, 0), a quarter (1, 1).
    assert statistics.bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
    assert statistics.bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_have_no_interval(values: list[float]) -> None:
    np.testing.assert_equal(statistics.bootstrap_interval(values), (math.nan, math.nan))


@pytest.mark.filterwarnings("error")
def test_equal_values_have_an_interval_of_no_width() -> None:
    assert statistics.bootstrap_interval([2.5, 2.5, 2.5]) == (2.5, 2.5)
