"""Scales of layers at the start: measured, predicted, as histograms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from axes import BLUE, COLORS, GREY, OWN_ARM, RED, curves_in, dots_in, drawn, legend, points
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from small_tables import inits_of

from gmlib.study import figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
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
