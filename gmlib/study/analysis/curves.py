"""From records to tidy tables: curves, errors, hits, movement; a row an evaluation or run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gmlib.study.runs.records import RunRecord

__all__ = [
    "MEASURES",
    "at_epoch_ends",
    "by_variant",
    "curves_table",
    "errors_at",
    "first_hits",
    "groups",
    "init_table",
    "movement_table",
    "runs_table",
    "tidy",
    "trained",
    "trained_pairs",
]

MEASURES: Mapping[str, str] = {
    "smoothed": "smoothed final",
    "best": "best",
    "final": "final",
    "auc": "AUC",
}
"""Measures of a run's test error, with their names: columns of `runs_table`.

The first is the one that conclusions rest on. The error at the end of a single epoch is partly
luck, since at a constant learning rate it jumps from epoch to epoch, and the lowest error is chosen
by looking at the test set.
"""
_LAST_EPOCHS = 5  # of which `smoothed` is the mean


def diverged(record: RunRecord) -> bool:
    """Whether a loss of the run is not finite."""
    return not np.isfinite(record.curves["test_loss"]).all()


def curves_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row an evaluation: dataset, arm, seed, step, epoch, test_error (%), test_loss, diverged.

    ``epoch`` is a fraction within epochs.
    """
    rows = []
    for record in records:
        config, curves = record.config, record.curves
        run = {"dataset": config.dataset, "arm": config.label, "seed": config.seed}
        fate = {"diverged": diverged(record)}
        evaluations = zip(curves["step"], curves["test_error"], curves["test_loss"], strict=True)
        rows += [
            {
                **run,
                "step": step,
                "epoch": config.epochs * step / max(curves["step"][-1], 1),
                "test_error": 100.0 * error,
                "test_loss": loss,
                **fate,
            }
            for step, error, loss in evaluations
        ]
    return tidy(rows)


def at_epoch_ends(curves: pd.DataFrame) -> pd.DataFrame:
    """The rows of `curves_table` at the ends of epochs."""
    return curves[(curves.step > 0) & np.isclose(curves.epoch, curves.epoch.round())]


def _epoch_errors(record: RunRecord) -> NDArray[np.float64]:
    """Test errors (%) at the ends of epochs, or at the start of a run that has no epochs."""
    curve = curves_table([record])
    ends = at_epoch_ends(curve)
    return (ends if len(ends) else curve).test_error.to_numpy(dtype=float)


def runs_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run: dataset, arm, seed, first_epoch, its `MEASURES`, diverged; errors in percent.

    ``first_epoch`` is the test error at the end of the first epoch. ``smoothed`` is the mean over
    the ends of the last five epochs, or of all if there are fewer. ``best`` is the lowest error at
    the end of an epoch, ``final`` the error at the end of the last. ``auc`` is the area under the
    curve of the error at the ends of epochs, a bar of width one an epoch, divided by the number of
    epochs: their mean, and so an error itself.

    Raises:
        ValueError: If there are no runs.
    """
    rows = []
    for record in records:
        errors = _epoch_errors(record)
        rows.append(
            {
                "dataset": record.config.dataset,
                "arm": record.config.label,
                "seed": record.config.seed,
                "first_epoch": errors[0],
                "smoothed": errors[-_LAST_EPOCHS:].mean(),
                "best": errors.min(),
                "final": errors[-1],
                "auc": errors.mean(),
                "diverged": diverged(record),
            }
        )
    if not rows:
        raise ValueError("there are no runs: datasets, arms and seeds each need at least one entry")
    return tidy(rows)


def trained(runs: pd.DataFrame, arm: str, column: str) -> NDArray[np.float64]:
    """Values of a column of `runs_table` over the seeds of `arm` that trained, by seed."""
    rows = runs[(runs.arm == arm) & ~runs.diverged]
    return rows.sort_values("seed")[column].to_numpy(dtype=float)


def errors_at(curves: pd.DataFrame, arm: str, epoch: float) -> NDArray[np.float64]:
    """Test errors (%) at the end of an epoch, over the seeds of `arm` that trained."""
    rows = curves[(curves.arm == arm) & ~curves.diverged & np.isclose(curves.epoch, epoch)]
    return rows.sort_values("seed").test_error.to_numpy(dtype=float)


def init_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a layer: arm, seed, layer (from 1), std before, scale and std after, initial loss."""
    return tidy(
        {
            "arm": record.config.label,
            "seed": record.config.seed,
            "layer": index,
            **{name: value for name, value in asdict(layer).items() if name != "name"},
            "initial_loss": record.curves["test_loss"][0],
        }
        for record in records
        for index, layer in enumerate(record.init_report, start=1)
    )


