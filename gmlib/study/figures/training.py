"""Training: test error over time, time to a threshold, errors at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gmlib.study.analysis.curves import MEASURES, at_epoch_ends
from gmlib.study.datasets.catalogue import dataset_title
from gmlib.study.figures.style import (
    STYLE,
    arm_color,
    band,
    first_epoch,
    label_arm,
    percent_axis,
    spread,
    subplots,
)

__all__ = [
    "dynamics",
    "endpoints",
    "screen",
    "time_to_threshold",
    "two_by_two",
]


def dynamics(curves: pd.DataFrame) -> Figure:
    """Test error by epoch and, within the first epoch, by step: mean and band over seeds.

    The line is the mean over the seeds that trained, the band one standard deviation to either
    side, cut at the lowest and highest seed. Seeds that diverged are drawn dotted.

    Args:
        curves: The output of `analysis.curves_table`.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, (late, early) = subplots(1, 2, 9.2, 3.8, sharey=True)
        for arm in curves.arm.unique():
            runs = curves[curves.arm == arm]
            trained, lost = runs[~runs.diverged], runs[runs.diverged]
            band(late, at_epoch_ends(trained), "epoch", arm)
            band(early, first_epoch(trained), "step", arm)
            label_arm(late, runs)
            for _, run in lost.groupby("seed"):
                ends, start = at_epoch_ends(run), first_epoch(run)
                late.plot(ends.epoch, ends.test_error, ":", color=arm_color(arm), lw=1)
                early.plot(start.step, start.test_error, ":", color=arm_color(arm), lw=1)
        late.set(yscale="log", xlabel="epoch", ylabel="test error (%)", title="by epoch")
        early.set(xscale="log", xlabel="gradient step", title="within the first epoch")
        late.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        early.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        percent_axis(late, curves.test_error)
        early.legend(*late.get_legend_handles_labels(), loc="lower left")
    return figure


def time_to_threshold(hits: pd.DataFrame) -> Figure:
    """Gradient steps to the first hit of each threshold: one dot per seed, a bar at the median.

    Args:
        hits: The output of `analysis.first_hits`.
    """
    thresholds = list(hits.threshold.unique())
    arms = list(hits.arm.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, (axes,) = subplots(1, 1, 7.4, 3.8)
        for index, arm in enumerate(arms):
            runs = hits[hits.arm == arm]
            counts = []
            for position, threshold in enumerate(thresholds):
                steps = runs.loc[runs.threshold == threshold, "step"]
                reached = steps.dropna().to_numpy()
                counts.append(f"{len(reached)}/{len(steps)}")
                center = position + 0.22 * (index - (len(arms) - 1) / 2)
                x = center + 0.09 * spread(len(reached))
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
    """Test error by step for two choices with two values each, one panel per combination.

    Every panel shows its own seeds and their mean in colour, and the means of the other panels in
    grey. Diverged seeds are dotted and left out of the mean; the panel counts them.

    Args:
        curves: The output of `analysis.curves_table`, with the variants as arms.
        rows: The variants of the two panels of each row, by the row's title.
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
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(2, 2, 8.4, 6.2, sharex=True, sharey=True)
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
            text = f"{variant}\n{lost} of {seeds} diverged" if lost else variant
            axes.text(0.04, 0.05, text, transform=axes.transAxes, color=color, va="bottom")
            axes.set(xscale="log", yscale="log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            percent_axis(axes, curves.test_error)
        for axes, title in zip(panels[:2], columns, strict=True):
            axes.set_title(title)
        for axes, title in zip(panels[::2], rows, strict=True):
            axes.set_ylabel(f"{title}\ntest error (%)")
        for axes in panels[2:]:
            axes.set_xlabel("gradient step")
    return figure


def endpoints(runs: pd.DataFrame) -> Figure:
    """Best and final test error by arm, over the seeds that trained, with one dot per seed.

    Boxes span the quartiles with whiskers to the extremes, the mean is a green triangle, the
    median an orange line. The number of seeds that diverged is given below their arm.

    Args:
        runs: The output of `analysis.runs_table`.
    """
    arms = list(runs.arm.unique())
    lost = runs[runs.diverged].groupby("arm").seed.count()
    labels = [f"{arm}\n({lost[arm]} diverged)" if arm in lost else arm for arm in arms]
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, 2, 8.4, 3.8, sharey=True)
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
                x = position + 0.12 * spread(len(dots))
                axes.plot(x, dots, "o", color=arm_color(arm), ms=4, alpha=0.8, mec="none")
            axes.set_title(f"{column} test error")
            axes.grid(False, axis="x")
        panels[0].set_ylabel("test error (%)")
        errors = runs.loc[~runs.diverged, ["best", "final"]].to_numpy(dtype=float)
        highest = errors.max(initial=0.0)
        panels[0].set_ylim(0, 1.06 * highest if highest > 0 else None)
    return figure


def screen(curves: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Test error by epoch, and its measures by seed, with one row of panels per data set.

    The left panel is as in `dynamics`: mean and band over the seeds that trained, diverged seeds
    dotted. The right panel has, for each measure, one dot per run that trained, one line per seed
    and a bar at each arm's median.

    Args:
        curves: The output of `analysis.curves_table`.
        runs: The output of `analysis.runs_table`.
    """
    datasets = list(runs.dataset.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(
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
        band(axes, runs[~runs.diverged], "epoch", arm)
        for _, run in runs[runs.diverged].groupby("seed"):
            axes.plot(run.epoch, run.test_error, ":", color=arm_color(arm), lw=1)
        label_arm(axes, curves[curves.arm == arm])
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
