"""Figures, read back from their axes: the numbers that went in are the numbers that are drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, PathPatch

from gmlib.functional import relu_moments
from gmlib.study import analysis, figures
from gmlib.study.analysis.propagation import Ellipses
from gmlib.study.runs.records import RunRecord

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings("error")

MakeRecord = Callable[..., RunRecord]
RED, BLUE, GREY = "#c8322b", "#2f6db5", "#7f7f7f"
OWN_ARM = "my_inits.best:orthogonal"


@pytest.fixture(autouse=True)
def _nothing_global_is_left() -> Iterator[None]:
    """No figure for pyplot to show a second time, and no style for whoever draws next."""
    style = dict(mpl.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == style


def drawn(figure: Figure) -> tuple[Axes, ...]:
    """The axes of a figure, once it has been drawn without a warning."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return tuple(figure.axes)


def points(line: Line2D) -> list[tuple[float, float]]:
    return [tuple(point) for point in line.get_xydata().tolist()]


def curves_in(axes: Axes, color: str, style: str = "-") -> list[Line2D]:
    """The lines of a colour that have points."""
    return [
        line
        for line in axes.lines
        if to_hex(line.get_color()) == color and line.get_linestyle() == style and len(points(line))
    ]


def dots_in(axes: Axes, color: str) -> list[tuple[float, float]]:
    return [
        point
        for line in axes.lines
        if line.get_marker() == "o" and to_hex(line.get_color()) == color
        for point in points(line)
    ]


def legend(axes: Axes) -> dict[str, str]:
    """Colour by label."""
    box = axes.get_legend()
    labels = [text.get_text() for text in box.get_texts()]
    return dict(
        zip(labels, (to_hex(handle.get_color()) for handle in box.legend_handles), strict=True)
    )


# --- Colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arm", "color"), [("KUMAR", RED), ("BL", BLUE), ("FC", GREY)])
def test_the_notes_arms_have_the_notes_colors(arm: str, color: str) -> None:
    assert figures.arm_color(arm) == color
    red, green, blue = (round(255 * value) for value in to_rgba(color)[:3])
    if arm == "KUMAR":
        assert red > 2 * max(green, blue)
    elif arm == "BL":
        assert blue > 1.5 * max(red, green)
    else:
        assert red == green == blue


def test_other_arms_have_colors_of_their_own() -> None:
    own = figures.arm_color(OWN_ARM)
    assert own == figures.arm_color(OWN_ARM)
    assert len({own, figures.arm_color("FAN-IN"), RED, BLUE, GREY}) == 5
    assert len({figures.arm_color(f"inits:arm{number}") for number in range(20)}) > 2


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


def curves_of(
    make_record: MakeRecord,
    errors: dict[tuple[str, int], list[float]],
    lost: Sequence[tuple[str, int]] = (),
) -> pd.DataFrame:
    """Two epochs of 10 steps, evaluated at steps 0, 1, 3, 10 and 20."""
    return analysis.curves_table(
        make_record(
            *run,
            values,
            [0, 1, 3, 10, 20],
            [1.0, *([math.nan] if run in lost else [0.5]) * 4],
        )
        for run, values in errors.items()
    )


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


def bands_in(axes: Axes) -> list[tuple[str, dict[float, tuple[float, float]]]]:
    """Colour of each band, and its lowest and highest ordinate by abscissa."""
    bands = []
    for band in axes.collections:
        assert isinstance(band, PolyCollection)
        x, y = band.get_paths()[0].vertices.T
        ends = {
            float(at): (float(y[x == at].min()), float(y[x == at].max())) for at in np.unique(x)
        }
        bands.append((to_hex(band.get_facecolor()[0]), ends))
    return bands


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


def runs_of(best: dict[str, list[float]], lost: dict[str, int] | None = None) -> pd.DataFrame:
    """Runs by arm with their best errors, the final ones one point above; and diverged ones."""
    rows = [
        {"arm": arm, "seed": seed, "best": error, "final": error + 1, "diverged": False}
        for arm, errors in best.items()
        for seed, error in enumerate(errors)
    ]
    rows += [
        {"arm": arm, "seed": 10 + seed, "best": 30.0, "final": 90.2, "diverged": True}
        for arm, number in (lost or {}).items()
        for seed in range(number)
    ]
    return pd.DataFrame(rows)


RUNS = {"FC": [2.0, 2.1, 2.2, 2.6, 3.6], "BL": [5.0, 6.0, 10.0, 7.0], "KUMAR": [4.0, 4.2]}
COLORS = {"FC": GREY, "BL": BLUE, "KUMAR": RED}


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


# --- The screen ----------------------------------------------------------------------------------

SCREENED = {
    ("mnist", "BL", 5): [60, 20, 9],
    ("mnist", "BL", 6): [40, 30, 10],
    ("mnist", "BL", 7): [90, 90, 90],  # diverged
    ("mnist", "KUMAR", 5): [12, 6, 3],
    ("mnist", "KUMAR", 6): [10, 4, 5],
    ("mnist", "KUMAR", 7): [8, 2, 4],
    ("own:images", "BL", 5): [50, 40, 30],
    ("own:images", "KUMAR", 5): [45, 35, 40],
}


@pytest.fixture
def screened(make_record: MakeRecord) -> tuple[Axes, ...]:
    """The panels of two data sets; errors in percent at the ends of epochs of 10 steps."""
    records = [
        make_record(
            arm,
            seed,
            [0.9, *(error / 100 for error in errors)],
            losses=[1.0, *[math.nan if errors[0] == 90 else 0.5] * 3],
            dataset=dataset,
        )
        for (dataset, arm, seed), errors in SCREENED.items()
    ]
    curves, runs = analysis.curves_table(records), analysis.measures_table(records)
    return drawn(figures.screen(curves, runs))


def test_the_curves_of_a_screen(screened: tuple[Axes, ...]) -> None:
    mnist, _, own, _ = screened
    expected = {
        (mnist, BLUE): [(1, 50), (2, 25), (3, 9.5)],  # of the seeds that trained
        (mnist, RED): [(1, 10), (2, 4), (3, 4)],
        (own, BLUE): [(1, 50), (2, 40), (3, 30)],
        (own, RED): [(1, 45), (2, 35), (3, 40)],
    }
    for (axes, color), means in expected.items():
        (line,) = curves_in(axes, color)
        np.testing.assert_allclose(points(line), means)
    (lost,) = curves_in(mnist, BLUE, ":")
    np.testing.assert_allclose(points(lost), [(1, 90), (2, 90), (3, 90)])
    assert dict(bands_in(mnist))[BLUE][1.0] == pytest.approx((40, 60))
    assert legend(mnist) == {"BL (3 seeds, 1 diverged)": BLUE, "KUMAR (3 seeds)": RED}
    assert legend(own) == {"BL (1 seed)": BLUE, "KUMAR (1 seed)": RED}


