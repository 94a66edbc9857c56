"""From tables to figures, one function a figure, in one style.

Colours follow the note: KUMAR red, BL blue, FC grey. Every function returns the figure and leaves
showing and saving it to the caller; what was drawn can be read back from the axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from gmlib.functional import relu_moments
from gmlib.study.arms import ARMS
from gmlib.study.metrics import COSTS, MEASURES, at_epoch_ends, dataset_title, pareto_front
from gmlib.study.propagation import Ellipses

__all__ = [
    "COMPONENT_COLORS",
    "arm_color",
    "budget",
    "cloud",
    "component_propagation",
    "depth",
    "dial",
    "displacement",
    "dynamics",
    "endpoints",
    "error_against",
    "feature_learning",
    "initial_scale",
    "layer_scales",
    "logit_histograms",
    "movement",
    "predicted_scale",
    "scaling",
    "screen",
    "smoothed_relu",
    "step_times",
    "time_to_threshold",
    "two_by_two",
]

_Panels = tuple[Figure, list[Axes]]

_COLORS = {name: arm.color for name, arm in ARMS.items() if arm.color}
_COLORS |= {arm.label: arm.color for arm in ARMS.values() if arm.label and arm.color}
_BLUES = ("#a9c9e8", "#6fa3d2", "#3a76b4", "#174a80")
_COLORS |= {f"{10**n:,} neurons": color for n, color in enumerate(_BLUES, start=1)}
_OTHERS = ("#3a8f5c", "#8357a4", "#1f9e9e", "#a0673b")
COMPONENT_COLORS = ("#c8322b", "#2f6db5", "#3a8f5c", "#e39b28", "#8357a4", "#1f9e9e", "#a0673b")
"""Of the components of a layer, in turn."""

_MARKERS = ("o", "s", "^", "D", "v", "P")  # by number of layers
_STYLE = {
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
    """Colour of an arm, the same wherever it is drawn."""
    return _COLORS.get(arm) or _OTHERS[sum(arm.encode()) % len(_OTHERS)]


def dynamics(curves: pd.DataFrame) -> Figure:
    """Test error by epoch and, within the first epoch, by step: mean and band over seeds.

    The line is the mean over the seeds that trained, the band one standard deviation to either
    side, cut at the lowest and highest seed. Seeds that diverged are drawn dotted.

    Args:
        curves: As `metrics.curves_table` gives.
    """
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (late, early) = _figure(1, 2, 9.2, 3.8, sharey=True)
        for arm in curves.arm.unique():
            runs = curves[curves.arm == arm]
            trained, lost = runs[~runs.diverged], runs[runs.diverged]
            _band(late, at_epoch_ends(trained), "epoch", arm)
            _band(early, _first_epoch(trained), "step", arm)
            _label(late, runs)
            for _, run in lost.groupby("seed"):
                ends, start = at_epoch_ends(run), _first_epoch(run)
                late.plot(ends.epoch, ends.test_error, ":", color=arm_color(arm), lw=1)
                early.plot(start.step, start.test_error, ":", color=arm_color(arm), lw=1)
        late.set(yscale="log", xlabel="epoch", ylabel="test error (%)", title="by epoch")
        early.set(xscale="log", xlabel="gradient step", title="within the first epoch")
        late.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        early.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _percent_axis(late, curves.test_error)
        early.legend(*late.get_legend_handles_labels(), loc="lower left")
    return figure


def time_to_threshold(hits: pd.DataFrame) -> Figure:
    """Gradient steps to the first hit of each threshold: a dot a seed, a bar at the median.

    Args:
        hits: As `metrics.first_hits` gives.
    """
    thresholds = list(hits.threshold.unique())
    arms = list(hits.arm.unique())
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (axes,) = _figure(1, 1, 7.4, 3.8)
        for index, arm in enumerate(arms):
            runs = hits[hits.arm == arm]
            counts = []
            for position, threshold in enumerate(thresholds):
                steps = runs.loc[runs.threshold == threshold, "step"]
                reached = steps.dropna().to_numpy()
                counts.append(f"{len(reached)}/{len(steps)}")
                center = position + 0.22 * (index - (len(arms) - 1) / 2)
                x = center + 0.09 * _spread(len(reached))
                axes.plot(x, reached, "o", color=arm_color(arm), ms=5, alpha=0.75, mec="none")
                if len(reached):
                    axes.hlines(
                        np.median(reached), center - 0.09, center + 0.09, color=arm_color(arm)
                    )
            axes.plot([], [], "o", color=arm_color(arm), label=f"{arm}: {', '.join(counts)}")
        axes.set(
            yscale="log",
            xlim=(-0.5, len(thresholds) - 0.5),
            xlabel="test error threshold",
            ylabel="gradient steps to first hit",
            xticks=range(len(thresholds)),
            xticklabels=[f"{threshold:g} %" for threshold in thresholds],
        )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(False, axis="x")
        axes.legend(title="seeds that reached it", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def two_by_two(
    curves: pd.DataFrame, rows: Mapping[str, tuple[str, str]], columns: Sequence[str]
) -> Figure:
    """Test error by step for two choices with two values each, a panel a combination.

    Every panel shows its own seeds and their mean in colour, and the means of the other panels in
    grey. Diverged seeds are dotted and left out of the mean, whose last value stands at its end.

    Args:
        curves: As `metrics.curves_table` gives, its arms being the variants.
        rows: By title of the row, the variants of its two panels.
        columns: Titles of the columns.
    """
    variants = [variant for pair in rows.values() for variant in pair]
    curves = curves[curves.step > 0]
    means = {
        variant: curves[(curves.arm == variant) & ~curves.diverged]
        .groupby("step")
        .test_error.mean()
        for variant in variants
    }
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(2, 2, 8.4, 6.2, sharex=True, sharey=True)
        for axes, variant in zip(panels, variants, strict=True):
            color = arm_color(variant)
            for other, mean in means.items():
                if other != variant:
                    axes.plot(mean.index, mean, color="#c4c4c4", lw=1.2)
            for _, run in curves[curves.arm == variant].groupby("seed"):
                style = ":" if run.diverged.any() else "-"
                axes.plot(run.step, run.test_error, style, color=color, lw=0.8)
            mean = means[variant]
            axes.plot(mean.index, mean, color=color, lw=2.4, label=variant)
            lost = curves[(curves.arm == variant) & curves.diverged].seed.nunique()
            seeds = curves[curves.arm == variant].seed.nunique()
            notes = [variant]
            notes += [f"final {mean.iloc[-1]:.1f} %"] if len(mean) else []
            notes += [f"{lost} of {seeds} diverged"] if lost else []
            text = "\n".join(notes)
            axes.text(0.04, 0.05, text, transform=axes.transAxes, color=color, va="bottom")
            axes.set(xscale="log", yscale="log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            _percent_axis(axes, curves.test_error)
        for axes, title in zip(panels[:2], columns, strict=True):
            axes.set_title(title)
        for axes, title in zip(panels[::2], rows, strict=True):
            axes.set_ylabel(f"{title}\ntest error (%)")
        for axes in panels[2:]:
            axes.set_xlabel("gradient step")
    return figure


def depth(scales: Mapping[int, pd.DataFrame], runs: Mapping[int, pd.DataFrame]) -> Figure:
    """Output std by layer at the start, and best test error, for stacks of several depths.

    Left: a line is a stack, through the means over seeds. Right: a dot is a seed, lines join the
    means over those that trained; counts of those that diverged stand at the upper edge.

    Args:
        scales: By number of layers, as `metrics.init_table` gives.
        runs: By number of layers, as `metrics.runs_table` gives.
    """
    arms = list(next(iter(runs.values())).arm.unique())
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (start, end) = _figure(1, 2, 9.2, 3.8)
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
                _count_lost(end, x, lost, color, index)
        start.set(xlabel="layer", ylabel="output std at the start", title="at the start")
        end.set(xlabel="layers", ylabel="best test error (%)", title="after training")
        for axes in (start, end):
            axes.set_xticks(list(runs))
            axes.set_xlim(min(runs) - 0.4, max(runs) + 0.4)
        _percent_axis(end, pd.concat([table.best for table in runs.values()]))
        end.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def dial(runs: Sequence[Mapping[float, pd.DataFrame]], xlabels: Sequence[str]) -> Figure:
    """Test error after the first epoch, best and final against a setting of KUMAR.

    A line joins the means over the seeds that trained, a dot is a seed; counts of those that
    diverged stand at the upper edge.

    Args:
        runs: For each panel, `metrics.runs_table` by value of the setting.
        xlabels: Names of the settings.
    """
    styles = {"first_epoch": ("after epoch 1", "o", "#e39b28"), "best": ("best", "s", "#3a8f5c")}
    styles["final"] = ("final", "D", _COLORS["KUMAR"])
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(1, len(runs), 4.4 * len(runs), 3.6, sharey=True)
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
                _count_lost(axes, x, int(table.diverged.sum()), "#444444")
            axes.set(xscale="log", yscale="log", xlabel=xlabel, xticks=list(tables))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.minorticks_off()
            errors = [table[column] for table in tables.values() for column in styles]
            _percent_axis(axes, pd.concat(errors))
        panels[0].set_ylabel("test error (%)")
        panels[-1].legend()
    return figure


def endpoints(runs: pd.DataFrame) -> Figure:
    """Best and final test error by arm, over the seeds that trained; a dot a seed.

    Boxes span the quartiles with whiskers to the extremes, the mean is a green triangle, the
    median an orange line. Seeds that diverged are counted below their arm.

    Args:
        runs: As `metrics.runs_table` gives.
    """
    arms = list(runs.arm.unique())
    lost = runs[runs.diverged].groupby("arm").seed.count()
    labels = [f"{arm}\n({lost[arm]} diverged)" if arm in lost else arm for arm in arms]
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(1, 2, 8.4, 3.8, sharey=True)
        for axes, column in zip(panels, ("best", "final"), strict=True):
            values = [
                runs.loc[(runs.arm == arm) & ~runs.diverged, column].to_numpy() for arm in arms
            ]
            boxes = axes.boxplot(
                values,
                whis=(0, 100),
                widths=0.5,
                showmeans=True,
                patch_artist=True,
                tick_labels=labels,
                medianprops={"color": "#e8891c", "linewidth": 2},
                meanprops={"marker": "^", "markerfacecolor": "#2e9e3f", "markeredgecolor": "none"},
            )
            for position, (arm, box, dots) in enumerate(
                zip(arms, boxes["boxes"], values, strict=True), start=1
            ):
                box.set(facecolor=mpl.colors.to_rgba(arm_color(arm), 0.2), edgecolor=arm_color(arm))
                x = position + 0.12 * _spread(len(dots))
                axes.plot(x, dots, "o", color=arm_color(arm), ms=4, alpha=0.8, mec="none")
            axes.set_title(f"{column} test error")
            axes.grid(False, axis="x")
        panels[0].set_ylabel("test error (%)")
        errors = runs.loc[~runs.diverged, ["best", "final"]].to_numpy(dtype=float)
        highest = errors.max(initial=0.0)
        panels[0].set_ylim(0, 1.06 * highest if highest > 0 else None)
    return figure


def screen(curves: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Test error by epoch, and its measures seed by seed; a row of panels a data set.

    Left, as in `dynamics`: mean and band over the seeds that trained, those that diverged dotted.
    Right, for each measure: a dot a run that trained, a line a seed, a bar at the arm's median.

    Args:
        curves: As `metrics.curves_table` gives.
        runs: As `metrics.measures_table` gives.
    """
    datasets = list(runs.dataset.unique())
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(
            len(datasets), 2, 9.2, 3.5 * len(datasets), width_ratios=[1.0, 1.15]
        )
        figure.set_layout_engine("constrained", hspace=0.06)
        for index, dataset in enumerate(datasets):
            left, right = panels[2 * index : 2 * index + 2]
            _screen_curves(left, curves[curves.dataset == dataset])
            _screen_measures(right, runs[runs.dataset == dataset])
            left.set_title(f"{dataset_title(dataset)}, by epoch")
            right.set_title(f"{dataset_title(dataset)}, seed by seed")
    return figure


