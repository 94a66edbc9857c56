"""How the components of one layer move: parameter snapshots to ellipses in a fixed plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmlib.functional import relu_moments
from gmlib.study import datasets
from gmlib.study.analysis.text import Table
from gmlib.study.runs.measurements import Load, measurement
from gmlib.study.runs.records import RunRecord

__all__ = [
    "Ellipses",
    "displacement_table",
    "mean_displacement",
    "principal_plane",
    "propagate",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ellipses:
    """The components of a mixture seen in a plane, over time.

    Attributes:
        centers: Means in the plane, shape ``(T, K, 2)``.
        axes: Half axes at one standard deviation, longest first, shape ``(T, K, 2)``.
        angles: Directions of the first axes in degrees, from -90 to 90, shape ``(T, K)``; 0 for
            circles, which have none.
    """

    centers: Array
    axes: Array
    angles: Array


def propagate(record: RunRecord) -> Ellipses:
    """Ellipses of a run's first layer at its start and after every epoch.

    The plane is that of the top two principal components of the final mixture, the same at all
    times, and its origin is the origin of parameter space.

    Raises:
        ValueError: If the record has no snapshots of a GM layer.
    """
    mu, sigma = _mixture(record)
    plane = principal_plane(mu[-1], sigma[-1])
    centers = mu @ plane
    covariance = np.einsum("dp,tkd,dq->tkpq", plane, sigma**2, plane)
    small, large = np.moveaxis(np.linalg.eigvalsh(covariance), -1, 0)
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    angles = 0.5 * np.degrees(np.arctan2(2.0 * xy, xx - yy))
    # In a circle rounding alone would decide.
    angles[large - small < 1e-9 * large] = 0.0
    return Ellipses(centers, np.sqrt(np.stack([large, small], axis=-1)), angles)


def principal_plane(mu: Array, sigma: Array) -> Array:
    """Top two principal components of the mixture with means `mu` and deviations `sigma`.

    Args:
        mu: Means, shape ``(K, d)``.
        sigma: Standard deviations, shape ``(K, d)``.

    Returns:
        Orthonormal columns, shape ``(d, 2)``, of the largest eigenvalues of the mixture's
        covariance: that of the means plus the mean of the components'. Each column's entry of
        largest magnitude is positive, so that the picture does not depend on the solver.
    """
    covariance = np.cov(mu.T, bias=True) + np.diag((sigma**2).mean(axis=0))
    _, vectors = np.linalg.eigh(covariance)
    plane = vectors[:, ::-1][:, :2]
    signs = np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    return np.asarray(plane * signs)


@measurement(version=1)
def mean_displacement(record: RunRecord, *, load: Load = datasets.load) -> dict[str, Array]:
    """How far the components are from where they began, after every epoch.

    Args:
        record: A run with snapshots of a GM layer.
        load: Where the test images come from, by which the gates are seen.

    Returns:
        ``absolute``: distance of each mean from its start, in all dimensions, averaged over
        components, shape ``(T,)``. ``relative``: each distance divided by the component's
        initial size, ``sqrt(sum_i sigma_i^2)``, averaged likewise. ``spread``: that size over
        time. ``gates``: the mean over images and components of the change in the gate
        ``G = P(<beta, x> > 0)`` since the start.
    """
    images = load(record.config.dataset, record.config.standardize).x_test
    mu, sigma = _mixture(record)
    distance = np.linalg.norm(mu - mu[0], axis=-1)
    size = np.linalg.norm(sigma, axis=-1)
    gates = _gates(mu, sigma, images)
    return {
        "absolute": distance.mean(axis=1),
        "relative": (distance / size[0]).mean(axis=1),
        "spread": size.mean(axis=1),
        "gates": np.abs(gates - gates[0]).mean(axis=(1, 2)),
    }


def _gates(mu: Array, sigma: Array, images: Tensor) -> Array:
    """G by time, image and component, shape ``(T, N, K)``."""
    x = images.double()
    m = x @ torch.from_numpy(mu).mT
    t = (x.square() @ torch.from_numpy(sigma).square().mT).sqrt()
    return relu_moments(m, t)[1].numpy()


def displacement_table(moved_by_arm: Mapping[str, Mapping[str, Array]]) -> Table:
    """`mean_displacement` of each arm after the first and after the last epoch."""
    quantities = {"moved": "absolute", "relative": "relative", "size": "spread", "gates": "gates"}
    rows = []
    for arm, moved in moved_by_arm.items():
        epochs = len(moved["absolute"]) - 1
        for epoch in sorted({0, min(1, epochs), epochs}):
            values = {name: moved[quantity][epoch] for name, quantity in quantities.items()}
            rows.append({"arm": arm, "epoch": epoch, **values})
    return Table(
        pd.DataFrame(rows),
        {"arm": "{arm}", "epoch": "{epoch}"},
        {
            "moved": "{moved:.2f}",
            "relative": "{relative:.2f}",
            "size": "{size:.2f}",
            "gates changed by": "{gates:.2f}",
        },
    )


def _mixture(record: RunRecord) -> tuple[Array, Array]:
    try:
        mu, sigma = record.snapshots["0.mu"], record.snapshots["0.sigma"]
    except KeyError:
        raise ValueError(
            f"the record of {record.config.run_id} has no snapshots of a GM layer"
        ) from None
    return mu.astype(np.float64), sigma.astype(np.float64)