def measured(column: str, errors: Sequence[float]) -> float:
    return min(errors) if column == "best" else float(np.mean(errors))


def test_the_dots_and_medians_of_a_screen(screened: tuple[Axes, ...]) -> None:
    for axes, dataset in zip(screened[1::2], ("mnist", "own:images"), strict=True):
        bars = {
            (to_hex(bar.get_color()[0]), round(bar.get_segments()[0].mean(axis=0)[0], 9)): bar
            for bar in axes.collections
        }
        assert len(bars) == 6
        for arm, color, side in (("BL", BLUE, -1), ("KUMAR", RED, 1)):
            dots = dots_in(axes, color)
            for position, column in enumerate(("best", "smoothed", "auc")):
                expected = [
                    measured(column, errors)
                    for (data, its_arm, seed), errors in SCREENED.items()
                    if (data, its_arm) == (dataset, arm) and errors[0] != 90
                ]
                found = [(x, y) for x, y in dots if round(x) == position]
                np.testing.assert_allclose(sorted(y for _, y in found), sorted(expected))
                assert {np.sign(x - position) for x, _ in found} == {side}
                (bar,) = bars[color, round(found[0][0], 9)].get_segments()
                np.testing.assert_allclose(bar[:, 1], np.median(expected))


def test_a_line_joins_the_runs_of_a_seed(screened: tuple[Axes, ...]) -> None:
    _, axes, _, other = screened
    joined = [line for line in axes.lines if line.get_marker() == "None"]
    assert len(joined) == 9  # three seeds, three measures
    for index, line in enumerate(joined):
        position, seed = index // 3, 5 + index % 3
        column = ("best", "smoothed", "auc")[position]
        (x, y), (x_other, y_other) = points(line)
        assert x < position < x_other
        assert y_other == pytest.approx(measured(column, SCREENED["mnist", "KUMAR", seed]))
        if seed == 7:
            assert math.isnan(y)  # no line from a run that diverged
        else:
            assert y == pytest.approx(measured(column, SCREENED["mnist", "BL", seed]))
    assert len([line for line in other.lines if line.get_marker() == "None"]) == 3


def test_arms_stand_in_the_order_in_which_they_come(make_record: MakeRecord) -> None:
    records = [make_record("KUMAR", 0, [0.9, 0.1]), make_record("BL", 0, [0.9, 0.3])]
    curves, runs = analysis.curves_table(records), analysis.measures_table(records)
    _, axes = drawn(figures.screen(curves, runs))
    for line in (line for line in axes.lines if line.get_marker() == "None"):
        (x, y), (x_other, y_other) = points(line)
        assert x < x_other
        assert (y, y_other) == (pytest.approx(10), pytest.approx(30))
    assert min(x for x, _ in dots_in(axes, RED)) < min(x for x, _ in dots_in(axes, BLUE))


def test_the_axes_of_a_screen(screened: tuple[Axes, ...]) -> None:
    curves, measures, own, _ = screened
    assert curves.get_yscale() == "log"
    assert (curves.get_xlabel(), curves.get_ylabel()) == ("epoch", "test error (%)")
    assert [axes.get_title() for axes in screened] == [
        *("MNIST, by epoch", "MNIST, seed by seed"),
        *("own:images, by epoch", "own:images, seed by seed"),
    ]
    names = [label.get_text() for label in measures.get_xticklabels()]
    assert names == ["best", "smoothed final", "AUC"]
    assert measures.get_ylabel() == "test error (%)"
    assert measures.get_ylim()[1] < 60  # what diverged is not drawn there
    low, high = own.get_ylim()
    ticks = zip(own.get_yticks(), own.get_yticklabels(), strict=True)
    assert [text.get_text() for tick, text in ticks if low <= tick <= high] == ["30", "40", "50"]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("errors", [[0.9], [0.9, 0.5], [0.9, 0.5, 0.0]])
def test_unusual_screens(errors: list[float], lost: bool, make_record: MakeRecord) -> None:
    losses = [1.0, *[math.nan if lost else 0.5] * (len(errors) - 1)]
    records = [make_record(OWN_ARM, 0, errors, losses=losses)]
    curves, runs = analysis.curves_table(records), analysis.measures_table(records)
    left, _ = drawn(figures.screen(curves, runs))
    failed = lost and len(errors) > 1
    assert list(legend(left)) == [f"{OWN_ARM} (1 seed{', 1 diverged' if failed else ''})"]


# --- The budget ----------------------------------------------------------------------------------


