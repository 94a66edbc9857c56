"""Figures of what `make bench` measures."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from gmlib.study.figures.style import COLORS, STYLE, subplots

__all__ = [
    "scaling",
    "step_times",
]


def step_times(table: pd.DataFrame) -> Figure:
    """Time of a training step by path, in units of its bare products: median and quartiles.

    Args:
        table: The output of `benchmarks.step_table`.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, (axes,) = subplots(1, 1, 6.4, 0.5 + 0.42 * len(table))
        spread = [table["median"] - table.low, table.high - table["median"]]
        ours = [str(path).startswith("gmlib") for path in table.index]
        colors = [COLORS["KUMAR"] if own else "#b9c4d0" for own in ours]
        axes.barh(table.index, table["median"], height=0.62, color=colors)
        axes.errorbar(
            table["median"], table.index, xerr=spread, fmt="none", ecolor="#444444", elinewidth=1
        )
        for path, row in table.iterrows():
            label = f"{row['median']:.2f}  ({row.ms:.2f} ms)"
            axes.annotate(label, (row.high, path), (5, 0), textcoords="offset points", va="center")
        axes.set(xlabel="time, in bare products", xlim=(0.0, 1.3 * table.high.max()))
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
    return figure


def scaling(table: pd.DataFrame) -> Figure:
    """Time of a layer against each of its sizes, on logarithmic axes.

    Args:
        table: The output of `benchmarks.scaling_table`.
    """
    with mpl.style.context(STYLE, after_reset=True):
        sizes = table["size"].unique()
        figure, panels = subplots(1, len(sizes), 2.4 * len(sizes), 2.7, sharey=True)
        for axes, size in zip(panels, sizes, strict=True):
            curve = table[table["size"] == size]
            guide = curve.ms.iloc[-1] * curve.value / curve.value.iloc[-1]
            axes.loglog(curve.value, guide, "--", color="#888888", lw=1)
            axes.loglog(curve.value, curve.ms, "o-", color=COLORS["KUMAR"], ms=4)
            axes.set(xlabel=size, title=f"exponent {curve.exponent.iloc[0]:.2f}")
            axes.set_xticks(curve.value.iloc[::2])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panels[0].set(ylabel="forward and backward, ms")
    return figure