def _screen_curves(axes: Axes, curves: pd.DataFrame) -> None:
    ends = at_epoch_ends(curves)
    for arm in curves.arm.unique():
        runs = ends[ends.arm == arm]
        _band(axes, runs[~runs.diverged], "epoch", arm)
        for _, run in runs[runs.diverged].groupby("seed"):
            axes.plot(run.epoch, run.test_error, ":", color=arm_color(arm), lw=1)
        _label(axes, curves[curves.arm == arm])
    axes.set(yscale="log", xlabel="epoch", ylabel="test error (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper right")


def _screen_measures(axes: Axes, runs: pd.DataFrame) -> None:
    arms = list(runs.arm.unique())
    centers = 0.8 / len(arms) * (np.arange(len(arms)) - (len(arms) - 1) / 2)
    for position, column in enumerate(MEASURES):
        # By arm (rows) and seed; NaN where a run diverged, so that the seed's line has a gap.
        values = runs.assign(kept=runs[column].where(~runs.diverged)).pivot(
            index="arm", columns="seed", values="kept"
        )
        for seed in values.columns:
            axes.plot(position + centers, values.loc[arms, seed], "-", color="#b5b5b5", lw=0.9)
        for center, arm in zip(position + centers, arms, strict=True):
            kept = values.loc[arm].dropna()
            axes.plot(
                np.full(len(kept), center),
                kept,
                "o",
                color=arm_color(arm),
                ms=5,
                alpha=0.7,
                mec="none",
            )
            if len(kept):
                axes.hlines(kept.median(), center - 0.12, center + 0.12, color=arm_color(arm))
    axes.set(xlim=(-0.5, len(MEASURES) - 0.5), ylabel="test error (%)")
    axes.set_xticks(range(len(MEASURES)), list(MEASURES.values()))
    axes.grid(False, axis="x")