def networks(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Networks by arm, layers, hidden units, size, parameters, seeds that diverged, error."""
    columns = ["arm", "layers", "hidden", "size", "parameters", "diverged", "error"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        multiplications=table.parameters + 5, seeds=3, low=table.error - 0.5, high=table.error + 1
    )


BUDGET = networks(
    ("FC", 1, "", "", 80, 0, 8.0),
    ("FC", 2, "", "n = 2", 20, 0, 40.0),
    ("FC", 2, "", "n = 9", 90, 0, 6.0),
    ("BL", 1, "", "K = 5", 500, 1, 7.0),
    ("BL", 1, "", "K = 1", 100, 0, 20.0),
    ("BL", 1, "", "K = 9", 900, 3, 50.0),
    ("BL", 1, "", "K = 7", 700, 0, 6.5),
    ("KUMAR", 1, "", "K = 1", 100, 0, 5.0),
    ("KUMAR", 2, "4", "K = 1", 800, 0, 4.0),
    ("KUMAR", 2, "4", "K = 2", 950, 0, 3.0),
    ("KUMAR", 2, "9", "K = 1", 1800, 0, 2.0),
)


def markers_in(axes: Axes, color: str, marker: str) -> dict[tuple[float, float], bool]:
    """Whether the marker is hollow, by where it is."""
    return {
        point: to_hex(line.get_markerfacecolor()) != color
        for line in axes.lines
        if line.get_marker() == marker and to_hex(line.get_color()) == color
        for point in points(line)
    }


@pytest.mark.parametrize(("panel", "shift"), [(0, 0), (1, 5)], ids=["parameters", "products"])
def test_a_marker_a_network(panel: int, shift: int) -> None:
    axes = drawn(figures.budget(BUDGET))[panel]
    assert markers_in(axes, GREY, "o") == {(80 + shift, 8.0): False}
    assert markers_in(axes, GREY, "s") == {(20 + shift, 40.0): False, (90 + shift, 6.0): False}
    assert markers_in(axes, BLUE, "o") == {
        (100 + shift, 20.0): False,
        (500 + shift, 7.0): True,
        (700 + shift, 6.5): False,
        (900 + shift, 50.0): True,
    }
    assert markers_in(axes, RED, "o") == {(100 + shift, 5.0): False}
    assert markers_in(axes, RED, "s") == {
        (800 + shift, 4.0): False,
        (950 + shift, 3.0): False,
        (1800 + shift, 2.0): False,
    }


@pytest.mark.parametrize(("panel", "shift"), [(0, 0), (1, 5)], ids=["parameters", "products"])
def test_the_front_steps_down_from_the_cheapest_network(panel: int, shift: int) -> None:
    axes = drawn(figures.budget(BUDGET))[panel]
    (front,) = curves_in(axes, "#000000")
    costs, errors = [20, 80, 90, 100, 800, 950, 1800], [40.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    assert points(front) == [(c + shift, e) for c, e in zip(costs, errors, strict=True)]
    assert front.get_drawstyle() == "steps-post"  # nothing better to be had before the next


def test_lines_bars_and_sizes_of_the_budget() -> None:
    upper, _ = drawn(figures.budget(BUDGET))

    def lines(color: str) -> list[list[tuple[float, float]]]:
        return [points(line) for line in curves_in(upper, color) if line.get_marker() == "None"]

    assert lines(BLUE) == [[(100, 20.0), (500, 7.0), (700, 6.5), (900, 50.0)]]  # smallest first
    # Networks of another width are another family.
    assert lines(RED) == [[(100, 5.0)], [(800, 4.0), (950, 3.0)], [(1800, 2.0)]]
    bars = {
        tuple(map(tuple, segment.tolist()))
        for collection in upper.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    }
    assert ((100, 19.5), (100, 21)) in bars
    assert len(bars) == len(BUDGET)
    labels = {text.get_text(): text.xy for text in upper.texts}
    assert labels == {"K = 1": (100, 20), "K = 9": (900, 50)}  # of families worth a label
    guessing = BUDGET.assign(error=BUDGET.error.where(BUDGET["size"] != "K = 9", 90.0))
    assert [text.get_text() for text in drawn(figures.budget(guessing))[0].texts] == ["K = 1"]


def test_the_axes_of_the_budget() -> None:
    figure = figures.budget(BUDGET)
    upper, lower = drawn(figure)
    assert {axes.get_xscale() for axes in (upper, lower)} == {"log"}
    assert {axes.get_yscale() for axes in (upper, lower)} == {"log"}
    assert {axes.get_ylabel() for axes in (upper, lower)} == {"test error (%)"}
    assert [axes.get_xlabel() for axes in (upper, lower)] == [
        "parameters",
        "multiplications per image",
    ]
    (box,) = figure.legends
    assert [text.get_text() for text in box.get_texts()] == [
        "FC, 1 layer",
        "FC, 2 layers",
        "BL, 1 layer (4 of 12 runs diverged)",
        "KUMAR, 1 layer",
        "KUMAR, 2 layers",
        "Pareto front",
    ]


# --- Components ----------------------------------------------------------------------------------


@pytest.fixture
def ellipses() -> Ellipses:
    rng = np.random.default_rng(0)
    axes = np.sort(rng.uniform(0.5, 2.0, size=(4, 3, 2)))[..., ::-1]
    return Ellipses(rng.normal(size=(4, 3, 2)), axes, rng.uniform(-180, 180, size=(4, 3)))


def test_ellipses_are_of_two_standard_deviations(ellipses: Ellipses) -> None:
    (axes,) = drawn(figures.component_propagation({"BL": ellipses}))
    patches = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
    assert len(patches) == 12
    for index, patch in enumerate(patches):
        k, time = divmod(index, 4)
        np.testing.assert_allclose(patch.get_center(), ellipses.centers[time, k])
        size = (patch.get_width(), patch.get_height())
        np.testing.assert_allclose(size, 4 * ellipses.axes[time, k])  # full axes
        assert patch.get_angle() == pytest.approx(ellipses.angles[time, k])
        assert not patch.get_fill()


def test_opacity_grows_with_epochs_and_components_keep_their_color(ellipses: Ellipses) -> None:
    (axes,) = drawn(figures.component_propagation({"BL": ellipses}))
    by_component = np.array_split(np.array(axes.patches), 3)
    colors = []
    for patches in by_component:
        opacity = [patch.get_alpha() for patch in patches]
        assert (np.diff(opacity) > 0).all()
        assert 0 < opacity[0] < 0.3
        assert opacity[-1] == 1.0
        (color,) = {to_hex(patch.get_edgecolor()) for patch in patches}
        colors.append(color)
    assert len(set(colors)) == 3


def test_paths_of_the_means(ellipses: Ellipses) -> None:
    (axes,) = drawn(figures.component_propagation({"BL": ellipses}))
    for k in range(3):
        path, start, end = axes.lines[3 * k : 3 * k + 3]
        np.testing.assert_allclose(points(path), ellipses.centers[:, k])
        np.testing.assert_allclose(points(start), ellipses.centers[:1, k])
        np.testing.assert_allclose(points(end), ellipses.centers[-1:, k])
        assert to_hex(start.get_markerfacecolor()) == "#ffffff"  # hollow
        assert to_hex(end.get_markerfacecolor()) == to_hex(path.get_color())


def test_panels_of_components(ellipses: Ellipses) -> None:
    figure = figures.component_propagation({"BL": ellipses, "KUMAR": ellipses})
    left, right = drawn(figure)
    assert (left.get_title(), right.get_title()) == ("BL", "KUMAR")
    assert left.get_position().x1 <= right.get_position().x0
    for axes in (left, right):
        assert axes.get_aspect() == 1.0
        assert axes.get_xlabel() == "PC 1 of the final mixture"
        assert axes.get_ylabel() == "PC 2"
        box = axes.dataLim
        for patch in axes.patches:
            assert box.x0 <= patch.get_center()[0] <= box.x1
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        edges = np.concatenate([patch.get_verts() for patch in axes.patches])
        lower, upper = axes.transData.inverted().transform([edges.min(0), edges.max(0)])
        assert (x0, y0) <= tuple(lower)
        assert lower[1] >= y0
        assert upper[0] <= x1
        assert upper[1] <= y1


@pytest.mark.parametrize(("times", "components"), [(1, 1), (2, 10)])
def test_unusual_components(times: int, components: int) -> None:
    shape = (times, components)
    ellipses = Ellipses(np.zeros((*shape, 2)), np.ones((*shape, 2)), np.zeros(shape))
    (axes,) = drawn(figures.component_propagation({OWN_ARM: ellipses}))
    assert len(axes.patches) == times * components


def test_displacement() -> None:
    moved = {
        "BL": {"absolute": [0, 1, 2], "relative": [0, 0.1, 0.2], "gates": [0, 0.5, 0.4]},
        "KUMAR": {"absolute": [0, 3, 5], "relative": [0, 0.6, 1.0], "gates": [0, 0.3, 0.4]},
    }
    absolute, relative, gates = drawn(figures.displacement(moved))
    panels = {"absolute": absolute, "relative": relative, "gates": gates}
    for kind, axes in panels.items():
        for arm, distances in moved.items():
            (line,) = curves_in(axes, COLORS[arm])
            np.testing.assert_allclose(points(line), list(enumerate(distances[kind])))
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] >= max(moved["KUMAR"][kind])
    assert legend(absolute) == {"BL": BLUE, "KUMAR": RED}
    assert "size" in relative.get_title()


# --- Initialization ------------------------------------------------------------------------------


def inits_of(stds: dict[str, list[list[float]]]) -> pd.DataFrame:
    """By arm, a list a seed of output scales by layer."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "layer": layer, "std_before": 77.0, "std_after": std}
            for arm, seeds in stds.items()
            for seed, layers in enumerate(seeds)
            for layer, std in enumerate(layers, start=1)
        ]
    )


