"""Metrics of statements: functions of the runs of one arm or, in some cases, of several arms.

`METRICS` lists them. The statements in ``claims.toml`` name metrics and their parameters. Metrics
of the motion of components are in `claims.motion`. Errors are in percent.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from gmlib import init
from gmlib.functional import gm_layer, gm_layer_monte_carlo
from gmlib.study.analysis.budgets import budget_table, pareto_front
from gmlib.study.analysis.curves import (
    at_epoch_ends,
    curves_table,
    diverged,
    first_hits,
    runs_table,
)
from gmlib.study.claims.motion import apart, displacement, radius, rotates, size
from gmlib.study.claims.results import Result, Runs
from gmlib.study.runs.records import RunRecord

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """A way to measure a statement.

    Attributes:
        function: Takes the runs of one or more arms, and keyword parameters; returns numbers or
            truth values, indexed by what distinguishes them, for example the seed.
        entries: What each value belongs to, in the plural; empty for a single value.
    """

    function: Callable[..., pd.Series]
    entries: str

    def __call__(self, *arms: Runs, **parameters: Any) -> Result:
        """Measure the runs."""
        return Result(self.function(*arms, **parameters), self.entries)

    @property
    def needs_snapshots(self) -> bool:
        """Whether it measures components, which only runs with snapshots tell of."""
        return "components" in self.entries


# Errors of the runs that trained.


def error(runs: Runs, *, measures: Sequence[str]) -> pd.Series:
    """Test error (%), by measure and seed.

    Args:
        runs: The runs. Those that diverged are left out.
        measures: Any of the `MEASURES` of `runs_table`, and ``epoch N``, the error at the end of
            that epoch.
    """
    table = _by_epoch(runs).add_prefix("epoch ").join(runs_table(runs).set_index("seed"))
    errors: pd.Series = pd.concat({name: table[name] for name in measures}, names=["measure"])
    return errors


def worst_of_five(runs: Runs, *, measure: str) -> pd.Series:
    """The highest error among the first five seeds that trained, the next five, and so on.

    The highest of a few seeds grows with their number, and the note has five. Fewer than five at
    the end do not count.

    Args:
        runs: The runs. Those that diverged are left out.
        measure: As in `error`.
    """
    errors = error(runs, measures=[measure]).sort_index()
    whole = errors.iloc[: len(errors) // 5 * 5]
    return whole.groupby(np.arange(len(whole)) // 5).max()


def error_by_epoch(runs: Runs, *, statistic: str) -> pd.Series:
    """Mean (``mean``) or standard deviation (``std``) over seeds of the error after each epoch."""
    return _by_epoch(runs).agg(statistic)


def best_epoch(runs: Runs) -> pd.Series:
    """The epoch at whose end each run's error is lowest."""
    return _by_epoch(runs).idxmin(axis="columns")


def _by_epoch(runs: Runs) -> pd.DataFrame:
    """Errors of the runs that trained, one row a seed and one column an epoch."""
    curves = curves_table(runs)
    ends = at_epoch_ends(curves[~curves.diverged])
    ends = ends.assign(epoch=ends.epoch.round().astype(int))
    return ends.pivot(index="seed", columns="epoch", values="test_error")


# Steps, and whether runs train or reach a threshold.


def trains(runs: Runs, *, count_diverged: bool = False) -> pd.Series:
    """Whether each seed trains without diverging, or the number of seeds that diverge."""
    trained = pd.Series({record.config.seed: not diverged(record) for record in runs})
    return pd.Series([(~trained).sum()]) if count_diverged else trained


def steps_to(runs: Runs, *, threshold: float, epoch_ends: bool = True) -> pd.Series:
    """Gradient steps at which the test error is first measured at or below a threshold (%).

    Args:
        runs: The runs. Those that diverged are left out.
        threshold: Test error in percent. The steps are infinite if it is never reached.
        epoch_ends: Use only evaluations at the ends of epochs, not those within the first epoch.
    """
    steps = _first_hits(runs, threshold, epoch_ends)
    return steps[[not diverged(record) for record in runs]].fillna(math.inf)


def reaches(runs: Runs, *, threshold: float) -> pd.Series:
    """Whether the test error is at or below a threshold (%) at the end of any epoch."""
    return _first_hits(runs, threshold, epoch_ends=True).notna()


