"""Motion of a layer's components."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from gmlib.study.analysis.propagation import Ellipses
from gmlib.study.figures.style import COMPONENT_COLORS, STYLE, arm_color, subplots

__all__ = [
    "Player",
    "component_propagation",
    "displacement",
]


def component_propagation(panels: Mapping[str, Ellipses]) -> Figure:
    """2-sigma ellipses of a layer's components, one panel per arm; opacity grows by epoch.

    Args:
        panels: Outputs of `analysis.propagate`, by title.
    """
    with mpl.style.context(STYLE, after_reset=True):
        figure, axes = subplots(1, len(panels), 4.6 * len(panels), 4.4)
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
    """Distances of components from their start, one line per arm; mean gates, a thin one per cloud.

    Args:
        moved: Outputs of `analysis.mean_displacement`, by arm.
    """
    titles = {"absolute": "distance", "relative": "distance over initial size"}
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, 3, 8.4, 3.0)
        for arm, distances in moved.items():
            color, gates = arm_color(arm), np.asarray(distances["gates"])
            for axes, kind in zip(panels, titles, strict=False):
                axes.plot(np.asarray(distances[kind]), ".-", color=color, label=arm)
            panels[-1].plot(gates, "-", color=color, lw=0.8, alpha=0.6)
            panels[-1].plot(gates.mean(axis=1), ".-", color=color)
        for axes, title in zip(panels, (*titles.values(), "mean gate"), strict=True):
            axes.set(title=title, xlabel="epoch", ylim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        panels[0].legend()
    return figure


@dataclass(frozen=True)
class Player:
    """Ellipses by arm, which the book's script shows epoch by epoch.

    A notebook shows it as HTML with the data, which is hidden without that script.

    Args:
        panels: Ellipses by arm, all with the same number of epochs and components.
        colors: Colours of the components, in turn.
    """

    panels: Mapping[str, Ellipses]
    colors: Sequence[str]

    def __repr__(self) -> str:
        return f"Player({', '.join(self.panels)})"

    def _repr_html_(self) -> str:
        panels = {
            arm: np.concatenate([own.centers, own.axes, own.angles[..., None]], axis=-1)
            for arm, own in self.panels.items()
        }
        rounded = {arm: np.round(values, 3).tolist() for arm, values in panels.items()}
        data = json.dumps({"panels": rounded, "colors": list(self.colors)}, separators=(",", ":"))
        return (
            '<div class="explorable" data-explorable="player">'
            f'<script type="application/json">{data}</script></div>'
        )