def test_initial_scale() -> None:
    stds = {"FC": [[1.0, 0.3]], "BL": [[10, 400], [12, 500]], "KUMAR": [[0.4, 0.4], [0.4, 0.4]]}
    (axes,) = drawn(figures.initial_scale(inits_of(stds), 0.4))
    for arm, seeds in stds.items():
        for layer in (1, 2):
            dots = [point for point in dots_in(axes, COLORS[arm]) if round(point[0]) == layer]
            assert [y for _, y in dots] == [layers[layer - 1] for layers in seeds]
            assert len({x for x, _ in dots}) == len(seeds)
    assert legend(axes) == {"FC": GREY, "BL": BLUE, "KUMAR": RED}
    (target,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert set(target.get_ydata()) == {0.4}
    assert [text.get_text() for text in axes.texts] == ["target 0.4"]
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["layer 1", "layer 2"]
    assert axes.get_ylabel() == "std of the layer's outputs"


def test_layer_scales_before_and_after() -> None:
    columns = {"name": ["0", "1"], "std_before": [0.03, 4.0], "scale": [17, 0.1]}
    (axes,) = drawn(figures.layer_scales(pd.DataFrame({**columns, "std_after": [0.5, 0.5]})))
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines == {"before": [0.03, 4.0], "after": [0.5, 0.5]}
    before, after = axes.lines
    assert (before.get_linestyle(), after.get_linestyle()) == ("--", "-")
    assert after.get_color() == RED
    assert legend(axes).keys() == {"before", "after"}
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer", "std of the layer's outputs")


def test_initial_scale_of_stacks_that_differ_in_depth() -> None:
    table = inits_of({OWN_ARM: [[1.0, 2.0, 3.0]], "BL": [[5.0]]})
    (axes,) = drawn(figures.initial_scale(table, 0.5))
    assert [y for _, y in dots_in(axes, figures.arm_color(OWN_ARM))] == [1.0, 2.0, 3.0]
    assert [y for _, y in dots_in(axes, BLUE)] == [5.0]
    assert list(legend(axes)) == [OWN_ARM, "BL"]


# --- Two choices ---------------------------------------------------------------------------------

PURPLE, ORANGE, LIGHT = "#8357a4", "#e39b28", "#c4c4c4"
FOUR = {
    "BL": {0: [0.9, 0.8, 0.7, 0.60, 0.40], 1: [0.9, 0.9, 0.9, 0.50, 0.20], 2: [0.9, *[0.95] * 4]},
    "BL, calibrated": {0: [0.9, 0.6, 0.5, 0.20, 0.10]},
    "fan-in": {0: [0.9, *[0.9] * 4], 1: [0.9, *[0.9] * 4]},
    "KUMAR": {0: [0.9, 0.5, 0.3, 0.10, 0.05], 1: [0.9, 0.3, 0.1, 0.06, 0.03]},
}
FOUR_LOST = {("BL", 2), ("fan-in", 0), ("fan-in", 1)}
FOUR_COLORS = {"BL": BLUE, "BL, calibrated": PURPLE, "fan-in": ORANGE, "KUMAR": RED}
FOUR_MEANS = {
    "BL": [(1, 85), (3, 80), (10, 55), (20, 30)],
    "BL, calibrated": [(1, 60), (3, 50), (10, 20), (20, 10)],
    "fan-in": [],
    "KUMAR": [(1, 40), (3, 20), (10, 8), (20, 4)],
}


@pytest.fixture
def combined(make_record: MakeRecord) -> tuple[Axes, ...]:
    curves = pd.concat(
        curves_of(
            make_record,
            {("KUMAR", seed): errors for seed, errors in seeds.items()},
            [("KUMAR", seed) for name, seed in FOUR_LOST if name == variant],
        ).assign(arm=variant)
        for variant, seeds in FOUR.items()
    )
    pairs = {"scale 1/2": ("BL", "BL, calibrated"), "fan-in scale": ("fan-in", "KUMAR")}
    return drawn(figures.two_by_two(curves, pairs, ["as drawn", "calibrated"]))


def test_a_panel_shows_its_seeds_and_their_mean(combined: tuple[Axes, ...]) -> None:
    for axes, (variant, seeds) in zip(combined, FOUR.items(), strict=True):
        color = FOUR_COLORS[variant]
        assert figures.arm_color(variant) == color
        lines = sorted(curves_in(axes, color), key=lambda line: line.get_linewidth())
        *own, mean = lines if FOUR_MEANS[variant] else (*lines, None)
        if mean is not None:
            np.testing.assert_allclose(points(mean), FOUR_MEANS[variant])
            assert mean.get_linewidth() > own[-1].get_linewidth()
        dotted = curves_in(axes, color, ":")
        for lines, lost in ((own, False), (dotted, True)):
            expected = [
                e[1:] for seed, e in seeds.items() if ((variant, seed) in FOUR_LOST) == lost
            ]
            assert len(lines) == len(expected)
            for line, errors in zip(lines, expected, strict=True):
                steps = zip([1, 3, 10, 20], errors, strict=True)
                np.testing.assert_allclose(points(line), [(at, 100 * e) for at, e in steps])


def test_a_panel_shows_the_means_of_the_others_in_grey(combined: tuple[Axes, ...]) -> None:
    for axes, variant in zip(combined, FOUR, strict=True):
        grey = [points(line) for line in curves_in(axes, LIGHT)]
        others = [mean for name, mean in FOUR_MEANS.items() if name != variant and mean]
        assert len(grey) == len(others)
        for found, expected in zip(grey, others, strict=True):
            np.testing.assert_allclose(found, expected)
        colors = {to_hex(line.get_color()) for line in axes.lines}
        assert colors == {LIGHT, FOUR_COLORS[variant]}


def test_the_labels_of_two_choices(combined: tuple[Axes, ...]) -> None:
    notes = [[text.get_text() for text in axes.texts] for axes in combined]
    assert notes == [
        ["BL\nfinal 30.0 %\n1 of 3 diverged"],
        ["BL, calibrated\nfinal 10.0 %"],
        ["fan-in\n2 of 2 diverged"],  # and no mean to speak of
        ["KUMAR\nfinal 4.0 %"],
    ]
    assert [to_hex(axes.texts[0].get_color()) for axes in combined] == list(FOUR_COLORS.values())
    assert [axes.get_title() for axes in combined] == ["as drawn", "calibrated", "", ""]
    ylabels = [axes.get_ylabel() for axes in combined]
    assert ylabels == ["scale 1/2\ntest error (%)", "", "fan-in scale\ntest error (%)", ""]
    assert [axes.get_xlabel() for axes in combined] == ["", "", "gradient step", "gradient step"]
    assert {(axes.get_xscale(), axes.get_yscale()) for axes in combined} == {("log", "log")}
    assert len({axes.get_ylim() for axes in combined}) == 1
    low, high = combined[0].get_ylim()
    assert low <= 3
    assert high >= 95
    labels = [label.get_text() for label in combined[0].get_yticklabels()]
    assert labels == ["3", "5", "10", "20", "50", "90"]


@pytest.mark.parametrize("errors", [[0.9], [0.9, 0.5], [0.9, 0.5, 0.0]])
def test_unusual_choices(errors: list[float], make_record: MakeRecord) -> None:
    curves = analysis.curves_table([make_record("KUMAR", 0, errors), make_record("BL", 0, errors)])
    pairs = {"one": ("KUMAR", "BL"), "two": ("FC", OWN_ARM)}  # of which two were not run
    panels = drawn(figures.two_by_two(curves, pairs, ["x", "y"]))
    final = [f"KUMAR\nfinal {100 * errors[-1]:.1f} %"] if len(errors) > 1 else ["KUMAR"]
    assert [text.get_text() for text in panels[0].texts] == final
    assert [text.get_text() for text in panels[3].texts] == [OWN_ARM]


# --- Settings, depths ----------------------------------------------------------------------------


def settings_of(
    errors: dict[float, list[tuple[float, float, float] | None]],
) -> dict[float, pd.DataFrame]:
    """By setting, runs with errors after the first epoch, at best and at last; None for lost."""
    names = ["first_epoch", "best", "final"]
    return {
        value: pd.DataFrame(
            [
                {
                    "arm": "KUMAR",
                    "seed": seed,
                    **dict(zip(names, own or (60.0, 50.0, 90.2), strict=True)),
                    "diverged": own is None,
                }
                for seed, own in enumerate(runs)
            ]
        )
        for value, runs in errors.items()
    }


TARGETS = settings_of({0.05: [(20, 6, 8), (24, 8, 10)], 5.0: [None, (12, 4, 7)], 0.5: [(10, 4, 5)]})
SIZES = settings_of({64: [(11, 5, 6)], 16384: [None, None], 2048: [(10, 4, 5), (12, 3, 4)]})


def dots_at(axes: Axes, color: str) -> list[tuple[float, float]]:
    """The seeds: small dots without a line."""
    return [
        point
        for line in axes.lines
        if line.get_marker() == "." and to_hex(line.get_color()) == color
        for point in points(line)
    ]


def test_dial() -> None:
    targets, sizes = drawn(figures.dial([TARGETS, SIZES], ["target std", "images"]))
    colors = legend(sizes)
    assert list(colors) == ["after epoch 1", "best", "final"]
    assert len(set(colors.values())) == 3
    assert colors["final"] == RED
    expected = {
        targets: (
            {"after epoch 1": [22, 12, 10], "best": [7, 4, 4], "final": [9, 7, 5]},
            {
                "after epoch 1": [(0.05, 20), (0.05, 24), (5, 12), (0.5, 10)],
                "best": [(0.05, 6), (0.05, 8), (5, 4), (0.5, 4)],
                "final": [(0.05, 8), (0.05, 10), (5, 7), (0.5, 5)],
            },
        ),
        sizes: (
            {
                "after epoch 1": [11, math.nan, 11],
                "best": [5, math.nan, 3.5],
                "final": [6, math.nan, 4.5],
            },
            {
                "after epoch 1": [(64, 11), (2048, 10), (2048, 12)],
                "best": [(64, 5), (2048, 4), (2048, 3)],
                "final": [(64, 6), (2048, 5), (2048, 4)],
            },
        ),
    }
    for (axes, (means, seeds)), tables in zip(expected.items(), (TARGETS, SIZES), strict=True):
        for label, color in colors.items():
            (line,) = [line for line in curves_in(axes, color) if line.get_marker() != "."]
            np.testing.assert_allclose(line.get_xdata(), list(tables))
            np.testing.assert_allclose(line.get_ydata(), means[label])
            np.testing.assert_allclose(dots_at(axes, color), seeds[label])
            assert line.get_marker() not in ("None", "")


def test_the_axes_of_the_dial() -> None:
    targets, sizes = drawn(figures.dial([TARGETS, SIZES], ["target std", "images"]))
    assert [axes.get_xlabel() for axes in (targets, sizes)] == ["target std", "images"]
    assert [axes.get_ylabel() for axes in (targets, sizes)] == ["test error (%)", ""]
    for axes in (targets, sizes):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert len(axes.xaxis.get_minorticklocs()) == 0
    assert targets.get_ylim() == sizes.get_ylim()
    assert [text.get_text() for text in targets.get_xticklabels()] == ["0.05", "5", "0.5"]
    assert [text.get_text() for text in sizes.get_xticklabels()] == ["64", "16,384", "2,048"]
    assert [(text.get_text(), text.xy[0]) for text in targets.texts] == [("1 lost", 5.0)]
    assert [(text.get_text(), text.xy[0]) for text in sizes.texts] == [("2 lost", 16384)]


@pytest.mark.parametrize("runs", [[(10.0, 4.0, 5.0)], [(10.0, 4.0, 0.0)], [None]])
def test_unusual_dials(runs: Any) -> None:
    (axes,) = drawn(figures.dial([settings_of({0.5: runs})], ["target std"]))
    assert list(legend(axes)) == ["after epoch 1", "best", "final"]
    assert len(dots_at(axes, RED)) == (runs != [None])


SCALES = {
    1: {"BL": [[24.0], [26.0]], "KUMAR": [[0.5], [0.5]]},
    3: {"BL": [[24.0, 400.0, 9000.0], [26.0, 600.0, 1000.0]], "KUMAR": [[0.5, 0.5, 0.5]]},
}
DEPTHS = {
    1: ({"BL": [8.0], "KUMAR": [6.0, 4.0]}, {"BL": 2}),
    3: ({"BL": [], "KUMAR": [3.0, 5.0]}, {"BL": 3, "KUMAR": 1}),
}


def test_depth() -> None:
    scales = {depth: inits_of(stds) for depth, stds in SCALES.items()}
    runs = {depth: runs_of(*errors) for depth, errors in DEPTHS.items()}
    start, end = drawn(figures.depth(scales, runs))
    expected = {
        BLUE: [[(1, 25)], [(1, 25), (2, 500), (3, 5000)]],
        RED: [[(1, 0.5)], [(1, 0.5), (2, 0.5), (3, 0.5)]],
    }
    for color, lines in expected.items():
        assert [points(line) for line in curves_in(start, color)] == lines
    (means,) = [line for line in curves_in(end, RED) if line.get_marker() == "o"]
    assert points(means) == [(1, 5), (3, 4)]
    (means,) = [line for line in curves_in(end, BLUE) if line.get_marker() == "o"]
    assert points(means) == [(1, 8)]  # of three layers, none trained
    assert dots_at(end, RED) == [(1, 6), (1, 4), (3, 3), (3, 5)]
    assert dots_at(end, BLUE) == [(1, 8)]
    lost = {(text.get_text(), text.xy[0], to_hex(text.get_color())): text for text in end.texts}
    assert set(lost) == {("2 lost", 1, BLUE), ("3 lost", 3, BLUE), ("1 lost", 3, RED)}
    heights = {text.xy[1] for (_, x, _), text in lost.items() if x == 3}
    assert len(heights) == 2  # one above the other
    assert legend(end) == {"BL": BLUE, "KUMAR": RED}


def test_the_axes_of_the_depths() -> None:
    scales = {depth: inits_of(stds) for depth, stds in SCALES.items()}
    runs = {depth: runs_of(*errors) for depth, errors in DEPTHS.items()}
    start, end = drawn(figures.depth(scales, runs))
    assert [axes.get_xlabel() for axes in (start, end)] == ["layer", "layers"]
    ylabels = [axes.get_ylabel() for axes in (start, end)]
    assert ylabels == ["output std at the start", "best test error (%)"]
    for axes in (start, end):
        assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3"]


def test_depths_of_which_nothing_trained() -> None:
    runs = {2: runs_of({}, {"BL": 2})}
    start, end = drawn(figures.depth({2: inits_of({"BL": [[1.0, 2.0], [3.0, 4.0]]})}, runs))
    assert [points(line) for line in curves_in(start, BLUE)] == [[(1, 2), (2, 3)]]
    assert not curves_in(end, BLUE)
    assert [text.get_text() for text in end.texts] == ["2 lost"]


# --- Predicted scale, movement -------------------------------------------------------------------


def scales_of(
    datasets: Sequence[str], ds: Sequence[int], inits: Sequence[str], factor: float = 1.25
) -> pd.DataFrame:
    """Settings of three numbers of components; each measured `factor` times what is predicted."""
    rows = []
    for number, (dataset, d, init, K) in enumerate(
        itertools.product(datasets, ds, inits, (1, 10, 100)), start=1
    ):
        measured = factor * number
        rows.append(
            {
                **{"dataset": dataset, "d": d, "K": K, "init": init, "predicted": float(number)},
                **{"measured": measured, "low": 0.5 * measured, "high": 2.0 * measured},
            }
        )
    return pd.DataFrame(rows)


def bars_in(axes: Axes) -> list[tuple[float, float, float]]:
    """Abscissa, lower and upper end of each bar."""
    return [
        (bar[0, 0], bar[0, 1], bar[1, 1])
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for bar in collection.get_segments()
    ]


def test_predicted_scale() -> None:
    table = scales_of(["mnist", "own:images"], [49, 784], ["fan-in", "0.5"])
    left, right = drawn(figures.predicted_scale(table))
    for axes, dataset in ((left, "mnist"), (right, "own:images")):
        rows = table[table.dataset == dataset]
        found = [
            point for line in axes.lines if line.get_marker() != "None" for point in points(line)
        ]
        expected = rows.sort_values(["init", "d"], ascending=[False, True])
        assert found == list(zip(expected.predicted, expected.measured, strict=True))
        bars = zip(expected.predicted, expected.low, expected.high, strict=True)
        np.testing.assert_allclose(bars_in(axes), list(bars))
        (line,) = curves_in(axes, "#888888")
        (x0, y0), (x1, y1) = points(line)
        assert (x0, x1) == (y0, y1)  # where they are equal
        assert x0 < rows.low.min()
        assert x1 > rows.high.max()
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlabel() == "predicted std"
    assert [axes.get_title() for axes in (left, right)] == ["MNIST", "own:images"]
    assert [axes.get_ylabel() for axes in (left, right)] == ["measured std", ""]
    assert left.get_legend() is None
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == [
        *("fan-in, d = 49", "fan-in, d = 784", "scale 0.5, d = 49", "scale 0.5, d = 784"),
    ]


def test_settings_differ_in_color_or_marker() -> None:
    ds, inits = [4, 9, 16, 36, 49], ["fan-in", *map(str, range(1, 7))]
    (axes,) = drawn(figures.predicted_scale(scales_of(["mnist"], ds, inits)))
    series = [line for line in axes.lines if line.get_marker() != "None"]
    looks = {(to_hex(line.get_color()), line.get_marker()) for line in series}
    assert len(looks) == len(series) == 35
    assert len({color for color, _ in looks}) == 7


def test_every_setting_is_drawn_however_many_there_are() -> None:
    table = scales_of(["mnist"], range(1, 8), [str(init) for init in range(1, 10)])
    (axes,) = drawn(figures.predicted_scale(table))
    found = [point for line in axes.lines if line.get_marker() != "None" for point in points(line)]
    assert sorted(found) == sorted(zip(table.predicted, table.measured, strict=True))
    assert len(bars_in(axes)) == len(table) == 189


def test_predicted_scale_through_depth() -> None:
    columns = ["init", "layer", "predicted", "measured", "low", "high"]
    rows = [
        ("fan-in", 1, 0.5, 0.4, 0.2, 0.6),
        ("fan-in", 2, 0.05, 0.06, 0.06, 0.06),  # a single draw
        ("0.5", 1, 20.0, 25.0, 22.0, 30.0),
    ]
    table = pd.DataFrame(rows, columns=columns)
    (axes,) = drawn(figures.predicted_scale(table))
    series = [points(line) for line in axes.lines if line.get_marker() != "None"]
    assert series == [[(0.5, 0.4), (0.05, 0.06)], [(20.0, 25.0)]]
    np.testing.assert_allclose(
        bars_in(axes), [(0.5, 0.2, 0.6), (0.05, 0.06, 0.06), (20.0, 22.0, 30.0)]
    )
    assert axes.get_title() == ""
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["fan-in", "scale 0.5"]


def moved_of(make_record: MakeRecord, *runs: tuple[Any, ...]) -> pd.DataFrame:
    """Movement of runs, each an arm, a seed and the parameters' distances at steps 0, 10 and 20."""
    return analysis.movement_table(
        make_record(
            arm,
            seed,
            movement={name: [0.0, *distances] for name, distances in movement.items()},
            losses=[1.0, *[math.nan if lost else 0.5] * 2],
        )
        for arm, seed, movement, *lost in runs
    )


def test_movement(make_record: MakeRecord) -> None:
    table = moved_of(
        make_record,
        ("BL", 0, {"0.mu": [0.1, 0.2], "0.sigma": [9, 9], "0.U": [0.3, 0.4], "1.mu": [2, 3]}),
        ("BL", 1, {"0.mu": [0.3, 0.6], "0.U": [0.5, 1.0], "1.mu": [4, 5]}),
        ("BL", 2, {"0.mu": [7, 7], "1.mu": [7, 7]}, "diverged"),
        ("KUMAR", 0, {"0.mu": [0.01, 0.02], "0.v": [8, 8], "1.U": [0.5, 0.25]}),
    )
    first, second, reads, reads_second = axes = drawn(figures.movement(table))
    expected = {
        (first, BLUE, "-"): [(10, 0.2), (20, 0.4)],
        (first, BLUE, ":"): [(10, 9), (20, 9)],
        (reads, BLUE, "-"): [(10, 0.4), (20, 0.7)],
        (first, RED, "-"): [(10, 0.01), (20, 0.02)],
        (reads, RED, ":"): [(10, 8), (20, 8)],
        (second, BLUE, "-"): [(10, 3), (20, 4)],
        (reads_second, RED, "-"): [(10, 0.5), (20, 0.25)],
    }
    for (own, color, style), curve in expected.items():
        (line,) = curves_in(own, color, style)
        np.testing.assert_allclose(points(line), curve)
    for own in axes:
        for color, style in itertools.product((BLUE, RED), ("-", ":")):
            assert len(curves_in(own, color, style)) == ((own, color, style) in expected)
        assert (own.get_xscale(), own.get_yscale()) == ("log", "log")
    assert [own.get_title() for own in axes] == [
        f"{kind}, layer {layer}" for kind in ("clouds", "readouts") for layer in (1, 2)
    ]
    assert [own.get_xlabel() for own in axes] == ["", "", "gradient step", "gradient step"]
    assert [own.get_ylabel() for own in axes] == ["distance from the start, relative", ""] * 2
    assert first.get_ylim() == second.get_ylim()
    handles = second.get_legend().legend_handles
    labels = [text.get_text() for text in second.get_legend().get_texts()]
    assert labels == ["BL", "KUMAR", "means μ", "deviations σ"]
    assert [to_hex(handle.get_color()) for handle in handles[:2]] == [BLUE, RED]
    assert [handle.get_linestyle() for handle in handles[2:]] == ["-", ":"]
    assert [text.get_text() for text in reads_second.get_legend().get_texts()] == [
        "weights U",
        "offsets v",
    ]


def test_movement_of_what_starts_from_zero(make_record: MakeRecord) -> None:
    table = moved_of(
        make_record,
        ("ZERO", 0, {"0.mu": [0.1, 0.2], "0.U": [math.nan, math.nan]}),
    )
    axes, _ = drawn(figures.movement(table))
    (line,) = curves_in(axes, figures.arm_color("ZERO"))
    assert points(line) == [(10, 0.1), (20, 0.2)]


def test_movement_that_was_not_recorded(make_record: MakeRecord) -> None:
    old = analysis.movement_table([make_record("BL"), make_record("KUMAR")])
    for axes in drawn(figures.movement(old)):
        assert not [line for line in axes.lines if points(line)]
    (axes,) = drawn(figures.feature_learning({0.5: old, 1.0: old}))
    assert not dots_at(axes, RED)
    # Among records of which some have it, those are drawn.
    records = {"old": [make_record("BL")], "new": [make_record(movement={"0.mu": [0.0, 0.1, 0.2]})]}
    axes, _ = drawn(figures.movement(analysis.by_variant(records, analysis.movement_table)))
    (line,) = curves_in(axes, figures.arm_color("new"))
    assert points(line) == [(10, 0.1), (20, 0.2)]


def test_feature_learning(make_record: MakeRecord) -> None:
    lazy = moved_of(
        make_record,
        ("KUMAR", 0, {"0.mu": [5, 0.1], "0.sigma": [5, 0.2], "0.U": [5, 0.3], "1.mu": [5, 0.6]}),
        ("KUMAR", 1, {"0.mu": [5, 0.2], "0.sigma": [5, 0.4], "0.U": [5, 0.5], "1.mu": [5, 0.8]}),
        ("KUMAR", 2, {"0.mu": [5, 0.9], "0.sigma": [5, 0.3], "0.U": [5, 0.4], "1.mu": [5, 0.7]}),
        ("KUMAR", 3, {"0.mu": [5, 7], "1.mu": [5, 7]}, "diverged"),
    )
    rich = moved_of(make_record, ("KUMAR", 0, {"0.mu": [5, 2], "0.v": [5, 8], "1.mu": [5, 3]}))
    none = analysis.movement_table([make_record()])  # from before movement was recorded
    first, second = drawn(figures.feature_learning({2.0: none, 5.0: lazy, 0.05: rich}))
    colors = legend(second)
    assert list(colors) == ["means of the clouds", "deviations of the clouds", "readouts"]
    nan = math.nan
    expected = {
        (first, "means of the clouds"): [nan, 0.2, 2],  # medians; the mean is 0.4
        (first, "deviations of the clouds"): [nan, 0.3, nan],
        (first, "readouts"): [nan, 0.4, nan],
        (second, "means of the clouds"): [nan, 0.7, 3],
    }
    for (axes, label), medians in expected.items():
        (line,) = [line for line in curves_in(axes, colors[label]) if line.get_marker() == "o"]
        np.testing.assert_allclose(line.get_xdata(), [2.0, 5.0, 0.05])
        np.testing.assert_allclose(line.get_ydata(), medians)
    assert dots_at(first, colors["means of the clouds"]) == [
        *((5.0, 0.1), (5.0, 0.2), (5.0, 0.9), (0.05, 2.0)),
    ]
    assert dots_at(second, colors["means of the clouds"]) == [
        *((5.0, 0.6), (5.0, 0.8), (5.0, 0.7), (0.05, 3.0)),
    ]
    assert dots_at(first, colors["readouts"]) == [(5.0, 0.3), (5.0, 0.5), (5.0, 0.4)]
    assert [axes.get_title() for axes in (first, second)] == ["layer 1", "layer 2"]
    for axes in (first, second):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlabel() == "target std"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "5", "0.05"]
    assert first.get_ylabel() == "distance gone, relative"


