"""Pairs of runs: differences that can be told by hand, and how they are written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import MakeRecord, assert_numbers, estimate, runs_of, spread

from gmlib.study import analysis

# --- Differences ---------------------------------------------------------------------------------

NAMES = ("smoothed final", "best", "final", "AUC")


def test_paired_differences() -> None:
    runs = pd.concat(
        [
            runs_of(
                KUMAR={0: 4.0, 1: 5.0, 2: 6.0, 3: 1.0, 4: None, 5: None},
                BL={3: None, 2: 7.0, 1: 5.0, 0: 7.0, 4: 1.0, 5: None},  # by seed, not by place
                FC={0: None, 1: 0.1},
            ),
            runs_of("fashion-mnist", KUMAR={0: 1.0}, BL={0: 3.0}),
        ]
    )
    table = analysis.paired_differences(runs)
    # A tie is no win, and the test is of two of two that are decided.
    test = {"pairs": 3, "lost": 3, "wins": 2, "p": 0.5}
    one = {"pairs": 1, "lost": 0, "wins": 1, "p": 1.0}
    assert_numbers(
        table,
        *(
            {
                **{"dataset": "mnist", "measure": name, **test},
                **estimate("difference", -3 * factor, 0.0, -1 * factor),
            }
            for factor, name in enumerate(NAMES, start=1)
        ),
        *(
            {
                **{"dataset": "fashion-mnist", "measure": name, **one},
                **estimate("difference", -2 * factor),
            }
            for factor, name in enumerate(NAMES, start=1)
        ),
    )
    text = table.text
    assert text.loc["MNIST, smoothed final"].to_dict() == {
        "KUMAR lower": "2 of 3",
        "pairs lost": 3,
        "sign test p": "0.5",
        "mean difference": "-1.33",
        "95 %": "[-5.13, +2.46]",
    }
    alone = text.loc["Fashion-MNIST, best"]
    assert (alone["mean difference"], alone["95 %"]) == ("-4.00", "–")
    assert (text.index.name, text.columns.name) == (None, "KUMAR less BL")


def test_paired_differences_of_other_arms() -> None:
    runs = runs_of(FC={0: 1.0, 1: 4.0}, BL={0: 3.0, 1: 3.0}, KUMAR={0: None, 1: None})
    table = analysis.paired_differences(runs, arm="FC", other="BL")
    assert table.numbers.loc[0, ["pairs", "lost", "wins", "difference"]].tolist() == [2, 0, 1, -0.5]
    assert table.text.loc["MNIST, best", "FC lower"] == "1 of 2"


def test_a_seed_of_one_arm_alone_is_no_pair_and_did_not_diverge() -> None:
    runs = runs_of(KUMAR={0: 4.0, 1: 5.0, 7: 1.0}, BL={0: 6.0, 1: 8.0, 8: 9.0, 9: None})
    numbers = analysis.paired_differences(runs).numbers
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
    table = analysis.paired_differences(runs_of(**errors))
    numbers, text = table.numbers.loc[0], table.text.loc["MNIST, best"]
    assert (numbers["pairs"], numbers["lost"]) == (pairs, lost)
    assert numbers[["difference_low", "difference_high"]].isna().all()
    assert math.isnan(numbers["difference"]) == (pairs == 0)
    assert text["95 %"] == "–"
    assert (text["mean difference"] == "–") == (pairs == 0)


def test_a_seed_twice_is_refused() -> None:
    runs = pd.concat([runs_of(KUMAR={0: 4.0}, BL={0: 5.0}), runs_of(KUMAR={0: 3.0})])
    with pytest.raises(ValueError, match=r"[Dd]uplicate"):
        analysis.paired_differences(runs)


# --- Blocks of epochs ----------------------------------------------------------------------------


def test_blocks_table(ends: MakeRecord) -> None:
    records = [
        ends("KUMAR", 0, 40, 10, 10, 10, 5),
        ends("BL", 0, 80, 20, 10, 14, 6),
        ends("KUMAR", 1, 30, 30, 40, 20, 5),
        ends("BL", 1, 70, 20, 30, 10, 9),
        ends("KUMAR", 2, 30, 30, 30, 30, 30),
        ends("BL", 2, 90, 90, 90, 90, 90, lost=True),
        ends("KUMAR", 0, 40, 30, dataset="fashion-mnist"),
        ends("BL", 0, 50, 20, dataset="fashion-mnist"),
    ]
    # MNIST, by epoch: -40, -10, 0, -4, -1 and -40, 10, 10, 10, -4.
    table = analysis.blocks_table(analysis.curves_table(records), 2)
    assert_numbers(
        table,
        *(
            {
                **{"dataset": dataset, "first": first, "last": last, "pairs": len(differences)},
                **estimate("difference", *differences),
            }
            for dataset, first, last, differences in [
                ("mnist", 1, 2, [-25.0, -15.0]),
                ("mnist", 3, 4, [-2.0, 10.0]),
                ("mnist", 5, 5, [-1.0, -4.0]),
                ("fashion-mnist", 1, 2, [0.0]),
            ]
        ),
    )
    assert table.text.loc["MNIST"].to_dict() == {
        "1 to 2": "-20.00 [-83.53, +43.53]",
        "3 to 4": "+4.00 [-72.24, +80.24]",
        "5 to 5": "-2.50 [-21.56, +16.56]",
    }
    assert table.text.loc["Fashion-MNIST", "1 to 2"] == "+0.00"


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


def test_the_windows_and_the_last_block_meet_the_measures(ends: MakeRecord) -> None:
    rng = np.random.default_rng(0)
    records = [
        ends(arm, seed, *rng.uniform(1, 50, size=10))
        for arm in ("BL", "KUMAR")
        for seed in range(5)
    ]
    curves = analysis.curves_table(records)
    windows = analysis.windows_table(curves, [1, 5]).numbers
    means = analysis.paired_differences(analysis.runs_table(records)).numbers
    for window, measure in {"the last": "final", "last 5": "smoothed final", "all": "AUC"}.items():
        (found,) = windows[windows.window == window].to_dict("records")
        (expected,) = means[means.measure == measure].to_dict("records")
        assert found["wins"] == expected["wins"]
        assert found["difference"] == pytest.approx(expected["difference"])
    smoothed = means[means.measure == "smoothed final"].iloc[0]
    last = analysis.blocks_table(curves).numbers.iloc[-1]
    for name in ("difference", "difference_low", "difference_high"):
        assert last[name] == pytest.approx(smoothed[name])


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
    assert analysis.blocks_table(curves).text.to_numpy().tolist() in ([], [["–"]])
    assert len(analysis.paired_differences(analysis.runs_table(runs)).numbers) == 4
