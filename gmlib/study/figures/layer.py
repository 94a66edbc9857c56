"""Figures of the layer itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike

from gmlib.functional import relu_moments
from gmlib.study.figures.style import COLORS, STYLE, subplots

__all__ = [
    "cloud",
    "error_against",
    "smoothed_relu",
]


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
    red, blue = COLORS["KUMAR"], COLORS["BL"]
    with mpl.style.context(STYLE, after_reset=True):
        figure, (plane, curve) = subplots(1, 2, 8.8, 3.9)
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
    """F(m, t) and G(m, t) against the mean m of the pre-activation, one line per deviation t."""
    m = torch.linspace(-4, 4, 801, dtype=torch.float64)
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(deviations)))
    with mpl.style.context(STYLE, after_reset=True):
        figure, panels = subplots(1, 2, 8.8, 3.4)
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
    """Error on two logarithmic axes, with one dot per repetition and the medians as a line.

    Args:
        x: Abscissae, shape ``(n,)``.
        errors: Errors, shape ``(n, repetitions)``; or several such arrays, by label. Labels like
            ``"BL, start"`` have the arm's colour; all but the last of an arm are paler.
        xlabel: Label of the abscissa.
        ylabel: Label of the ordinate.
        slope: Slope of a dashed guide through the first median; no guide by default.
    """
    x = np.asarray(x)
    curves = errors if isinstance(errors, Mapping) else {"median": errors}
    with mpl.style.context(STYLE, after_reset=True):
        figure, (axes,) = subplots(1, 1, 5.6, 3.6)
        for index, (label, values) in enumerate(curves.items()):
            values, arm = np.asarray(values), label.partition(",")[0]
            color = COLORS.get(arm, f"C{index}")
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