def budget(table: pd.DataFrame) -> Figure:
    """Test error against each cost of a network, on logarithmic axes: a marker a network.

    The marker is the median over seeds, hollow if some diverged, and the thin bar their range. A
    line joins networks that differ in size alone; families of a few networks are drawn smaller.
    The black steps are the Pareto front of all: nothing in the table is below them.

    Args:
        table: As `metrics.budget_table` gives.
    """
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(len(COSTS), 1, 7.8, 9.0, sharex=True, sharey=True)
        for axes, cost in zip(panels, COSTS, strict=True):
            for arm in table.arm.unique():
                for layers in sorted(table.layers[table.arm == arm].unique()):
                    own = table[(table.arm == arm) & (table.layers == layers)]
                    _budget_families(axes, own, cost, arm, int(layers))
            _staircase(axes, table[cost], table.error)
            axes.set(xscale="log", yscale="log", xlabel=cost, ylabel="test error (%)")
            axes.margins(x=0.13)  # for the sizes
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.tick_params(labelbottom=True)
            _percent_axis(axes, table.low)
        panels[1].set(xlabel="multiplications per image")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def _budget_families(axes: Axes, networks: pd.DataFrame, cost: str, arm: str, layers: int) -> None:
    """The networks of one arm and number of layers, a line for each width of a GM network."""
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
                if network["error"] > 60:  # a row of networks that guess, too close for words
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


