"""Figures of training: error by epoch and step, thresholds, endpoints."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from axes import (
    BLUE,
    COLORS,
    GREY,
    OWN_ARM,
    RED,
    bands_in,
    curves_in,
    dots_in,
    drawn,
    legend,
    points,
)
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.patches import PathPatch
from small_tables import MakeRecord, curves_of, runs_of

from gmlib.study import analysis, figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)

# --- Dynamics ------------------------------------------------------------------------------------

ERRORS = {
    ("KUMAR", 0): [0.9, 0.7, 0.5, 0.10, 0.05],
    ("KUMAR", 1): [0.9, 0.8, 0.6, 0.20, 0.07],
    ("KUMAR", 2): [0.9, 0.3, 0.1, 0.90, 0.90],  # diverged
    ("BL", 0): [0.9, 0.9, 0.8, 0.60, 0.30],
    ("BL", 1): [0.9, 0.9, 0.9, 0.50, 0.10],
    ("BL", 2): [0.9, 0.9, 0.9, 0.40, 0.10],
    ("FC", 0): [0.9, 0.5, 0.2, 0.08, 0.02],
}
LOST = ("KUMAR", 2)


@pytest.fixture
def curves(make_record: MakeRecord) -> pd.DataFrame:
    return curves_of(make_record, ERRORS, [LOST])


@pytest.mark.parametrize(
    ("arm", "color", "by_epoch", "by_step"),
    [
        ("KUMAR", RED, [(1, 15), (2, 6)], [(1, 75), (3, 55), (10, 15)]),
        ("BL", BLUE, [(1, 50), (2, 50 / 3)], [(1, 90), (3, 260 / 3), (10, 50)]),
        ("FC", GREY, [(1, 8), (2, 2)], [(1, 50), (3, 20), (10, 8)]),
    ],
)
def test_the_line_is_the_mean_over_the_seeds_that_trained(
    arm: str, color: str, by_epoch: list[Any], by_step: list[Any], curves: pd.DataFrame
) -> None:
    late, early = drawn(figures.dynamics(curves))
    for axes, expected in ((late, by_epoch), (early, by_step)):
        (line,) = curves_in(axes, color)
        np.testing.assert_allclose(points(line), expected)
    np.testing.assert_allclose(
        [mean for _, mean in by_epoch],
        [analysis.errors_at(curves, arm, epoch).mean() for epoch in (1, 2)],
    )


def test_the_band_is_a_standard_deviation_within_the_range_of_the_seeds(
    curves: pd.DataFrame,
) -> None:
    late, early = drawn(figures.dynamics(curves))
    bands = dict(bands_in(late))
    assert list(bands) == [RED, BLUE, GREY]
    # Two seeds lie one standard deviation from their mean; so does the band.
    assert bands[RED] == {1.0: pytest.approx((10, 20)), 2.0: pytest.approx((5, 7))}
    deviation = math.sqrt(200 / 3)
    mean, wide = 50 / 3, math.sqrt(800 / 9)
    assert bands[BLUE][1.0] == pytest.approx((50 - deviation, 50 + deviation))
    assert mean - wide < 10  # below the lowest seed, where the band is cut
    assert bands[BLUE][2.0] == pytest.approx((10, mean + wide))
    assert bands[GREY] == {1.0: pytest.approx((8, 8)), 2.0: pytest.approx((2, 2))}
    assert list(dict(bands_in(early))[RED]) == [1.0, 3.0, 10.0]


def test_a_seed_that_diverged_is_drawn_dotted_and_counted(curves: pd.DataFrame) -> None:
    late, early = drawn(figures.dynamics(curves))
    (by_epoch,), (by_step,) = (curves_in(axes, RED, ":") for axes in (late, early))
    np.testing.assert_allclose(points(by_epoch), [(1, 90), (2, 90)])
    np.testing.assert_allclose(points(by_step), [(1, 30), (3, 10), (10, 90)])
    assert not curves_in(late, BLUE, ":")
    assert legend(early) == {
        "KUMAR (3 seeds, 1 diverged)": RED,
        "BL (3 seeds)": BLUE,
        "FC (1 seed)": GREY,
    }


def test_the_axes_of_the_dynamics(curves: pd.DataFrame) -> None:
    late, early = drawn(figures.dynamics(curves))
    assert (late.get_xscale(), late.get_yscale()) == ("linear", "log")
    assert (early.get_xscale(), early.get_yscale()) == ("log", "log")
    assert late.get_ylabel() == "test error (%)"
    assert (late.get_xlabel(), early.get_xlabel()) == ("epoch", "gradient step")
    assert early.get_ylim() == late.get_ylim()
    low, high = late.get_ylim()
    assert low <= 2
    assert high >= 90
    labels = [label.get_text() for label in late.get_yticklabels()]
    assert labels == ["2", "3", "5", "10", "20", "50", "90"]
    ticks = [tick for tick in late.get_xticks() if 1 <= tick <= 2]
    assert ticks == [1, 2]


@pytest.mark.parametrize(
    ("errors", "lost", "labels"),
    [
        ({("BL", 0): [0.9, 0.8, 0.7, 0.6, 0.5]}, [], ["BL (1 seed)"]),
        (
            {("BL", seed): [0.9] * 5 for seed in (0, 1)},
            [("BL", 0), ("BL", 1)],
            ["BL (2 seeds, 2 diverged)"],
        ),
        ({(OWN_ARM, 0): [0.9, 0.8, 0.7, 0.6, 0.5]}, [], [f"{OWN_ARM} (1 seed)"]),
        ({("BL", 0): [0.9, 0.8, 0.7, 0.6, 0.0]}, [], ["BL (1 seed)"]),
    ],
    ids=["one seed", "all diverged", "an arm of one's own", "no error"],
)
def test_unusual_dynamics(
    errors: Any, lost: Any, labels: list[str], make_record: MakeRecord
) -> None:
    late, early = drawn(figures.dynamics(curves_of(make_record, errors, lost)))
    assert list(legend(early)) == labels
    arm = next(iter(errors))[0]
    style = ":" if lost else "-"
    for axes in (late, early):
        assert len(curves_in(axes, figures.arm_color(arm), style)) == len(errors)


def test_dynamics_without_epochs(make_record: MakeRecord) -> None:
    curves = analysis.curves_table([make_record("BL", 0, [0.9]), make_record("FC", 0, [0.8])])
    _, early = drawn(figures.dynamics(curves))
    assert list(legend(early)) == ["BL (1 seed)", "FC (1 seed)"]


# --- Thresholds ----------------------------------------------------------------------------------

STEPS = {
    10.0: {
        "FC": {0: 10, 1: 20, 2: 30},
        "BL": {0: 1000, 1: 4000, 2: math.nan},
        "KUMAR": {0: 100, 1: 300, 2: 50},
    },
    5.0: {
        "FC": {0: 100, 1: 200, 2: 200},
        "BL": {0: math.nan, 1: math.nan, 2: math.nan},
        "KUMAR": {0: 5000, 1: math.nan, 2: math.nan},
    },
}


def hits_of(steps: dict[float, dict[str, dict[int, float]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "threshold": threshold, "step": step}
            for threshold, arms in steps.items()
            for arm, seeds in arms.items()
            for seed, step in seeds.items()
        ]
    )


def test_a_dot_a_seed_that_reached_the_threshold() -> None:
    (axes,) = drawn(figures.time_to_threshold(hits_of(STEPS)))
    for arm, color in (("FC", GREY), ("BL", BLUE), ("KUMAR", RED)):
        for position, arms in enumerate(STEPS.values()):
            expected = sorted(step for step in arms[arm].values() if not math.isnan(step))
            found = [point for point in dots_in(axes, color) if round(point[0]) == position]
            assert sorted(y for _, y in found) == expected
            assert len({x for x, _ in found}) == len(found)  # side by side


def test_arms_stand_side_by_side_at_each_threshold() -> None:
    (axes,) = drawn(figures.time_to_threshold(hits_of(STEPS)))
    spans = [
        (min(x), max(x))
        for x in ([x for x, _ in dots_in(axes, color) if x < 0.5] for color in (GREY, BLUE, RED))
    ]
    (_, first), (second, third), (fourth, _) = spans
    assert first < second <= third < fourth
    assert spans[0][0] > -0.5
    assert spans[-1][1] < 0.5


def test_a_bar_at_the_median_of_those_that_reached_it() -> None:
    (axes,) = drawn(figures.time_to_threshold(hits_of(STEPS)))
    bars = {GREY: [], BLUE: [], RED: []}
    for collection in axes.collections:
        assert isinstance(collection, LineCollection)
        ((left, right),) = collection.get_segments()
        assert left[1] == right[1]
        bars[to_hex(collection.get_color()[0])].append((round((left[0] + right[0]) / 2), left[1]))
    assert bars == {GREY: [(0, 20), (1, 200)], BLUE: [(0, 2500)], RED: [(0, 100), (1, 5000)]}


def test_counts_of_seeds_are_in_the_legend() -> None:
    (axes,) = drawn(figures.time_to_threshold(hits_of(STEPS)))
    assert legend(axes) == {"FC: 3/3, 3/3": GREY, "BL: 2/3, 0/3": BLUE, "KUMAR: 3/3, 1/3": RED}
    assert axes.get_legend().get_title().get_text() == "seeds that reached it"


def test_the_axes_of_the_thresholds() -> None:
    (axes,) = drawn(figures.time_to_threshold(hits_of(STEPS)))
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10 %", "5 %"]
    assert axes.get_xlabel() == "test error threshold"
    assert axes.get_ylabel() == "gradient steps to first hit"
    low, high = axes.get_ylim()
    assert low < 10
    assert high > 5000
    assert "1,000" in [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        ({10.0: {"KUMAR": {0: 10}}}, ["KUMAR: 1/1"]),
        ({10.0: {"BL": {0: math.nan, 1: math.nan}}}, ["BL: 0/2"]),
        ({4.5: {OWN_ARM: {0: 10}, "BL": {0: math.nan}}}, [f"{OWN_ARM}: 1/1", "BL: 0/1"]),
        # An arm without runs at one of the thresholds.
        (
            {10.0: {"FC": {0: 1}, "BL": {0: 2}}, 5.0: {"FC": {0: 3}}},
            ["FC: 1/1, 1/1", "BL: 1/1, 0/0"],
        ),
    ],
)
def test_unusual_thresholds(steps: Any, labels: list[str]) -> None:
    (axes,) = drawn(figures.time_to_threshold(hits_of(steps)))
    assert list(legend(axes)) == labels


# --- Endpoints -----------------------------------------------------------------------------------

RUNS = {"FC": [2.0, 2.1, 2.2, 2.6, 3.6], "BL": [5.0, 6.0, 10.0, 7.0], "KUMAR": [4.0, 4.2]}


@pytest.mark.parametrize(("panel", "shift"), [(0, 0.0), (1, 1.0)], ids=["best", "final"])
def test_boxes_of_the_endpoints(panel: int, shift: float) -> None:
    axes = drawn(figures.endpoints(runs_of(RUNS, {"BL": 2})))[panel]
    boxes = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert len(boxes) == 3
    for position, (box, (arm, errors)) in enumerate(zip(boxes, RUNS.items(), strict=True), start=1):
        values = np.array(errors) + shift
        x, y = box.get_path().vertices.T
        assert (x.min() + x.max()) / 2 == pytest.approx(position)
        assert (y.min(), y.max()) == pytest.approx(tuple(np.percentile(values, [25, 75])))
        assert to_hex(box.get_edgecolor()) == to_hex(box.get_facecolor()) == COLORS[arm]
        assert box.get_facecolor()[3] < box.get_edgecolor()[3]


@pytest.mark.parametrize(("panel", "shift"), [(0, 0.0), (1, 1.0)], ids=["best", "final"])
def test_means_medians_whiskers_and_dots_of_the_endpoints(panel: int, shift: float) -> None:
    axes = drawn(figures.endpoints(runs_of(RUNS, {"BL": 2})))[panel]
    triangles = [line for line in axes.lines if line.get_marker() == "^"]
    orange = [line for line in axes.lines if to_hex(line.get_color()) == "#e8891c"]
    means = [point for line in triangles for point in points(line)]
    expected = [np.mean(errors) + shift for errors in RUNS.values()]
    np.testing.assert_allclose(means, list(enumerate(expected, start=1)))
    for triangle in triangles:
        red, green, blue, _ = to_rgba(triangle.get_markerfacecolor())
        assert green > 1.5 * max(red, blue)
    medians = [line.get_ydata().tolist() for line in orange]
    expected = [np.median(errors) + shift for errors in RUNS.values()]
    np.testing.assert_allclose(medians, [[median, median] for median in expected])
    whiskers = [line for line in axes.lines if line.get_marker() not in ("^", "o")]
    ends = {y for line in whiskers for _, y in points(line)}
    for arm, errors in RUNS.items():
        assert {min(errors) + shift, max(errors) + shift} <= ends
        dots = sorted(y for _, y in dots_in(axes, COLORS[arm]))
        np.testing.assert_allclose(dots, sorted(np.array(errors) + shift))


def test_the_axes_of_the_endpoints() -> None:
    best, final = drawn(figures.endpoints(runs_of(RUNS, {"BL": 2, "KUMAR": 1})))
    labels = ["FC", "BL\n(2 diverged)", "KUMAR\n(1 diverged)"]
    for axes in (best, final):
        assert [label.get_text() for label in axes.get_xticklabels()] == labels
        low, high = axes.get_ylim()
        assert low == 0
        assert 11.0 < high < 15.0  # all that trained, and not the 90 % of what did not
    assert (best.get_title(), final.get_title()) == ("best test error", "final test error")
    assert best.get_ylabel() == "test error (%)"


@pytest.mark.parametrize(
    ("best", "lost", "labels"),
    [
        ({"BL": [5.0]}, {}, ["BL"]),
        ({"FC": [2.0, 3.0]}, {"BL": 3}, ["FC", "BL\n(3 diverged)"]),
        ({}, {"BL": 1}, ["BL\n(1 diverged)"]),
        ({OWN_ARM: [5.0, 6.0]}, {}, [OWN_ARM]),
        ({"BL": [0.0]}, {}, ["BL"]),
    ],
)
def test_unusual_endpoints(best: Any, lost: Any, labels: list[str]) -> None:
    for axes in drawn(figures.endpoints(runs_of(best, lost))):
        assert [label.get_text() for label in axes.get_xticklabels()] == labels
