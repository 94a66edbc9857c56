"""Times of a training step and of a layer."""

from __future__ import annotations

import pandas as pd
import pytest
from axes import RED, curves_in, drawn, points
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from gmlib.study import figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)


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
