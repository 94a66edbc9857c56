"""The style of the figures: colours of arms, axes of errors."""

from __future__ import annotations

import pytest
from axes import BLUE, GREY, OWN_ARM, RED, drawn
from matplotlib.colors import to_rgba
from small_tables import MakeRecord, curves_of

from gmlib.study import figures
from gmlib.study.figures.style import arm_line
from gmlib.study.plan.coordinates import RANKS

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)


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


def test_a_relu_between_the_layers_leaves_an_arm_its_color() -> None:
    assert figures.arm_color("KUMAR, ReLU between, folded") == RED
    assert figures.arm_color("BL, ReLU between") == BLUE
    assert figures.arm_color("BL, nothing between") != BLUE


def test_coordinates_leave_an_arm_its_color_and_have_lines_of_their_own() -> None:
    labels = ["KUMAR", "KUMAR, folded", *(f"KUMAR, rank {rank}" for rank in RANKS)]
    assert {figures.arm_color(label) for label in labels} == {RED}
    lines = [arm_line(label) for label in labels]
    assert lines[:2] == ["-", "--"]
    assert len(set(lines)) == len(lines)
    for rank, (_, dashes) in zip(RANKS, lines[2:], strict=True):
        assert len(dashes) == 2 * (1 + rank)  # a dash, and as many dots as the rank


def test_an_axis_of_percents_always_has_some_ticks(make_record: MakeRecord) -> None:
    high = curves_of(make_record, {("BL", 0): [0.9, 0.9, 0.88, 0.60, 0.43]})
    ticks = drawn(figures.dynamics(high))[0].get_yticks()
    assert [tick for tick in ticks if 43 <= tick <= 88] == [50, 60, 70, 80]
