"""Comparisons of two arms in pairs of runs, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gmlib.study.analysis.curves import MEASURES, at_epoch_ends, groups, tidy, trained_pairs
from gmlib.study.analysis.statistics import mean_interval, median_range, sign_test, wins
from gmlib.study.analysis.text import Table, estimated, ranged

__all__ = ["blocks_table", "epochs_to_match", "paired_differences", "windows_table"]

_WINS = "{wins} of {pairs}"


def paired_differences(runs: pd.DataFrame, arm: str = "KUMAR", other: str = "BL") -> Table:
    """Differences ``arm - other`` of the measures, seed by seed, over the pairs that trained.

    Args:
        runs: The output of `runs_table`.
        arm: The arm that is expected to have lower errors.
        other: The arm to compare with.

    Returns:
        One row per data set and measure: the number of pairs in which both arms trained and of
        those lost to divergence, wins of `arm` with the two-sided p-value of the sign test, and the
        mean difference in percentage points with its 95 % interval by Student's t.
    """
    rows = []
    for (dataset,), group in groups(runs, ["dataset"]):
        pairs, num_lost = trained_pairs(group, arm, other)
        for column, name in MEASURES.items():
            difference = pairs[column] - pairs[f"{column}_other"]
            rows.append(
                {
                    "dataset": dataset,
                    "measure": name,
                    "pairs": len(difference),
                    "lost": num_lost,
                    "wins": wins(difference),
                    "p": sign_test(difference),
                    **mean_interval("difference", difference),
                }
            )
    return Table(
        tidy(rows),
        {f"{arm} less {other}": "{dataset:title}, {measure}"},
        {
            f"{arm} lower": _WINS,
            "pairs lost": "{lost}",
            "sign test p": "{p:.2g}|–",
            "mean difference": "{difference:+.2f}|–",
            "95 %": "[{difference_low:+.2f}, {difference_high:+.2f}]|–",
        },
    )


def blocks_table(
    curves: pd.DataFrame, length: int = 5, arm: str = "KUMAR", other: str = "BL"
) -> Table:
    """Tabulate how the difference ``arm - other`` changes in the course of training.

    Args:
        curves: The output of `curves_table`.
        length: Epochs of a block; the last one may be shorter.
        arm: The arm that is expected to have lower errors.
        other: The arm to compare with.

    Returns:
        One row per data set and block of epochs, over the pairs in which both arms trained: the
        number of pairs, and the mean over these of the difference, averaged over the ends of the
        block's epochs, in percentage points, with its 95 % interval by Student's t.
    """
    rows = []
    for dataset, (ours, theirs) in _paired_curves(curves, arm, other).items():
        differences = ours - theirs
        for start in range(0, len(differences), length):
            block = differences.iloc[start : start + length]
            rows.append(
                {
                    "dataset": dataset,
                    "first": start + 1,
                    "last": start + len(block),
                    "pairs": len(block.columns),
                    **mean_interval("difference", block.mean()),
                }
            )
    return Table(
        tidy(rows), {"epochs": "{dataset:title}"}, {"{first} to {last}": estimated("difference")}
    )


def windows_table(
    curves: pd.DataFrame, windows: Sequence[int], arm: str = "KUMAR", other: str = "BL"
) -> Table:
    """Wins and mean difference by data set, for means over various numbers of last epochs.

    The mean over the last epoch is the final error, and the mean over all epochs is the AUC. Those
    between are smoothed final errors.

    Args:
        curves: The output of `curves_table`.
        windows: Numbers of last epochs. Those below the number of epochs are used, and the number
            of all epochs is added.
        arm: The arm that is expected to have lower errors.
        other: The arm to compare with.

    Returns:
        One row per data set and window, over the pairs in which both arms trained: wins of `arm`
        and the mean over pairs of ``arm - other`` in percentage points.
    """
    rows = []
    for dataset, (ours, theirs) in _paired_curves(curves, arm, other).items():
        differences = ours - theirs
        for window in (*(window for window in windows if window < len(ours)), len(ours)):
            means = differences.tail(window).mean()
            name = "all" if window == len(ours) else "the last" if window == 1 else f"last {window}"
            rows.append(
                {
                    "dataset": dataset,
                    "window": name,
                    "epochs": window,
                    "pairs": len(means),
                    "wins": wins(means),
                    "difference": means.mean(),
                }
            )
    return Table(
        tidy(rows),
        {"mean over": "{dataset:title}"},
        {"{window}": _WINS + ": {difference:.2f}|–"},
    )


def epochs_to_match(curves: pd.DataFrame, arm: str = "KUMAR", other: str = "BL") -> Table:
    """Count the epochs that each arm of a pair takes to reach the best error of `other`.

    Args:
        curves: The output of `curves_table`.
        arm: The arm that is expected to be faster.
        other: The arm whose lowest error at the end of an epoch is the target.

    Returns:
        One row per data set, over the pairs in which both arms trained: the number of pairs, median
        and range of the epoch at which `other` had its best error, the number of pairs in which
        `arm` reached that error, and median and range of the first epoch at which it did.
    """
    rows = []
    for dataset, (ours, theirs) in _paired_curves(curves, arm, other).items():
        # Errors are multiples of 1/N; the slack only absorbs their rounding.
        reached = ours <= theirs.min() + 1e-9
        rows.append(
            {
                "dataset": dataset,
                "pairs": len(theirs.columns),
                **median_range("best_epoch", theirs.idxmin()),
                "reached": int(reached.any().sum()),
                **median_range("reached_epoch", reached.idxmax()[reached.any()]),
            }
        )
    return Table(
        tidy(rows),
        {"epochs": "{dataset:title}"},
        {
            "pairs": "{pairs}",
            f"{other}'s best": ranged("best_epoch", "{:g}"),
            f"{arm} got there": "{reached} of {pairs}",
            f"{arm}'s first": ranged("reached_epoch", "{:g}"),
        },
    )


def _paired_curves(
    curves: pd.DataFrame, arm: str, other: str
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return two arms' errors by data set, each by epoch (rows) and seed, where both trained."""
    paired = {}
    for (dataset,), group in groups(curves, ["dataset"]):
        ends = at_epoch_ends(group[~group.diverged])
        ours, theirs = (
            ends[ends.arm == name]
            .assign(epoch=ends.epoch.round())
            .pivot(index="epoch", columns="seed", values="test_error")
            for name in (arm, other)
        )
        seeds = ours.columns.intersection(theirs.columns)
        paired[dataset] = (ours[seeds], theirs[seeds])
    return paired
