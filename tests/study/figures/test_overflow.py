"""The figure of a run's first steps: what is drawn where."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from axes import drawn, points

from gmlib.study import figures


def steps_of(*losses: float, lost: bool = False) -> pd.DataFrame:
    """As `analysis.early_steps` gives, of two layers of two parameters."""
    table = pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})
    for layer in (1, 2):
        for factor, name in enumerate(["largest", "shut", "open", "mu", "v"], start=1):
            table[f"{name}_{layer}"] = [layer * factor / 100 * loss for loss in losses]
    table["not_finite"] = [*[""] * (len(losses) - 1), "loss" if lost else ""]
    return table


def test_steps_of_runs_stand_side_by_side() -> None:
    figure = figures.early_steps(
        {"lost": steps_of(2.0, 4.0, math.nan, lost=True), "kept": steps_of(3.0, 2.0, 1.0)}
    )
    panels = drawn(figure)
    assert [axes.get_title() for axes in panels] == ["lost", "kept", "", "", "", ""]
    left, right = panels[::2], panels[1::2]
    assert points(left[0].lines[1]) == [(1.0, 2.0), (2.0, 4.0)]
    for axes in left:  # a line where something is not finite
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [3]
    assert [text.get_text() for text in left[0].texts] == ["not finite"]
    assert not right[0].texts
    for axes, names in zip(right, (["largest"], ["shut", "open"], ["mu", "v"]), strict=True):
        lines = {line.get_label(): line for line in axes.lines if line.get_label() != "loss"}
        labels = {"largest": "largest |output|"}
        assert set(lines) == {f"{labels.get(n, n)}, layer {k}" for n in names for k in (1, 2)}
        for label, line in lines.items():
            name = label.replace("largest |output|", "largest").replace(", layer ", "_")
            expected = steps_of(3.0, 2.0, 1.0)[name]
            assert line.get_ydata().tolist() == pytest.approx(expected.tolist())
            assert line.get_linestyle() == ("-" if label.endswith("1") else "--")
    assert [axes.get_yscale() for axes in right] == ["log", "linear", "log"]
    assert [axes.get_xlabel() for axes in panels[-2:]] == ["gradient step"] * 2
    assert right[1].get_legend() is not None
    assert left[1].get_legend() is None
