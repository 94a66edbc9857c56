"""What a setting does: depth, targets, and how far parameters move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from gmlib.study.analysis.curves import MEASURES
from gmlib.study.figures.style import (
    COLORS,
    COMPONENT_COLORS,
    STYLE,
    arm_color,
    count_lost,
    percent_axis,
    subplots,
)

__all__ = [
    "depth",
    "dial",
    "feature_learning",
    "movement",
]


def depth(scales: Mapping[int, pd.DataFrame], runs: Mapping[int, pd.DataFrame]) -> Figure:
    """Output std by layer at the start, and best test error, for stacks of several depths.

    Left: a line is a stack, through the means over seeds. Right: a dot is a seed, lines join the
    means over those that trained; counts of those that diverged stand at the upper edge.

    Args:
        scales: By number of layers, as `analysis.init_table` gives.
        runs: By number of layers, as `analysis.runs_table` gives.
    """
    arms = list(next(iter(runs.values())).arm.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, (start, end) = subplots(1, 2, 9.2, 3.8)
        for index, arm in enumerate(arms):
            color = arm_color(arm)
            for table in scales.values():
                mean = table[table.arm == arm].groupby("layer").std_after.mean()
                start.semilogy(mean.index, mean, "o-", color=color, ms=4, lw=1.2, alpha=0.7)
            kept = {x: table[(table.arm == arm) & ~table.diverged] for x, table in runs.items()}
            means = {x: table.best.mean() for x, table in kept.items() if len(table)}
            end.semilogy(list(means), list(means.values()), "o-", color=color, ms=5, label=arm)
            for x, table in kept.items():
                end.plot([x] * len(table), table.best, ".", color=color, ms=4, alpha=0.6)
                lost = int((runs[x].arm == arm).sum()) - len(table)
                count_lost(end, x, lost, color, index)
        start.set(xlabel="layer", ylabel="output std at the start", title="at the start")
        end.set(xlabel="layers", ylabel="best test error (%)", title="after training")
        for axes in (start, end):
            axes.set_xticks(list(runs))
            axes.set_xlim(min(runs) - 0.4, max(runs) + 0.4)
        percent_axis(end, pd.concat([table.best for table in runs.values()]))
        end.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def dial(runs: Sequence[Mapping[float, pd.DataFrame]], xlabels: Sequence[str]) -> Figure:
    """Test error after the first epoch, best and smoothed final against a setting of KUMAR.

    A line joins the means over the seeds that trained, a dot is a seed; counts of those that
    diverged stand at the upper edge.

    Args:
        runs: For each panel, `analysis.runs_table` by value of the setting.
        xlabels: Names of the settings.
    """
    styles = {"first_epoch": ("after epoch 1", "o", "#e39b28"), "best": ("best", "s", "#3a8f5c")}
    styles["smoothed"] = (MEASURES["smoothed"], "D", COLORS["KUMAR"])
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, len(runs), 4.4 * len(runs), 3.6, sharey=True)
        for axes, tables, xlabel in zip(panels, runs, xlabels, strict=True):
            for column, (label, marker, color) in styles.items():
                kept = {x: table[~table.diverged][column] for x, table in tables.items()}
                axes.plot(
                    list(kept),
                    [values.mean() for values in kept.values()],
                    marker + "-",
                    color=color,
                    ms=5,
                    label=label,
                )
                for x, values in kept.items():
                    axes.plot([x] * len(values), values, ".", color=color, ms=4, alpha=0.6)
            for x, table in tables.items():
                count_lost(axes, x, int(table.diverged.sum()), "#444444")
            axes.set(xscale="log", yscale="log", xlabel=xlabel, xticks=list(tables))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.minorticks_off()
            errors = [table[column] for table in tables.values() for column in styles]
            percent_axis(axes, pd.concat(errors))
        panels[0].set_ylabel("test error (%)")
        panels[-1].legend()
    return figure


def movement(table: pd.DataFrame) -> Figure:
    """How far clouds (above) and readouts (below) are from their start, by step: means over seeds.

    Args:
        table: As `analysis.movement_table` gives.
    """
    layers = sorted(table.layer.unique()) or [1]
    readouts = {
        ("U", "v"): {"U": ("-", "weights U"), "v": (":", "offsets v")},
        ("A", "w"): {"A": ("--", "covariances A"), "w": ("-.", "means w")},
    }
    moved = [own for names, own in readouts.items() if {*names} & {*table.parameter}]
    kinds = {
        "clouds": {"mu": ("-", "means μ"), "sigma": (":", "deviations σ")},
        "readouts": {k: v for own in moved or [readouts["U", "v"]] for k, v in own.items()},
    }
    rows = table[table.step > 0]
    arms = list(rows.arm.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(2, len(layers), 4.6 * len(layers), 6.2, sharex=True, sharey="row")
        for index, (kind, styles) in enumerate(kinds.items()):
            own = panels[index * len(layers) :][: len(layers)]
            for axes, layer in zip(own, layers, strict=True):
                for arm, (parameter, (style, _)) in product(arms, styles.items()):
                    chosen = rows[
                        (rows.layer == layer) & (rows.arm == arm) & (rows.parameter == parameter)
                    ]
                    mean = chosen.groupby("step").moved.mean()
                    axes.plot(mean.index, mean, style, color=arm_color(arm))
                axes.set(xscale="log", yscale="log", title=f"{kind}, layer {layer}")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            own[0].set_ylabel("distance from the start, relative")
            for arm in arms if kind == "clouds" else []:
                own[-1].plot([], [], color=arm_color(arm), label=arm)
            for style, label in styles.values():
                own[-1].plot([], [], style, color="#555555", label=label)
            own[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        for axes in panels[-len(layers) :]:
            axes.set_xlabel("gradient step")
    return figure


def feature_learning(tables: Mapping[float, pd.DataFrame]) -> Figure:
    """Distance that clouds and readouts have gone at the end of training, against the target std.

    A line joins the medians over seeds, a dot is a seed.

    Args:
        tables: By target std, as `analysis.movement_table` gives.
    """
    parameters = {
        "mu": "means of the clouds",
        "sigma": "deviations of the clouds",
        "U": "readout weights U",
    }
    layers = sorted({layer for table in tables.values() for layer in table.layer}) or [1]
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, len(layers), 4.6 * len(layers), 3.6, sharey=True)
        for axes, layer in zip(panels, layers, strict=True):
            for color, (parameter, label) in zip(
                COMPONENT_COLORS, parameters.items(), strict=False
            ):
                ends = {
                    target: table[
                        (table.step == table.step.max())
                        & (table.layer == layer)
                        & (table.parameter == parameter)
                    ].moved
                    for target, table in tables.items()
                }
                medians = [values.median() for values in ends.values()]
                axes.loglog(list(ends), medians, "o-", color=color, ms=5, label=label)
                for target, values in ends.items():
                    axes.plot([target] * len(values), values, ".", color=color, ms=4, alpha=0.6)
            axes.set(xlabel="target std", title=f"layer {layer}", xticks=list(tables))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.minorticks_off()
        panels[0].set_ylabel("distance gone, relative")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