def component_propagation(panels: Mapping[str, Ellipses]) -> Figure:
    """2-sigma ellipses of a layer's components over epochs, a panel an arm, opacity growing.

    Args:
        panels: Ellipses by title, as `propagation.propagate` gives.
    """
    with mpl.style.context(_STYLE, after_reset=True):
        figure, axes = _figure(1, len(panels), 4.6 * len(panels), 4.4)
        for axis, (title, ellipses) in zip(axes, panels.items(), strict=True):
            times, components, _ = ellipses.centers.shape
            opacity = np.linspace(0.12, 1.0, times)
            for k in range(components):
                color = COMPONENT_COLORS[k % len(COMPONENT_COLORS)]
                for time in range(times):
                    width, height = 4.0 * ellipses.axes[time, k]  # 2 sigma to either side
                    axis.add_patch(
                        Ellipse(
                            tuple(ellipses.centers[time, k]),
                            width,
                            height,
                            angle=ellipses.angles[time, k],
                            fill=False,
                            edgecolor=color,
                            alpha=opacity[time],
                            lw=1.1,
                        )
                    )
                axis.plot(*ellipses.centers[:, k].T, color=color, lw=1)
                axis.plot(*ellipses.centers[0, k], "o", ms=4, mfc="white", color=color)
                axis.plot(*ellipses.centers[-1, k], "o", ms=5, color=color)
            axis.set(title=title, xlabel="PC 1 of the final mixture", ylabel="PC 2")
            axis.autoscale_view()
            axis.set_aspect("equal", adjustable="datalim")
    return figure


