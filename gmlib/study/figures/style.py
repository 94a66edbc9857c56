"""One style for all figures, and what several of them draw alike."""

from __future__ import annotations

import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from gmlib.study.plan.arms import ARMS

__all__ = [
    "COLORS",
    "COMPONENT_COLORS",
    "COUNT_HEIGHT",
    "STYLE",
    "Panels",
    "arm_color",
    "arm_line",
    "arm_rank",
    "band",
    "count_lost",
    "first_epoch",
    "label_arm",
    "name_counts",
    "percent_axis",
    "spread",
    "subplots",
]

Panels = tuple[Figure, list[Axes]]
LineStyle = str | tuple[float, tuple[float, ...]]
COLORS = {name: arm.color for name, arm in ARMS.items() if arm.color}
COLORS |= {arm.label: arm.color for arm in ARMS.values() if arm.label and arm.color}
_BLUES = ("#a9c9e8", "#6fa3d2", "#3a76b4", "#174a80")
COLORS |= {"BL, nothing between": _BLUES[0]}  # beside BL with a ReLU, which is in BL's colour
COLORS |= {f"{10**n:,} neurons": color for n, color in enumerate(_BLUES, start=1)}
_OTHERS = ("#3a8f5c", "#8357a4", "#1f9e9e", "#a0673b")
COMPONENT_COLORS = ("#c8322b", "#2f6db5", "#3a8f5c", "#e39b28", "#8357a4", "#1f9e9e", "#a0673b")
"""Of the components of a layer, in turn."""
_FOLDED = ", folded"  # as `RunConfig.label` has it
_RANK = re.compile(r", rank (\d+)$")
_RELU = ", ReLU between"  # as `plan.studies.with_relu` has it
COUNT_HEIGHT = 0.06
"""Of a line of counts at the upper edge of axes, as a fraction of their height."""
_MARKERS = ("o", "s", "^", "D", "v", "P")  # by number of layers
STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 180,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


def arm_color(arm: str) -> str:
    """Colour of an arm, the same wherever it is drawn, whatever its coordinates or ReLUs."""
    name = _RANK.sub("", arm.removesuffix(_FOLDED)).removesuffix(_RELU)
    return COLORS.get(name) or _OTHERS[sum(name.encode()) % len(_OTHERS)]


def arm_line(arm: str) -> LineStyle:
    """Style of an arm's lines: dashed in folded coordinates, with long dashes if of low rank.

    Between the long dashes are as many dots as the rank. Dotted lines are of lost runs.
    """
    rank = arm_rank(arm)
    if rank is not None:
        return (0.0, (8.0, 2.0, *(1.0, 2.0) * rank))
    return "--" if arm.endswith(_FOLDED) else "-"


def arm_rank(arm: str) -> int | None:
    """The rank of an arm's layers, if it is a low one."""
    found = _RANK.search(arm)
    return int(found[1]) if found else None


def subplots(rows: int, columns: int, width: float, height: float, **kwargs: Any) -> Panels:
    """A figure and its axes. Closed at once, or a notebook would show it twice."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **kwargs
    )
    plt.close(figure)
    return figure, list(axes.flat)


def first_epoch(curves: pd.DataFrame) -> pd.DataFrame:
    """The evaluations within the first epoch and at its end."""
    return curves[(curves.epoch > 0) & (curves.epoch < 1 + 1e-9)]


def band(axes: Axes, runs: pd.DataFrame, x: str, arm: str) -> None:
    """Mean over seeds, and a band of one standard deviation within their range."""
    if runs.empty:
        return
    table = runs.pivot(index=x, columns="seed", values="test_error")
    mean, deviation = table.mean(axis=1), table.std(axis=1, ddof=0)
    low = np.maximum(mean - deviation, table.min(axis=1))
    high = np.minimum(mean + deviation, table.max(axis=1))
    axes.plot(mean.index, mean, ls=arm_line(arm), color=arm_color(arm))
    axes.fill_between(mean.index, low, high, color=arm_color(arm), alpha=0.18, lw=0)


def label_arm(axes: Axes, runs: pd.DataFrame) -> None:
    """An arm's entry for the legend: its seeds, and how many of them diverged."""
    (arm,) = runs.arm.unique()
    seeds, failures = runs.seed.nunique(), runs[runs.diverged].seed.nunique()
    label = f"{arm} ({seeds} seed{'s' if seeds > 1 else ''}" + (
        f", {failures} diverged)" if failures else ")"
    )
    style = ":" if failures == seeds else arm_line(arm)
    axes.plot([], [], ls=style, color=arm_color(arm), label=label)


def count_lost(axes: Axes, x: float, lost: int, color: str, line: int = 0) -> None:
    """How many seeds diverged, at the upper edge of the axes."""
    if lost:
        axes.annotate(
            f"{lost} lost",
            (x, 1.0 - COUNT_HEIGHT * line),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            color=color,
            fontsize=8,
        )


def name_counts(axes: Axes, arm: str, line: int) -> None:
    """Whose counts are on a line at the upper edge, to the right of the axes."""
    axes.annotate(
        arm,
        (1.01, 1.0 - COUNT_HEIGHT * line),
        xycoords="axes fraction",
        va="top",
        color=arm_color(arm),
        fontsize=8,
    )


def percent_axis(axes: Axes, errors: pd.Series[Any]) -> None:
    """Ticks of an axis of errors (%) at round numbers."""
    coarse, fine = (0.5, 1, 2, 3, 5, 10, 20, 50, 90), (40, 50, 60, 70, 80, 90)
    ticks = [tick for tick in coarse if errors.min() * 0.7 <= tick]
    if len(ticks) < 3:
        ticks = [tick for tick in fine if errors.min() * 0.7 <= tick]
    axes.set_yticks(ticks)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def spread(count: int) -> NDArray[np.float64]:
    """Offsets in [-1, 1] that keep dots apart."""
    return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(count)
