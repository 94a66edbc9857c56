"""Ellipses: a mixture that is laid out by hand, and the plane that it is seen in."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from gmlib.study.analysis.propagation import (
    displacement_table,
    mean_displacement,
    principal_plane,
    propagate,
)
from gmlib.study.runs.measurements import Load
from gmlib.study.runs.records import RunRecord

Array = np.ndarray
MakeRecord = Callable[..., RunRecord]
Mixed = Callable[..., RunRecord]


@pytest.fixture
def mixed(make_record: MakeRecord) -> Mixed:
    """A run with a mixture's means and deviations over time, shapes (T, K, d)."""

    def make(mu: object, sigma: object, arm: str = "KUMAR") -> RunRecord:
        snapshots = {
            "0.mu": np.array(mu, dtype=np.float32),
            "0.sigma": np.array(sigma, dtype=np.float32),
            "1.mu": np.full((len(mu), 2, 3), np.nan, dtype=np.float32),  # of the second layer
        }
        return make_record(arm, errors=[0.5] * len(mu), snapshots=snapshots)

    return make


def mixture(seed: int = 0, K: int = 4, d: int = 12) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(K, d)), rng.uniform(0.1, 1.5, size=(K, d))


def covariance(mu: Array, sigma: Array) -> Array:
    """Second moments of the mixture about its mean, component by component."""
    center = mu.mean(axis=0)
    moments = [np.diag(s**2) + np.outer(m, m) for m, s in zip(mu, sigma, strict=True)]
    return np.mean(moments, axis=0) - np.outer(center, center)


# --- The plane -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_plane_holds_the_two_largest_eigenvectors_of_the_mixture(seed: int) -> None:
    mu, sigma = mixture(seed)
    plane = principal_plane(mu, sigma)
    left, values, _ = np.linalg.svd(covariance(mu, sigma))
    assert values[1] > 1.01 * values[2]
    np.testing.assert_allclose(np.abs(plane), np.abs(left[:, :2]), atol=1e-10)
    variances = np.diag(plane.T @ covariance(mu, sigma) @ plane)
    np.testing.assert_allclose(variances, values[:2])


def test_the_plane_is_that_of_samples() -> None:
    mu, sigma = mixture()
    rng = np.random.default_rng(1)
    samples = np.concatenate([rng.normal(m, s, (50_000, 12)) for m, s in zip(mu, sigma)])  # noqa: B905
    _, _, right = np.linalg.svd(samples - samples.mean(axis=0), full_matrices=False)
    overlap = np.linalg.svd(principal_plane(mu, sigma).T @ right[:2].T, compute_uv=False)
    assert (overlap > 0.99).all()  # cosines of the angles between the planes


@pytest.mark.parametrize("seed", range(5))
def test_the_plane_is_orthonormal_and_its_signs_are_fixed(seed: int) -> None:
    plane = principal_plane(*mixture(seed))
    np.testing.assert_allclose(plane.T @ plane, np.eye(2), atol=1e-12)
    for column in plane.T:
        assert column[np.abs(column).argmax()] > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_plane_ignores_order_and_origin(seed: int) -> None:
    mu, sigma = mixture(seed)
    plane = principal_plane(mu, sigma)
    np.testing.assert_allclose(principal_plane(mu[::-1], sigma[::-1]), plane, atol=1e-9)
    np.testing.assert_allclose(principal_plane(mu + 3.0, sigma), plane, atol=1e-9)
    np.testing.assert_allclose(principal_plane(mu, -sigma), plane, atol=1e-9)
    mirrored = principal_plane(-mu, sigma)
    np.testing.assert_allclose(mirrored, plane, atol=1e-9)


@pytest.mark.parametrize(
    ("mu", "sigma", "first", "second"),
    [
        # Spread of the means alone: 4 along z, 1 along x.
        ([[1, 0, 2], [-1, 0, 2], [1, 0, -2], [-1, 0, -2]], 0.1, 2, 0),
        # Spread of the components alone.
        ([[5, 5, 5]], [[1.0, 3.0, 2.0]], 1, 2),
        # Both: 1 + 1 along x, 1.5 along y, 0.25 along z.
        ([[1, 0, 0], [-1, 0, 0]], [[1.0, math.sqrt(1.5), 0.5]] * 2, 0, 1),
        # The components' variances count by their mean: (0.25 + 16) / 2 along y.
        ([[2, 0, 0], [-2, 0, 0]], [[0.1, 0.5, 0.1], [0.1, 4.0, 0.1]], 1, 0),
    ],
)
def test_the_plane_of_simple_mixtures(mu: object, sigma: object, first: int, second: int) -> None:
    mu = np.array(mu, dtype=float)
    plane = principal_plane(mu, np.broadcast_to(np.array(sigma, dtype=float), mu.shape))
    np.testing.assert_allclose(plane, np.eye(3)[:, [first, second]], atol=1e-12)


