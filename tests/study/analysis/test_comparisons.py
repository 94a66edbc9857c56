"""Summaries over seeds: numbers that can be read off hand-made runs, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from made_runs import (
    MakeRecord,
    assert_numbers,
    estimate,
    hits_of,
    runs_of,
    spread,
    with_stds,
)
from scipy import stats

from gmlib.init import LayerScale
from gmlib.study import analysis
from gmlib.study.analysis import curves
from gmlib.study.runs.records import RunRecord

# --- Arms ----------------------------------------------------------------------------------------


def test_measures_summary() -> None:
    runs = pd.concat(
        [
            runs_of(BL={0: 4.0, 1: 7.0, 2: 4.0, 3: None}, KUMAR={0: None}),
            runs_of("own:images", KUMAR={0: 1.5}),
        ]
    )
    table = analysis.measures_summary(runs)
    assert_numbers(
        table,
        {
            **{"dataset": "mnist", "arm": "BL", "seeds": 4, "diverged": 1},
            **(spread("smoothed", 5.0, 4.0, 7.0) | spread("best", 10.0, 8.0, 14.0)),
            **(spread("final", 15.0, 12.0, 21.0) | spread("auc", 20.0, 16.0, 28.0)),
        },
        {
            **{"dataset": "mnist", "arm": "KUMAR", "seeds": 1, "diverged": 1},
            **(spread("smoothed") | spread("best") | spread("final") | spread("auc")),
        },
        {
            **{"dataset": "own:images", "arm": "KUMAR", "seeds": 1, "diverged": 0},
            **(spread("smoothed", 1.5) | spread("best", 3.0)),
            **(spread("final", 4.5) | spread("auc", 6.0)),
        },
    )
    text = table.text
    assert text.loc["MNIST, BL"].to_dict() == {
        "seeds": 4,
        "diverged": 1,
        "smoothed final": "5.00 (4.00 to 7.00)",
        "best": "10.00 (8.00 to 14.00)",
        "final": "15.00 (12.00 to 21.00)",
        "AUC": "20.00 (16.00 to 28.00)",
    }
    assert text.loc["MNIST, KUMAR", [*curves.MEASURES.values()]].tolist() == ["–"] * 4
    assert text.loc["own:images, KUMAR", "AUC"] == "6.00"


def test_divergence_table(curve: MakeRecord) -> None:
    records = [
        *(curve("BL", seed, 90, 80, 70, 60 - seed, lost=seed < 1) for seed in range(5)),
        *(curve("KUMAR", seed, 90, 80, 70, 60) for seed in range(4)),
        curve("FC", 0, 90, 80, 70, 60, lost=True),
    ]
    table = analysis.divergence_table(records)
    first_loss = [
        record.curves["step"][int(np.isnan(record.curves["test_loss"]).argmax())]
        for record in (records[0], records[-1])
    ]
    # Clopper and Pearson: for none of n the upper end is 1 - 0.025^(1/n), and so on.
    low, high = stats.beta.ppf(0.025, 1, 5), stats.beta.ppf(0.975, 2, 4)
    assert_numbers(
        table,
        {
            **{"arm": "BL", "seeds": 5, "diverged": 1},
            **spread("share", 0.2, low, high),
            **spread("step", first_loss[0]),
            **spread("first_epoch", 57.5, 56.0, 59.0),
        },
        {
            **{"arm": "KUMAR", "seeds": 4, "diverged": 0},
            **spread("share", 0.0, 0.0, 1 - 0.025**0.25),
            **(spread("step") | spread("first_epoch", 60.0)),
        },
        {
            **{"arm": "FC", "seeds": 1, "diverged": 1},
            **spread("share", 1.0, 0.025, 1.0),
            **(spread("step", first_loss[1]) | spread("first_epoch")),
        },
    )
    assert table.text.loc["BL"].to_dict() == {
        "seeds": 5,
        "diverged": 1,
        "share": "20%",
        "95 % interval": f"{low:.0%} to {high:.0%}",
        "diverged by step": f"{first_loss[0]}",
        "error of the others (%)": "57.5 (56.0 to 59.0)",
    }
    assert table.text.loc["KUMAR", "diverged by step"] == "–"
    assert table.text.loc["FC", "95 % interval"] == "3% to 100%"
    assert table.text.loc["FC", "error of the others (%)"] == "–"


def test_init_summary(make_record: MakeRecord) -> None:
    def record(arm: str, seed: int, stds: Sequence[float], loss: float) -> RunRecord:
        init = [LayerScale(str(i), std, 1.0, std) for i, std in enumerate(stds)]
        return make_record(arm, seed, init=init, losses=[loss, 1, 1])

    scales = analysis.init_table(
        [
            record("BL", 0, [1.0, 40.0], 100.0),
            record("BL", 1, [2.0, 80.0], 200.0),
            record("BL", 2, [6.0, 30.0], 200.0),  # a loss that another seed has too counts twice
            record("KUMAR", 0, [0.5, 0.5], 2.3456),
        ]
    )
    table = analysis.init_summary(scales)
    loss = spread("initial_loss", 500 / 3, 100.0, 200.0)
    assert_numbers(
        table,
        {"arm": "BL", "layer": 1, **spread("std", 3.0, 1.0, 6.0), **loss},
        {"arm": "BL", "layer": 2, **spread("std", 50.0, 30.0, 80.0), **loss},
        {"arm": "KUMAR", "layer": 1, **spread("std", 0.5), **spread("initial_loss", 2.3456)},
        {"arm": "KUMAR", "layer": 2, **spread("std", 0.5), **spread("initial_loss", 2.3456)},
    )
    assert table.text.to_dict("index") == {
        "BL": {
            "std, layer 1": "3 (1 to 6)",
            "std, layer 2": "50 (30 to 80)",
            "initial test loss": "167 (100 to 200)",
        },
        "KUMAR": {"std, layer 1": "0.5", "std, layer 2": "0.5", "initial test loss": "2.35"},
    }


# --- Thresholds ----------------------------------------------------------------------------------


def test_threshold_table() -> None:
    hits = pd.concat(
        [
            hits_of(
                10.0,
                # By pairs: 40, 10 and 20; seeds 3 and 4 are reached by one of the two alone, and
                # the ratio of the medians, 2000 / 75, is something else.
                KUMAR={0: 100, 1: 50, 2: 100, 3: 25, 4: math.nan},
                BL={0: 4000, 1: 500, 2: 2000, 3: math.nan, 4: 3000},
                FC={0: 7, 1: 7, 2: 7, 3: 7, 4: 7},
            ),
            hits_of(
                4.5,
                KUMAR=dict.fromkeys(range(5), 12345),
                BL=dict.fromkeys(range(5), math.nan),
                FC={0: 938, 1: 1876, 2: math.nan, 3: math.nan, 4: math.nan},
            ),
        ]
    )
    table = analysis.threshold_table(hits)
    speedup = spread("speedup", 20.0, 10.0, 40.0), spread("speedup")
    assert_numbers(
        table,
        *(
            {"threshold": threshold, "arm": arm, "seeds": 5, "reached": reached, **steps, **ratio}
            for threshold, arm, reached, steps, ratio in [
                (10.0, "KUMAR", 4, spread("step", 75, 25, 100), speedup[0]),
                (10.0, "BL", 4, spread("step", 2500, 500, 4000), speedup[0]),
                (10.0, "FC", 5, spread("step", 7), speedup[0]),
                (4.5, "KUMAR", 5, spread("step", 12345), speedup[1]),
                (4.5, "BL", 0, spread("step"), speedup[1]),
                (4.5, "FC", 2, spread("step", 1407, 938, 1876), speedup[1]),
            ]
        ),
    )
    text = table.text
    assert text.index.tolist() == ["10 %", "4.5 %"]  # in the order in which they were given
    assert text.columns.tolist() == ["KUMAR", "BL", "FC", "KUMAR over BL"]
    assert text.to_dict("index") == {
        "10 %": {
            "KUMAR": "4 of 5: 75 (25 to 100)",
            "BL": "4 of 5: 2,500 (500 to 4,000)",
            "FC": "5 of 5: 7",
            "KUMAR over BL": "20.0x (10.0x to 40.0x)",
        },
        "4.5 %": {
            "KUMAR": "5 of 5: 12,345",
            "BL": "0 of 5",
            "FC": "2 of 5: 1,407 (938 to 1,876)",
            "KUMAR over BL": "–",
        },
    }


def test_the_speed_up_of_other_arms() -> None:
    hits = hits_of(10.0, FC={0: 10, 1: 30}, BL={1: 45, 2: 1})
    table = analysis.threshold_table(hits, faster="FC", slower="BL")
    assert table.numbers.speedup.tolist() == [1.5, 1.5]
    assert table.text["FC over BL"].tolist() == ["1.5x"]
    assert " over " not in " ".join(analysis.threshold_table(hits).text)


# --- Variants ------------------------------------------------------------------------------------


def test_variant_table(curve: MakeRecord) -> None:
    records = {
        "BL": [
            with_stds(curve("BL", 0, 90, 80, 5, 60, 30, 9), 20.0, 300.0),  # 5 % on the way
            with_stds(curve("BL", 1, 90, 80, 70, 50, 6, 8), 20.0, 100.0),
            with_stds(curve("BL", 2, 90, 80, 70, 90, 90, 90, lost=True), 20.0, 200.0),
        ],
        "KUMAR": [
            with_stds(curve("KUMAR", 2, 90, 80, 70, 10, 5, 7), 0.5, 0.5),
            with_stds(curve("KUMAR", 1, 90, 80, 70, 12, 6, 4), 0.5, 0.5),
        ],
        "lost": [with_stds(curve("KUMAR", 0, 90, 80, 70, 90, lost=True), 1.0)],
    }
    table = analysis.variant_table(records)
    assert_numbers(
        table,
        {
            # The std is of those that diverged, too.
            **{"variant": "BL", "std": 200.0, "seeds": 3, "diverged": 1},
            **spread("first_epoch", 55.0, 50.0, 60.0),
            **spread("smoothed", 163 / 6, 64 / 3, 33.0),
            **(spread("best", 7.5, 6.0, 9.0) | spread("final", 8.5, 8.0, 9.0)),
            **{"reached": 1, "step": 3.0},
        },
        {
            **{"variant": "KUMAR", "std": 0.5, "seeds": 2, "diverged": 0},
            **spread("first_epoch", 11.0, 10.0, 12.0),
            **spread("smoothed", 22 / 3),
            **(spread("best", 4.5, 4.0, 5.0) | spread("final", 5.5, 4.0, 7.0)),
            **{"reached": 2, "step": 25.0},
        },
        {
            **{"variant": "lost", "std": 1.0, "seeds": 1, "diverged": 1},
            **(spread("first_epoch") | spread("smoothed") | spread("best") | spread("final")),
            **{"reached": 0, "step": math.nan},
        },
    )
    text = table.text
    assert text.loc["BL"].to_dict() == {
        "std of logits": "200",
        "diverged": "1 of 3",
        "epoch 1": "55.0 (50.0 to 60.0)",
        "smoothed final": "27.17 (21.33 to 33.00)",
        "best": "7.50",
        "final": "8.50",
        "steps to 5 %": "3 (1 of 3)",
    }
    assert text.loc["lost"].tolist() == ["1", "1 of 1", *["–"] * 5]
    assert (text.index.name, text.columns.name) == (None, "variant")


def test_difference_table(curve: MakeRecord) -> None:
    def variant(*ends: tuple[float, float] | None, first: int = 0) -> list[RunRecord]:
        return [
            curve("KUMAR", first + index, 90, 80, 70, *(pair or (90, 90)), lost=pair is None)
            for index, pair in enumerate(ends)
        ]

    records = {
        "lower": variant((6, 4), (6, 8), (3, 3), None),
        "reference": variant((10, 10), (8, 8), (6, 8), (8, 8), None),
        "one": variant(None, (8.5, 8.25), None),
        "lost": variant(None, None),
        "elsewhere": variant((5, 5), (6, 6), first=7),
        "where it is lost": variant((5, 5), first=4),
        "the same": variant((10, 10), (8, 8), (6, 8)),
    }
    table = analysis.difference_table(records, "reference")
    nothing = {"pairs": 0, **estimate("smoothed"), **estimate("best"), **estimate("final")}
    columns = ["variant", *nothing]  # the first epoch is there, too
    assert_numbers(
        replace(table, numbers=table.numbers[columns]),
        {
            **{"variant": "lower", "pairs": 3},
            **estimate("smoothed", 5 - 10, 7 - 8, 3 - 7),
            **estimate("best", 4 - 10, 6 - 8, 3 - 6),
            **estimate("final", 4 - 10, 8 - 8, 3 - 8),
        },
        {
            **{"variant": "one", "pairs": 1},
            **estimate("smoothed", 0.375),
            **estimate("best", 0.25),
            **estimate("final", 0.25),
        },
        *({"variant": name, **nothing} for name in ("lost", "elsewhere", "where it is lost")),
        {
            **{"variant": "the same", "pairs": 3},
            **(spread("smoothed", 0.0) | spread("best", 0.0) | spread("final", 0.0)),
        },
    )
    text = table.text
    assert text.loc["lower"].to_dict() == {
        "smoothed final": "-3.33 [-8.50, +1.84]",
        "best": "-3.67 [-8.84, +1.50]",
        "final": "-3.67 [-11.65, +4.32]",
        "pairs": 3,
    }
    assert text.loc["one"].tolist() == ["+0.38", "+0.25", "+0.25", 1]
    assert text.loc["lost"].tolist() == ["–", "–", "–", 0]
    assert text.columns.name == "less reference"
    unknown = analysis.difference_table(records, "nobody")
    assert unknown.numbers.pairs.tolist() == [0] * len(records)
    assert set(unknown.text["smoothed final"]) == {"–"}


def test_arm_differences(curve: MakeRecord) -> None:
    records = {
        "small": [
            *(curve("KUMAR", seed, 90, 80, 70, error) for seed, error in enumerate([5, 6, 7])),
            *(curve("BL", seed, 90, 80, 70, error) for seed, error in enumerate([8, 8])),
            curve("BL", 2, 90, 80, 70, 90, lost=True),
            curve("FC", 0, 90, 80, 70, 1),
        ],
        "large": [curve("KUMAR", 0, 90, 80, 70, 5), curve("BL", 0, 90, 80, 70, 90, lost=True)],
    }
    text = analysis.arm_differences(records).text
    two = "-2.50 [-8.85, +3.85]"  # of -3 and -2
    assert text.to_dict("index") == {
        "small": {"smoothed final": two, "best": two, "final": two, "pairs": 2},
        "large": {"smoothed final": "–", "best": "–", "final": "–", "pairs": 0},
    }
    assert text.columns.name == "KUMAR less BL"
    assert analysis.arm_differences(records, "FC", "KUMAR").numbers.smoothed[0] == -4.0


def test_two_by_two_table(curve: MakeRecord) -> None:
    def variant(*finals: float | None, first: int = 0) -> list[RunRecord]:
        return [
            curve("KUMAR", first + index, 90, 80, 70, final or 90, lost=final is None)
            for index, final in enumerate(finals)
        ]

    records = {
        "a": variant(10.0, 11.0, 12.0, None),
        "b": variant(9.0, 9.0, 11.0, 10.0),
        "c": variant(8.0, 7.0, 7.0, 6.0),
        "d": variant(4.0, 5.0, 3.0, 5.0, 5.0),
        "unused": variant(1.0),
    }
    rows = {"above": ("a", "b"), "below": ("c", "d")}
    table = analysis.two_by_two_table(records, rows, ["plain", "mended"])
    expected = {
        "above: mended, less plain": [-1, -2, -1],
        "below: mended, less plain": [-4, -2, -4, -1],
        "plain: below, less above": [-2, -4, -5],
        "mended: below, less above": [-5, -4, -8, -5],
        "interaction": [-3, 0, -3],
    }
    columns = ("first_epoch", "smoothed", "best", "final")  # of runs of a single epoch
    assert_numbers(
        table,
        *(
            {
                **{"comparison": name, "pairs": len(values)},
                **{key: x for column in columns for key, x in estimate(column, *values).items()},
            }
            for name, values in expected.items()
        ),
    )
    assert table.text.loc["interaction"].to_dict() == {
        **dict.fromkeys(("epoch 1", "smoothed final", "best", "final"), "-2.00 [-6.30, +2.30]"),
        "pairs": 3,
    }


def test_the_logits_are_the_last_layer_of_each_variant(curve: MakeRecord) -> None:
    records = {
        "three layers": [with_stds(curve("BL", 0, 90, 80, 70, 60), 1.0, 2.0, 3.0)],
        "one layer": [with_stds(curve("BL", 0, 90, 80, 70, 60), 4.0)],
        "two layers": [
            with_stds(curve("BL", seed, 90, 80, 70, 60), 7.0, std)
            for seed, std in enumerate([0.125, 0.25])
        ],
    }
    table = analysis.variant_table(records)
    assert table.numbers["std"].tolist() == [3.0, 4.0, 0.1875]
    assert table.text["std of logits"].tolist() == ["3", "4", "0.19"]


def test_variants_of_runs_without_epochs(make_record: MakeRecord) -> None:
    records = {arm: [make_record(arm, 0, [0.875])] for arm in ("BL", "KUMAR")}
    row = analysis.variant_table(records).text.loc["BL"]
    assert (row["epoch 1"], row["final"], row["steps to 5 %"]) == ("87.5", "87.50", "–")
    assert analysis.difference_table(records, "KUMAR").text.loc["BL", "final"] == "+0.00"


def test_depth_table(curve: MakeRecord) -> None:
    records = {
        2: [
            with_stds(curve("BL", 0, 90, 80, 70, 60, 20, 30), 10.0, 200.0),
            with_stds(curve("BL", 1, 90, 80, 70, 90, 90, 90, lost=True), 30.0, 600.0),
            with_stds(curve("KUMAR", 0, 90, 80, 70, 10, 8, 6), 0.5, 0.5),
            with_stds(curve("KUMAR", 1, 90, 80, 70, 20, 4, 5), 0.5, 0.5),
        ],
        1: [
            with_stds(curve("BL", 0, 90, 80, 70, 90, lost=True), 24.3),
            with_stds(curve("KUMAR", 0, 90, 80, 70, 7), 0.5),
        ],
    }
    table = analysis.depth_table(records)
    errors = ("first_epoch", "smoothed", "best", "final")
    assert_numbers(
        table,
        {
            **{"layers": 2, "arm": "BL", "std": 400.0, "seeds": 2, "diverged": 1},
            **(spread("first_epoch", 60.0) | spread("smoothed", 110 / 3)),
            **(spread("best", 20.0) | spread("final", 30.0)),
        },
        {
            **{"layers": 2, "arm": "KUMAR", "std": 0.5, "seeds": 2, "diverged": 0},
            **spread("first_epoch", 15.0, 10.0, 20.0),
            **spread("smoothed", 53 / 6, 8.0, 29 / 3),
            **(spread("best", 5.0, 4.0, 6.0) | spread("final", 5.5, 5.0, 6.0)),
        },
        {
            **{"layers": 1, "arm": "BL", "std": 24.3, "seeds": 1, "diverged": 1},
            **{name: value for error in errors for name, value in spread(error).items()},
        },
        {
            **{"layers": 1, "arm": "KUMAR", "std": 0.5, "seeds": 1, "diverged": 0},
            **{name: value for error in errors for name, value in spread(error, 7.0).items()},
        },
    )
    text = table.text
    assert text.columns.name == "layers"
    assert text.index.tolist() == ["2, BL", "2, KUMAR", "1, BL", "1, KUMAR"]
    assert text.columns.tolist() == [
        *("std, last layer", "diverged", "epoch 1", "smoothed final", "best", "final"),
    ]
    assert text.loc["2, KUMAR"].tolist() == [
        *("0.5", "0 of 2"),
        *("15.00 (10.00 to 20.00)", "8.83 (8.00 to 9.67)"),
        *("5.00 (4.00 to 6.00)", "5.50 (5.00 to 6.00)"),
    ]
    assert text.loc["1, BL"].tolist() == ["24", "1 of 1", *["–"] * 4]


def test_training_losses_are_those_of_the_last_epoch(make_record: MakeRecord) -> None:
    records = {
        "one": [
            make_record(seed=0, errors=[0.9, 0.5, 0.1]),
            make_record(seed=1, errors=[0.9, 0.2]),
        ],
        "lost": [make_record(losses=[1.0, math.nan, math.nan])],
    }
    table = analysis.training_losses(records)
    assert_numbers(
        table,
        {"variant": "one", **spread("loss", 0.45, 0.3, 0.6)},
        {"variant": "lost", **spread("loss")},
    )
    assert table.text["last training loss"].tolist() == ["0.450 (0.300 to 0.600)", "–"]
