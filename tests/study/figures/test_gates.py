"""Gates over training, cloud by cloud and beside the error."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from axes import BLUE, OWN_ARM, RED, bands_in, curves_in, dots_in, drawn, legend, points
from gated_runs import gated
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from small_tables import MakeRecord

from gmlib.study import analysis, figures
from gmlib.study.runs.records import RunRecord

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)
STEPS = [0, 1, 3, 10, 20]
SHUT = [[0.0, 0.1], [0.0, 0.3], [0.2, 0.96], [0.0, 1.0], [0.95, 0.1]]
OPEN = [[0.5, 0.5], [0.0, 0.1], [0.8, 0.0], [0.6, 0.0], [0.05, 0.3]]


@pytest.fixture
def networks(make_record: MakeRecord) -> dict[str, pd.DataFrame]:
    """A stack of two layers with two seeds of BL, and a single layer of either arm."""

    def record(arm: str, seed: int) -> RunRecord:
        return make_record(arm, seed, [0.5] * 5, STEPS)

    still = np.zeros((5, 2)).tolist()
    stack = [gated(record("BL", seed), SHUT, still, is_open=[OPEN, still]) for seed in (0, 1)]
    single = [gated(record(arm, 0), still) for arm in ("BL", "KUMAR")]
    return {"stack": analysis.gates_table(stack), "single": analysis.gates_table(single)}


def panels_of(axes: tuple[Axes, ...]) -> np.ndarray:
    return np.array(axes[:6]).reshape(3, 2)


@pytest.mark.parametrize("draw", [figures.gate_shares, figures.cloud_strips])
def test_arms_are_columns_and_layers_are_rows(draw, networks: dict[str, pd.DataFrame]) -> None:
    panels = panels_of(drawn(draw(networks)))
    assert [axes.get_title() for axes in panels[0]] == ["BL", "KUMAR"]
    assert [axes.title.get_color() for axes in panels[0]] == [BLUE, RED]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == [
        "stack,\nlayer 1",
        "stack,\nlayer 2",
        "single",
    ]
    for axes in panels.flat:
        assert axes.get_xscale() == "symlog"
        assert axes.get_xlim() == (0, 20)
        (line,) = axes.lines
        assert set(line.get_xdata()) == {10}  # the end of the first epoch
    assert not panels[0, 1].collections  # there is no KUMAR of the stack


def test_shares_are_stacked_from_shut_to_open(networks: dict[str, pd.DataFrame]) -> None:
    figure = figures.gate_shares(networks)
    panels = panels_of(drawn(figure))
    bands = bands_in(panels[0, 0])
    (box,) = figure.legends
    names = [text.get_text() for text in box.get_texts()]
    assert names == ["open", "undecided", "shut"]
    assert len({color for color, _ in bands}) == 3
    shut, undecided, is_open = (ends for _, ends in bands)
    for index, step in enumerate(STEPS):
        low, high = np.mean(SHUT[index]), 1 - np.mean(OPEN[index])
        assert shut[step] == pytest.approx((0, low))
        assert undecided[step] == pytest.approx((low, high))
        assert is_open[step] == pytest.approx((high, 1))


def test_live_clouds_stand_beside_the_error(make_record: MakeRecord) -> None:
    dead, alive = [1.0, 1.0], [0.0, 0.0]
    own = {
        ("BL", 0): [alive, dead, dead, [1.0, 0.0], alive],
        ("BL", 1): [alive, alive, dead, dead, dead],
        ("KUMAR", 0): [alive] * 5,
    }
    runs = [
        gated(make_record(arm, seed, [0.9, 0.8, 0.7 + seed / 10, 0.5, 0.1], STEPS), shut, shut)
        for (arm, seed), shut in own.items()
    ]
    live, curves = analysis.live_table(analysis.gates_table(runs)), analysis.curves_table(runs)
    figure = figures.live_clouds(live, curves)
    first, second, error = drawn(figure)
    for axes in (first, second):
        mean, _ = curves_in(axes, BLUE)[0], curves_in(axes, RED)
        assert points(mean) == list(zip(STEPS, [2, 1, 0, 0.5, 1], strict=True))
        (color, ends), _ = bands_in(axes)
        assert color == BLUE
        assert ends == {0: (2, 2), 1: (0, 2), 3: (0, 0), 10: (0, 1), 20: (0, 2)}
    assert first.get_title() == "live clouds, layer 1"
    assert dict(points(curves_in(error, BLUE)[0]))[3] == pytest.approx(75)
    (box,) = figure.legends
    assert [text.get_text() for text in box.get_texts()] == ["BL", "KUMAR"]
    assert [handle.get_color() for handle in box.legend_handles] == [BLUE, RED]


def test_every_cloud_is_a_strip(networks: dict[str, pd.DataFrame]) -> None:
    axes = drawn(figures.cloud_strips(networks))
    (mesh,) = panels_of(axes)[0, 0].collections
    assert isinstance(mesh, QuadMesh)
    shares = mesh.get_array().reshape(4, 5)  # two clouds of two seeds
    np.testing.assert_array_equal(shares, [[row[k] for row in SHUT] for k in (1, 1, 0, 0)])
    assert panels_of(axes)[0, 0].get_ylim() == (0, 4)
    over = mesh.cmap.get_over()
    dead = np.all(mesh.to_rgba(shares) == over, axis=-1)
    np.testing.assert_array_equal(dead, shares >= analysis.DEAD)


def test_a_run_without_epochs(make_record: MakeRecord) -> None:
    record = gated(make_record(OWN_ARM, 0, [0.9], [0]), [[0.4, 1.0]])
    networks = {"stack": analysis.gates_table([record])}
    for draw in (figures.gate_shares, figures.cloud_strips):
        drawn(draw(networks))


def test_dead_clouds_and_error() -> None:
    counts = pd.DataFrame(
        {
            "arm": ["BL", "BL", "KUMAR"],
            "seed": [0, 1, 0],
            "first_epoch": [9, 9, 9],
            "end": [3, 0, 0],
            "smoothed": [6.5, 6.0, 4.5],
        }
    )
    (axes,) = drawn(figures.dead_and_error({"stack": counts}))
    assert [(round(x), y) for x, y in dots_in(axes, BLUE)] == [(3, 6.5), (0, 6.0)]
    assert [(round(x), y) for x, y in dots_in(axes, RED)] == [(0, 4.5)]
    assert legend(axes) == {"BL": BLUE, "KUMAR": RED}
    assert axes.get_title() == "stack"
    assert axes.get_ylim()[0] == 0
