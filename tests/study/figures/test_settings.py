"""Results against a setting: KUMAR's dial, depth, movement, feature learning."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from axes import BLUE, RED, curves_in, drawn, legend, points
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from small_tables import MakeRecord, inits_of, runs_of

from gmlib.study import analysis, figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)


def dots_at(axes: Axes, color: str) -> list[tuple[float, float]]:
    """The seeds: small dots without a line."""
    return [
        point
        for line in axes.lines
        if line.get_marker() == "." and to_hex(line.get_color()) == color
        for point in points(line)
    ]


# --- The dial ------------------------------------------------------------------------------------


def settings_of(
    errors: dict[float, list[tuple[float, float, float] | None]],
) -> dict[float, pd.DataFrame]:
    """By setting, runs with errors after the first epoch, at best and smoothed; None for lost."""
    names = ["first_epoch", "best", "smoothed"]
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


def test_dial() -> None:
    targets, sizes = drawn(figures.dial([TARGETS, SIZES], ["target std", "images"]))
    colors = legend(sizes)
    assert list(colors) == ["after epoch 1", "best", "smoothed final"]
    assert len(set(colors.values())) == 3
    assert colors["smoothed final"] == RED
    expected = {
        targets: (
            {"after epoch 1": [22, 12, 10], "best": [7, 4, 4], "smoothed final": [9, 7, 5]},
            {
                "after epoch 1": [(0.05, 20), (0.05, 24), (5, 12), (0.5, 10)],
                "best": [(0.05, 6), (0.05, 8), (5, 4), (0.5, 4)],
                "smoothed final": [(0.05, 8), (0.05, 10), (5, 7), (0.5, 5)],
            },
        ),
        sizes: (
            {
                "after epoch 1": [11, math.nan, 11],
                "best": [5, math.nan, 3.5],
                "smoothed final": [6, math.nan, 4.5],
            },
            {
                "after epoch 1": [(64, 11), (2048, 10), (2048, 12)],
                "best": [(64, 5), (2048, 4), (2048, 3)],
                "smoothed final": [(64, 6), (2048, 5), (2048, 4)],
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
    assert list(legend(axes)) == ["after epoch 1", "best", "smoothed final"]
    assert len(dots_at(axes, RED)) == (runs != [None])


# --- Depth ---------------------------------------------------------------------------------------

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
    # One line of counts an arm, with its name at the end.
    counts = {(text.get_text(), text.xy[0]): (text.xy[1], text.get_color()) for text in end.texts}
    upper, lower = counts["BL", 1.01], counts["KUMAR", 1.01]
    assert (upper, lower) == ((1.0, BLUE), (pytest.approx(0.94), RED))
    assert counts == {
        **{("2 lost", 1): upper, ("3 lost", 3): upper, ("BL", 1.01): upper},
        **{("1 lost", 3): lower, ("KUMAR", 1.01): lower},
    }
    assert legend(end) == {"BL": BLUE, "KUMAR": RED}


def test_depth_in_folded_coordinates() -> None:
    arms = ["KUMAR", "KUMAR, folded"]
    scales = {2: inits_of({arm: [[0.5, 0.5]] for arm in arms})}
    runs = {2: runs_of(dict(zip(arms, ([4.0], [2.0]), strict=True)), {"KUMAR, folded": 1})}
    start, end = drawn(figures.depth(scales, runs))
    for axes, lines in ((start, [[(1, 0.5), (2, 0.5)]] * 2), (end, [[(2, 4)], [(2, 2)]])):
        for style, line in zip(("-", "--"), lines, strict=True):
            (own,) = [o for o in curves_in(axes, RED, style) if o.get_marker() == "o"]
            assert points(own) == line
    assert [(text.get_text(), text.xy[1]) for text in end.texts] == [
        ("1 lost", 1.0),  # KUMAR has no line of counts
        ("KUMAR, folded", 1.0),
    ]
    assert list(legend(end)) == arms


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
    assert [text.get_text() for text in end.texts] == ["2 lost", "BL"]


# --- Movement ------------------------------------------------------------------------------------


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


def test_movement_in_both_coordinates(make_record: MakeRecord) -> None:
    affine = make_record(movement={n: [0.0, 0.1, 0.2] for n in ("0.mu", "0.sigma", "0.U", "0.v")})
    names = ("0.mu", "0.sigma", "0.A", "0.w")
    folded = make_record(movement={n: [0.0, 0.3, 0.4] for n in names}, coordinates="folded")
    clouds, readouts = drawn(figures.movement(analysis.movement_table([affine, folded])))
    for axes in (clouds, readouts):
        for style, ends in {"-": 0.2, ":": 0.2, "--": 0.4, "-.": 0.4}.items():
            (line,) = curves_in(axes, RED, style)
            assert points(line)[-1] == (20, ends)

    def labels(axes: Axes) -> dict[str, str]:
        box = axes.get_legend()
        texts = [text.get_text() for text in box.get_texts()]
        return dict(zip(texts, (h.get_linestyle() for h in box.legend_handles), strict=True))

    assert labels(clouds) == {
        **{"KUMAR": "-", "KUMAR, folded": "--", "means μ": "-", "deviations σ": ":"},
        **{"means μ, folded": "--", "deviations σ, folded": "-."},
    }
    assert labels(readouts) == {
        **{"weights U": "-", "offsets v": ":", "covariances A": "--", "means w": "-."},
    }


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
    assert list(colors) == ["means of the clouds", "deviations of the clouds", "readout weights U"]
    nan = math.nan
    expected = {
        (first, "means of the clouds"): [nan, 0.2, 2],  # medians; the mean is 0.4
        (first, "deviations of the clouds"): [nan, 0.3, nan],
        (first, "readout weights U"): [nan, 0.4, nan],
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
    assert dots_at(first, colors["readout weights U"]) == [(5.0, 0.3), (5.0, 0.5), (5.0, 0.4)]
    assert [axes.get_title() for axes in (first, second)] == ["layer 1", "layer 2"]
    for axes in (first, second):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlabel() == "target std"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "5", "0.05"]
    assert first.get_ylabel() == "distance gone, relative"