def displacement(moved: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """How far components moved from their start, by three measures, a line an arm.

    Args:
        moved: By arm, as `propagation.mean_displacement` gives.
    """
    titles = {
        "absolute": "distance",
        "relative": "distance over initial size",
        "gates": "change of the gates",
    }
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(1, 3, 10.2, 3.2)
        for axes, (kind, title) in zip(panels, titles.items(), strict=True):
            for arm, distances in moved.items():
                axes.plot(np.asarray(distances[kind]), ".-", color=arm_color(arm), label=arm)
            axes.set(title=title, xlabel="epoch", ylim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        panels[0].legend()
    return figure


def initial_scale(table: pd.DataFrame, target_std: float) -> Figure:
    """Output std at initialization, layer by layer, a dot a seed; the target as a line.

    Args:
        table: As `metrics.init_table` gives.
        target_std: Where KUMAR puts the scale.
    """
    arms = list(table.arm.unique())
    layers = sorted(table.layer.unique())
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (axes,) = _figure(1, 1, 6.6, 3.6)
        for index, arm in enumerate(arms):
            for layer in layers:
                values = table.loc[(table.arm == arm) & (table.layer == layer), "std_after"]
                center = layer + 0.2 * (index - (len(arms) - 1) / 2)
                axes.plot(
                    center + 0.05 * _spread(len(values)),
                    values,
                    "o",
                    color=arm_color(arm),
                    alpha=0.75,
                    mec="none",
                    label=arm if layer == layers[0] else None,
                )
        axes.axhline(target_std, color="#444444", lw=1, ls="--", zorder=0)
        axes.annotate(
            f"target {target_std:g}",
            (1.0, target_std),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )
        axes.set(yscale="log", ylabel="std of the layer's outputs", xticks=layers)
        axes.set_xticklabels([f"layer {layer}" for layer in layers])
        axes.set_xlim(layers[0] - 0.6, layers[-1] + 0.6)
        axes.grid(False, axis="x")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def layer_scales(report: pd.DataFrame) -> Figure:
    """Output std by layer on a logarithmic axis, before calibration and after.

    Args:
        report: As `checks.stack_report` gives.
    """
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (axes,) = _figure(1, 1, 6.4, 3.2)
        axes.plot(
            report["name"], report.std_before, "o--", color="0.5", mfc="white", label="before"
        )
        axes.plot(report["name"], report.std_after, "o-", color=arm_color("KUMAR"), label="after")
        axes.set(yscale="log", xlabel="layer", ylabel="std of the layer's outputs")
        axes.legend()
    return figure


def logit_histograms(outputs: Mapping[str, ArrayLike], limit: float = 2.0) -> Figure:
    """Histograms of a layer's outputs, a panel an initialization, all from `-limit` to `limit`.

    What lies beyond is counted at the edges.

    Args:
        outputs: Outputs of any shape, by arm.
        limit: End of the axes.
    """
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(1, len(outputs), 2.5 * len(outputs), 2.6)
        for axes, (arm, values) in zip(panels, outputs.items(), strict=True):
            flat = np.asarray(values).ravel()
            axes.hist(flat, bins=np.linspace(-limit, limit, 42).tolist(), color=arm_color(arm))
            axes.set(title=f"{arm}\nstd {flat.std():.2g}", xlim=(-limit, limit), yticks=[])
            axes.grid(False)
            axes.margins(y=0.18)  # room for the shares
            sides = {"left": (flat < -limit).mean(), "right": (flat > limit).mean()}
            for side, share in sides.items():
                if share >= 0.005:
                    axes.text(
                        0.02 if side == "left" else 0.98,
                        0.93,
                        f"← {share:.0%}" if side == "left" else f"{share:.0%} →",
                        transform=axes.transAxes,
                        ha=side,
                        fontsize=8,
                    )
    return figure


def cloud(mu: Sequence[float], sigma: Sequence[float], x: Sequence[float]) -> Figure:
    """A cloud of neurons in two dimensions and an input, and the cloud's mean activation.

    Left: ellipses of one and two standard deviations, neurons drawn from the cloud (filled where
    they fire), and the half plane in which they do. Right: F against the mean pre-activation.

    Args:
        mu: Mean of the cloud, two numbers.
        sigma: Standard deviations, two numbers.
        x: The input, two numbers, not both zero.
    """
    center, spread, point = (np.asarray(own, dtype=float) for own in (mu, sigma, x))
    m, t = float(center @ point), float(np.linalg.norm(spread * point))
    beta = center + spread * np.random.default_rng(0).standard_normal((80, 2))
    fires = beta @ point > 0
    red, blue = _COLORS["KUMAR"], _COLORS["BL"]
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (plane, curve) = _figure(1, 2, 8.8, 3.9)
        for n in (1, 2):
            shape = Ellipse(tuple(center), *(2 * n * spread), fc=red, ec=red, alpha=0.15)
            plane.add_patch(shape)
        plane.plot(*beta[fires].T, "o", ms=3, color=red)
        plane.plot(*beta[~fires].T, "o", ms=3, color=red, mfc="none")
        along = 12.0 * np.array([-point[1], point[0]]) / np.linalg.norm(point)
        away = 12.0 * point / np.linalg.norm(point)
        corners = np.array([-along, along, along + away, away - along])
        plane.fill(*corners.T, color=blue, alpha=0.1, lw=0)
        plane.plot(*np.array([-along, along]).T, "--", color=blue, lw=1)
        plane.annotate("", tuple(point), (0, 0), arrowprops={"arrowstyle": "->", "color": blue})
        plane.annotate("x", tuple(point), (5, 0), textcoords="offset points", color=blue)
        plane.plot(*center, "o", ms=6, color="black")
        plane.annotate(
            "\N{GREEK SMALL LETTER MU}",
            tuple(center),
            (-4, 26),
            textcoords="offset points",
            fontsize=13,
            arrowprops={"arrowstyle": "-", "lw": 0.6},
        )
        plane.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", title="a cloud of neurons")
        at = torch.linspace(-6, 6, 241, dtype=torch.float64)
        curve.plot(at, at.relu(), "--", color="#7f7f7f", lw=1, label="one neuron")
        F, _ = relu_moments(at, torch.full_like(at, t))
        curve.plot(at, F, color=red, label=f"the cloud, t = {t:.2f}")
        here, _ = relu_moments(*torch.tensor([m, t], dtype=torch.float64))
        curve.plot(m, here, "o", color=red, ms=7)
        curve.set(xlabel="mean pre-activation m", title="mean activation F")
        curve.legend()
    return figure


def smoothed_relu(deviations: Sequence[float]) -> Figure:
    """F(m, t) and G(m, t) against the mean m of the pre-activation, a line a deviation t."""
    m = torch.linspace(-4, 4, 801, dtype=torch.float64)
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(deviations)))
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(1, 2, 8.8, 3.4)
        for t, color in zip(deviations, colors, strict=True):
            for axes, moment in zip(panels, relu_moments(m, torch.full_like(m, t)), strict=True):
                axes.plot(m, moment, color=color, label=f"t = {t:g}")
        panels[0].set(xlabel="m", title="F = E[relu(s)]")
        panels[1].set(xlabel="m", title="G = P(s > 0)")
        panels[0].legend()
    return figure