# --- The ellipses --------------------------------------------------------------------------------


def test_ellipses_along_the_axes(mixed: Mixed) -> None:
    # In the end 9 along z, 4 along x, 1 along y, so that PC 1 is z and PC 2 is x.
    mu = [[[1, 7, 5], [2, 8, 6]], [[0, 0, 0], [0, 0, 0]]]
    sigma = [[[1, 9, 4], [3, 9, 2]], [[2, 1, 3], [2, 1, 3]]]
    ellipses = propagate(mixed(mu, sigma))
    np.testing.assert_allclose(ellipses.centers, [[[5, 1], [6, 2]], [[0, 0], [0, 0]]], atol=1e-6)
    np.testing.assert_allclose(ellipses.axes, [[[4, 1], [3, 2]], [[3, 2], [3, 2]]], rtol=1e-6)
    np.testing.assert_allclose(np.mod(ellipses.angles, 180), [[0, 90], [0, 0]], atol=1e-6)


@pytest.mark.parametrize(("line", "angle"), [(10, 170), (30, 150), (60, 60), (100, 100), (150, 30)])
def test_ellipses_at_an_angle(line: float, angle: float, mixed: Mixed) -> None:
    # Means far apart along a line at some angle to x, along which the components are long. The
    # angle of x to PC 1 follows, with either column of the plane turned to its larger entry.
    direction = np.array([math.cos(math.radians(line)), math.sin(math.radians(line)), 0.0])
    mu = np.array([[100 * direction, -100 * direction]])
    ellipses = propagate(mixed(mu, np.broadcast_to([3.0, 1.0, 1e-3], mu.shape)))
    np.testing.assert_allclose(np.abs(ellipses.centers[0, :, 0]), 100.0, rtol=1e-3)
    np.testing.assert_allclose(ellipses.axes[0], [[3, 1], [3, 1]], rtol=1e-3)
    np.testing.assert_allclose(np.mod(ellipses.angles[0], 180), angle, atol=0.2)


def test_circles_have_the_angle_zero(mixed: Mixed) -> None:
    # As all are at the start of training. In many dimensions something is always rounded.
    mu = np.random.default_rng(0).normal(size=(2, 4, 100))
    ellipses = propagate(mixed(mu, np.full_like(mu, 0.3)))
    np.testing.assert_allclose(ellipses.axes, 0.3, rtol=1e-6)
    assert (ellipses.angles == 0.0).all()


