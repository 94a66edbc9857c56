"""How each kind of statement of the note is measured: functions of the runs of one study.

A metric takes the runs of one or more arms, a list each, and parameters by name. The statements
that name them are in ``claims.toml``, the verdicts in `claims.verdicts`. Errors are in percent;
runs that diverged are left out wherever errors are compared.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
import torch
from numpy.typing import NDArray

from gmlib import init
from gmlib.functional import gm_layer, gm_layer_monte_carlo
from gmlib.study.analysis.budgets import budget_table, pareto_front
from gmlib.study.analysis.curves import (
    at_epoch_ends,
    curves_table,
    diverged,
    errors_at,
    first_hits,
    measures_table,
    runs_table,
    trained_pairs,
)
from gmlib.study.analysis.propagation import Ellipses, propagate
from gmlib.study.runs.records import RunRecord

__all__ = ["METRICS", "Array", "Measured", "Metric", "Ratio", "Runs", "Truths"]

Runs = Sequence[RunRecord]
Array = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class Ratio:
    """Two numbers that the note compares, and the 95 % interval of their ratio, if there is one."""

    first: float
    second: float
    low: float = math.nan
    high: float = math.nan

    @property
    def value(self) -> float:
        """The first divided by the second."""
        return float(np.divide(self.first, self.second))


Measured = Array | Truths | bool | Ratio | None
"""What a metric gives: a number or a truth value for each seed (or pair, or whatever its entries
are), one truth value, a ratio, or None where the runs cannot tell."""


@dataclass(frozen=True)
class Metric:
    """A way to measure a statement.

    Args:
        function: Takes the runs of each arm, and parameters by name; gives `Measured`.
        entries: What the entries of an array are; empty for a metric that gives no array.
    """

    function: Callable[..., Measured]
    entries: str


METRICS: dict[str, Metric] = {}
"""The metrics by name."""


def _metric(entries: str = "") -> Callable[[Callable[..., Measured]], Callable[..., Measured]]:
    def register(function: Callable[..., Measured]) -> Callable[..., Measured]:
        METRICS[function.__name__] = Metric(function, entries)
        return function

    return register


def _errors(runs: Runs, measure: str) -> Array:
    """Of the runs that trained, by seed: ``first_epoch``, ``final``, or one of `MEASURES`."""
    table = _measures(runs)
    return table[~table.diverged].sort_values("seed")[measure].to_numpy(dtype=float)


def _measures(runs: Runs) -> pd.DataFrame:
    return runs_table(runs).merge(
        measures_table(runs)[["arm", "seed", "smoothed", "auc"]], on=["arm", "seed"]
    )


@_metric("seeds")
def error(runs: Runs, *, measure: str) -> Measured:
    """Test error (%)."""
    return _errors(runs, measure)


@_metric("seeds")
def error_after(runs: Runs, *, epoch: int) -> Measured:
    """Test error (%) at the end of an epoch."""
    return errors_at(curves_table(runs), runs[0].config.arm, epoch)


@_metric()
def worst_error(runs: Runs, *, measure: str) -> Measured:
    """The highest test error (%) of any seed."""
    errors = _errors(runs, measure)
    return np.array([errors.max()]) if len(errors) else None


@_metric("pairs")
def error_difference(runs: Runs, others: Runs, *, measure: str) -> Measured:
    """Test errors of the second arm less those of the first (points)."""
    pairs, _ = trained_pairs(_measures([*runs, *others]), *_arms(runs, others))
    return (pairs[f"{measure}_other"] - pairs[measure]).to_numpy(dtype=float)


@_metric("pairs")
def lower(runs: Runs, others: Runs, *, measures: Sequence[str]) -> Measured:
    """Whether the first arm's error is lower than the second's, by each of the measures."""
    pairs, _ = trained_pairs(_measures([*runs, *others]), *_arms(runs, others))
    wins = [(pairs[name] < pairs[f"{name}_other"]).to_numpy(dtype=bool) for name in measures]
    return np.logical_and.reduce(wins) if len(pairs) else None


@_metric("seeds")
def below_all(runs: Runs, others: Runs, *, measure: str) -> Measured:
    """Whether a seed of the first arm has a lower error than every seed of the second."""
    errors, theirs = _errors(runs, measure), _errors(others, measure)
    return errors < theirs.min() if len(errors) and len(theirs) else None


@_metric("epochs")
def lowest(runs: Runs, *others: Runs) -> Measured:
    """Whether the first arm's mean error is the lowest of all arms' at the end of an epoch."""
    means, *theirs = [_by_epoch(own, "mean") for own in (runs, *others)]
    if not (len(means) and all(map(len, theirs))):
        return None
    return np.asarray(means < np.min(theirs, axis=0))


@_metric("epochs")
def tighter(runs: Runs, others: Runs) -> Measured:
    """Whether the first arm's errors spread less over seeds at the end of an epoch."""
    ours, theirs = _by_epoch(runs, "std"), _by_epoch(others, "std")
    if len(ours) != len(theirs) or not np.isfinite([ours, theirs]).all():
        return None
    return np.asarray(ours < theirs)