def error_against(
    x: ArrayLike,
    errors: ArrayLike | Mapping[str, ArrayLike],
    xlabel: str,
    ylabel: str,
    slope: float | None = None,
) -> Figure:
    """Error against something on two logarithmic axes: a dot a repetition, their median a line.

    Args:
        x: Abscissae, shape ``(n,)``.
        errors: Errors, shape ``(n, repetitions)``; or several such, by label. Labels like
            ``"BL, start"`` have the arm's colour; all but the last of an arm are paler.
        xlabel: Label of the abscissa.
        ylabel: Label of the ordinate.
        slope: Slope of a dashed guide through the first median, if one is wanted.
    """
    x = np.asarray(x)
    curves = errors if isinstance(errors, Mapping) else {"median": errors}
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (axes,) = _figure(1, 1, 5.6, 3.6)
        for index, (label, values) in enumerate(curves.items()):
            values, arm = np.asarray(values), label.partition(",")[0]
            color = _COLORS.get(arm, f"C{index}")
            if any(later.partition(",")[0] == arm for later in list(curves)[index + 1 :]):
                color = to_hex(tuple(0.5 + 0.5 * part for part in to_rgb(color)))  # type: ignore[arg-type]
            median = np.median(values, axis=1)
            dots = np.repeat(x, values.shape[1])
            axes.loglog(dots, values.ravel(), "o", color=color, ms=3, alpha=0.35, mec="none")
            axes.loglog(x, median, color=color, label=label)
        if slope is not None:
            first = np.asarray(next(iter(curves.values())))
            guide = np.median(first, axis=1)[0] * (x / x[0]) ** slope
            label = f"slope {slope:g}".replace("-", "\N{MINUS SIGN}")
            axes.loglog(x, guide, "--", color="#444444", lw=1, label=label)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend()
    return figure


