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


# --- The mean ------------------------------------------------------------------------------------


def test_the_interval_of_the_mean_is_students() -> None:
    values = pd.Series([-3.1, 0.2, -1.7, 0.9, 0.33])
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    expected = {"x": values.mean(), "x_low": theirs.low, "x_high": theirs.high}
    assert statistics.mean_interval("x", values) == pytest.approx(expected)
    low, high = statistics.t_interval(values, level=0.5)
    assert theirs.low < low < values.mean() < high < theirs.high


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_have_no_interval(values: list[float]) -> None:
    found = statistics.mean_interval("x", pd.Series(values, dtype=float))
    mean = values[0] if values else math.nan
    np.testing.assert_equal(found, {"x": mean, "x_low": math.nan, "x_high": math.nan})


@pytest.mark.filterwarnings("error")
def test_equal_values_have_an_interval_of_no_width() -> None:
    found = statistics.mean_interval("x", pd.Series([2.5, 2.5, 2.5]))
    assert found == {"x": 2.5, "x_low": 2.5, "x_high": 2.5}
