"""Pairs of runs: differences that can be told by hand, and how they are written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import MakeRecord, assert_numbers, measures_of, runs_of, spread

from gmlib.study import analysis
from gmlib.study.analysis import statistics

# --- Means ---------------------------------------------------------------------------------------


def test_paired_differences() -> None:
    runs = runs_of(
        KUMAR={0: 4.0, 1: 5.0, 2: 6.0, 3: 1.0, 4: None, 5: None},
        BL={3: None, 2: 7.0, 1: 5.0, 0: 7.0, 4: 1.0, 5: None},  # by seed, not by place
        FC={0: None, 1: 0.1},
    )
    table = analysis.paired_differences(runs, ["best", "final"])
    low, high = statistics.bootstrap_interval([-3, 0, -1])
    margin = 4.302653 * np.std([-3, 0, -1], ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    # A tie is no win, and the test is of two of two that are decided.
    test = {"pairs": 3, "lost": 3, "wins": 2, "p": 0.5}
    assert_numbers(
        table,
        *(
            {
                "error": error,
                **test,
                "difference": factor * -4 / 3,
                "bootstrap_low": factor * low,
                "bootstrap_high": factor * high,
                "t_low": factor * (-4 / 3 - margin),
                "t_high": factor * (-4 / 3 + margin),
            }
            for error, factor in (("best", 1), ("final", 2))
        ),
    )
    assert table.text.index.tolist() == ["best", "final"]
    assert table.text.loc["best"].to_dict() == {
        "pairs": 3,
        "lost to divergence": 3,
        "KUMAR lower": "2 of 3",
        "sign test p": "0.5",
        "mean difference": "-1.33",
        "bootstrap 95 %": f"[{low:.2f}, {high:.2f}]",
        "t 95 %": f"[{-4 / 3 - margin:.2f}, {-4 / 3 + margin:.2f}]",
    }


def test_paired_differences_of_other_arms() -> None:
    runs = runs_of(FC={0: 1.0, 1: 4.0}, BL={0: 3.0, 1: 3.0}, KUMAR={0: None, 1: None})
    table = analysis.paired_differences(runs, ["best"], arm="FC", other="BL")
    assert table.numbers.loc[0, ["pairs", "lost", "wins", "difference"]].tolist() == [2, 0, 1, -0.5]
    assert table.text.loc["best", "FC lower"] == "1 of 2"


def test_a_seed_of_one_arm_alone_is_no_pair_and_did_not_diverge() -> None:
    runs = runs_of(KUMAR={0: 4.0, 1: 5.0, 7: 1.0}, BL={0: 6.0, 1: 8.0, 8: 9.0, 9: None})
    numbers = analysis.paired_differences(runs, ["best"]).numbers
    assert numbers.loc[0, ["pairs", "lost", "difference"]].tolist() == [2, 0, -2.5]


@pytest.mark.parametrize(
    ("errors", "pairs", "lost"),
    [
        ({"KUMAR": {0: 4.0}, "BL": {0: 6.0}}, 1, 0),
        ({"KUMAR": {0: 4.0, 1: 4.0}, "BL": {0: None, 1: None}}, 0, 2),
        ({"KUMAR": {0: 4.0, 1: 4.0}}, 0, 0),
    ],
)
def test_too_few_pairs_for_an_interval(errors: Any, pairs: int, lost: int) -> None:
    table = analysis.paired_differences(runs_of(**errors), ["best"])
    numbers, text = table.numbers.loc[0], table.text.loc["best"]
    assert (numbers["pairs"], numbers["lost"]) == (pairs, lost)
    assert numbers[["bootstrap_low", "bootstrap_high", "t_low", "t_high"]].isna().all()
    assert math.isnan(numbers["difference"]) == (pairs == 0)
    assert text["bootstrap 95 %"] == text["t 95 %"] == "[nan, nan]"
    assert (text["mean difference"] == "nan") == (pairs == 0)


def test_a_seed_twice_is_refused() -> None:
    runs = pd.concat([runs_of(KUMAR={0: 4.0}, BL={0: 5.0}), runs_of(KUMAR={0: 3.0})])
    with pytest.raises(ValueError, match=r"[Dd]uplicate"):
        analysis.paired_differences(runs, ["best"])


@pytest.mark.filterwarnings("error")
def test_equal_differences_have_an_interval_of_no_width() -> None:
    runs = runs_of(KUMAR={0: 4.0, 1: 5.0}, BL={0: 6.5, 1: 7.5})
    table = analysis.paired_differences(runs, ["best"])
    ends = ["bootstrap_low", "bootstrap_high", "t_low", "t_high"]
    assert table.numbers.loc[0, ends].tolist() == [-2.5] * 4
    assert table.text.loc["best", "t 95 %"] == "[-2.50, -2.50]"


# --- Medians -------------------------------------------------------------------------------------


def test_paired_medians() -> None:
    # By seed: -3, 0, -1, 2, -6, -2, -4, and a pair lost. Sorted: -6, -4, -3, -2, -1, 0, 2.
    kumar = dict(enumerate([4.0, 5.0, 6.0, 9.0, 1.0, 3.0, 2.0, 8.0]))
    baseline = {7: None, 6: 6.0, 5: 5.0, 4: 7.0, 3: 7.0, 2: 7.0, 1: 5.0, 0: 7.0}
    other_data = measures_of("fashion-mnist", KUMAR={0: 1.0}, BL={0: 3.0})
    runs = pd.concat([measures_of(KUMAR=kumar, BL=baseline), other_data])
    table = analysis.paired_medians(runs)
    measures = ("best", "smoothed final", "AUC")
    # A tie is no win. Of 6 that are decided 5 are won: 2 (6 + 1) / 64. Of seven, only the extremes
    # cover 95 %: 1 - 2 / 128.
    seven = {"pairs": 7, "lost": 1, "wins": 5, "p": 14 / 64}
    one = {"pairs": 1, "lost": 0, "wins": 1, "p": 1.0}
    assert_numbers(
        table,
        *(
            {
                **{"dataset": "mnist", "measure": measure, **seven},
                **spread("difference", -2.0 * factor, -6.0 * factor, 2.0 * factor),
                "coverage": 126 / 128,
            }
            for factor, measure in enumerate(measures, start=1)
        ),
        *(
            {
                **{"dataset": "fashion-mnist", "measure": measure, **one},
                **spread("difference", -2.0 * factor, math.nan, math.nan),
                "coverage": math.nan,
            }
            for factor, measure in enumerate(measures, start=1)
        ),
    )
    text = table.text
    assert text.loc["MNIST, best"].to_dict() == {
        "KUMAR lower": "5 of 7",
        "pairs lost": 1,
        "sign test p": "0.22",
        "median": "-2.00",
        "interval": "[-6.00, 2.00]",
        "coverage": "98.4 %",
    }
    assert list(text.index[3:]) == [f"Fashion-MNIST, {name}" for name in measures]
    alone = text.loc["Fashion-MNIST, AUC"]
    assert (alone["interval"], alone["coverage"]) == ("[nan, nan]", "nan %")
    assert (text.index.name, text.columns.name) == (None, "KUMAR less BL")
    swapped = analysis.paired_medians(runs, arm="BL", other="KUMAR").text.loc["MNIST, best"]
    assert (swapped["BL lower"], swapped["median"]) == ("1 of 7", "2.00")


def test_the_measures_of_ten_pairs() -> None:
    differences = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.7, -0.8, -0.9, -1.0, -2.0]
    runs = measures_of(
        KUMAR={seed: 5 + difference for seed, difference in enumerate(differences)},
        BL=dict.fromkeys(range(10), 5.0),
    )
    row = analysis.paired_medians(runs).text.loc["MNIST, best"]
    assert row.tolist() == ["10 of 10", 0, "0.002", "-0.60", "[-1.00, -0.20]", "97.9 %"]


# --- Windows -------------------------------------------------------------------------------------


def test_windows_table(ends: MakeRecord) -> None:
    records = [
        ends("KUMAR", 0, 40, 10, 10, 10),
        ends("BL", 0, 80, 20, 10, 14),
        ends("KUMAR", 1, 30, 30, 40, 20),
        ends("BL", 1, 70, 20, 30, 10),
        ends("KUMAR", 2, 30, 30, 30, 30),
        ends("BL", 2, 90, 90, 90, 90, lost=True),
        ends("FC", 1, 1, 1, 1, 1),
        ends("KUMAR", 0, 40, 30, dataset="fashion-mnist"),
        ends("BL", 0, 50, 20, dataset="fashion-mnist"),
    ]
    # MNIST, by epoch: -40, -10, 0, -4 and -40, 10, 10, 10.
    table = analysis.windows_table(analysis.curves_table(records), [1, 2, 7])
    assert_numbers(
        table,
        *(
            {
                **{"dataset": dataset, "window": window, "epochs": epochs},
                **{"pairs": pairs, "wins": wins, "difference": difference},
            }
            for dataset, window, epochs, pairs, wins, difference in [
                ("mnist", "the last", 1, 2, 1, 3.0),
                ("mnist", "last 2", 2, 2, 1, 4.0),
                ("mnist", "all", 4, 2, 2, -8.0),  # of -13.5 and -2.5
                ("fashion-mnist", "the last", 1, 1, 0, 10.0),
                ("fashion-mnist", "all", 2, 1, 0, 0.0),
            ]
        ),
    )
    assert table.text.loc["MNIST"].to_dict() == {
        "the last": "1 of 2: 3.00",
        "last 2": "1 of 2: 4.00",
        "all": "2 of 2: -8.00",
    }
    assert table.text.loc["Fashion-MNIST"].dropna().to_dict() == {
        "the last": "0 of 1: 10.00",
        "all": "0 of 1: 0.00",
    }


def test_windows_of_runs_that_are_lost(ends: MakeRecord) -> None:
    records = [ends("KUMAR", 0, 40, 10), ends("BL", 0, 80, 20, lost=True)]
    table = analysis.windows_table(analysis.curves_table(records), [1])
    assert set(table.numbers.pairs) <= {0}
    assert set(table.text.to_numpy().ravel()) <= {"–"}


def test_the_windows_meet_the_measures(ends: MakeRecord) -> None:
    rng = np.random.default_rng(0)
    records = [
        ends(arm, seed, *rng.uniform(1, 50, size=8)) for arm in ("BL", "KUMAR") for seed in range(5)
    ]
    windows = analysis.windows_table(analysis.curves_table(records), [5]).numbers
    medians = analysis.paired_medians(analysis.measures_table(records)).numbers
    for window, measure in {"last 5": "smoothed final", "all": "AUC"}.items():
        (found,) = windows[windows.window == window].to_dict("records")
        (expected,) = medians[medians.measure == measure].to_dict("records")
        assert found["wins"] == expected["wins"]
        assert found["difference"] == pytest.approx(expected["difference"])


def test_epochs_to_match(ends: MakeRecord) -> None:
    records = [
        ends("KUMAR", 0, 40, 20, 30, 10),
        ends("BL", 0, 80, 30, 20, 25),  # best in the third; an equal error has matched it
        ends("KUMAR", 1, 30, 30, 9, 8),
        ends("BL", 1, 70, 20, 30, 10),  # best in the fourth
        ends("KUMAR", 2, 30, 30, 30, 30),
        ends("BL", 2, 80, 29, 80, 80),  # best in the second, and never matched
        ends("KUMAR", 3, 1, 1, 1, 1),
        ends("BL", 3, 90, 90, 90, 90, lost=True),
        ends("FC", 0, 1, 1, 1, 1),
    ]
    table = analysis.epochs_to_match(analysis.curves_table(records))
    assert_numbers(
        table,
        {
            **{"dataset": "mnist", "pairs": 3, **spread("best_epoch", 3, 2, 4)},
            **{"reached": 2, **spread("reached_epoch", 2.5, 2, 3)},
        },
    )
    assert table.text.to_dict("index") == {
        "MNIST": {
            "pairs": 3,
            "BL's best": "3 (2 to 4)",
            "KUMAR got there": "2 of 3",
            "KUMAR's first": "2.5 (2 to 3)",
        }
    }


@pytest.mark.parametrize(
    "records",
    [
        [("KUMAR", 0, [0.9]), ("BL", 0, [0.9])],  # no epochs
        [("KUMAR", 0, [0.9, 0.5])],  # no pairs
    ],
)
def test_comparisons_of_nothing(records: Any, make_record: MakeRecord) -> None:
    runs = [make_record(*run) for run in records]
    curves = analysis.curves_table(runs)
    assert analysis.epochs_to_match(curves).text["KUMAR's first"].tolist() == ["–"]
    assert analysis.windows_table(curves, [1, 5]).text.index.tolist() == ["MNIST"]
    assert len(analysis.paired_medians(analysis.measures_table(runs)).numbers) == 3
