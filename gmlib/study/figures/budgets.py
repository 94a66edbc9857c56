"""Error against cost."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from gmlib.study.analysis.budgets import COSTS, pareto_front
from gmlib.study.figures.style import _MARKERS, STYLE, arm_color, percent_axis, subplots

__all__ = [
    "budget",
]


def budget(table: pd.DataFrame) -> Figure:
    """Test error against each cost of a network, on logarithmic axes, with one marker per network.

    The marker is the median over seeds, hollow if some diverged, and the thin bar is their range.
    A line joins networks that differ only in size; families of a few networks have smaller markers.
    The black steps are the Pareto front of all networks: none in the table is below them.

    Args:
        table: The output of `analysis.budget_table`.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(len(COSTS), 1, 7.8, 9.0, sharex=True, sharey=True)
        for axes, cost in zip(panels, COSTS, strict=True):
            for arm in table.arm.unique():
                for layers in sorted(table.layers[table.arm == arm].unique()):
                    own = table[(table.arm == arm) & (table.layers == layers)]
                    _budget_families(axes, own, cost, arm, int(layers))
            _staircase(axes, table[cost], table.error)
            axes.set(xscale="log", yscale="log", xlabel=cost, ylabel="test error (%)")
            axes.margins(x=0.13)  # room for the sizes
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.tick_params(labelbottom=True)
            percent_axis(axes, table.low)
        panels[1].set(xlabel="multiplications per image")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def _budget_families(axes: Axes, networks: pd.DataFrame, cost: str, arm: str, layers: int) -> None:
    """Draw networks of one arm and number of layers, one line for each width of a GM network."""
    color, marker = arm_color(arm), _MARKERS[(layers - 1) % len(_MARKERS)]
    runs, failures = networks.seeds.sum(), networks.diverged.sum()
    label = f"{arm}, {layers} layer{'s' if layers > 1 else ''}" + (
        f" ({failures} of {runs} runs diverged)" if failures else ""
    )
    axes.plot([], [], marker + "-", color=color, lw=0.9, ms=6, label=label)
    axes.vlines(networks[cost], networks.low, networks.high, color=color, lw=0.8)
    for _, family in networks.sort_values(cost).groupby("hidden", sort=False):
        few = 1 < len(family) < 4
        axes.plot(family[cost], family.error, "-", color=color, lw=0.9, alpha=0.6)
        for lost, own in family.groupby(family.diverged > 0):
            face, order = ("white", 3.5) if lost else (color, 3.0)
            size = 4 if few else 6
            axes.plot(own[cost], own.error, marker, color=color, mfc=face, ms=size, zorder=order)
        if len(family) > 3:
            places = ((-6, 0, "right", "center"), (7, 0, "left", "center"))
            for (_, network), (x, y, ha, va) in zip(
                family.iloc[[0, -1]].iterrows(), places, strict=True
            ):
                if network["error"] > 60:  # networks that guess, too close to be labelled
                    continue
                axes.annotate(
                    network["size"],
                    (network[cost], network.error),
                    (x, y),
                    textcoords="offset points",
                    ha=ha,
                    va=va,
                    fontsize=8.5,
                    color=color,
                    path_effects=[withStroke(linewidth=2.5, foreground="white")],
                )


def _staircase(axes: Axes, costs: pd.Series[Any], errors: pd.Series[Any]) -> None:
    front = pareto_front(costs, errors)
    axes.step(
        np.sort(costs[front]),
        np.sort(errors[front])[::-1],
        color="black",
        lw=1.1,
        where="post",
        label="Pareto front",
    )
