"""Two choices with two values each, a panel a combination."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from axes import BLUE, OWN_ARM, RED, curves_in, drawn, points
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from small_tables import MakeRecord, curves_of

from gmlib.study import analysis, figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)

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
        ["BL\n1 of 3 diverged"],
        ["BL, calibrated"],
        ["fan-in\n2 of 2 diverged"],  # and no mean to speak of
        ["KUMAR"],
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
    assert [text.get_text() for text in panels[0].texts] == ["KUMAR"]
    assert [text.get_text() for text in panels[3].texts] == [OWN_ARM]
