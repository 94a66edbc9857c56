"""Components of a layer over training, and how far they moved."""

from __future__ import annotations

import numpy as np
import pytest
from axes import BLUE, COLORS, OWN_ARM, RED, curves_in, drawn, legend, points
from matplotlib.colors import to_hex
from matplotlib.patches import Ellipse

from gmlib.study import figures
from gmlib.study.analysis.propagation import Ellipses

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)


@pytest.fixture
def ellipses() -> Ellipses:
    rng = np.random.default_rng(0)
    axes = np.sort(rng.uniform(0.5, 2.0, size=(4, 3, 2)))[..., ::-1]
    return Ellipses(rng.normal(size=(4, 3, 2)), axes, rng.uniform(-180, 180, size=(4, 3)))


def test_ellipses_are_of_two_standard_deviations(ellipses: Ellipses) -> None:
    (axes,) = drawn(figures.component_propagation({"BL": ellipses}))
    patches = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
    assert len(patches) == 12
    for index, patch in enumerate(patches):
        k, time = divmod(index, 4)
        np.testing.assert_allclose(patch.get_center(), ellipses.centers[time, k])
        size = (patch.get_width(), patch.get_height())
        np.testing.assert_allclose(size, 4 * ellipses.axes[time, k])  # full axes
        assert patch.get_angle() == pytest.approx(ellipses.angles[time, k])
        assert not patch.get_fill()


def test_opacity_grows_with_epochs_and_components_keep_their_color(ellipses: Ellipses) -> None:
    (axes,) = drawn(figures.component_propagation({"BL": ellipses}))
    by_component = np.array_split(np.array(axes.patches), 3)
    colors = []
    for patches in by_component:
        opacity = [patch.get_alpha() for patch in patches]
        assert (np.diff(opacity) > 0).all()
        assert 0 < opacity[0] < 0.3
        assert opacity[-1] == 1.0
        (color,) = {to_hex(patch.get_edgecolor()) for patch in patches}
        colors.append(color)
    assert len(set(colors)) == 3


def test_paths_of_the_means(ellipses: Ellipses) -> None:
    (axes,) = drawn(figures.component_propagation({"BL": ellipses}))
    for k in range(3):
        path, start, end = axes.lines[3 * k : 3 * k + 3]
        np.testing.assert_allclose(points(path), ellipses.centers[:, k])
        np.testing.assert_allclose(points(start), ellipses.centers[:1, k])
        np.testing.assert_allclose(points(end), ellipses.centers[-1:, k])
        assert to_hex(start.get_markerfacecolor()) == "#ffffff"  # hollow
        assert to_hex(end.get_markerfacecolor()) == to_hex(path.get_color())


def test_panels_of_components(ellipses: Ellipses) -> None:
    figure = figures.component_propagation({"BL": ellipses, "KUMAR": ellipses})
    left, right = drawn(figure)
    assert (left.get_title(), right.get_title()) == ("BL", "KUMAR")
    assert left.get_position().x1 <= right.get_position().x0
    for axes in (left, right):
        assert axes.get_aspect() == 1.0
        assert axes.get_xlabel() == "PC 1 of the final mixture"
        assert axes.get_ylabel() == "PC 2"
        box = axes.dataLim
        for patch in axes.patches:
            assert box.x0 <= patch.get_center()[0] <= box.x1
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        edges = np.concatenate([patch.get_verts() for patch in axes.patches])
        lower, upper = axes.transData.inverted().transform([edges.min(0), edges.max(0)])
        assert (x0, y0) <= tuple(lower)
        assert lower[1] >= y0
        assert upper[0] <= x1
        assert upper[1] <= y1


@pytest.mark.parametrize(("times", "components"), [(1, 1), (2, 10)])
def test_unusual_components(times: int, components: int) -> None:
    shape = (times, components)
    ellipses = Ellipses(np.zeros((*shape, 2)), np.ones((*shape, 2)), np.zeros(shape))
    (axes,) = drawn(figures.component_propagation({OWN_ARM: ellipses}))
    assert len(axes.patches) == times * components


def test_displacement() -> None:
    gates = np.array([[0.6, 0.8], [0.1, 0.2], [0.0, 0.1]])
    moved = {
        "BL": {"absolute": [0, 1, 2], "relative": [0, 0.1, 0.2], "gates": gates},
        "KUMAR": {"absolute": [0, 3, 5], "relative": [0, 0.6, 1.0], "gates": gates + 0.1},
    }
    *distances, last = drawn(figures.displacement(moved))
    for kind, axes in zip(("absolute", "relative"), distances, strict=True):
        for arm, own in moved.items():
            (line,) = curves_in(axes, COLORS[arm])
            np.testing.assert_allclose(points(line), list(enumerate(own[kind])))
        assert axes.get_ylim()[1] >= max(moved["KUMAR"][kind])
    for arm, own in moved.items():
        *clouds, mean = curves_in(last, COLORS[arm])
        np.testing.assert_allclose([line.get_ydata() for line in clouds], own["gates"].T)
        np.testing.assert_allclose(mean.get_ydata(), own["gates"].mean(axis=1))
        assert mean.get_linewidth() > max(line.get_linewidth() for line in clouds)
    for axes in (*distances, last):
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylim()[0] == 0
    assert legend(distances[0]) == {"BL": BLUE, "KUMAR": RED}
    assert "size" in distances[1].get_title()
