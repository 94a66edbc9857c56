"""From tables to figures, one function a figure, in one style.

Colours follow the note: KUMAR red, BL blue, FC grey. Every function returns the figure and leaves
showing and saving it to the caller; what was drawn can be read back from the axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from gmlib.functional import relu_moments
from gmlib.study.metrics import at_epoch_ends
from gmlib.study.propagation import Ellipses

__all__ = [
    "arm_color",
    "component_propagation",
    "displacement",
    "dynamics",
    "endpoints",
    "error_against",
    "initial_scale",
    "scaling",
    "smoothed_relu",
    "step_times",
    "time_to_threshold",
]

_Panels = tuple[Figure, list[Axes]]

_COLORS = {"FC": "#7f7f7f", "BL": "#2f6db5", "KUMAR": "#c8322b", "FAN-IN": "#e39b28"}
_OTHERS = ("#3a8f5c", "#8357a4", "#1f9e9e", "#a0673b")
_COMPONENTS = ("#c8322b", "#2f6db5", "#3a8f5c", "#e39b28", "#8357a4", "#1f9e9e", "#a0673b")
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
            seeds, failures = runs.seed.nunique(), lost.seed.nunique()
            label = f"{arm} ({seeds} seed{'s' if seeds > 1 else ''}" + (
                f", {failures} diverged)" if failures else ")"
            )
            _band(late, at_epoch_ends(trained), "epoch", arm)
            _band(early, _first_epoch(trained), "step", arm)
            late.plot([], [], ":" if trained.empty else "-", color=arm_color(arm), label=label)
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
                color = _COMPONENTS[k % len(_COMPONENTS)]
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
    x: ArrayLike, errors: ArrayLike, xlabel: str, ylabel: str, slope: float | None = None
) -> Figure:
    """Error against something on two logarithmic axes: a dot a repetition, their median a line.

    Args:
        x: Abscissae, shape ``(n,)``.
        errors: Errors, shape ``(n, repetitions)``.
        xlabel: Label of the abscissa.
        ylabel: Label of the ordinate.
        slope: Slope of a dashed guide through the first median, if one is wanted.
    """
    x, errors = np.asarray(x), np.asarray(errors)
    median = np.median(errors, axis=1)
    with mpl.style.context(_STYLE, after_reset=True):
        figure, (axes,) = _figure(1, 1, 5.6, 3.6)
        axes.loglog(
            np.repeat(x, errors.shape[1]), errors.ravel(), "o", ms=3, alpha=0.35, mec="none"
        )
        axes.loglog(x, median, color="C0", label="median")
        if slope is not None:
            guide = median[0] * (x / x[0]) ** slope
            axes.loglog(x, guide, "--", color="#444444", lw=1, label=f"slope {slope:g}")
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


def _percent_axis(axes: Axes, errors: pd.Series[Any]) -> None:
    ticks = [tick for tick in (0.5, 1, 2, 3, 5, 10, 20, 50, 90) if errors.min() * 0.7 <= tick]
    axes.set_yticks(ticks)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _spread(count: int) -> NDArray[np.float64]:
    """Offsets in [-1, 1] that keep dots apart."""
    return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(count)