# --- The closed form -----------------------------------------------------------------------------


def test_smoothed_relu() -> None:
    left, right = drawn(figures.smoothed_relu([0.25, 1.0]))
    assert (left.get_title(), right.get_title()) == ("F = E[relu(s)]", "G = P(s > 0)")
    assert (left.get_xlabel(), right.get_xlabel()) == ("m", "m")
    assert list(legend(left)) == ["t = 0.25", "t = 1"]
    assert len(set(legend(left).values())) == 2
    for index, t in enumerate((0.25, 1.0)):
        for axes, moment in ((left, 0), (right, 1)):
            m, found = (torch.from_numpy(values) for values in axes.lines[index].get_data())
            expected = relu_moments(m, torch.full_like(m, t))[moment]
            torch.testing.assert_close(found, expected)
            assert (m.min(), m.max()) == (-4, 4)


def test_error_against() -> None:
    x, errors = [1, 10, 100], [[1.0, 3.0, 2.0], [0.5, 0.25, 0.75], [0.1, 0.2, 0.3]]
    figure = figures.error_against(x, errors, "samples", "error", slope=-0.5)
    (axes,) = drawn(figure)
    dots, median, guide = axes.lines
    assert sorted(points(dots)) == sorted(
        (at, error) for at, row in zip(x, errors, strict=True) for error in row
    )
    assert points(median) == [(1, 2.0), (10, 0.5), (100, 0.2)]
    np.testing.assert_allclose(points(guide), [(1, 2.0), (10, 2 / 10**0.5), (100, 0.2)])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("samples", "error")
    assert list(legend(axes)) == ["median", "slope \N{MINUS SIGN}0.5"]


