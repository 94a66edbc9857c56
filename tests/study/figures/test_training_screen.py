"""Screens: errors by epoch and seed by seed, a row of panels a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from axes import BLUE, OWN_ARM, RED, bands_in, curves_in, dots_in, drawn, legend, points
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from small_tables import MakeRecord

from gmlib.study import analysis, figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)

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
    curves, runs = analysis.curves_table(records), analysis.runs_table(records)
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
    if column in ("best", "final"):
        return {"best": min(errors), "final": errors[-1]}[column]
    return float(np.mean(errors))


def test_the_dots_and_medians_of_a_screen(screened: tuple[Axes, ...]) -> None:
    for axes, dataset in zip(screened[1::2], ("mnist", "own:images"), strict=True):
        bars = {
            (to_hex(bar.get_color()[0]), round(bar.get_segments()[0].mean(axis=0)[0], 9)): bar
            for bar in axes.collections
        }
        assert len(bars) == 8
        for arm, color, side in (("BL", BLUE, -1), ("KUMAR", RED, 1)):
            dots = dots_in(axes, color)
            for position, column in enumerate(("smoothed", "best", "final", "auc")):
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
    assert len(joined) == 12  # three seeds, four measures
    for index, line in enumerate(joined):
        position, seed = index // 3, 5 + index % 3
        column = ("smoothed", "best", "final", "auc")[position]
        (x, y), (x_other, y_other) = points(line)
        assert x < position < x_other
        assert y_other == pytest.approx(measured(column, SCREENED["mnist", "KUMAR", seed]))
        if seed == 7:
            assert math.isnan(y)  # no line from a run that diverged
        else:
            assert y == pytest.approx(measured(column, SCREENED["mnist", "BL", seed]))
    assert len([line for line in other.lines if line.get_marker() == "None"]) == 4


def test_arms_stand_in_the_order_in_which_they_come(make_record: MakeRecord) -> None:
    records = [make_record("KUMAR", 0, [0.9, 0.1]), make_record("BL", 0, [0.9, 0.3])]
    curves, runs = analysis.curves_table(records), analysis.runs_table(records)
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
    assert names == ["smoothed final", "best", "final", "AUC"]
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
    curves, runs = analysis.curves_table(records), analysis.runs_table(records)
    left, _ = drawn(figures.screen(curves, runs))
    failed = lost and len(errors) > 1
    assert list(legend(left)) == [f"{OWN_ARM} (1 seed{', 1 diverged' if failed else ''})"]