def first_hits(
    records: Iterable[RunRecord], thresholds: Sequence[float], *, epoch_ends: bool = False
) -> pd.DataFrame:
    """First evaluated step at which each run's test error is at most each threshold.

    Args:
        records: The runs.
        thresholds: Test errors in percent.
        epoch_ends: Look at the ends of epochs only, not at the evaluations within the first.

    Returns:
        One row a run and threshold: arm, seed, threshold, step (NaN where never reached). The step
        is read from the grid of evaluations: the error was that low no later than then.

    Raises:
        ValueError: If there is no threshold, or one is not between 0 and 100.
    """
    if not thresholds:
        raise ValueError("thresholds must hold at least one test error in percent")
    for threshold in thresholds:
        number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if not (number and 0.0 < threshold < 100.0):
            raise ValueError(
                f"thresholds must be test errors between 0 and 100 percent, got {threshold!r}"
            )
    rows = []
    for record in records:
        curve = curves_table([record])
        if epoch_ends:
            curve = at_epoch_ends(curve)
        for threshold in thresholds:
            # The errors are multiples of 1/N; the slack is for their rounding alone.
            hits = curve.step[curve.test_error <= threshold + 1e-9]
            step = hits.iloc[0] if len(hits) else np.nan
            rows.append(
                {
                    "arm": record.config.label,
                    "seed": record.config.seed,
                    "threshold": float(threshold),
                    "step": step,
                }
            )
    return tidy(rows)


def trained_pairs(runs: pd.DataFrame, arm: str, other: str) -> tuple[pd.DataFrame, int]:
    """Seeds of which both arms trained, and how many pairs were lost to divergence.

    The columns of `runs_table` are those of `arm`; those of `other` end in ``_other``.
    """
    pairs = runs[runs.arm == arm].merge(
        runs[runs.arm == other], on="seed", suffixes=("", "_other"), validate="one_to_one"
    )
    both = pairs[~(pairs.diverged | pairs.diverged_other)]
    return both, len(pairs) - len(both)


def by_variant(
    records: Mapping[str, Sequence[RunRecord]],
    table: Callable[[Sequence[RunRecord]], pd.DataFrame],
) -> pd.DataFrame:
    """A table of runs with variants for arms, where runs of one arm differ in a setting.

    Args:
        records: By variant.
        table: One of `runs_table`, `curves_table`, `init_table`, `movement_table`.
    """
    tables = [table(runs).assign(arm=variant) for variant, runs in records.items()]
    # An empty table's columns have no types, and would spoil those of the others.
    return pd.concat([own for own in tables if len(own)] or tables[:1], ignore_index=True)


def movement_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row an evaluation and parameter: arm, seed, layer (from 1), parameter, step, moved.

    ``moved`` is the distance from the initialization relative to the norm there. Left out are runs
    that diverged, and those recorded before movement was; if that is all, the table is empty.
    """
    rows = []
    for record in records:
        if diverged(record):
            continue
        # By place among the layers: between those of a dense network are modules without any.
        modules = list(dict.fromkeys(name.partition(".")[0] for name in record.movement))
        rows += [
            {
                "arm": record.config.label,
                "seed": record.config.seed,
                "layer": modules.index(name.partition(".")[0]) + 1,
                "parameter": name.partition(".")[2],
                "step": step,
                "moved": moved,
            }
            for name, distances in record.movement.items()
            for step, moved in zip(record.curves["step"], distances, strict=True)
        ]
    return pd.DataFrame(rows, columns=["arm", "seed", "layer", "parameter", "step", "moved"])


def tidy(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """A table of rows."""
    return pd.DataFrame(list(rows))


def groups(
    table: pd.DataFrame, columns: list[str]
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows that agree in some columns, with what they agree in, in order of appearance."""
    for names, group in table.groupby(columns, sort=False):
        assert isinstance(names, tuple)
        yield tuple(map(str, names)), group