def _by_epoch(runs: Runs, statistic: str) -> Array:
    """A statistic over the seeds that trained, by epoch; empty if there are none."""
    curves = curves_table(runs)
    ends = at_epoch_ends(curves[~curves.diverged])
    return ends.groupby(ends.epoch.round()).test_error.agg(statistic).to_numpy(dtype=float)


@_metric()
def spread(runs: Runs, others: Runs, *, measure: str) -> Measured:
    """Standard deviation over seeds of two arms' errors; the interval is that of the F test."""
    errors, theirs = _errors(runs, measure), _errors(others, measure)
    if min(len(errors), len(theirs)) < 2:
        return None
    ours, other = errors.std(ddof=1), theirs.std(ddof=1)
    ratio, degrees = np.divide(ours, other), (len(errors) - 1, len(theirs) - 1)
    low, high = (float(ratio / math.sqrt(scipy.stats.f.ppf(q, *degrees))) for q in (0.975, 0.025))
    return Ratio(float(ours), float(other), low, high)


@_metric("seeds")
def best_epoch(runs: Runs) -> Measured:
    """The epoch at whose end the error is lowest."""
    curves = curves_table(runs)
    ends = at_epoch_ends(curves[~curves.diverged])
    best = ends.loc[ends.groupby("seed").test_error.idxmin()]
    return best.epoch.to_numpy(dtype=float)


@_metric()
def num_diverged(runs: Runs) -> Measured:
    """How many seeds diverged."""
    return np.array([sum(map(diverged, runs))], dtype=float)


@_metric("seeds")
def trains(runs: Runs) -> Measured:
    """Whether a seed does not diverge."""
    return np.array([not diverged(record) for record in runs])


@_metric("seeds")
def steps_to(runs: Runs, *, threshold: float, epoch_ends: bool = True) -> Measured:
    """Gradient steps at which the test error is first seen at a threshold (%)."""
    return _steps(runs, threshold, epoch_ends).dropna().to_numpy(dtype=float)


@_metric("seeds")
def reaches(runs: Runs, *, threshold: float) -> Measured:
    """Whether the test error is ever at a threshold (%) at an epoch's end."""
    return _steps(runs, threshold, True).notna().to_numpy(dtype=bool)


@_metric("pairs")
def speed_up(runs: Runs, others: Runs, *, threshold: float) -> Measured:
    """Steps of the second arm to a threshold over those of the first, where both get there."""
    ours, theirs = _steps(runs, threshold, True), _steps(others, threshold, True)
    return (theirs / ours).dropna().to_numpy(dtype=float)


@_metric("pairs")
def sooner(runs: Runs, others: Runs, *, threshold: float, epoch_ends: bool = True) -> Measured:
    """Whether the first arm is at a threshold before the second, of the pairs that trained."""
    lost = {record.config.seed for record in (*runs, *others) if diverged(record)}
    ours, theirs = (
        _steps(own, threshold, epoch_ends).drop(index=list(lost), errors="ignore")
        for own in (runs, others)
    )
    ours, theirs = ours.align(theirs, join="inner")
    wins = ours.fillna(math.inf) < theirs.fillna(math.inf)
    return wins.to_numpy(dtype=bool) if len(wins) else None


def _steps(runs: Runs, threshold: float, epoch_ends: bool) -> pd.Series:
    hits = first_hits(runs, [threshold], epoch_ends=epoch_ends)
    return hits.set_index("seed").step.sort_index()


@_metric("pairs")
def extra_steps(runs: Runs, others: Runs) -> Measured:
    """Gradient steps that the first arm takes beyond those of the second, on the same data."""
    ours, theirs = ({r.config.seed: r.curves["step"][-1] for r in own} for own in (runs, others))
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs)], float)