def test_error_against_without_a_guide() -> None:
    (axes,) = drawn(figures.error_against([1, 2], [[1.0], [0.5]], "x", "y"))
    assert len(axes.lines) == 2
    assert list(legend(axes)) == ["median"]


def test_several_errors_against_something() -> None:
    x = [10, 100]
    errors = {
        "BL, start": [[1.0, 3.0, 2.0], [0.5, 0.25, 0.75]],
        "BL, trained": np.array([[4.0], [0.4]]),  # of another number of repetitions
    }
    (axes,) = drawn(figures.error_against(x, errors, "neurons", "error", slope=-1.0))
    labels = ["BL, start", "BL, trained", "slope \N{MINUS SIGN}1"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == labels
    colors = legend(axes)
    assert len(set(colors.values())) == 3
    assert colors["BL, trained"] == BLUE
    for label, values in errors.items():
        own = [line for line in axes.lines if to_hex(line.get_color()) == colors[label]]
        dots, median = own
        assert points(dots) == [(at, e) for at, row in zip(x, values, strict=True) for e in row]
        assert dots.get_linestyle() == "None"
        assert points(median) == list(zip(x, np.median(values, axis=1), strict=True))
    (guide,) = (line for line in axes.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(points(guide), [(10, 2.0), (100, 0.2)])  # through the first's median


# --- Speed ---------------------------------------------------------------------------------------


def test_step_times() -> None:
    table = pd.DataFrame(
        {"low": [1.0, 2.1], "median": [1.0, 2.2], "high": [1.0, 2.5], "ms": [1.5, 3.31]},
        index=["bare products", "gmlib"],
    )
    (axes,) = drawn(figures.step_times(table))
    assert [bar.get_width() for bar in axes.patches] == [1.0, 2.2]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches][1] == RED
    assert [text.get_text() for text in axes.texts] == ["1.00  (1.50 ms)", "2.20  (3.31 ms)"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(table.index)
    (whiskers,) = (line for line in axes.collections if isinstance(line, LineCollection))
    assert whiskers.get_segments()[1].tolist() == [[2.1, 1.0], [2.5, 1.0]]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first row on top


def test_scaling() -> None:
    table = pd.DataFrame(
        {
            "size": ["K", "K", "K", "batch"],
            "value": [4, 8, 16, 64],
            "ms": [1.0, 1.5, 3.0, 2.0],
            "exponent": [0.79, 0.79, 0.79, 0.5],
        }
    )
    left, right = drawn(figures.scaling(table))
    (curve,) = curves_in(left, RED)
    assert points(curve) == [(4, 1.0), (8, 1.5), (16, 3.0)]
    (guide,) = (line for line in left.lines if line.get_linestyle() == "--")
    assert points(guide) == [(4, 0.75), (8, 1.5), (16, 3.0)]
    assert [axes.get_title() for axes in (left, right)] == ["exponent 0.79", "exponent 0.50"]
    assert [axes.get_xlabel() for axes in (left, right)] == ["K", "batch"]
    assert left.get_xscale() == left.get_yscale() == "log"


def test_logit_histograms() -> None:
    outputs = {"BL": np.array([-5.0, 0.0, 0.1, 7.0, 9.0]), "KUMAR": np.array([[-1.0, 1.0]])}
    left, right = drawn(figures.logit_histograms(outputs))
    assert [axes.get_title() for axes in (left, right)] == ["BL\nstd 5.1", "KUMAR\nstd 1"]
    assert [text.get_text() for text in left.texts] == ["← 20%", "40% →"]
    assert not right.texts
    assert sum(bar.get_height() for bar in left.patches) == 2
    assert sum(bar.get_height() for bar in right.patches) == 2
    assert {axes.get_xlim() for axes in (left, right)} == {(-2, 2)}
    assert to_hex(right.patches[0].get_facecolor()) == figures.arm_color("KUMAR")


def test_cloud() -> None:
    mu, sigma, x = [1.0, 0.5], [0.8, 0.4], [1.0, -1.0]
    plane, curve = drawn(figures.cloud(mu, sigma, x))
    assert [(e.get_center(), e.get_width(), e.get_height()) for e in plane.patches[:2]] == [
        ((1.0, 0.5), pytest.approx(1.6), pytest.approx(0.8)),
        ((1.0, 0.5), pytest.approx(3.2), pytest.approx(1.6)),
    ]
    firing, silent = (np.array(points(line)) for line in plane.lines[:2])
    assert (firing @ x > 0).all()
    assert (silent @ x <= 0).all()
    assert len(firing) + len(silent) == 80
    m, t = torch.tensor([0.5, math.hypot(*sigma)], dtype=torch.float64)
    (here,) = points(curve.lines[2])
    assert here == (m.item(), pytest.approx(relu_moments(m, t)[0].item()))


def test_an_axis_of_percents_always_has_some_ticks(make_record: MakeRecord) -> None:
    high = curves_of(make_record, {("BL", 0): [0.9, 0.9, 0.88, 0.60, 0.43]})
    ticks = drawn(figures.dynamics(high))[0].get_yticks()
    assert [tick for tick in ticks if 43 <= tick <= 88] == [50, 60, 70, 80]
