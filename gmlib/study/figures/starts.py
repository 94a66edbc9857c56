"""The scale of networks' outputs at initialization."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from gmlib.study.datasets.catalogue import dataset_title
from gmlib.study.figures.style import COLORS, COMPONENT_COLORS, STYLE, arm_color, spread, subplots

__all__ = [
    "initial_scale",
    "layer_scales",
    "logit_histograms",
    "predicted_scale",
]


def initial_scale(table: pd.DataFrame, target_std: float) -> Figure:
    """Output std at initialization by layer, with one dot per seed, and the target as a line.

    Args:
        table: The output of `analysis.init_table`.
        target_std: The scale to which KUMAR calibrates.
    """
    arms = list(table.arm.unique())
    layers = sorted(table.layer.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, (axes,) = subplots(1, 1, 6.6, 3.6)
        for index, arm in enumerate(arms):
            for layer in layers:
                values = table.loc[(table.arm == arm) & (table.layer == layer), "std_after"]
                center = layer + 0.2 * (index - (len(arms) - 1) / 2)
                axes.plot(
                    center + 0.05 * spread(len(values)),
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
        report: The output of `analysis.stack_report`.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, (axes,) = subplots(1, 1, 6.4, 3.2)
        axes.plot(
            report["name"], report.std_before, "o--", color="0.5", mfc="white", label="before"
        )
        axes.plot(report["name"], report.std_after, "o-", color=arm_color("KUMAR"), label="after")
        axes.set(yscale="log", xlabel="layer", ylabel="std of the layer's outputs")
        axes.legend()
    return figure


def logit_histograms(outputs: Mapping[str, ArrayLike], limit: float = 2.0) -> Figure:
    """Histograms of a layer's outputs from `-limit` to `limit`, one panel per initialization.

    The shares of the outputs beyond these limits are written at the edges.

    Args:
        outputs: Outputs of any shape, by arm.
        limit: End of the axes.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, len(outputs), 2.5 * len(outputs), 2.6)
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


def predicted_scale(table: pd.DataFrame) -> Figure:
    """Measured output std against the predicted one, with the range over draws.

    Args:
        table: The output of `analysis.first_layer_scales` or `analysis.stack_scales`.
    """
    deep = "layer" in table
    datasets = [""] if deep else list(table.dataset.unique())
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, len(datasets), 4.4 * len(datasets), 4.0, sharey=True)
        for axes, dataset in zip(panels, datasets, strict=True):
            rows = table if deep else table[table.dataset == dataset]
            ends = [0.6 * rows.low.min(), 1.6 * rows.high.max()]
            axes.plot(ends, ends, color="#888888", lw=1)
            # Fan-in has its own colour, and BL's scale has BL's colour.
            known = {"fan-in": COLORS["fan-in"], "0.5": COLORS["BL"]}
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
