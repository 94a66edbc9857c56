"""How runs overflow: their first steps, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gmlib.study.figures.style import COMPONENT_COLORS, STYLE, subplots

__all__ = ["early_steps"]

_LINES = ("-", "--", ":", "-.")  # by layer


def early_steps(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and outputs, gates, and parameters by step, with one column of panels per run.

    The step at which a tensor is not finite has a line in the place of its values.

    Args:
        runs: Outputs of `analysis.early_steps` by title, of GM layers of one kind, at most four.
    """
    names = list(map(str, next(iter(runs.values())).columns))
    layers = range(1, 1 + sum(name.startswith("largest_") for name in names))
    parameters = [name.removesuffix("_1") for name in names if name.endswith("_1")][3:]
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(
            3, len(runs), 1.6 + 3.7 * len(runs), 7.4, sharex="col", sharey="row"
        )
        for column, (title, run) in enumerate(runs.items()):
            sizes, gates, norms = own = panels[column :: len(runs)]
            for step in run.step[run.not_finite != ""]:
                _mark(own, step)
            run = run[run.not_finite == ""]
            sizes.plot(run.step, run.loss, "o-", color="#222222", ms=3, label="loss")
            for layer, line in zip(layers, _LINES, strict=False):
                outputs, of_layer = f"largest_{layer}", f"layer {layer}"
                _draw(sizes, run, outputs, line, "#8a8a8a", f"largest |output|, {of_layer}")
                for gate, color in (("shut", "#8357a4"), ("open", "#e39b28")):
                    _draw(gates, run, f"{gate}_{layer}", line, color, f"{gate}, {of_layer}")
                for name, color in zip(parameters, COMPONENT_COLORS, strict=False):
                    _draw(norms, run, f"{name}_{layer}", line, color, f"{name}, {of_layer}")
            sizes.set(title=title, yscale="log")
            norms.set(xlabel="gradient step", yscale="log")
            norms.xaxis.set_major_locator(MaxNLocator(integer=True))
            gates.set_ylim(-0.03, 1.03)
        first, last = panels[:: len(runs)], panels[len(runs) - 1 :: len(runs)]
        labels = ("on the step's batch", "shares of pairs of image\nand component", "norm after")
        for left, right, label in zip(first, last, labels, strict=True):
            left.set_ylabel(label)
            right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=3.5)
        first[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _mark(panels: Sequence[Axes], step: int) -> None:
    """A line at the step at which a tensor is not finite."""
    for axes in panels:
        axes.axvline(step, color="#222222", lw=1, ls=":")
    panels[0].annotate(
        "not finite",
        (step, 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(-3, 0),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )


def _draw(axes: Axes, run: pd.DataFrame, name: str, line: str, color: str, label: str) -> None:
    axes.plot(run.step, run[name], line, color=color, marker="o", ms=3, label=label)
