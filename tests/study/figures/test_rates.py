"""Figures of learning rates and variants: what is drawn where."""

from __future__ import annotations

import pandas as pd
import pytest

from gmlib.study import figures


def errors(**variants: dict[float, tuple[float | None, ...]]) -> pd.DataFrame:
    """As `analysis.rate_errors` gives; None for a seed that diverged."""
    return pd.DataFrame(
        [
            {
                "variant": variant.replace("_", ", "),
                "lr": lr,
                "seed": seed,
                "error": 90.0 if error is None else error,
                "diverged": error is None,
            }
            for variant, own in variants.items()
            for lr, seeds in own.items()
            for seed, error in enumerate(seeds)
        ]
    )


def test_rates_are_lines_through_means_with_the_lowest_ringed() -> None:
    sgd = errors(
        FC={0.1: (4.0, 2.0), 0.2: (2.0, 2.0), 0.4: (1.0, None)}, KUMAR_folded={0.1: (5.0,)}
    )
    adam = errors(FC={0.001: (3.0,)})
    figure = figures.rates({"SGD": sgd, "Adam": adam})
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["SGD", "Adam"]
    lines = {line.get_label(): line for line in left.lines}
    assert lines["FC"].get_xdata().tolist() == [0.1, 0.2, 0.4]
    assert lines["FC"].get_ydata().tolist() == pytest.approx([3.0, 2.0, 1.0])
    assert lines["KUMAR, folded"].get_linestyle() == "--"
    assert lines["KUMAR, folded"].get_color() == figures.arm_color("KUMAR")
    rings = [tuple(map(float, line.get_xydata()[0])) for line in left.lines if line.get_ms() == 9]
    assert rings == [(0.2, 2.0), (0.1, 5.0)]
    assert "held-out" in left.get_ylabel()
    assert [line.get_xdata().tolist() for line in right.lines] == [[0.001]] * 2


def test_sizes_are_shades_two_panels_in_a_row() -> None:
    panel = errors(small={0.1: (4.0,), 0.2: (3.0,)}, large={0.1: (2.0,), 0.2: (2.5,)})
    figure = figures.sizes({"components": panel, "layers": panel, "inputs": panel})
    assert [axes.get_title() for axes in figure.axes] == ["components", "layers", "inputs"]
    assert ["held-out" in axes.get_ylabel() for axes in figure.axes] == [True, False, True]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "learning rate", "learning rate"]
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_ms() != 9]
        assert [line.get_label() for line in lines] == ["small", "large"]
        small, large = (sum(line.get_color()[:3]) for line in lines)
        assert large < small
        rings = [line.get_xdata()[0] for line in axes.lines if line.get_ms() == 9]
        assert rings == [0.2, 0.1]


def test_variants_are_dots_from_top_to_bottom_with_the_lost_counted() -> None:
    runs = pd.DataFrame(
        [
            ("FC", 0, 2.0, False),
            ("FC", 1, 3.0, False),
            ("whitened", 0, 90.0, True),
            ("whitened", 1, 8.0, False),
            ("all lost", 0, 90.0, True),
        ],
        columns=["arm", "seed", "smoothed", "diverged"],
    )
    (axes,) = figures.variants(runs).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["FC", "whitened", "all lost"]
    assert axes.yaxis_inverted()
    dots = [line.get_xdata().tolist() for line in axes.lines]
    assert dots == [[2.0, 3.0], [8.0]]
    assert {line.get_color() for line in axes.lines} == {figures.arm_color("KUMAR")}
    bars = [bar.get_segments()[0][0][0] for bar in axes.collections]
    assert bars == [2.5, 8.0]
    assert [text.get_text() for text in axes.texts] == ["1 of 2 diverged", "1 of 1 diverged"]


def test_output_changes_have_fixed_rates_on_the_left() -> None:
    changes = pd.DataFrame(
        [
            (K, scaled, seed, layer, step, step * (1.0 if scaled else K) + seed)
            for K in (1, 10)
            for scaled in (False, True)
            for seed in (0, 2)
            for layer in (1, 2)
            for step in (1, 100)
        ],
        columns=["components", "scaled", "seed", "layer", "step", "moved"],
    )
    figure = figures.output_changes(changes)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["fixed rates", "rates times 10 / K"]
    assert [axes.get_ylabel()[:7] for axes in figure.axes[::2]] == ["layer 1", "layer 2"]
    for index, axes in enumerate(figure.axes):
        lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
        expected = {"1 step": [2.0, 2.0], "100 steps": [101.0, 101.0]}
        if index % 2 == 0:
            expected = {"1 step": [2.0, 11.0], "100 steps": [101.0, 1001.0]}
        assert lines == expected
