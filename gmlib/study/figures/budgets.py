"""Error against cost."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from gmlib.study.analysis.budgets import COSTS, pareto_front
from gmlib.study.figures.style import (
    _MARKERS,
    STYLE,
    arm_color,
    arm_line,
    arm_rank,
    percent_axis,
    subplots,
)
from gmlib.study.plan.families import DENSE

__all__ = [
    "budget",
    "budget_by_layers",
]

_XLABELS = {"parameters": "parameters", "multiplications": "multiplications per image"}


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
                    marker = _marker(arm, int(layers) - 1)
                    _budget_entry(axes, f"{arm}, {_layers(layers)}", own, marker)
                    _budget_families(axes, own, cost, marker)
            _budget_axes(axes, table, cost)
            axes.set_ylabel("test error (%)")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def budget_by_layers(table: pd.DataFrame, cost: str = "parameters") -> Figure:
    """Test error against a cost as in `budget`, one panel for each number of layers.

    In each are the GM networks of so many layers and all dense networks, and the Pareto front of
    all networks. A marker stands for an arm; that of networks of low rank is the rank.

    Args:
        table: The output of `analysis.budget_table`.
        cost: One of `COSTS`.
    """
    dense = table.family == DENSE.name
    depths = sorted(table.layers[~dense].unique())
    arms = list(table.arm.unique())
    others = [arm for arm in arms if arm_rank(arm) is None]
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, len(depths), 4.6 * len(depths), 6.0, sharex=True, sharey=True)
        for axes, layers in zip(panels, depths, strict=True):
            shown = table[dense | (table.layers == layers)]
            for arm in arms:
                marker = _marker(arm, others.index(arm) if arm in others else 0)
                _budget_entry(axes, arm, table[table.arm == arm], marker)
                for _, own in shown[shown.arm == arm].groupby("layers"):
                    _budget_families(axes, own, cost, marker)
            _budget_axes(axes, table, cost)
            axes.set_title(_layers(layers))
        panels[0].set_ylabel("test error (%)")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def _layers(number: int) -> str:
    return f"{number} layer{'s' if number > 1 else ''}"


def _marker(arm: str, index: int) -> str:
    """The rank of a network of low rank, or else a marker by its index."""
    rank = arm_rank(arm)
    return _MARKERS[index % len(_MARKERS)] if rank is None else f"${rank}$"


def _budget_entry(axes: Axes, label: str, networks: pd.DataFrame, marker: str) -> None:
    """An entry for the legend: networks of one arm, and how many of their runs diverged."""
    arm = networks.arm.iloc[0]
    runs, failures = networks.seeds.sum(), networks.diverged.sum()
    label += f" ({failures} of {runs} runs diverged)" if failures else ""
    style = arm_line(arm)
    axes.plot([], [], ls=style, marker=marker, color=arm_color(arm), lw=0.9, ms=6, label=label)


def _budget_families(axes: Axes, networks: pd.DataFrame, cost: str, marker: str) -> None:
    """Draw networks of one arm and number of layers, one line for each width of a GM network."""
    arm = networks.arm.iloc[0]
    color, rank = arm_color(arm), arm_rank(arm)
    halo = [withStroke(linewidth=2.5, foreground="white")]
    axes.vlines(networks[cost], networks.low, networks.high, color=color, lw=0.8)
    for _, family in networks.sort_values(cost).groupby("hidden", sort=False):
        size = 7 if rank is not None else 4 if 1 < len(family) < 4 else 6
        axes.plot(family[cost], family.error, ls=arm_line(arm), color=color, lw=0.9, alpha=0.6)
        for lost, own in family.groupby(family.diverged > 0):
            face, order = ("white", 3.5) if lost else (color, 3.0)
            axes.plot(
                own[cost],
                own.error,
                ls="",
                marker=marker,
                color=color,
                mfc=face,
                ms=size,
                zorder=order,
                path_effects=halo if rank is not None else None,
            )
        if len(family) > 3 and rank is None:  # the sizes of low ranks would lie on each other
            dense = family.family.iloc[0] == DENSE.name
            last = (0, -9, "center", "top") if dense else (7, 0, "left", "center")
            places = ((-6, 0, "right", "center"), last)
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
                    path_effects=halo,
                )


def _budget_axes(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    """The Pareto front of all networks, and logarithmic axes."""
    front = pareto_front(table[cost], table.error)
    axes.step(
        np.sort(table[cost][front]),
        np.sort(table.error[front])[::-1],
        color="black",
        lw=1.1,
        where="post",
        label="Pareto front",
    )
    axes.set(xscale="log", yscale="log", xlabel=_XLABELS[cost])
    axes.margins(x=0.13)  # room for the sizes
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(labelbottom=True)
    percent_axis(axes, table.low)
