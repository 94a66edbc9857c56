"""Gates of clouds: how many are open, undecided and shut, cloud by cloud, and beside the error."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from gmlib.study.analysis.gates import DEAD
from gmlib.study.figures.style import STYLE, arm_color, spread, subplots

__all__ = ["cloud_strips", "dead_and_error", "gate_shares", "live_clouds"]

_WAYS = {"open": "#f2c14e", "undecided": "#dfe5ec", "shut": "#2c3442"}  # from the top down
_STRIPS = LinearSegmentedColormap.from_list("gates", ["#f4f6f8", "#6d7b8d"]).with_extremes(
    over="#c0392b"
)


def gate_shares(networks: Mapping[str, pd.DataFrame]) -> Figure:
    """Shares of images to which clouds are open, undecided and shut, by step, stacked.

    Means over clouds and seeds: a column of panels per arm, a row per network and layer.

    Args:
        networks: Outputs of `analysis.gates_table`, all of the same arms, by name.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = _grid(networks)
        for axes, own in panels:
            mean = own.groupby("step")[["open", "shut"]].mean()
            undecided = 1.0 - mean.open - mean.shut
            axes.stackplot(
                mean.index, mean.shut, undecided, mean.open, colors=[*_WAYS.values()][::-1], lw=0
            )
            axes.set(ylim=(0, 1), yticks=[0, 0.5, 1])
            axes.label_outer()
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        handles = [mpl.patches.Patch(color=color) for color in _WAYS.values()]
        figure.legend(handles, list(_WAYS), loc="outside upper center", ncols=len(_WAYS))
    return figure


def live_clouds(live: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Numbers of clouds that are not dead, a panel per layer, and the test error, by step.

    Lines are means over the seeds that trained, bands reach from the lowest to the highest.

    Args:
        live: The output of `analysis.live_table`.
        curves: The output of `analysis.curves_table` for the same runs.
    """
    tables = {
        f"live clouds, layer {layer}": own.rename(columns={"live": "value"})
        for layer, own in live.groupby("layer")
    }
    error = curves[~curves.diverged].rename(columns={"test_error": "value"})
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, len(tables) + 1, 7.4, 3.0)
        for axes, (title, table) in zip(
            panels, {**tables, "test error (%)": error}.items(), strict=True
        ):
            for arm in curves.arm.unique():
                values = table[table.arm == arm].groupby("step").value
                axes.plot(values.mean(), color=arm_color(arm), label=arm)
                axes.fill_between(
                    values.mean().index,
                    values.min(),
                    values.max(),
                    color=arm_color(arm),
                    alpha=0.12,
                    lw=0,
                )
            axes.set(title=title, xlabel="gradient step", ylim=(0, 1.06 * table.value.max()))
            _step_axis(axes, table)
        handles, arms = panels[-1].get_legend_handles_labels()
        figure.legend(handles, arms, loc="outside upper center", ncols=len(arms))
    return figure


def cloud_strips(networks: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of images to which each cloud is shut, by step: a strip per cloud, all seeds' clouds.

    The strips are in the order of that share at the end. Where a cloud is dead, its strip is red.

    Args:
        networks: Outputs of `analysis.gates_table`, all of the same arms, by name.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = _grid(networks)
        norm = Normalize(0.0, np.nextafter(DEAD, 0.0))
        for axes, own in panels:
            shut = own.pivot(index=["seed", "cloud"], columns="step", values="shut")
            shut = shut.sort_values(shut.columns[-1])
            steps = shut.columns.to_numpy(dtype=float)
            axes.pcolormesh(
                np.append(steps, steps[-1] + 1),
                np.arange(len(shut) + 1),
                shut,
                cmap=_STRIPS,
                norm=norm,
                rasterized=True,
            )
            axes.set(ylim=(0, len(shut)), yticks=[len(shut)])
            axes.grid(False)
        figure.colorbar(
            ScalarMappable(norm, _STRIPS),
            ax=figure.axes,
            location="top",
            extend="max",
            ticks=[0, 0.25, 0.5, 0.75, DEAD],
            format=FuncFormatter(lambda share, _: f"{share:.0%}"),
            label="share of the test images to which a cloud is shut; red: dead",
            shrink=0.6,
            aspect=40,
        )
    return figure


def dead_and_error(networks: Mapping[str, pd.DataFrame]) -> Figure:
    """Smoothed final error against the number of dead clouds: a dot per run, a panel per network.

    Args:
        networks: Outputs of `analysis.dead_and_error`, by name.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, len(networks), 3.7 * len(networks), 3.2)
        for axes, (name, counts) in zip(panels, networks.items(), strict=True):
            arms = list(counts.arm.unique())
            for arm, offset in zip(arms, 0.12 * spread(len(arms)), strict=True):
                own = counts[counts.arm == arm]
                axes.plot(
                    own.end + offset,
                    own.smoothed,
                    "o",
                    color=arm_color(arm),
                    alpha=0.75,
                    mec="none",
                    label=arm,
                )
            axes.set(title=name, xlabel="dead clouds at the end")
            axes.set_ylim(0, 1.08 * counts.smoothed.max())
            axes.set_xlim(-0.5, max(counts.end.max(), 1) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylabel("smoothed final error (%)")
        panels[0].legend()
    return figure


def _grid(
    networks: Mapping[str, pd.DataFrame],
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """Panels by network and layer (rows) and arm (columns), each with its rows of the table."""
    table = pd.concat([own.assign(network=name) for name, own in networks.items()])
    arms = list(table.arm.unique())
    layers = list(table[["network", "layer"]].drop_duplicates().itertuples(index=False, name=None))
    figure, axes = subplots(len(layers), len(arms), 7.4, 1.1 + 1.4 * len(layers), sharex=True)
    grid = np.reshape(np.array(axes), (len(layers), len(arms)))
    panels = []
    for (network, layer), line in zip(layers, grid, strict=True):
        rows = table[(table.network == network) & (table.layer == layer)]
        several = table[table.network == network].layer.nunique() > 1
        line[0].set_ylabel(f"{network},\nlayer {layer}" if several else network)
        for arm, panel in zip(arms, line, strict=True):
            own = rows[rows.arm == arm]
            if len(own):
                panels.append((panel, own))
            _step_axis(panel, table)
    for arm, panel in zip(arms, grid[0], strict=True):
        panel.set_title(arm, color=arm_color(arm))
    for panel in grid[-1]:
        panel.set_xlabel("gradient step")
    return figure, panels


def _step_axis(axes: Axes, table: pd.DataFrame) -> None:
    """Steps: linear from the start to the first, logarithmic from there; a line after an epoch."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xticks([0, 1, 10, 100, 1000, 10_000], ["0", "1", "10", "100", "1k", "10k"])
    axes.set_xlim(0, max(table.step.max(), 1))
    axes.xaxis.set_minor_locator(NullLocator())
    for step in table.step[np.isclose(table.epoch, 1.0)].unique():
        axes.axvline(step, color="#888888", ls=":", lw=1)