def num_steps(runs: Runs) -> pd.Series:
    """Number of gradient steps of each run."""
    return pd.Series({record.config.seed: record.curves["step"][-1] for record in runs})


def steps_above_guessing(runs: Runs) -> pd.Series:
    """The last evaluated step at which the loss exceeds that of guessing, in runs that trained.

    The step is -1 if the loss never exceeds it.
    """
    last = {}
    for record in runs:
        if not diverged(record):
            losses = zip(record.curves["step"], record.curves["test_loss"], strict=True)
            above = [step for step, loss in losses if loss > _guessing(record)]
            last[record.config.seed] = max(above, default=-1)
    return pd.Series(last, dtype=float)


def _first_hits(runs: Runs, threshold: float, epoch_ends: bool) -> pd.Series:
    return first_hits(runs, [threshold], epoch_ends=epoch_ends).set_index("seed").step


# Before the first step.


def initial_std(
    runs: Runs, *, layer: int, relative_to: float = 1.0, inverse: bool = False
) -> pd.Series:
    """Standard deviation of a layer's outputs at the start.

    Args:
        runs: The runs.
        layer: Number of the layer, from 1 forwards or from -1 backwards.
        relative_to: Number by which the standard deviation is divided.
        inverse: Return the inverse of that quotient.
    """
    index = layer - 1 if layer > 0 else layer
    found = {record.config.seed: record.init_report[index].std_after for record in runs}
    relative = pd.Series(found) / relative_to
    return 1.0 / relative if inverse else relative


def initial_loss(runs: Runs) -> pd.Series:
    """Test loss before the first step, relative to that of guessing."""
    return pd.Series(
        {record.config.seed: record.curves["test_loss"][0] / _guessing(record) for record in runs}
    )


def _guessing(record: RunRecord) -> float:
    """The loss of guessing among C classes, ``ln C``."""
    return math.log(record.config.widths[-1])


# Networks of several sizes.


def on_the_front(dense: Runs, *others: Runs, num_features: int) -> pd.Series:
    """Whether any network that is not dense is on the Pareto front of parameters and error."""
    records = [record for runs in (dense, *others) for record in runs]
    networks = budget_table(records, num_features)
    front = pareto_front(networks.parameters, networks.error)
    return pd.Series([(front & (networks.arm != dense[0].config.arm).to_numpy()).any()])


# The layer itself and KUMAR's signature, which need no runs.


def layer_error(*, num_draws: int = 0, sigma: float = 0.0) -> pd.Series:
    """Relative difference (%) between a small layer's output and another computation of it.

    Args:
        num_draws: Number of draws of a Monte Carlo estimate, the other computation. If 0, it is the
            network of the neurons' means.
        sigma: Standard deviation of all neurons, in place of random ones.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, mu, deviations, U, v = draw(16, 8), draw(3, 8), draw(3, 8).abs(), draw(3, 4, 8), draw(3, 4)
    if sigma:
        deviations = torch.full_like(mu, sigma)
    output = gm_layer(x, mu, deviations, U, v)
    if num_draws:
        other = gm_layer_monte_carlo(x, mu, deviations, U, v, num_draws, generator=generator)
    else:
        other = torch.relu(x @ mu.T) @ (torch.einsum("kcd,kd->kc", U, mu) + v) / len(mu)
    return pd.Series([100.0 * float((other - output).norm() / output.norm())])


def takes_no_labels() -> pd.Series:
    """Whether KUMAR can be computed without labels: its function has no argument for them."""
    asked = set(inspect.signature(init.kumar_).parameters)
    return pd.Series([not asked & {"labels", "targets", "y"}])


_BY_ENTRIES: Mapping[str, Sequence[Callable[..., pd.Series]]] = {
    "seeds": [
        *(error, best_epoch, trains, steps_to, reaches, num_steps, steps_above_guessing),
        *(initial_std, initial_loss),
    ],
    "groups of five seeds": [worst_of_five],
    "epochs": [error_by_epoch],
    "components": [displacement, radius, size, rotates],
    "pairs of components": [apart],
    "": [on_the_front, layer_error, takes_no_labels],
}

METRICS: Mapping[str, Metric] = {
    function.__name__: Metric(function, entries)
    for entries, functions in _BY_ENTRIES.items()
    for function in functions
}
"""The metrics by name."""