def step_times(table: pd.DataFrame) -> Figure:
    """Time of a training step by path, in units of its bare products: median and quartiles.

    Args:
        table: As `speed.step_table` gives.
    """
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (axes,) = _figure(1, 1, 6.4, 0.5 + 0.42 * len(table))
        spread = [table["median"] - table.low, table.high - table["median"]]
        colors = [_COLORS["KUMAR"] if path == "gmlib" else "#b9c4d0" for path in table.index]
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


def predicted_scale(table: pd.DataFrame) -> Figure:
    """Measured output std against the predicted one, with the range over draws.

    Args:
        table: As `scale.first_layer_scales` or `scale.stack_scales` gives.
    """
    deep = "layer" in table
    datasets = [""] if deep else list(table.dataset.unique())
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(1, len(datasets), 4.4 * len(datasets), 4.0, sharey=True)
        for axes, dataset in zip(panels, datasets, strict=True):
            rows = table if deep else table[table.dataset == dataset]
            ends = [0.6 * rows.low.min(), 1.6 * rows.high.max()]
            axes.plot(ends, ends, color="#888888", lw=1)
            # Fan-in has its own colour, and BL's scale that of BL.
            known = {"fan-in": _COLORS["fan-in"], "0.5": _COLORS["BL"]}
            unused = [color for color in COMPONENT_COLORS if color not in known.values()]
            others = cycle([*unused, "#444444"])
            for init in rows.init.unique():
                group, color = rows[rows.init == init], known.get(init) or next(others)
                name = init if init == "fan-in" else f"scale {init}"
                parts = (
                    {name: group}
                    if deep
                    else {f"{name}, d = {d}": group[group.d == d] for d in group.d.unique()}
                )
                for marker, (label, part) in zip(cycle("osD^v"), parts.items(), strict=False):
                    axes.errorbar(
                        part.predicted,
                        part.measured,
                        yerr=[part.measured - part.low, part.high - part.measured],
                        fmt=marker,
                        color=color,
                        ms=5,
                        elinewidth=0.8,
                        label=label,
                    )
            axes.set(
                xscale="log", yscale="log", xlabel="predicted std", title=dataset_title(dataset)
            )
        panels[0].set_ylabel("measured std")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def movement(table: pd.DataFrame) -> Figure:
    """How far clouds (above) and readouts (below) are from their start, by step: means over seeds.

    Args:
        table: As `metrics.movement_table` gives.
    """
    layers = sorted(table.layer.unique()) or [1]
    kinds = {
        "clouds": {"mu": ("-", "means μ"), "sigma": (":", "deviations σ")},
        "readouts": {"U": ("-", "weights U"), "v": (":", "offsets v")},
    }
    rows = table[table.step > 0]
    arms = list(rows.arm.unique())
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(2, len(layers), 4.6 * len(layers), 6.2, sharex=True, sharey="row")
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
        tables: By target std, as `metrics.movement_table` gives.
    """
    parameters = {"mu": "means of the clouds", "sigma": "deviations of the clouds", "U": "readouts"}
    layers = sorted({layer for table in tables.values() for layer in table.layer}) or [1]
    with mpl.style.context(_STYLE, after_reset=True):
        figure, panels = _figure(1, len(layers), 4.6 * len(layers), 3.6, sharey=True)
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


def scaling(table: pd.DataFrame) -> Figure:
    """Time of a layer against each of its sizes, on logarithmic axes.

    Args:
        table: As `speed.scaling_table` gives.
    """
    with mpl.style.context(_STYLE, after_reset=True):
        sizes = table["size"].unique()
        figure, panels = _figure(1, len(sizes), 2.4 * len(sizes), 2.7, sharey=True)
        for axes, size in zip(panels, sizes, strict=True):
            curve = table[table["size"] == size]
            guide = curve.ms.iloc[-1] * curve.value / curve.value.iloc[-1]
            axes.loglog(curve.value, guide, "--", color="#888888", lw=1)
            axes.loglog(curve.value, curve.ms, "o-", color=_COLORS["KUMAR"], ms=4)
            axes.set(xlabel=size, title=f"exponent {curve.exponent.iloc[0]:.2f}")
            axes.set_xticks(curve.value.iloc[::2])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panels[0].set(ylabel="forward and backward, ms")
    return figure


def _figure(rows: int, columns: int, width: float, height: float, **kwargs: Any) -> _Panels:
    """A figure and its axes. Closed at once, or a notebook would show it twice."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **kwargs
    )
    plt.close(figure)
    return figure, list(axes.flat)