@_metric("seeds")
def initial_std(runs: Runs, *, layer: int, relative_to: float = 1.0) -> Measured:
    """Standard deviation of a layer's outputs at the start (layers from 1, or -1 for the last)."""
    index = layer - 1 if layer > 0 else layer
    return np.array([record.init_report[index].std_after for record in runs]) / relative_to


@_metric("seeds")
def initial_std_below(runs: Runs, *, layer: int, relative_to: float) -> Measured:
    """A target divided by the standard deviation of a layer's outputs at the start."""
    return 1.0 / np.asarray(initial_std(runs, layer=layer, relative_to=relative_to))


@_metric("seeds")
def initial_loss(runs: Runs) -> Measured:
    """Test loss before the first step, relative to that of guessing, ``ln C``."""
    return np.array([record.curves["test_loss"][0] / _guessing(record) for record in runs])


@_metric("pairs")
def longer_above_guessing(runs: Runs, others: Runs) -> Measured:
    """Whether the first arm's test loss is above that of guessing for more steps."""
    ours, theirs = (
        {r.config.seed: _last_above_guessing(r) for r in own if not diverged(r)}
        for own in (runs, others)
    )
    seeds = sorted(ours.keys() & theirs)
    return np.array([ours[seed] > theirs[seed] for seed in seeds]) if seeds else None


def _last_above_guessing(record: RunRecord) -> int:
    """The last evaluated step at which the loss is above that of guessing; -1 if it never is."""
    above = np.asarray(record.curves["test_loss"]) > _guessing(record)
    steps = np.asarray(record.curves["step"])[above]
    return int(steps[-1]) if len(steps) else -1


def _guessing(record: RunRecord) -> float:
    return math.log(record.config.widths[-1])


def _arms(runs: Runs, others: Runs) -> tuple[str, str]:
    return runs[0].config.arm, others[0].config.arm


# Motion of components. Where there are several runs, all of their components count.


@_metric()
def net_displacement(runs: Runs, others: Runs) -> Measured:
    """Distance in the plane between start and end, averaged over components."""
    return Ratio(*(float(_moved(own, "plane").mean()) for own in (runs, others)))


@_metric()
def displacement_per_epoch(runs: Runs, others: Runs, *, space: str) -> Measured:
    """Mean displacement of components per epoch."""
    return Ratio(*(float(_displacements(own, space).mean()) for own in (runs, others)))


@_metric()
def first_displacement(runs: Runs, others: Runs, *, space: str) -> Measured:
    """Mean displacement of components in the first epoch."""
    return Ratio(*(float(_displacements(own, space)[0].mean()) for own in (runs, others)))


@_metric()
def first_against_later_displacement(runs: Runs, *, space: str) -> Measured:
    """Mean displacement of components in the first epoch, and per epoch after it."""
    moved = _displacements(runs, space)
    return Ratio(float(moved[0].mean()), float(moved[1:].mean())) if len(moved) > 1 else None


@_metric("components")
def displacement(runs: Runs, *, space: str) -> Measured:
    """Distance between a component's start and its end."""
    return _moved(runs, space)


@_metric("components")
def moves_out(runs: Runs, *, epoch: int) -> Measured:
    """Whether a component is farther from the plane's origin after an epoch than at the start."""
    radii = _radii(runs)
    return np.asarray(radii[epoch] > radii[0]) if epoch < len(radii) else None


@_metric("components")
def initial_radius(runs: Runs) -> Measured:
    """A component's distance from the plane's origin at the start, relative to that at the end."""
    radii = _radii(runs)
    return np.asarray(radii[0] / radii[-1])


@_metric("pairs of components")
def apart(runs: Runs, *, degrees: float) -> Measured:
    """Whether two components of a run go in directions of the plane that differ by an angle."""
    angles = []
    for centers in (ellipses.centers for ellipses in _ellipses(runs)):
        moved = centers[-1] - centers[0]
        directions = moved / np.linalg.norm(moved, axis=-1, keepdims=True)
        cosines = (directions @ directions.T)[np.triu_indices(len(directions), 1)]
        angles.append(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))
    return np.concatenate(angles) > degrees


@_metric()
def initial_size(runs: Runs, others: Runs) -> Measured:
    """Half axis of the ellipses at the start, at one standard deviation, as geometric mean."""
    return Ratio(*(float(_sizes(own)[0].mean()) for own in (runs, others)))


