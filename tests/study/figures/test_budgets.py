"""Test error against what a network costs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from axes import BLUE, GREY, RED, curves_in, drawn, points
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from gmlib.study import figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)


def networks(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Networks by arm, layers, hidden units, size, parameters, seeds that diverged, error."""
    columns = ["arm", "layers", "hidden", "size", "parameters", "diverged", "error"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        family=table.arm.map({"FC": "dense"}).fillna("mixture"),
        multiplications=table.parameters + 5,
        seeds=3,
        low=table.error - 0.5,
        high=table.error + 1,
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


# --- Coordinates and ranks -----------------------------------------------------------------------

RANKED = networks(
    ("FC", 1, "", "", 80, 0, 8.0),
    ("FC", 2, "", "n = 2", 20, 0, 40.0),
    ("FC", 2, "", "n = 9", 90, 0, 6.0),
    *(("KUMAR", 1, "", f"K = {K}", 100 * K, 0, 20.0 / K) for K in (1, 2, 3, 4)),
    *(("KUMAR, folded", 1, "", f"K = {K}", 100 * K, 0, 10.0 / K) for K in (1, 2, 3, 4)),
    *(("KUMAR, rank 0", 1, "", f"K = {K}", 10 * K, K == 3, 30.0 / K) for K in (1, 2, 3, 4)),
    ("KUMAR, rank 2", 2, "7", "K = 2", 70, 1, 5.0),
)


def test_folded_networks_are_on_a_dashed_line() -> None:
    upper, _ = drawn(figures.budget(RANKED[~RANKED.arm.str.contains("rank")]))
    (affine,) = [line for line in curves_in(upper, RED) if line.get_marker() == "None"]
    (folded,) = curves_in(upper, RED, "--")
    assert points(affine) == [(100 * K, 20.0 / K) for K in (1, 2, 3, 4)]
    assert points(folded) == [(100 * K, 10.0 / K) for K in (1, 2, 3, 4)]


def test_a_panel_for_each_number_of_layers() -> None:
    figure = figures.budget_by_layers(RANKED)
    one, two = drawn(figure)
    assert [axes.get_title() for axes in (one, two)] == ["1 layer", "2 layers"]
    assert [axes.get_ylabel() for axes in (one, two)] == ["test error (%)", ""]
    # Dense networks are in both; an arm has one marker, which is the rank if it is a low one.
    for axes in (one, two):
        assert markers_in(axes, GREY, "o").keys() == {(80, 8.0), (20, 40.0), (90, 6.0)}
    assert markers_in(one, RED, "s").keys() == {(100 * K, 20.0 / K) for K in (1, 2, 3, 4)}
    assert markers_in(one, RED, "^").keys() == {(100 * K, 10.0 / K) for K in (1, 2, 3, 4)}
    assert markers_in(one, RED, "$0$") == {(10 * K, 30.0 / K): K == 3 for K in (1, 2, 3, 4)}
    assert markers_in(two, RED, "$2$") == {(70, 5.0): True}
    assert not markers_in(one, RED, "$2$")
    assert not markers_in(two, RED, "$0$")
    fronts = [points(front) for axes in (one, two) for front in curves_in(axes, "#000000")]
    assert len(fronts) == 2
    assert fronts[0] == fronts[1]  # of all networks
    (box,) = figure.legends
    assert [text.get_text() for text in box.get_texts()] == [
        "FC",
        "KUMAR",
        "KUMAR, folded",
        "KUMAR, rank 0 (1 of 12 runs diverged)",
        "KUMAR, rank 2 (1 of 3 runs diverged)",
        "Pareto front",
    ]


def test_another_cost_by_layers() -> None:
    one, _ = drawn(figures.budget_by_layers(RANKED, "multiplications"))
    assert one.get_xlabel() == "multiplications per image"
    assert (105, 20.0) in markers_in(one, RED, "s")
