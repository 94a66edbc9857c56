"""Learning rates and coordinates: the error that each gives."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from gmlib.study.analysis.rates import best_rates
from gmlib.study.figures.style import (
    STYLE,
    arm_color,
    arm_line,
    percent_axis,
    spread,
    subplots,
)

__all__ = [
    "output_changes",
    "rates",
    "sizes",
    "variants",
]


def variants(runs: pd.DataFrame, arm: str = "KUMAR", column: str = "smoothed") -> Figure:
    """An error (%) by variant of an arm: one dot a seed that trained, a bar at their mean.

    Counts of those that diverged stand at the right edge.

    Args:
        runs: As `analysis.runs_table` gives, with variants for arms, from top to bottom.
        arm: Whose colour the dots have.
        column: Of the error.
    """
    names = list(runs.arm.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, (axes,) = subplots(1, 1, 7.4, 0.9 + 0.36 * len(names))
        for place, name in enumerate(names):
            own = runs[runs.arm == name]
            errors = own.loc[~own.diverged, column]
            color = arm_color(arm)
            if len(errors):
                height = place + 0.18 * spread(len(errors))
                axes.plot(errors, height, "o", color=color, ms=5, alpha=0.75, mec="none")
                axes.vlines(errors.mean(), place - 0.32, place + 0.32, color=color, lw=2.4)
            if own.diverged.any():
                lost = f"{own.diverged.sum()} of {len(own)} diverged"
                transform = axes.get_yaxis_transform()
                axes.text(1.0, place, lost, transform=transform, ha="right", va="center", size=9)
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel="test error (%)")
        axes.invert_yaxis()
        axes.grid(False, axis="y")
    return figure


def rates(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Error against learning rate: a line a variant through the means, rings around the lowest.

    Left out of a mean are seeds that diverged; a rate at which all did has none.

    Args:
        panels: Outputs of `analysis.rate_errors`, by title.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, axes = subplots(1, len(panels), 4.6 * len(panels), 3.8, sharey=True)
        for own, (title, errors) in zip(axes, panels.items(), strict=True):
            for variant in errors.variant.unique():
                style = {"color": arm_color(variant), "linestyle": arm_line(variant)}
                _line(own, errors[errors.variant == variant], label=variant, **style)
            _rate_axis(own, errors)
            own.set_title(title)
        axes[0].set_ylabel("error on held-out images (%)")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def sizes(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Error against learning rate for networks of several sizes, rings around the lowest.

    A line is a size: the darker, the larger. Two panels stand in a row.

    Args:
        panels: By title, outputs of `analysis.rate_errors` with a variant a size, the smallest
            first.
    """
    rows = -(-len(panels) // 2)
    with mpl.style.context(STYLE, after_reset=True):
        figure, axes = subplots(rows, 2, 7.4, 0.4 + 3.0 * rows, sharey=True)
        for own in axes[len(panels) :]:
            own.remove()
        for place, (own, (title, errors)) in enumerate(zip(axes, panels.items(), strict=False)):
            names = list(errors.variant.unique())
            for index, name in enumerate(names):
                shade = 0.25 + 0.75 * index / max(len(names) - 1, 1)
                color = mpl.colormaps["Reds"](shade)
                _line(own, errors[errors.variant == name], label=name, color=color)
            _rate_axis(own, errors)
            own.set_title(title)
            own.legend(loc="upper left", ncols=2)
            if place < len(panels) - 2:
                own.set_xlabel("")
            if place % 2 == 0:
                own.set_ylabel("error on held-out images (%)")
    return figure


def output_changes(changes: pd.DataFrame) -> Figure:
    """How far a layer's outputs move in some steps, against the number of components.

    A row is a layer, with fixed rates on the left and scaled ones on the right; a line is a number
    of steps, through the means over seeds.

    Args:
        changes: The output of `analysis.output_changes`.
    """
    layers, steps = sorted(changes.layer.unique()), sorted(changes.step.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, axes = subplots(
            len(layers), 2, 7.4, 0.6 + 2.5 * len(layers), sharex=True, sharey=True
        )
        for place, own in enumerate(axes):
            layer, scaled = layers[place // 2], bool(place % 2)
            chosen = changes[(changes.layer == layer) & (changes.scaled == scaled)]
            for index, step in enumerate(steps):
                mean = chosen[chosen.step == step].groupby("components").moved.mean()
                color = mpl.colormaps["Reds"](0.35 + 0.65 * index / max(len(steps) - 1, 1))
                label = f"{step:,} step{'s' if step > 1 else ''}"
                own.plot(mean.index, mean, "o-", color=color, ms=4, label=label)
            own.set(xscale="log", yscale="log", xticks=sorted(changes.components.unique()))
            own.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            own.minorticks_off()
            if place < 2:
                own.set_title("rates times 10 / K" if scaled else "fixed rates")
            if not scaled:
                own.set_ylabel(f"layer {layer}\nchange of outputs")
            if place >= len(axes) - 2:
                own.set_xlabel("components K")
        axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _line(axes: Axes, errors: pd.DataFrame, **style: object) -> None:
    means = errors[~errors.diverged].groupby("lr").error.mean()
    axes.plot(means.index, means, marker=".", **style)  # type: ignore[arg-type]
    best = best_rates(errors).iloc[0]
    axes.plot([best.lr], [best.error], "o", ms=9, mfc="none", color=style["color"])


def _rate_axis(axes: Axes, errors: pd.DataFrame) -> None:
    axes.set(xscale="log", yscale="log", xlabel="learning rate", xticks=sorted(errors.lr.unique()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    percent_axis(axes, errors[~errors.diverged].error)
