"""Tables: hand-made curves with answers that can be read off them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gmlib.init import LayerScale
from gmlib.study import analysis
from gmlib.study.analysis import curves, statistics, text
from gmlib.study.datasets import dataset_title
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


@pytest.fixture
def curve(make_record: MakeRecord) -> Callable[..., RunRecord]:
    """A run of epochs of 10 steps, evaluated at steps 0, 1, 3, 10, 20, ..., with errors in %."""

    def make(arm: str, seed: int, *percent: float, lost: bool = False) -> RunRecord:
        steps = [0, 1, 3, *range(10, 10 * len(percent) - 20, 10)][: len(percent)]
        losses = [1.0, *([math.nan] if lost else [0.5]) * (len(percent) - 1)]
        return make_record(arm, seed, [error / 100 for error in percent], steps, losses)

    return make


def rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(table.itertuples(index=False, name=None))


# --- Curves and runs -----------------------------------------------------------------------------


def test_curves_table(curve: MakeRecord) -> None:
    records = [curve("BL", 2, 90, 80, 70, 60, 50), curve("FC", 0, 88, 9, lost=True)]
    table = analysis.curves_table(records)
    columns = ["dataset", "arm", "seed", "step", "epoch", "test_error", "test_loss", "diverged"]
    assert list(table.columns) == columns
    assert rows(table[table.arm == "BL"]) == [
        ("mnist", "BL", 2, 0, 0.0, 90.0, 1.0, False),
        ("mnist", "BL", 2, 1, 0.1, 80.0, 0.5, False),
        ("mnist", "BL", 2, 3, pytest.approx(0.3), 70.0, 0.5, False),
        ("mnist", "BL", 2, 10, 1.0, 60.0, 0.5, False),
        ("mnist", "BL", 2, 20, 2.0, 50.0, 0.5, False),
    ]
    assert table.diverged[table.arm == "FC"].tolist() == [True, True]
    assert table.diverged.dtype == bool


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.5, 0.25], False),
        ([1.0, math.nan, 0.25], True),
        ([1.0, 0.5, math.inf], True),
        ([math.nan, 0.5, 0.25], True),
        ([1.0, 1e30, 0.25], False),
    ],
)
def test_a_run_diverged_if_a_loss_is_not_finite(
    losses: list[float], expected: bool, make_record: MakeRecord
) -> None:
    record = make_record(losses=losses)  # whose training loss at step 0 is NaN, as always
    assert curves.diverged(record) is expected
    assert analysis.runs_table([record]).diverged.tolist() == [expected]


def test_runs_table(curve: MakeRecord) -> None:
    records = [
        curve("BL", 0, 90, 2, 1, 60, 30, 35),  # what comes before the first epoch's end counts not
        curve("KUMAR", 1, 90, 80, 70, 60),
        curve("KUMAR", 2, 91, 90, 90, 90, 90, lost=True),
    ]
    assert list(analysis.runs_table(records)) == [
        *("arm", "seed", "first_epoch", "best", "final", "diverged"),
    ]
    assert rows(analysis.runs_table(records)) == [
        ("BL", 0, 60.0, 30.0, 35.0, False),
        ("KUMAR", 1, 60.0, 60.0, 60.0, False),
        ("KUMAR", 2, 90.0, 90.0, 90.0, True),
    ]


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(3, 938), (20, 7), (7, 3)])
def test_ends_of_epochs_are_found_whatever_their_length(
    epochs: int, steps_per_epoch: int, make_record: MakeRecord
) -> None:
    steps = [0, 1, *(steps_per_epoch * epoch for epoch in range(1, epochs + 1))]
    errors = [0.9, 0.0, *(0.5 - 0.01 * epoch for epoch in range(1, epochs + 1))]
    record = make_record("BL", 0, errors, steps, epochs=epochs)
    ((_, _, first, best, final, _),) = rows(analysis.runs_table([record]))
    assert (first, best) == (pytest.approx(49.0), pytest.approx(50.0 - epochs))
    assert final == best


def test_a_run_without_epochs_has_the_error_it_began_with(make_record: MakeRecord) -> None:
    record = make_record("BL", 0, [0.875])
    assert rows(analysis.runs_table([record])) == [("BL", 0, 87.5, 87.5, 87.5, False)]
    assert analysis.curves_table([record]).epoch.tolist() == [0.0]


def test_trained_leaves_out_what_diverged(curve: MakeRecord) -> None:
    runs = analysis.runs_table(
        [
            curve("BL", 2, 90, 80, 70, 20),
            curve("BL", 0, 90, 80, 70, 30),
            curve("BL", 1, 90, 80, 70, 90, lost=True),
            curve("FC", 0, 90, 80, 70, 5),
        ]
    )
    assert analysis.trained(runs, "BL", "final").tolist() == [30.0, 20.0]  # by seed
    assert analysis.trained(runs, "KUMAR", "final").tolist() == []


def test_errors_at_the_end_of_an_epoch(curve: MakeRecord) -> None:
    curves = analysis.curves_table(
        [
            curve("BL", 1, 90, 80, 70, 60, 50),
            curve("BL", 0, 90, 80, 70, 62, 52),
            curve("BL", 2, 90, 80, 70, 64, 54, lost=True),
            curve("FC", 0, 90, 80, 70, 6, 5),
        ]
    )
    assert analysis.errors_at(curves, "BL", 1).tolist() == pytest.approx([62.0, 60.0])
    assert analysis.errors_at(curves, "BL", 2).tolist() == pytest.approx([52.0, 50.0])
    assert analysis.errors_at(curves, "BL", 3).tolist() == []


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
    assert table.to_dict("index") == {
        "BL": {
            "seeds": 5,
            "diverged": 1,
            "share": "20%",
            "95 % interval": f"{low:.0%} to {high:.0%}",
            "diverged by step": f"{first_loss[0]}",
            "error of the others (%)": "57.5 (56.0 to 59.0)",
        },
        "KUMAR": {
            "seeds": 4,
            "diverged": 0,
            "share": "0%",
            "95 % interval": f"0% to {1 - 0.025**0.25:.0%}",
            "diverged by step": "–",
            "error of the others (%)": "60.0",
        },
        "FC": {
            "seeds": 1,
            "diverged": 1,
            "share": "100%",
            "95 % interval": "3% to 100%",
            "diverged by step": f"{first_loss[1]}",
            "error of the others (%)": "–",
        },
    }


# --- Initialization ------------------------------------------------------------------------------


def test_init_table(make_record: MakeRecord) -> None:
    init = [LayerScale("0", 2.0, 0.25, 0.5), LayerScale("2", 8.0, 0.5, 4.0)]
    table = analysis.init_table([make_record("KUMAR", 3, init=init, losses=[2.5, 2, 1])])
    assert list(table) == [
        *("arm", "seed", "layer", "std_before", "scale", "std_after", "initial_loss"),
    ]
    assert rows(table) == [
        ("KUMAR", 3, 1, 2.0, 0.25, 0.5, 2.5),
        ("KUMAR", 3, 2, 8.0, 0.5, 4.0, 2.5),
    ]


def test_init_summary(make_record: MakeRecord) -> None:
    def record(arm: str, seed: int, stds: Sequence[float], loss: float) -> RunRecord:
        init = [LayerScale(str(i), std, 1.0, std) for i, std in enumerate(stds)]
        return make_record(arm, seed, init=init, losses=[loss, 1, 1])

    table = analysis.init_table(
        [
            record("BL", 0, [1.0, 40.0], 100.0),
            record("BL", 1, [2.0, 80.0], 200.0),
            record("BL", 2, [6.0, 30.0], 200.0),  # a loss that another seed has too counts twice
            record("KUMAR", 0, [0.5, 0.5], 2.3456),
        ]
    )
    assert analysis.init_summary(table).to_dict("index") == {
        "BL": {
            "std, layer 1": "3 (1 to 6)",
            "std, layer 2": "50 (30 to 80)",
            "initial test loss": "167 (100 to 200)",
        },
        "KUMAR": {"std, layer 1": "0.5", "std, layer 2": "0.5", "initial test loss": "2.35"},
    }


# --- Thresholds ----------------------------------------------------------------------------------


def test_first_hits(curve: MakeRecord) -> None:
    records = [
        curve("BL", 0, 90, 50, 10, 20, 5),
        curve("KUMAR", 1, 90, 9.99, 9, 8, 7.0),
    ]
    hits = analysis.first_hits(records, [90, 50, 10, 5, 4.99])
    assert hits.threshold.unique().tolist() == [90.0, 50.0, 10.0, 5.0, 4.99]
    steps = {arm: group.step.tolist() for arm, group in hits.groupby("arm")}
    # An error equal to the threshold has reached it, and one that rises again has done so too.
    np.testing.assert_equal(steps["BL"], [0, 1, 3, 20, math.nan])
    np.testing.assert_equal(steps["KUMAR"], [0, 1, 1, math.nan, math.nan])
    assert hits[["arm", "seed"]].drop_duplicates().to_numpy().tolist() == [["BL", 0], ["KUMAR", 1]]


def test_first_hits_at_the_ends_of_epochs(curve: MakeRecord) -> None:
    record = curve("BL", 0, 90, 50, 10, 20, 5)
    hits = analysis.first_hits([record], [90, 50, 10, 4], epoch_ends=True)
    np.testing.assert_equal(hits.step.tolist(), [10, 10, 20, math.nan])


def test_equality_survives_rounding(make_record: MakeRecord) -> None:
    thresholds = [wrong / 100 for wrong in range(1, 10_000)]
    missed = [t for t in thresholds if not 100.0 * (round(100 * t) / 10_000) <= t]
    assert missed  # rounded up on the way from images to percent
    for threshold in missed[:20]:
        record = make_record("BL", 0, [0.999, round(100 * threshold) / 10_000])
        hits = analysis.first_hits([record], [threshold, threshold - 1e-4])
        np.testing.assert_equal(hits.step.tolist(), [10, math.nan])


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([], "at least one"),
        ([10, 0], "between 0 and 100 percent, got 0"),
        ([-5], "between 0 and 100 percent, got -5"),
        ([100], "between 0 and 100 percent, got 100"),
        ([math.nan], "between 0 and 100 percent, got nan"),
        (["10"], "between 0 and 100 percent, got '10'"),
        ([True], "between 0 and 100 percent, got True"),
        ([None], "between 0 and 100 percent, got None"),
    ],
)
def test_bad_thresholds_are_refused(
    thresholds: list[Any], message: str, make_record: MakeRecord
) -> None:
    with pytest.raises(ValueError, match=f"^thresholds must .*{message}"):
        analysis.first_hits([make_record()], thresholds)


def hits_of(threshold: float, **steps: dict[int, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "threshold": threshold, "step": step}
            for arm, seeds in steps.items()
            for seed, step in seeds.items()
        ]
    )


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
    assert table.index.tolist() == ["10 %", "4.5 %"]  # in the order in which they were given
    assert table.columns.tolist() == ["KUMAR", "BL", "FC", "KUMAR over BL"]
    assert table.to_dict("index") == {
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
    assert table["FC over BL"].tolist() == ["1.5x"]
    assert " over " not in " ".join(analysis.threshold_table(hits))


# --- Pairs ---------------------------------------------------------------------------------------


def runs_of(**errors: dict[int, float | None]) -> pd.DataFrame:
    """Runs by arm and seed, with their best error; None for one that diverged."""
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "seed": seed,
                "best": 90.2 if error is None else error,
                "final": 90.2 if error is None else 2 * error,
                "diverged": error is None,
            }
            for arm, seeds in errors.items()
            for seed, error in seeds.items()
        ]
    )


def test_paired_differences() -> None:
    runs = runs_of(
        KUMAR={0: 4.0, 1: 5.0, 2: 6.0, 3: 1.0, 4: None, 5: None},
        BL={3: None, 2: 7.0, 1: 5.0, 0: 7.0, 4: 1.0, 5: None},  # by seed, not by place
        FC={0: None, 1: 0.1},
    )
    table = analysis.paired_differences(runs, ["best", "final"])
    low, high = statistics.bootstrap_interval([-3, 0, -1])
    margin = 4.302653 * np.std([-3, 0, -1], ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert table.to_dict("index") == {
        "best": {
            "pairs": 3,
            "lost to divergence": 3,
            "KUMAR lower": "2 of 3",  # a tie is no win
            "sign test p": "0.5",  # two of two that are decided
            "mean difference": "-1.33",
            "bootstrap 95 %": f"[{low:.2f}, {high:.2f}]",
            "t 95 %": f"[{-4 / 3 - margin:.2f}, {-4 / 3 + margin:.2f}]",
        },
        "final": {
            "pairs": 3,
            "lost to divergence": 3,
            "KUMAR lower": "2 of 3",
            "sign test p": "0.5",
            "mean difference": "-2.67",
            "bootstrap 95 %": f"[{2 * low:.2f}, {2 * high:.2f}]",
            "t 95 %": f"[{-8 / 3 - 2 * margin:.2f}, {-8 / 3 + 2 * margin:.2f}]",
        },
    }


def test_paired_differences_of_other_arms() -> None:
    runs = runs_of(FC={0: 1.0, 1: 4.0}, BL={0: 3.0, 1: 3.0}, KUMAR={0: None, 1: None})
    row = analysis.paired_differences(runs, ["best"], arm="FC", other="BL").loc["best"]
    assert (row["pairs"], row["lost to divergence"]) == (2, 0)
    assert (row["FC lower"], row["mean difference"]) == ("1 of 2", "-0.50")


def test_a_seed_of_one_arm_alone_is_no_pair_and_did_not_diverge() -> None:
    runs = runs_of(KUMAR={0: 4.0, 1: 5.0, 7: 1.0}, BL={0: 6.0, 1: 8.0, 8: 9.0, 9: None})
    row = analysis.paired_differences(runs, ["best"]).loc["best"]
    assert (row["pairs"], row["lost to divergence"]) == (2, 0)
    assert row["mean difference"] == "-2.50"


@pytest.mark.parametrize(
    ("errors", "pairs", "lost"),
    [
        ({"KUMAR": {0: 4.0}, "BL": {0: 6.0}}, 1, 0),
        ({"KUMAR": {0: 4.0, 1: 4.0}, "BL": {0: None, 1: None}}, 0, 2),
        ({"KUMAR": {0: 4.0, 1: 4.0}}, 0, 0),
    ],
)
def test_too_few_pairs_for_an_interval(errors: Any, pairs: int, lost: int) -> None:
    row = analysis.paired_differences(runs_of(**errors), ["best"]).loc["best"]
    assert (row["pairs"], row["lost to divergence"]) == (pairs, lost)
    assert row["bootstrap 95 %"] == row["t 95 %"] == "[nan, nan]"
    assert (row["mean difference"] == "nan") == (pairs == 0)


def test_a_seed_twice_is_refused() -> None:
    runs = pd.concat([runs_of(KUMAR={0: 4.0}, BL={0: 5.0}), runs_of(KUMAR={0: 3.0})])
    with pytest.raises(ValueError, match=r"[Dd]uplicate"):
        analysis.paired_differences(runs, ["best"])


# --- The screen: measures of a run, medians over pairs -------------------------------------------


@pytest.fixture
def ends(make_record: MakeRecord) -> Callable[..., RunRecord]:
    """A run with given errors (%) at the ends of its epochs, and other ones before the first."""

    def make(
        arm: str, seed: int, *percent: float, lost: bool = False, **settings: Any
    ) -> RunRecord:
        steps = [0, 1, 3, *range(10, 10 * len(percent) + 10, 10)]
        losses = [1.0, *([math.nan] if lost else [0.5]) * (len(steps) - 1)]
        errors = [error / 100 for error in (90, 1, 2, *percent)]
        return make_record(arm, seed, errors, steps, losses, **settings)

    return make


def test_epochs_of_one_step_end(make_record: MakeRecord) -> None:
    curves = analysis.curves_table([make_record("BL", 0, [0.9, 0.8, 0.7], [0, 1, 2])])
    assert analysis.at_epoch_ends(curves).test_error.tolist() == [80.0, 70.0]


def test_measures_table(ends: MakeRecord) -> None:
    table = analysis.measures_table(
        [
            # Of seven epochs, the last five have mean 14; all have mean 30.
            ends("BL", 3, 80, 60, 10, 20, 8, 20, 12),
            ends("KUMAR", 3, 30, 10, 20, dataset="fashion-mnist"),  # fewer than five
            ends("KUMAR", 4, 90, 90, lost=True),
        ]
    )
    assert list(table) == ["dataset", "arm", "seed", "best", "smoothed", "auc", "diverged"]
    assert rows(table) == [
        ("mnist", "BL", 3, 8.0, pytest.approx(14.0), pytest.approx(30.0), False),
        ("fashion-mnist", "KUMAR", 3, 10.0, pytest.approx(20.0), pytest.approx(20.0), False),
        ("mnist", "KUMAR", 4, 90.0, 90.0, 90.0, True),
    ]
    assert set(curves.MEASURES) <= set(table)


def test_the_auc_is_that_of_bars_and_does_not_depend_on_the_steps_of_an_epoch(
    make_record: MakeRecord,
) -> None:
    errors = [0.9, 0.5, 0.3, 0.2]
    (auc, other) = (
        analysis.measures_table(
            [make_record("BL", 0, errors, [length * n for n in range(4)], epochs=3)]
        ).auc[0]
        for length in (10, 938)
    )
    assert auc == other == pytest.approx((50 * 1 + 30 * 1 + 20 * 1) / 3)


def test_measures_of_a_run_without_epochs(make_record: MakeRecord) -> None:
    table = analysis.measures_table([make_record("BL", 0, [0.875])])
    assert rows(table) == [("mnist", "BL", 0, 87.5, 87.5, 87.5, False)]


def test_no_runs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^there are no runs: datasets, arms and seeds"):
        analysis.measures_table([])


def measures_of(dataset: str = "mnist", **errors: dict[int, float | None]) -> pd.DataFrame:
    """Runs by arm and seed, with measures made from one error; None for one that diverged."""
    return pd.DataFrame(
        [
            {
                "dataset": dataset,
                "arm": arm,
                "seed": seed,
                "best": 90.2 if error is None else error,
                "smoothed": 90.2 if error is None else 2 * error,
                "auc": 90.2 if error is None else 3 * error,
                "diverged": error is None,
            }
            for arm, seeds in errors.items()
            for seed, error in seeds.items()
        ]
    )


def test_measures_summary() -> None:
    table = analysis.measures_summary(
        pd.concat(
            [
                measures_of(BL={0: 4.0, 1: 7.0, 2: 4.0, 3: None}, KUMAR={0: None}),
                measures_of("own:images", KUMAR={0: 1.5}),
            ]
        )
    )
    assert table.to_dict("index") == {
        "MNIST, BL": {
            "seeds": 4,
            "diverged": 1,
            "best": "5.00 (4.00 to 7.00)",
            "smoothed final": "10.00 (8.00 to 14.00)",
            "AUC": "15.00 (12.00 to 21.00)",
        },
        "MNIST, KUMAR": {
            "seeds": 1,
            "diverged": 1,
            **dict.fromkeys(curves.MEASURES.values(), "–"),
        },
        "own:images, KUMAR": {
            "seeds": 1,
            "diverged": 0,
            "best": "1.50",
            "smoothed final": "3.00",
            "AUC": "4.50",
        },
    }


def test_paired_medians() -> None:
    # By seed: -3, 0, -1, 2, -6, -2, -4, and a pair lost. Sorted: -6, -4, -3, -2, -1, 0, 2.
    kumar = dict(enumerate([4.0, 5.0, 6.0, 9.0, 1.0, 3.0, 2.0, 8.0]))
    baseline = {7: None, 6: 6.0, 5: 5.0, 4: 7.0, 3: 7.0, 2: 7.0, 1: 5.0, 0: 7.0}
    other_data = measures_of("fashion-mnist", KUMAR={0: 1.0}, BL={0: 3.0})
    runs = pd.concat([measures_of(KUMAR=kumar, BL=baseline), other_data])
    table = analysis.paired_medians(runs)
    assert table.loc["MNIST, best"].to_dict() == {
        "KUMAR lower": "5 of 7",  # a tie is no win
        "pairs lost": 1,
        "sign test p": "0.22",  # 5 of 6 that are decided: 2 (6 + 1) / 64
        "median": "-2.00",
        "interval": "[-6.00, 2.00]",  # of seven, only the extremes cover 95 %: 1 - 2 / 128
        "coverage": "98.4 %",
    }
    assert table["median"].tolist() == [
        *("-2.00", "-4.00", "-6.00"),
        *("-2.00", "-4.00", "-6.00"),
    ]
    assert list(table.index[3:]) == [
        f"Fashion-MNIST, {name}" for name in ("best", "smoothed final", "AUC")
    ]
    alone = table.loc["Fashion-MNIST, AUC"]
    assert (alone["interval"], alone["coverage"]) == ("[nan, nan]", "nan %")
    assert (table.index.name, table.columns.name) == (None, "KUMAR less BL")
    swapped = analysis.paired_medians(runs, arm="BL", other="KUMAR").loc["MNIST, best"]
    assert (swapped["BL lower"], swapped["median"]) == ("1 of 7", "2.00")


def test_the_measures_of_ten_pairs() -> None:
    differences = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.7, -0.8, -0.9, -1.0, -2.0]
    runs = measures_of(
        KUMAR={seed: 5 + difference for seed, difference in enumerate(differences)},
        BL=dict.fromkeys(range(10), 5.0),
    )
    row = analysis.paired_medians(runs).loc["MNIST, best"]
    assert row.tolist() == ["10 of 10", 0, "0.002", "-0.60", "[-1.00, -0.20]", "97.9 %"]


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
    assert table.loc["MNIST"].to_dict() == {
        "the last": "1 of 2: 3.00",
        "last 2": "1 of 2: 4.00",
        "all": "2 of 2: -8.00",  # of -13.5 and -2.5
    }
    assert table.loc["Fashion-MNIST"].dropna().to_dict() == {
        "the last": "0 of 1: 10.00",
        "all": "0 of 1: 0.00",
    }


def test_windows_of_runs_that_are_lost(ends: MakeRecord) -> None:
    records = [ends("KUMAR", 0, 40, 10), ends("BL", 0, 80, 20, lost=True)]
    table = analysis.windows_table(analysis.curves_table(records), [1])
    assert set(table.to_numpy().ravel()) <= {"–"}


def test_the_windows_meet_the_measures(ends: MakeRecord) -> None:
    rng = np.random.default_rng(0)
    records = [
        ends(arm, seed, *rng.uniform(1, 50, size=8)) for arm in ("BL", "KUMAR") for seed in range(5)
    ]
    table = analysis.windows_table(analysis.curves_table(records), [5]).loc["MNIST"]
    medians = analysis.paired_medians(analysis.measures_table(records))
    for window, name in {"last 5": "smoothed final", "all": "AUC"}.items():
        row = medians.loc[f"MNIST, {name}"]
        assert table[window] == f"{row['KUMAR lower']}: {row['median']}"


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
    assert table.to_dict("index") == {
        "MNIST": {
            "pairs": 3,
            "BL's best": "3 (2 to 4)",
            "KUMAR got there": "2 of 3",
            "KUMAR's first": "2.5 (2 to 3)",
        }
    }


@pytest.mark.parametrize(
    ("dataset", "title"),
    [
        *(("mnist", "MNIST"), ("fashion-mnist", "Fashion-MNIST"), ("cifar-10", "CIFAR-10")),
        ("my_data:images", "my_data:images"),
    ],
)
def test_dataset_title(dataset: str, title: str) -> None:
    assert dataset_title(dataset) == title


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
    assert analysis.epochs_to_match(curves)["KUMAR's first"].tolist() == ["–"]
    assert analysis.windows_table(curves, [1, 5]).index.tolist() == ["MNIST"]
    assert len(analysis.paired_medians(analysis.measures_table(runs))) == 3


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


# --- The budget ----------------------------------------------------------------------------------


def test_budget_table(curve: MakeRecord, make_record: MakeRecord) -> None:
    def small(arm: str, seed: int, *percent: float, K: int = 2, lost: bool = False) -> RunRecord:
        record = curve(arm, seed, *percent, lost=lost)
        return replace(
            record, config=replace(record.config, widths=(4, 3), num_components=K, num_neurons=8)
        )

    records = [
        small("FC", 0, 90, 80, 70, 30, 20),  # 25 on average over its two epochs, 20 at best
        small("FC", 1, 90, 80, 70, 16, 14),
        small("BL", 0, 90, 80, 70, 50, 40),
        small("BL", 1, 90, 80, 70, 90, 90, lost=True),
        small("BL", 0, 90, 80, 70, 90, 90, K=5, lost=True),
        small("NEURONS", 0, 90, 80, 70, 12),
        make_record("FC", 0, [0.9, 0.25], widths=(3,)),
    ]
    table = analysis.budget_table(records, 6)
    assert list(table.columns) == [
        *("network", "arm", "family", "layers", "hidden", "size", "parameters", "multiplications"),
        *("seeds", "diverged", "error", "low", "high"),
    ]
    assert not table.network.str.contains(" ").any()  # names do not break in a table's cell
    table.network = table.network.str.replace("\N{NO-BREAK SPACE}", " ")
    gm = 2 * (2 * 6 + 4 * 6 + 4) + 2 * (2 * 4 + 3 * 4 + 3), 6 + 2 * (36 + 8) + 4 + 2 * (20 + 6)
    neurons = 2 * (8 * (6 + 4) + 8 * (4 + 3),)
    assert rows(table) == [
        (
            "FC 6→4→3",
            "FC",
            "dense",
            2,
            "",
            "n = 4",
            24 + 4 + 12 + 3,
            24 + 12,
            2,
            0,
            20.0,
            15.0,
            25.0,
        ),
        ("BL 6→4→3, K = 2", "BL", "mixture", 2, "4", "K = 2", *gm, 2, 1, 67.5, 45.0, 90.0),
        ("BL 6→4→3, K = 5", "BL", "mixture", 2, "4", "K = 5", 315, 360, 1, 1, 90.0, 90.0, 90.0),
        (
            "NEURONS 6→4→3, n = 8",
            "NEURONS",
            "neurons",
            2,
            "4",
            "n = 8",
            *neurons,
            1,
            0,
            12.0,
            12.0,
            12.0,
        ),
        ("FC 6→3", "FC", "dense", 1, "", "n = 0", 21, 18, 1, 0, 25.0, 25.0, 25.0),
    ]
    assert analysis.budget_table(records, 6, "best").error.tolist()[:2] == [17.0, 65.0]


def test_networks_of_several_hidden_layers(make_record: MakeRecord) -> None:
    records = [make_record(arm, widths=(5, 4, 3), num_components=2) for arm in ("FC", "BL")]
    table = analysis.budget_table(records, 6).replace("\N{NO-BREAK SPACE}", " ", regex=True)
    assert table.network.tolist() == ["FC 6→5→4→3", "BL 6→5→4→3, K = 2"]
    assert table["size"].tolist() == ["n = 5, 4", "K = 2"]
    assert table.hidden.tolist() == ["", "5, 4"]


def test_a_seed_that_is_lost_does_not_move_the_error_of_a_network(make_record: MakeRecord) -> None:
    records = [make_record("KUMAR", seed, [0.9, e]) for seed, e in enumerate([0.06, 0.9, 0.07])]
    (row,) = rows(analysis.budget_table(records, 6))
    assert row[-3:] == pytest.approx((7.0, 6.0, 90.0))


def test_pareto_front_by_hand() -> None:
    costs = [1, 2, 3, 3, 4, 4, 6, 6]
    errors = [9, 9, 7, 6, 6, 5, 2, 2]
    #              dearer worse        dearer     alike: neither beats the other
    expected = [True, False, False, True, False, True, True, True]
    assert analysis.pareto_front(costs, errors).tolist() == expected
    assert analysis.pareto_front([], []).tolist() == []


def test_the_pareto_front_is_all_that_one_could_want() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        costs, errors = rng.integers(0, 12, (2, 20))  # with ties
        front = analysis.pareto_front(costs, errors)
        points = list(zip(costs.tolist(), errors.tolist(), strict=True))
        for (cost, error), kept in zip(points, front, strict=True):
            beaten = any((c, e) != (cost, error) and c <= cost and e <= error for c, e in points)
            assert kept != beaten


@pytest.fixture
def budget() -> pd.DataFrame:
    names = ["FC 6-9-3", "FC 6-3", "FC 6-2-3", "BL 6-3, K = 1", "KUMAR 6-3, K = 1", "BL 6-3, K = 9"]
    errors = [5.0, 8.0, 30.0, 40.0, 8.0, 90.0]
    return pd.DataFrame(
        {
            "network": names,
            "arm": [name.split()[0] for name in names],
            "family": ["dense" if name.startswith("FC") else "mixture" for name in names],
            "size": ["n = 9", "n = 0", "n = 2", "K = 1", "K = 1", "K = 9"],
            "parameters": [1500, 210, 200, 300, 300, 2700],
            "multiplications": [140, 20, 19, 19, 29, 260],
            "seeds": 3,
            "diverged": [0, 0, 0, 2, 0, 3],
            "error": errors,
            "low": [4.0, 8.0, 29.0, 40.0, 7.5, 90.0],
            "high": [6.0, 8.0, 31.0, 40.0, 8.25, 90.0],
        }
    )


def test_budget_summary(budget: pd.DataFrame) -> None:
    budget.loc[3, ["multiplications", "error", "low", "high"]] = (18, 8.0, 8.0, 8.0)
    table = analysis.budget_summary(budget)
    assert list(table.columns) == [
        *("parameters", "multiplications", "diverged", "test error (%)", "on the front"),
    ]
    assert list(table.itertuples(name=None)) == [  # from the smallest on
        ("FC 6-2-3", "200", "19", "0 of 3", "30.00 (29.00 to 31.00)", "parameters"),
        ("FC 6-3", "210", "20", "0 of 3", "8.00", "parameters"),
        ("BL 6-3, K = 1", "300", "18", "2 of 3", "8.00", "multiplications"),
        ("KUMAR 6-3, K = 1", "300", "29", "0 of 3", "8.00 (7.50 to 8.25)", "–"),
        ("FC 6-9-3", "1,500", "140", "0 of 3", "5.00 (4.00 to 6.00)", "both"),
        ("BL 6-3, K = 9", "2,700", "260", "3 of 3", "90.00", "–"),
    ]


def test_against_dense(budget: pd.DataFrame) -> None:
    def compared(table: pd.DataFrame, cost: str = "parameters") -> list[tuple[Any, ...]]:
        found = analysis.against_dense(table, cost)
        assert found.columns.name == "network"
        assert list(found.columns) == [
            *("error", "FC as good", "cost ratio", "FC in its budget", "its error"),
        ]
        assert not [cell for _, *row in found.itertuples() for cell in row if " " in cell]
        found = found.replace("\N{NO-BREAK SPACE}", " ", regex=True)
        return list(found.itertuples(name=None))

    pd.testing.assert_frame_equal(
        analysis.against_dense(budget), analysis.against_dense(budget, "parameters")
    )
    assert compared(budget[:3]) == []  # all are dense
    assert compared(budget) == [
        ("BL 6-3, K = 1", "40.00", "n = 2", "1.5", "n = 0", "8.00"),
        ("KUMAR 6-3, K = 1", "8.00", "n = 0", "1.4", "n = 0", "8.00"),
        ("BL 6-3, K = 9", "90.00", "n = 2", "13.5", "n = 9", "5.00"),
    ]
    cheap = budget.assign(multiplications=[140, 20, 25, 19, 29, 260])
    assert compared(cheap, "multiplications")[:2] == [
        ("BL 6-3, K = 1", "40.00", "n = 0", "0.9", "–", "–"),  # none is that cheap
        ("KUMAR 6-3, K = 1", "8.00", "n = 0", "1.4", "n = 0", "8.00"),
    ]
    alike = budget.assign(parameters=[1500, 300, 200, 300, 300, 2700])
    assert compared(alike)[0][4:] == ("n = 0", "8.00")  # one that costs as much is in the budget
    better = budget.assign(error=[5.0, 8.0, 30.0, 40.0, 4.0, 90.0])
    assert compared(better)[1][2:] == ("–", "–", "n = 0", "8.00")  # no dense network is as good


def test_how_far_the_readouts_have_come(make_record: MakeRecord) -> None:
    def moving(seed: int, mu: float, U: float, **settings: Any) -> RunRecord:
        names = {"0.mu": mu, "0.sigma": 9.0, "0.U": U, "0.v": 9.0, "1.mu": 9.0, "1.U": 9.0}
        movement = {name: [0.0, 0.5, end] for name, end in names.items()}
        return make_record("KUMAR", seed, movement=movement, widths=(4, 3), **settings)

    records = [
        replace(moving(0, 1, 1), config=make_record("FC", 0, widths=(4, 3)).config),
        make_record("KUMAR", 0, widths=(4, 3), num_components=9),  # from before it was recorded
        *(moving(seed, mu, U, num_components=2) for seed, mu, U in [(0, 1, 0.1), (1, 3, 0.3)]),
        moving(2, 8, 0.8, num_components=2, losses=[1.0, math.nan, math.nan]),  # lost
        moving(0, 2.5, 0.00012, num_components=7),
    ]
    table = analysis.readout_movement(records, 60)
    assert list(table.columns) == ["mu moved", "U moved", "share of parameters in U"]
    parameters = 2 * (2 * 60 + 4 * 60 + 4) + 2 * (2 * 4 + 3 * 4 + 3)
    share = f"{100 * 2 * 4 * 60 / parameters:.0f} %"
    assert 101 * 2 * 4 * 60 / parameters > float(share[:2]) + 0.5  # no other factor would do
    table.index = table.index.str.replace("\N{NO-BREAK SPACE}", " ")
    assert list(table.itertuples(name=None)) == [
        ("KUMAR 60→4→3, K = 2", "2", "0.2", share),
        ("KUMAR 60→4→3, K = 7", "2.5", "0.00012", share),
    ]


# --- Variants, depths, movement ------------------------------------------------------------------


def test_variants_stand_for_arms(curve: MakeRecord) -> None:
    records = {
        "half": [curve("KUMAR", 1, 90, 80, 70, 60), curve("KUMAR", 0, 90, 80, 70, 50)],
        "twice": [curve("KUMAR", 0, 90, 80, 70, 40)],
        "default": [curve("BL", 0, 90, 80, 70, 90, lost=True)],
    }
    runs = analysis.by_variant(records, analysis.runs_table)
    assert rows(runs) == [
        ("half", 1, 60.0, 60.0, 60.0, False),
        ("half", 0, 50.0, 50.0, 50.0, False),
        ("twice", 0, 40.0, 40.0, 40.0, False),
        ("default", 0, 90.0, 90.0, 90.0, True),
    ]
    assert runs.index.tolist() == [0, 1, 2, 3]
    assert analysis.trained(runs, "half", "final").tolist() == [50.0, 60.0]
    for table in (analysis.curves_table, analysis.init_table):
        found = analysis.by_variant(records, table)
        alone = table([record for own in records.values() for record in own])
        variants = ["half"] * 2 + ["twice", "default"]
        names = [name for name in variants for _ in range(len(alone) // 4)]
        pd.testing.assert_frame_equal(found, alone.assign(arm=names))


def test_variants_without_rows_leave_the_types_of_the_others(make_record: MakeRecord) -> None:
    moved = make_record(movement={"0.mu": [0.0, 0.1, 0.2]})
    records = {"old": [make_record("BL")], "new": [moved], "older": [make_record()]}
    found = analysis.by_variant(records, analysis.movement_table)
    pd.testing.assert_frame_equal(found, analysis.movement_table([moved]).assign(arm="new"))
    none = analysis.by_variant({"old": [make_record()]}, analysis.movement_table)
    assert (len(none), list(none)) == (0, list(found))


def test_movement_table(make_record: MakeRecord) -> None:
    movement = {"0.mu": [0.0, 0.1, 0.2], "0.U": [0.0, 0.3, 0.4], "1.mu": [0.0, 0.5, math.nan]}
    records = [
        make_record("BL", 3, steps=[0, 7, 20], movement=movement),
        make_record("KUMAR", 1, losses=[1.0, math.nan, math.nan], movement=movement),
        make_record("KUMAR", 2),  # from before movement was recorded
        make_record("KUMAR", 4, errors=[0.9], movement={"0.v": [0.0]}),
    ]
    table = analysis.movement_table(iter(records))
    assert list(table) == ["arm", "seed", "layer", "parameter", "step", "moved"]
    np.testing.assert_equal(
        rows(table),
        [
            *(("BL", 3, 1, "mu", 0, 0.0), ("BL", 3, 1, "mu", 7, 0.1), ("BL", 3, 1, "mu", 20, 0.2)),
            *(("BL", 3, 1, "U", 0, 0.0), ("BL", 3, 1, "U", 7, 0.3), ("BL", 3, 1, "U", 20, 0.4)),
            *(("BL", 3, 2, "mu", 0, 0.0), ("BL", 3, 2, "mu", 7, 0.5)),
            ("BL", 3, 2, "mu", 20, math.nan),
            ("KUMAR", 4, 1, "v", 0, 0.0),
        ],
    )
    assert table.moved.dtype == float
    assert table.layer.dtype == int


def test_layers_of_a_dense_network_are_counted_without_what_is_between(
    make_record: MakeRecord,
) -> None:
    names = ["0.weight", "0.bias", "2.weight", "2.bias", "10.weight"]
    table = analysis.movement_table(
        [make_record("FC", movement={name: [0.0] * 3 for name in names})]
    )
    found = table[["layer", "parameter"]].drop_duplicates().to_numpy().tolist()
    assert found == [[1, "weight"], [1, "bias"], [2, "weight"], [2, "bias"], [3, "weight"]]


@pytest.mark.parametrize("lost", [False, True])
def test_without_movement_there_is_a_table_of_no_rows(lost: bool, make_record: MakeRecord) -> None:
    movement = {"0.mu": [0.0, 0.1, 0.2]} if lost else None
    losses = [1.0, math.nan, math.nan] if lost else None
    for records in ([make_record(losses=losses, movement=movement)], []):
        table = analysis.movement_table(records)
        assert len(table) == 0
        assert list(table) == ["arm", "seed", "layer", "parameter", "step", "moved"]


def with_stds(record: RunRecord, *stds: float) -> RunRecord:
    layers = (LayerScale(str(index), 77.0, 1.0, std) for index, std in enumerate(stds))
    return replace(record, init_report=tuple(layers))


DIFFERENCE = "final, less KUMAR's"


def test_variant_table(curve: MakeRecord) -> None:
    records = {
        "BL": [
            with_stds(curve("BL", 0, 90, 80, 5, 60, 30, 9), 20.0, 300.0),  # 5 % on the way
            with_stds(curve("BL", 1, 90, 80, 70, 50, 6, 8), 20.0, 100.0),
            with_stds(curve("BL", 2, 90, 80, 70, 90, 90, 90, lost=True), 20.0, 200.0),
        ],
        # By seed: 3, 4, and no pair.
        "KUMAR": [
            with_stds(curve("KUMAR", 2, 90, 80, 70, 10, 5, 7), 0.5, 0.5),
            with_stds(curve("KUMAR", 1, 90, 80, 70, 12, 6, 4), 0.5, 0.5),
            with_stds(curve("KUMAR", 0, 90, 80, 70, 11, 5, 6), 0.5, 0.5),
        ],
        # A difference of 1.5 from each, of which the interval has no width.
        "target 1": [
            with_stds(curve("KUMAR", 0, 90, 80, 70, 10, 8, 7.5), 1.0, 1.0),
            with_stds(curve("KUMAR", 1, 90, 80, 70, 10, 8, 5.5), 1.0, 1.0),
        ],
    }
    table = analysis.variant_table(records, "KUMAR")
    margin = 12.706205 * 0.5  # Student's t of one degree of freedom; the sem of 3 and 4 is 1/2
    assert table.to_dict("index") == {
        "BL": {
            "std of logits": "200",  # of those that diverged, too
            "diverged": "1 of 3",
            "epoch 1": "55.00 (50.00 to 60.00)",
            "best": "7.50 (6.00 to 9.00)",
            "final": "8.50 (8.00 to 9.00)",
            "steps to 5 %": "3 (1 of 3)",
            DIFFERENCE: f"+3.50 [{3.5 - margin:+.2f}, {3.5 + margin:+.2f}], 2",
        },
        "KUMAR": {
            "std of logits": "0.5",
            "diverged": "0 of 3",
            "epoch 1": "11.00 (10.00 to 12.00)",
            "best": "4.67 (4.00 to 5.00)",
            "final": "5.67 (4.00 to 7.00)",
            "steps to 5 %": "20 (3 of 3)",
            DIFFERENCE: "–",
        },
        "target 1": {
            "std of logits": "1",
            "diverged": "0 of 2",
            "epoch 1": "10.00",
            "best": "6.50 (5.50 to 7.50)",
            "final": "6.50 (5.50 to 7.50)",
            "steps to 5 %": "–",
            DIFFERENCE: "+1.50 [+1.50, +1.50], 2",
        },
    }
    assert (table.index.name, table.columns.name) == (None, "variant")


def test_differences_are_those_of_the_variants_own_seeds(curve: MakeRecord) -> None:
    def variant(*finals: float | None, first: int = 0) -> list[RunRecord]:
        return [
            curve("KUMAR", first + index, 90, 80, 70, final or 90, lost=final is None)
            for index, final in enumerate(finals)
        ]

    records = {
        "lower": variant(5.0, 6.0, 3.0, None),  # -5, -2, -5
        "reference": variant(10.0, 8.0, 8.0, 8.0, None),
        "one": variant(None, 8.25, None),
        "lost": variant(None, None),
        "elsewhere": variant(5.0, 6.0, first=7),
        "where it is lost": variant(5.0, first=4),
        "the same": variant(10.0, 8.0, 8.0),
    }
    table = analysis.variant_table(records, "reference")
    margin = 4.302653 * math.sqrt(3.0) / math.sqrt(3)  # t of two degrees of freedom
    assert table["final, less reference's"].to_dict() == {
        "lower": f"-4.00 [{-4 - margin:+.2f}, {-4 + margin:+.2f}], 3",
        "reference": "–",
        "one": "+0.25, 1",
        "lost": "–",
        "elsewhere": "–",
        "where it is lost": "–",
        "the same": "+0.00 [+0.00, +0.00], 3",
    }
    lost = table.loc["lost"]
    assert (lost["diverged"], lost["best"], lost["final"]) == ("2 of 2", "–", "–")
    unknown = analysis.variant_table(records, "nobody")
    assert set(unknown["final, less nobody's"]) == {"–"}


def test_the_logits_are_the_last_layer_of_each_variant(curve: MakeRecord) -> None:
    records = {
        "three layers": [with_stds(curve("BL", 0, 90, 80, 70, 60), 1.0, 2.0, 3.0)],
        "one layer": [with_stds(curve("BL", 0, 90, 80, 70, 60), 4.0)],
        "two layers": [
            with_stds(curve("BL", seed, 90, 80, 70, 60), 7.0, std)
            for seed, std in enumerate([0.125, 0.25])
        ],
    }
    found = analysis.variant_table(records, "one layer")["std of logits"]
    assert found.to_dict() == {"three layers": "3", "one layer": "4", "two layers": "0.19"}


def test_variants_of_runs_without_epochs(make_record: MakeRecord) -> None:
    records = {arm: [make_record(arm, 0, [0.875])] for arm in ("BL", "KUMAR")}
    row = analysis.variant_table(records, "KUMAR").loc["BL"]
    assert (row["epoch 1"], row["final"], row["steps to 5 %"]) == ("87.50", "87.50", "–")
    assert row[DIFFERENCE] == "+0.00, 1"


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
    assert table.columns.name == "layers"
    assert table.to_dict("index") == {
        "2, BL": {
            "std, last layer": "400",
            "diverged": "1 of 2",
            "epoch 1": "60.00",
            "best": "20.00",
            "final": "30.00",
        },
        "2, KUMAR": {
            "std, last layer": "0.5",
            "diverged": "0 of 2",
            "epoch 1": "15.00 (10.00 to 20.00)",
            "best": "5.00 (4.00 to 6.00)",
            "final": "5.50 (5.00 to 6.00)",
        },
        "1, BL": {
            "std, last layer": "24",
            "diverged": "1 of 1",
            **dict.fromkeys(["epoch 1", "best", "final"], "–"),
        },
        "1, KUMAR": {
            "std, last layer": "0.5",
            "diverged": "0 of 1",
            **dict.fromkeys(["epoch 1", "best", "final"], "7.00"),
        },
    }


@pytest.mark.filterwarnings("error")
def test_equal_differences_have_an_interval_of_no_width() -> None:
    runs = runs_of(KUMAR={0: 4.0, 1: 5.0}, BL={0: 6.5, 1: 7.5})
    row = analysis.paired_differences(runs, ["best"]).loc["best"]
    assert row["t 95 %"] == row["bootstrap 95 %"] == "[-2.50, -2.50]"


# --- Bootstrap -----------------------------------------------------------------------------------


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


# --- Labels --------------------------------------------------------------------------------------


def test_the_name_of_the_labels_stands_in_the_headers_only_row() -> None:
    table = text.labelled(pd.DataFrame({"arm": ["BL", "FC"], "seeds": [5, 4]}), "arm")
    assert table.to_dict("index") == {"BL": {"seeds": 5}, "FC": {"seeds": 4}}
    header, *body = table.to_string().splitlines()
    assert header.split() == ["arm", "seeds"]
    assert [line.split() for line in body] == [["BL", "5"], ["FC", "4"]]


@pytest.mark.parametrize(
    ("table", "label"),
    [
        (lambda runs: analysis.paired_differences(runs, ["best"]), "test error"),
        (lambda _: analysis.threshold_table(hits_of(10.0, BL={0: 1})), "threshold"),
    ],
)
def test_tables_name_their_labels(
    table: Callable[[pd.DataFrame], pd.DataFrame], label: str
) -> None:
    found = table(runs_of(KUMAR={0: 4.0}, BL={0: 5.0}))
    assert (found.index.name, found.columns.name) == (None, label)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0028, "0.0028"), (61.32, "61"), (8159.9, "8,200"), (1.48e-7, "1.5e-07"), (0.0, "0")],
)
def test_two_digits(value: float, written: str) -> None:
    assert text.two_digits(value) == written


def test_training_losses_are_those_of_the_last_epoch(make_record: MakeRecord) -> None:
    records = {
        "one": [
            make_record(seed=0, errors=[0.9, 0.5, 0.1]),
            make_record(seed=1, errors=[0.9, 0.2]),
        ],
        "lost": [make_record(losses=[1.0, math.nan, math.nan])],
    }
    table = analysis.training_losses(records)
    assert table["last training loss"].to_dict() == {"one": "0.450 (0.300 to 0.600)", "lost": "–"}
