"""What a setting does: depth, targets, and how far parameters move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from gmlib.study.analysis.curves import MEASURES
from gmlib.study.figures.style import (
    COLORS,
    COMPONENT_COLORS,
    COUNT_HEIGHT,
    STYLE,
    arm_color,
    arm_line,
    count_lost,
    name_counts,
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
    means over those that trained; counts of those that diverged stand at the upper edge, beside the
    name of their arm. At the start an arm has the same outputs in affine and in folded coordinates.

    Args:
        scales: By number of layers, as `analysis.init_table` gives.
        runs: By number of layers, as `analysis.runs_table` gives.
    """
    arms = list(next(iter(runs.values())).arm.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, (start, end) = subplots(1, 2, 9.2, 3.8)
        line = 0  # of counts
        for arm in arms:
            style = {"color": arm_color(arm), "marker": "o"}
            for table in scales.values():
                mean = table[table.arm == arm].groupby("layer").std_after.mean()
                start.semilogy(mean.index, mean, ls=arm_line(arm), ms=4, lw=1.2, alpha=0.7, **style)
            own = {x: table[table.arm == arm] for x, table in runs.items()}
            kept = {x: table[~table.diverged].best for x, table in own.items()}
            means = {x: best.mean() for x, best in kept.items() if len(best)}
            xs, ys = list(means), list(means.values())
            end.semilogy(xs, ys, ls=arm_line(arm), ms=5, label=arm, **style)
            for x, best in kept.items():
                end.plot([x] * len(best), best, ".", color=style["color"], ms=4, alpha=0.6)
            lost = {x: int(table.diverged.sum()) for x, table in own.items()}
            if any(lost.values()):
                for x, number in lost.items():
                    count_lost(end, x, number, style["color"], line)
                name_counts(end, arm, line)
                line += 1
        start.set(xlabel="layer", ylabel="output std at the start", title="at the start")
        end.set(xlabel="layers", ylabel="best test error (%)", title="after training")
        for axes in (start, end):
            axes.set_xticks(list(runs))
            axes.set_xlim(min(runs) - 0.4, max(runs) + 0.4)
        low, high = end.get_ylim()
        percent_axis(end, pd.concat([table.best for table in runs.values()]))
        end.set_ylim(low, low * (high / low) ** (1.0 / (1.0 - COUNT_HEIGHT * line)))
        end.legend(loc="lower left", bbox_to_anchor=(1.0, 0.0))
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

    Lines of arms in folded coordinates are dashed and dash-dotted, others solid and dotted.

    Args:
        table: As `analysis.movement_table` gives.
    """
    layers = sorted(table.layer.unique()) or [1]
    rows = table[table.step > 0]
    arms = list(rows.arm.unique())
    folded = [arm for arm in arms if {"A", "w"} & {*table.parameter[table.arm == arm]}]
    affine = [arm for arm in arms if arm not in folded]
    both = ", folded" if affine and folded else ""
    kinds = {  # (parameter, style, label, arms)
        "clouds": [
            ("mu", "-", "means μ", affine),
            ("sigma", ":", "deviations σ", affine),
            ("mu", "--", f"means μ{both}", folded),
            ("sigma", "-.", f"deviations σ{both}", folded),
        ],
        "readouts": [
            ("U", "-", "weights U", affine),
            ("v", ":", "offsets v", affine),
            ("A", "--", "covariances A", folded),
            ("w", "-.", "means w", folded),
        ],
    }
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(2, len(layers), 4.6 * len(layers), 6.2, sharex=True, sharey="row")
        for index, (kind, lines) in enumerate(kinds.items()):
            own = panels[index * len(layers) :][: len(layers)]
            for axes, layer in zip(own, layers, strict=True):
                chosen = rows[rows.layer == layer]
                for parameter, style, _, of in lines:
                    for arm in of:
                        runs = chosen[(chosen.arm == arm) & (chosen.parameter == parameter)]
                        mean = runs.groupby("step").moved.mean()
                        axes.plot(mean.index, mean, style, color=arm_color(arm))
                axes.set(xscale="log", yscale="log", title=f"{kind}, layer {layer}")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            own[0].set_ylabel("distance from the start, relative")
            for arm in arms if kind == "clouds" else []:
                style = "--" if arm in folded else "-"
                own[-1].plot([], [], style, color=arm_color(arm), label=arm)
            for _, style, label, of in lines:
                if of or (of is affine and not arms):
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
