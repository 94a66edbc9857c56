"""Motion of the components of a layer: ellipses in a fixed plane, from parameter snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from gmlib.study import datasets
from gmlib.study.analysis.statistics import mean_range
from gmlib.study.analysis.text import Table, ranged
from gmlib.study.runs.gates import gates
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
    """The components of a mixture over time, projected to a plane.

    Attributes:
        centers: Means in the plane, shape ``(T, K, 2)``.
        axes: Half axes at one standard deviation, longest first, shape ``(T, K, 2)``.
        angles: Directions of the first axes in degrees, from -90 to 90, shape ``(T, K)``; 0 for
            circles, which have no direction.
    """

    centers: Array
    axes: Array
    angles: Array


def propagate(record: RunRecord) -> Ellipses:
    """Return the ellipses of a run's first layer, at initialization and after every epoch.

    The plane is spanned by the top two principal components of the final mixture. It is the same at
    all times, and its origin is the origin of parameter space.

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
    # The angle of a circle would be rounding error.
    angles[large - small < 1e-9 * large] = 0.0
    return Ellipses(centers, np.sqrt(np.stack([large, small], axis=-1)), angles)


def principal_plane(mu: Array, sigma: Array) -> Array:
    """Return the top two principal components of a mixture.

    Args:
        mu: Means, shape ``(K, d)``.
        sigma: Standard deviations, shape ``(K, d)``.

    Returns:
        Orthonormal eigenvectors of the two largest eigenvalues of the mixture's covariance, as
        columns, shape ``(d, 2)``. This covariance is that of the means plus the mean covariance of
        the components. Each column's entry of largest magnitude is positive, so that figures do
        not depend on the solver.
    """
    covariance = np.cov(mu.T, bias=True) + np.diag((sigma**2).mean(axis=0))
    _, vectors = np.linalg.eigh(covariance)
    plane = vectors[:, ::-1][:, :2]
    signs = np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    return np.asarray(plane * signs)


@measurement(version=2)
def mean_displacement(record: RunRecord, *, load: Load = datasets.load) -> dict[str, Array]:
    """Measure how far the components are from their start, after every epoch.

    Args:
        record: A run with snapshots of a GM layer.
        load: Function that loads the data set, on whose test images the gates are evaluated.

    Returns:
        ``absolute``: distance of each mean from its start, in all dimensions, averaged over
        components, shape ``(T,)``. ``relative``: each distance divided by the component's
        initial size, ``sqrt(sum_i sigma_i^2)``, averaged likewise. ``spread``: size at each time,
        averaged likewise. ``gates``: each component's gate ``G = P(<beta, x> > 0)`` at each time,
        averaged over images, shape ``(T, K)``.
    """
    images = load(record.config.dataset, record.config.standardize).x_test
    mu, sigma = _mixture(record)
    distance = np.linalg.norm(mu - mu[0], axis=-1)
    size = np.linalg.norm(sigma, axis=-1)
    G = gates(images.double(), *map(torch.from_numpy, (mu, sigma))).numpy()
    return {
        "absolute": distance.mean(axis=1),
        "relative": (distance / size[0]).mean(axis=1),
        "spread": size.mean(axis=1),
        "gates": G.mean(axis=1),
    }


def displacement_table(moved_by_arm: Mapping[str, Mapping[str, Array]]) -> Table:
    """Tabulate `mean_displacement` of each arm at the start, after the first and the last epoch.

    The gate is given as mean and range over the components.
    """
    quantities = {"moved": "absolute", "relative": "relative", "size": "spread"}
    rows = []
    for arm, moved in moved_by_arm.items():
        epochs = len(moved["absolute"]) - 1
        for epoch in sorted({0, min(1, epochs), epochs}):
            values = {name: moved[quantity][epoch] for name, quantity in quantities.items()}
            gate = mean_range("gate", pd.Series(moved["gates"][epoch]))
            rows.append({"arm": arm, "epoch": epoch, **values, **gate})
    return Table(
        pd.DataFrame(rows),
        {"arm": "{arm}", "epoch": "{epoch}"},
        {
            "moved": "{moved:.2f}",
            "relative": "{relative:.2f}",
            "size": "{size:.2f}",
            "mean gate": ranged("gate", "{:.2f}"),
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