@_metric("components")
def growth(runs: Runs) -> Measured:
    """How many times its initial size a component's ellipse has at the end."""
    sizes = _sizes(runs)
    return np.asarray(sizes[-1] / sizes[0])


@_metric("components")
def rotates(runs: Runs, *, degrees: float) -> Measured:
    """Whether an ellipse's long axis turns by an angle between the first epoch's end and the last.

    At the start the ellipses are circles, which have no direction.
    """
    angles = np.concatenate([ellipses.angles for ellipses in _ellipses(runs)], axis=1)
    turned = np.abs((angles[-1] - angles[min(1, len(angles) - 1)] + 90) % 180 - 90)
    return np.asarray(turned > degrees)


def _ellipses(runs: Runs) -> list[Ellipses]:
    return [propagate(record) for record in runs]


def _sizes(runs: Runs) -> Array:
    """Geometric mean of each ellipse's half axes, shape ``(T, components)``."""
    return np.concatenate([np.sqrt(own.axes.prod(axis=-1)) for own in _ellipses(runs)], axis=1)


def _radii(runs: Runs) -> Array:
    """Distances from the plane's origin, shape ``(T, components)``."""
    return np.concatenate([np.linalg.norm(own.centers, axis=-1) for own in _ellipses(runs)], axis=1)


def _moved(runs: Runs, space: str) -> Array:
    """Distances between start and end, by component."""
    return np.concatenate(
        [np.linalg.norm(mu[-1] - mu[0], axis=-1) / scale for mu, scale in _paths(runs, space)]
    )


def _displacements(runs: Runs, space: str) -> Array:
    """How far each component moves in each epoch, shape ``(epochs, components)``."""
    return np.concatenate(
        [np.linalg.norm(np.diff(mu, axis=0), axis=-1) / scale for mu, scale in _paths(runs, space)],
        axis=1,
    )


def _paths(runs: Runs, space: str) -> list[tuple[Array, Array]]:
    """Means over time, and what to divide distances by.

    Args:
        runs: Runs with snapshots.
        space: ``"plane"``, that of the figure; ``"all"``, all dimensions; ``"relative"``, all, in
            units of a component's initial size ``sqrt(sum_i sigma_i^2)``.
    """
    if space == "plane":
        return [(own.centers, np.ones(own.centers.shape[1])) for own in _ellipses(runs)]
    paths = []
    for record in runs:
        mu, sigma = (record.snapshots[f"0.{name}"].astype(float) for name in ("mu", "sigma"))
        size = np.linalg.norm(sigma[0], axis=-1)
        paths.append((mu, size if space == "relative" else np.ones_like(size)))
    return paths


@_metric()
def on_the_front(dense: Runs, *others: Runs, num_features: int) -> Measured:
    """Whether any network that is not dense is on the Pareto front of parameters and error."""
    records = [record for runs in (dense, *others) for record in runs]
    networks = budget_table(records, num_features)
    front = pareto_front(networks.parameters, networks.error)
    return bool((front & (networks.arm != dense[0].config.arm).to_numpy()).any())


# The layer itself. These need no runs, only a small layer of random parameters.


@_metric()
def closed_form_error() -> Measured:
    """Difference (%) between the closed form and a Monte Carlo estimate, relative to the output."""
    x, parameters, generator = _small_layer()
    exact = gm_layer(x, *parameters)
    mu, sigma, U, v = parameters
    estimate = gm_layer_monte_carlo(x, mu, sigma, U, v, 200_000, generator=generator)
    return np.array([100.0 * float((estimate - exact).norm() / exact.norm())])


@_metric()
def point_mass_error(*, sigma: float) -> Measured:
    """Difference (%) between a layer of small `sigma` and the network of its means."""
    x, (mu, _, U, v), _ = _small_layer()
    points = torch.relu(x @ mu.T) @ (torch.einsum("kcd,kd->kc", U, mu) + v) / len(mu)
    layer = gm_layer(x, mu, torch.full_like(mu, sigma), U, v)
    return np.array([100.0 * float((layer - points).norm() / points.norm())])


@_metric()
def takes_no_labels() -> Measured:
    """Whether KUMAR can be computed without labels: it asks for none."""
    asked = set(inspect.signature(init.kumar_).parameters)
    return not asked & {"labels", "targets", "y"}


def _small_layer() -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Generator]:
    """Inputs and the parameters of a layer, K = 3, d = 8, C = 4, in double precision."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(16, 8), (draw(3, 8), draw(3, 8).abs(), draw(3, 4, 8), draw(3, 4)), generator
