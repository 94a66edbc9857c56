"""Tables of runs: hand-made curves with answers that can be read off them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import MakeRecord, rows

from gmlib.init import LayerScale
from gmlib.study import analysis
from gmlib.study.analysis import curves

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


def test_runs_table(ends: MakeRecord) -> None:
    # What comes before the first epoch's end does not count.
    table = analysis.runs_table(
        [
            # Of seven epochs, the last five have mean 14; all have mean 30.
            ends("BL", 3, 80, 60, 10, 20, 8, 20, 12),
            ends("KUMAR", 3, 30, 10, 20, dataset="fashion-mnist"),  # fewer than five
            ends("KUMAR", 4, 90, 90, lost=True),
        ]
    )
    assert list(table) == [
        *("dataset", "arm", "seed", "first_epoch", "smoothed", "best", "final", "auc", "diverged"),
    ]
    assert rows(table) == [
        ("mnist", "BL", 3, 80.0, pytest.approx(14.0), 8.0, 12.0, pytest.approx(30.0), False),
        ("fashion-mnist", "KUMAR", 3, 30.0, 20.0, 10.0, 20.0, pytest.approx(20.0), False),
        ("mnist", "KUMAR", 4, 90.0, 90.0, 90.0, 90.0, 90.0, True),
    ]
    assert set(curves.MEASURES) <= set(table)


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(3, 938), (20, 7), (7, 3)])
def test_ends_of_epochs_are_found_whatever_their_length(
    epochs: int, steps_per_epoch: int, make_record: MakeRecord
) -> None:
    steps = [0, 1, *(steps_per_epoch * epoch for epoch in range(1, epochs + 1))]
    errors = [0.9, 0.0, *(0.5 - 0.01 * epoch for epoch in range(1, epochs + 1))]
    record = make_record("BL", 0, errors, steps, epochs=epochs)
    (run,) = analysis.runs_table([record]).itertuples()
    assert (run.first_epoch, run.best) == (pytest.approx(49.0), pytest.approx(50.0 - epochs))
    assert run.final == run.best


def test_a_run_without_epochs_has_the_error_it_began_with(make_record: MakeRecord) -> None:
    record = make_record("BL", 0, [0.875])
    assert rows(analysis.runs_table([record])) == [("mnist", "BL", 0, *[87.5] * 5, False)]
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


def test_epochs_of_one_step_end(make_record: MakeRecord) -> None:
    curves = analysis.curves_table([make_record("BL", 0, [0.9, 0.8, 0.7], [0, 1, 2])])
    assert analysis.at_epoch_ends(curves).test_error.tolist() == [80.0, 70.0]


def test_the_auc_is_that_of_bars_and_does_not_depend_on_the_steps_of_an_epoch(
    make_record: MakeRecord,
) -> None:
    errors = [0.9, 0.5, 0.3, 0.2]
    (auc, other) = (
        analysis.runs_table(
            [make_record("BL", 0, errors, [length * n for n in range(4)], epochs=3)]
        ).auc[0]
        for length in (10, 938)
    )
    assert auc == other == pytest.approx((50 * 1 + 30 * 1 + 20 * 1) / 3)


def test_no_runs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^there are no runs: datasets, arms and seeds"):
        analysis.runs_table([])


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


# --- Variants ------------------------------------------------------------------------------------


def test_variants_stand_for_arms(curve: MakeRecord) -> None:
    records = {
        "half": [curve("KUMAR", 1, 90, 80, 70, 60), curve("KUMAR", 0, 90, 80, 70, 50)],
        "twice": [curve("KUMAR", 0, 90, 80, 70, 40)],
        "default": [curve("BL", 0, 90, 80, 70, 90, lost=True)],
    }
    runs = analysis.by_variant(records, analysis.runs_table)
    assert rows(runs[["arm", "seed", "final", "diverged"]]) == [
        ("half", 1, 60.0, False),
        ("half", 0, 50.0, False),
        ("twice", 0, 40.0, False),
        ("default", 0, 90.0, True),
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


# --- Movement ------------------------------------------------------------------------------------


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
