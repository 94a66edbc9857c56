"""Comparisons of results, on records made by hand."""

import math
from collections.abc import Callable

import pytest
from scipy import stats

from gmlib.study.claims.results import Result
from gmlib.study.runs.records import RunRecord

Make = Callable[..., RunRecord]
Measure = Callable[..., Result]


def test_spread_is_the_f_interval(record: Make, measure: Measure) -> None:
    narrow = [record("KUMAR", seed, [error]) for seed, error in enumerate([4.0, 5.0, 6.0])]
    wide = [record("BL", seed, [error]) for seed, error in enumerate([2.0, 6.0])]
    found = measure("error", narrow, wide, compare="spread", measures=["final"])
    assert found.compared == (pytest.approx(1.0), pytest.approx(math.sqrt(8)))
    # By the other tail of the reciprocal.
    other = measure("error", wide, narrow, compare="spread", measures=["final"])
    low, high = found.interval
    assert low == pytest.approx(1 / other.interval[1])
    assert low**2 == pytest.approx(1 / 8 / stats.f.ppf(0.975, 2, 1))
    assert low < found.values[0] < high
    one = measure("error", narrow, wide[:1], compare="spread", measures=["final"])
    assert one.values.empty


def test_lower_and_ratio_leave_out_runs_that_diverged_but_lower_not_those_that_never_arrive(
    record: Make, measure: Measure
) -> None:
    fast = [record("KUMAR", seed, [20, 9]) for seed in range(4)]
    slow = [
        record("BL", 0, [20, 15, 9]),
        record("BL", 1, [20]),  # never
        record("BL", 2, [8]),
        record("BL", 3, [9], losses=[1, *[math.nan] * 20]),
    ]
    found = measure("steps_to", fast, slow, compare="lower", threshold=10)
    assert found.values.tolist() == [True, True, False]
    assert found.entries == "pairs"
    found = measure("steps_to", slow, fast, compare="ratio", threshold=10)
    assert found.values.tolist() == [1.5, 0.5]


def test_lower_by_all_measures(record: Make, measure: Measure) -> None:
    runs = [record("KUMAR", 0, [9, 3, 5]), record("KUMAR", 1, [9, 3])]
    others = [record("BL", 0, [9, 4]), record("BL", 1, [9, 4])]
    for measures, expected in {("best",): [True, True], ("best", "final"): [False, True]}.items():
        found = measure("error", runs, others, compare="lower", measures=measures)
        assert found.values.tolist() == expected
    found = measure("error", others, runs, compare="difference", measures=["final"])
    assert found.values.tolist() == pytest.approx([-1, 1])


def test_lower_than_several_arms(record: Make, measure: Measure) -> None:
    arms = [[record(arm, 0, errors)] for arm, errors in {"FC": [4, 5], "BL": [9, 4.5]}.items()]
    found = measure("error_by_epoch", *arms, compare="lower", statistic="mean")
    assert found.values.tolist() == [True, *[False] * 19]
    assert found.entries == "epochs"
    third = [record("KUMAR", 0, [3, 4])]
    found = measure("error_by_epoch", *arms, third, compare="lower", statistic="mean")
    assert found.values.tolist() == [False] * 20


def test_below_all(record: Make, measure: Measure) -> None:
    runs = [record("FC", seed, [error]) for seed, error in enumerate([3.0, 4.5])]
    others = [record("BL", seed, [error]) for seed, error in enumerate([5.0, 4.0])]
    found = measure("error", runs, others, compare="below_all", measures=["final"])
    assert found.values.tolist() == [True, False]
    assert found.entries == "seeds"


@pytest.mark.parametrize(
    "compare", ["difference", "ratio", "lower", "below_all", "means", "spread"]
)
def test_nothing_comes_of_arms_that_all_diverged(
    compare: str, record: Make, measure: Measure
) -> None:
    runs = [record("KUMAR", seed, [9]) for seed in (0, 1)]
    lost = [record("BL", seed, [9], losses=[1, *[math.nan] * 20]) for seed in (0, 1)]
    for metric, parameters in {
        "error": {"measures": ["final"]},
        "error_by_epoch": {"statistic": "mean"},
        "best_epoch": {},
        "steps_to": {"threshold": 10},
        "steps_above_guessing": {},
    }.items():
        for arms in ((runs, lost), (lost, runs)):
            found = measure(metric, *arms, compare=compare, **parameters)
            assert not len(found.finite)
