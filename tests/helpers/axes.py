"""Read figures back from their axes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# The colours of the note's arms.
RED, BLUE, GREY = "#c8322b", "#2f6db5", "#7f7f7f"
COLORS = {"FC": GREY, "BL": BLUE, "KUMAR": RED}
OWN_ARM = "my_inits.best:orthogonal"


def drawn(figure: Figure) -> tuple[Axes, ...]:
    """The axes of a figure, once it has been drawn without a warning."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return tuple(figure.axes)


def points(line: Line2D) -> list[tuple[float, float]]:
    """The points of a line, (x, y) each."""
    return [tuple(point) for point in line.get_xydata().tolist()]


def curves_in(axes: Axes, color: str, style: str = "-") -> list[Line2D]:
    """The lines of a colour that have points."""
    return [
        line
        for line in axes.lines
        if to_hex(line.get_color()) == color and line.get_linestyle() == style and len(points(line))
    ]


def dots_in(axes: Axes, color: str) -> list[tuple[float, float]]:
    """Where the round markers of a colour are."""
    return [
        point
        for line in axes.lines
        if line.get_marker() == "o" and to_hex(line.get_color()) == color
        for point in points(line)
    ]


def legend(axes: Axes) -> dict[str, str]:
    """Colour by label."""
    box = axes.get_legend()
    labels = [text.get_text() for text in box.get_texts()]
    return dict(
        zip(labels, (to_hex(handle.get_color()) for handle in box.legend_handles), strict=True)
    )


def bands_in(axes: Axes) -> list[tuple[str, dict[float, tuple[float, float]]]]:
    """Colour of each band, and its lowest and highest ordinate by abscissa."""
    bands = []
    for band in axes.collections:
        assert isinstance(band, PolyCollection)
        x, y = band.get_paths()[0].vertices.T
        ends = {
            float(at): (float(y[x == at].min()), float(y[x == at].max())) for at in np.unique(x)
        }
        bands.append((to_hex(band.get_facecolor()[0]), ends))
    return bands
