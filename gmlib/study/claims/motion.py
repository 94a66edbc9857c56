"""Metrics of the motion of components in the runs of one arm.

If there are several runs, the components of all of them count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gmlib.study.analysis.propagation import Ellipses, propagate
from gmlib.study.claims.results import Runs

__all__ = ["apart", "displacement", "radius", "rotates", "size"]

Array = NDArray[np.float64]


def displacement(
    runs: Runs, *, space: str, start: int = 0, end: int = -1, per_epoch: bool = False
) -> pd.Series:
    """The distance that each component moves.

    Args:
        runs: Runs with snapshots.
        space: ``plane``: in the plane of the figure; ``all``: in all dimensions; ``relative``: in
            all dimensions, in units of the component's initial size ``sqrt(sum_i sigma_i^2)``.
        start: Epoch from whose end the distance is measured; 0 is the start of training.
        end: Epoch to whose end the distance is measured; -1 is the last.
        per_epoch: Return the distance moved per epoch, averaged over the epochs between, instead of
            the distance between the first and the last place.

    Returns:
        Distances, by component; empty if the runs have no such epochs.
    """
    moved = []
    for path, unit in _paths(runs, space):
        epochs = range(len(path))
        if start >= len(path) or end >= len(path) or epochs[start] >= epochs[end]:
            continue
        places = path[epochs[start] : epochs[end] + 1]
        steps = np.diff(places, axis=0) if per_epoch else places[-1:] - places[:1]
        moved.append(np.linalg.norm(steps, axis=-1).mean(axis=0) / unit)
    return _joined(moved)


def radius(runs: Runs, *, epoch: int) -> pd.Series:
    """A component's distance from the plane's origin at the end of an epoch; 0 is the start."""
    return _at(epoch, [np.linalg.norm(own.centers, axis=-1) for own in _ellipses(runs)])


def size(runs: Runs, *, epoch: int) -> pd.Series:
    """Half axis of a component's ellipse at the end of an epoch; 0 is the start.

    It is the geometric mean of the two half axes, at one standard deviation.
    """
    return _at(epoch, [np.sqrt(own.axes.prod(axis=-1)) for own in _ellipses(runs)])


def rotates(runs: Runs, *, degrees: float) -> pd.Series:
    """Whether an ellipse's long axis turns by more than `degrees` after the first epoch.

    At the start the ellipses are circles, which have no direction.
    """
    turned = []
    for angles in (own.angles for own in _ellipses(runs)):
        first = angles[min(1, len(angles) - 1)]
        turned.append(np.abs((angles[-1] - first + 90) % 180 - 90))
    return _joined(turned) > degrees


def apart(runs: Runs, *, degrees: float) -> pd.Series:
    """Whether two components of a run move in the plane in directions over `degrees` apart."""
    angles = []
    for own in _ellipses(runs):
        moved = own.centers[-1] - own.centers[0]
        directions = moved / np.linalg.norm(moved, axis=-1, keepdims=True)
        cosines = (directions @ directions.T)[np.triu_indices(len(directions), 1)]
        angles.append(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))
    return _joined(angles) > degrees


def _ellipses(runs: Runs) -> list[Ellipses]:
    return [propagate(record) for record in runs]


def _paths(runs: Runs, space: str) -> Iterator[tuple[Array, Array]]:
    """Means over time, shape ``(T, K, d)``, and what to divide distances by, shape ``(K,)``."""
    for record in runs:
        mu, sigma = (record.snapshots[f"0.{name}"].astype(float) for name in ("mu", "sigma"))
        path = propagate(record).centers if space == "plane" else mu
        unit = np.linalg.norm(sigma[0], axis=-1)
        yield path, unit if space == "relative" else np.ones_like(unit)


def _at(epoch: int, values: Sequence[Array]) -> pd.Series:
    """Values of components at the end of an epoch, of the runs that have this epoch."""
    return _joined([own[epoch] for own in values if epoch < len(own)])


def _joined(values: Sequence[Array]) -> pd.Series:
    """Join the values of the components of all runs."""
    return pd.Series(np.concatenate(values) if values else [], dtype=float)
