"""Learning rates: the error that each gives, and the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from gmlib.study.analysis.curves import diverged, runs_table, tidy
from gmlib.study.analysis.text import Table
from gmlib.study.runs.records import RunRecord

__all__ = [
    "best_rates",
    "best_rates_table",
    "rate_errors",
]


def rate_errors(
    records: Mapping[str, Sequence[RunRecord]], measure: str = "smoothed"
) -> pd.DataFrame:
    """One row a run: variant, lr, seed, error (%) and diverged.

    Args:
        records: By variant, each at several learning rates.
        measure: Which error, a column of `runs_table`.
    """
    return tidy(
        {
            "variant": variant,
            "lr": record.config.lr,
            "seed": record.config.seed,
            "error": error,
            "diverged": diverged(record),
        }
        for variant, runs in records.items()
        for record, error in zip(runs, runs_table(runs)[measure], strict=True)
    )


def best_rates(errors: pd.DataFrame) -> pd.DataFrame:
    """The rate of the lowest mean error, among those at which no seed diverged.

    Args:
        errors: The output of `rate_errors`.

    Returns:
        One row a variant: variant, lr (NaN if seeds diverged at every rate), error (%), its mean
        there; at_edge, whether the rate is the lowest or the highest that was tried.
    """
    rows = []
    for variant, own in errors.groupby("variant", sort=False):
        means = own.groupby("lr").error.mean()[~own.groupby("lr").diverged.any()]
        lr = means.idxmin() if len(means) else float("nan")
        rows.append(
            {
                "variant": variant,
                "lr": lr,
                "error": means.min() if len(means) else float("nan"),
                "at_edge": lr in (own.lr.min(), own.lr.max()),
            }
        )
    return tidy(rows)


def best_rates_table(errors: pd.DataFrame) -> Table:
    """Mean error (%) of each variant at each rate, the number that diverged, and the best rate."""
    grid = errors.groupby(["variant", "lr"], sort=False).agg(
        mean=("error", "mean"), lost=("diverged", "sum"), seeds=("seed", "count")
    )
    trained = errors[~errors.diverged].groupby(["variant", "lr"]).error.mean()
    grid["mean"] = trained.reindex(grid.index)
    rows = grid.reset_index().merge(
        best_rates(errors)[["variant", "lr"]].rename(columns={"lr": "best"}), on="variant"
    )
    rows["mark"] = (rows.lr == rows.best).map({True: " *", False: ""})
    rows["fate"] = rows.lost.map(lambda lost: f" ({lost} lost)" if lost else "")
    return Table(rows, {"error in %": "{variant}"}, {"{lr:g}": "{mean:.2f}{mark}{fate}|lost"})