def _first_epoch(curves: pd.DataFrame) -> pd.DataFrame:
    """The evaluations within the first epoch and at its end."""
    return curves[(curves.epoch > 0) & (curves.epoch < 1 + 1e-9)]


def _band(axes: Axes, runs: pd.DataFrame, x: str, arm: str) -> None:
    if runs.empty:
        return
    table = runs.pivot(index=x, columns="seed", values="test_error")
    mean, deviation = table.mean(axis=1), table.std(axis=1, ddof=0)
    low = np.maximum(mean - deviation, table.min(axis=1))
    high = np.minimum(mean + deviation, table.max(axis=1))
    axes.plot(mean.index, mean, color=arm_color(arm))
    axes.fill_between(mean.index, low, high, color=arm_color(arm), alpha=0.18, lw=0)


def _label(axes: Axes, runs: pd.DataFrame) -> None:
    """An arm's entry for the legend: its seeds, and how many of them diverged."""
    (arm,) = runs.arm.unique()
    seeds, failures = runs.seed.nunique(), runs[runs.diverged].seed.nunique()
    label = f"{arm} ({seeds} seed{'s' if seeds > 1 else ''}" + (
        f", {failures} diverged)" if failures else ")"
    )
    axes.plot([], [], ":" if failures == seeds else "-", color=arm_color(arm), label=label)


def _count_lost(axes: Axes, x: float, lost: int, color: str, line: int = 0) -> None:
    """How many seeds diverged, at the upper edge of the axes."""
    if lost:
        axes.annotate(
            f"{lost} lost",
            (x, 1.0 - 0.06 * line),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            color=color,
            fontsize=8,
        )


def _percent_axis(axes: Axes, errors: pd.Series[Any]) -> None:
    coarse, fine = (0.5, 1, 2, 3, 5, 10, 20, 50, 90), (40, 50, 60, 70, 80, 90)
    ticks = [tick for tick in coarse if errors.min() * 0.7 <= tick]
    if len(ticks) < 3:
        ticks = [tick for tick in fine if errors.min() * 0.7 <= tick]
    axes.set_yticks(ticks)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _spread(count: int) -> NDArray[np.float64]:
    """Offsets in [-1, 1] that keep dots apart."""
    return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(count)
