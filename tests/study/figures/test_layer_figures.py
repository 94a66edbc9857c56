"""Figures of one layer: a cloud of neurons, the closed form, errors against it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from axes import BLUE, drawn, legend, points
from matplotlib.colors import to_hex

from gmlib.functional import relu_moments
from gmlib.study import figures

# The book fails on any warning.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # what other tests left to be collected
)


def test_smoothed_relu() -> None:
    left, right = drawn(figures.smoothed_relu([0.25, 1.0]))
    assert (left.get_title(), right.get_title()) == ("F = E[relu(s)]", "G = P(s > 0)")
    assert (left.get_xlabel(), right.get_xlabel()) == ("m", "m")
    assert list(legend(left)) == ["t = 0.25", "t = 1"]
    assert len(set(legend(left).values())) == 2
    for index, t in enumerate((0.25, 1.0)):
        for axes, moment in ((left, 0), (right, 1)):
            m, found = (torch.from_numpy(values) for values in axes.lines[index].get_data())
            expected = relu_moments(m, torch.full_like(m, t))[moment]
            torch.testing.assert_close(found, expected)
            assert (m.min(), m.max()) == (-4, 4)


def test_error_against() -> None:
    x, errors = [1, 10, 100], [[1.0, 3.0, 2.0], [0.5, 0.25, 0.75], [0.1, 0.2, 0.3]]
    figure = figures.error_against(x, errors, "samples", "error", slope=-0.5)
    (axes,) = drawn(figure)
    dots, median, guide = axes.lines
    assert sorted(points(dots)) == sorted(
        (at, error) for at, row in zip(x, errors, strict=True) for error in row
    )
    assert points(median) == [(1, 2.0), (10, 0.5), (100, 0.2)]
    np.testing.assert_allclose(points(guide), [(1, 2.0), (10, 2 / 10**0.5), (100, 0.2)])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("samples", "error")
    assert list(legend(axes)) == ["median", "slope \N{MINUS SIGN}0.5"]


def test_error_against_without_a_guide() -> None:
    (axes,) = drawn(figures.error_against([1, 2], [[1.0], [0.5]], "x", "y"))
    assert len(axes.lines) == 2
    assert list(legend(axes)) == ["median"]


def test_several_errors_against_something() -> None:
    x = [10, 100]
    errors = {
        "BL, start": [[1.0, 3.0, 2.0], [0.5, 0.25, 0.75]],
        "BL, trained": np.array([[4.0], [0.4]]),  # of another number of repetitions
    }
    (axes,) = drawn(figures.error_against(x, errors, "neurons", "error", slope=-1.0))
    labels = ["BL, start", "BL, trained", "slope \N{MINUS SIGN}1"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == labels
    colors = legend(axes)
    assert len(set(colors.values())) == 3
    assert colors["BL, trained"] == BLUE
    for label, values in errors.items():
        own = [line for line in axes.lines if to_hex(line.get_color()) == colors[label]]
        dots, median = own
        assert points(dots) == [(at, e) for at, row in zip(x, values, strict=True) for e in row]
        assert dots.get_linestyle() == "None"
        assert points(median) == list(zip(x, np.median(values, axis=1), strict=True))
    (guide,) = (line for line in axes.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(points(guide), [(10, 2.0), (100, 0.2)])  # through the first's median


def test_cloud() -> None:
    mu, sigma, x = [1.0, 0.5], [0.8, 0.4], [1.0, -1.0]
    plane, curve = drawn(figures.cloud(mu, sigma, x))
    assert [(e.get_center(), e.get_width(), e.get_height()) for e in plane.patches[:2]] == [
        ((1.0, 0.5), pytest.approx(1.6), pytest.approx(0.8)),
        ((1.0, 0.5), pytest.approx(3.2), pytest.approx(1.6)),
    ]
    firing, silent = (np.array(points(line)) for line in plane.lines[:2])
    assert (firing @ x > 0).all()
    assert (silent @ x <= 0).all()
    assert len(firing) + len(silent) == 80
    m, t = torch.tensor([0.5, math.hypot(*sigma)], dtype=torch.float64)
    (here,) = points(curve.lines[2])
    assert here == (m.item(), pytest.approx(relu_moments(m, t)[0].item()))