def test_ellipses_are_the_projected_covariances(mixed: Mixed) -> None:
    times = [mixture(seed) for seed in range(3)]
    record = mixed([mu for mu, _ in times], [sigma for _, sigma in times])
    ellipses = propagate(record)
    assert ellipses.centers.shape == ellipses.axes.shape == (3, 4, 2)
    assert ellipses.angles.shape == (3, 4)
    plane = principal_plane(*times[-1])
    for time, (mu, sigma) in enumerate(times):
        for k in range(4):
            np.testing.assert_allclose(ellipses.centers[time, k], plane.T @ mu[k], atol=1e-5)
            angle = math.radians(ellipses.angles[time, k])
            turn = np.array(
                [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            )
            rebuilt = turn @ np.diag(ellipses.axes[time, k] ** 2) @ turn.T
            projected = plane.T @ np.diag(sigma[k] ** 2) @ plane
            np.testing.assert_allclose(rebuilt, projected, atol=1e-5)
            assert ellipses.axes[time, k, 0] >= ellipses.axes[time, k, 1] > 0
            assert abs(ellipses.angles[time, k]) <= 90.0


def test_the_plane_is_that_of_the_end(mixed: Mixed) -> None:
    times = [mixture(seed) for seed in range(3)]
    mu, sigma = [mu for mu, _ in times], [sigma for _, sigma in times]
    once = propagate(mixed(mu, sigma))
    other_start = propagate(mixed([mu[0] + 1.0, *mu[1:]], [sigma[0] * 2.0, *sigma[1:]]))
    np.testing.assert_array_equal(once.centers[1:], other_start.centers[1:])
    np.testing.assert_allclose(other_start.axes[0], 2 * once.axes[0], rtol=1e-5)


# --- Distances -----------------------------------------------------------------------------------


@pytest.fixture
def moving(mixed: Mixed) -> RunRecord:
    """Component 0 moves by 5 and on to 10, component 1 by 0 and on to 1; sizes are 5 and 2."""
    mu = [[[1, 1], [0, 0]], [[4, 5], [0, 0]], [[7, 9], [0, -1]]]
    sigma = [[[3, 4], [0, 2]], [[6, 8], [0, -2]], [[0, 1], [0, 3]]]
    return mixed(mu, sigma)


def shown(*images: list[float]) -> Load:
    """Loads nothing but these test images."""
    return lambda *_: SimpleNamespace(x_test=torch.tensor(images))


def test_mean_displacement(moving: RunRecord) -> None:
    moved = mean_displacement(moving, load=shown([1.0, 0.0], [0.0, 2.0]))
    assert set(moved) == {"absolute", "relative", "spread", "gates"}
    np.testing.assert_allclose(moved["absolute"], [0, 2.5, 5.5])
    np.testing.assert_allclose(moved["relative"], [0, (5 / 5 + 0) / 2, (10 / 5 + 1 / 2) / 2])
    np.testing.assert_allclose(moved["spread"], [3.5, 6, 2])
    # z = <mu, x> / |sigma x| by component (rows) and image, at the start and after an epoch.
    for epoch, z in enumerate([[[1 / 3, 1 / 4], [0, 0]], [[4 / 6, 5 / 8], [0, 0]]]):
        np.testing.assert_allclose(moved["gates"][epoch], stats.norm.cdf(z).mean(axis=1))


def test_displacement_table(moving: RunRecord, mixed: Mixed) -> None:
    still = mixed(np.zeros((1, 2, 2)), np.ones((1, 2, 2)), arm="BL")
    load = shown([1.0, 0.0], [0.0, 1.0])
    moved = {"KUMAR": moving, "BL": still}
    table = displacement_table(
        {arm: mean_displacement(record, load=load) for arm, record in moved.items()}
    )
    numbers, text = table.numbers, table.text
    gate = ["gate", "gate_low", "gate_high"]
    assert list(numbers) == ["arm", "epoch", "moved", "relative", "size", *gate]
    assert numbers.moved.tolist() == [0.0, 2.5, 5.5, 0.0]
    assert numbers.relative.tolist() == [0.0, 0.5, 1.25, 0.0]
    assert numbers["size"].tolist() == pytest.approx([3.5, 6.0, 2.0, math.sqrt(2)])
    by_cloud = mean_displacement(moving, load=load)["gates"]
    assert numbers.gate[:3].tolist() == pytest.approx(by_cloud.mean(axis=1))
    assert numbers.gate_high[:3].tolist() == pytest.approx(by_cloud.max(axis=1))
    assert list(text) == ["moved", "relative", "size", "mean gate"]
    assert text.index.names == ["arm", "epoch"]
    assert text.iloc[:, :3].T.to_dict("list") == {
        ("KUMAR", 0): ["0.00", "0.00", "3.50"],
        ("KUMAR", 1): ["2.50", "0.50", "6.00"],
        ("KUMAR", 2): ["5.50", "1.25", "2.00"],
        ("BL", 0): ["0.00", "0.00", "1.41"],
    }
    assert text["mean gate"]["BL", 0] == "0.50"
    low, high = by_cloud[1]
    assert text["mean gate"]["KUMAR", 1] == f"{(low + high) / 2:.2f} ({high:.2f} to {low:.2f})"


# --- What has no ellipses ------------------------------------------------------------------------


def displaced(record: RunRecord) -> object:
    return mean_displacement(record, load=shown([1.0] * 5))


@pytest.mark.parametrize("function", [propagate, displaced])
@pytest.mark.parametrize(
    ("arm", "snapshots"),
    [
        ("KUMAR", None),
        ("KUMAR", {}),
        ("FC", {"0.weight": np.zeros((3, 4, 5), dtype=np.float32)}),
        ("KUMAR", {"0.mu": np.zeros((3, 2, 5), dtype=np.float32)}),
    ],
)
def test_a_record_without_snapshots_of_a_gm_layer_is_refused(
    function: Callable[[RunRecord], object], arm: str, snapshots: object, make_record: MakeRecord
) -> None:
    record = make_record(arm, snapshots=snapshots)
    message = f"^the record of {record.config.run_id} has no snapshots of a GM layer$"
    with pytest.raises(ValueError, match=message):
        function(record)
