"""How arms and variants compare: summaries over seeds, and differences in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy

from gmlib.study.analysis.curves import (
    MEASURES,
    at_epoch_ends,
    by_variant,
    diverged,
    first_hits,
    init_table,
    runs_table,
    tidy,
    trained,
    trained_pairs,
)
from gmlib.study.analysis.statistics import (
    bootstrap_interval,
    median_interval,
    sign_test,
    t_interval,
    wins,
)
from gmlib.study.analysis.text import labelled, mean_range, median_range, two_digits
from gmlib.study.datasets.catalogue import dataset_title
from gmlib.study.runs.records import RunRecord

__all__ = [
    "depth_table",
    "divergence_table",
    "epochs_to_match",
    "init_summary",
    "measures_summary",
    "paired_differences",
    "paired_medians",
    "threshold_table",
    "training_losses",
    "variant_table",
    "windows_table",
]


def measures_summary(runs: pd.DataFrame) -> pd.DataFrame:
    """By data set and arm, how many seeds diverged and the measures (%) of the others.

    Args:
        runs: As `measures_table` gives.

    Returns:
        One row a data set and arm: seeds, those that diverged, and mean and range of each measure.
    """
    rows = []
    for (dataset, arm), group in _groups(runs, ["dataset", "arm"]):
        survivors = group[~group.diverged]
        rows.append(
            {
                "in %": f"{dataset_title(dataset)}, {arm}",
                "seeds": len(group),
                "diverged": int(group.diverged.sum()),
                **{
                    name: mean_range(survivors[column], "{:.2f}")
                    for column, name in MEASURES.items()
                },
            }
        )
    return labelled(tidy(rows), "in %")


def divergence_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """What became of each arm's seeds.

    Returns:
        One row an arm: seeds that diverged, their share with an exact 95 % interval, the median
        and range of the first evaluated step at which their loss was not finite, and the mean and
        range of the others' test error (%) at the end of the first epoch.
    """
    rows = []
    runs = runs_table(records)
    for arm in runs.arm.unique():
        lost = runs.diverged[runs.arm == arm]
        steps = pd.Series(
            [
                record.curves["step"][np.isfinite(record.curves["test_loss"]).argmin()]
                for record in records
                if record.config.arm == arm and diverged(record)
            ],
            dtype=float,
        )
        survivors = pd.Series(trained(runs, arm, "first_epoch"))
        share = scipy.stats.binomtest(int(lost.sum()), len(lost)).proportion_ci()
        rows.append(
            {
                "arm": arm,
                "seeds": len(lost),
                "diverged": int(lost.sum()),
                "share": f"{lost.mean():.0%}",
                "95 % interval": f"{share.low:.0%} to {share.high:.0%}",
                "diverged by step": median_range(steps, "{:,.0f}"),
                "error of the others (%)": mean_range(survivors, "{:.1f}"),
            }
        )
    return labelled(tidy(rows), "arm")


def init_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over seeds of `init_table`'s output scales by layer, and of the loss."""
    rows = []
    for arm in table.arm.unique():
        runs = table[table.arm == arm]
        row = {"arm": arm}
        for layer in sorted(runs.layer.unique()):
            values = runs.loc[runs.layer == layer, "std_after"]
            row[f"std, layer {layer}"] = mean_range(values, "{:.2g}")
        row["initial test loss"] = mean_range(runs.drop_duplicates("seed").initial_loss, "{:.3g}")
        rows.append(row)
    return labelled(tidy(rows), "arm")


def threshold_table(hits: pd.DataFrame, faster: str = "KUMAR", slower: str = "BL") -> pd.DataFrame:
    """Seeds that reached each threshold, their first-hit steps, and the speed-up by pairs.

    Steps are given as median and range. The speed-up is the ratio of the steps of `slower` and
    `faster`, seed by seed, over the seeds of which both reached the threshold; its median and
    range are given.
    """
    rows = []
    for threshold, group in hits.groupby("threshold", sort=False):
        row = {"threshold": f"{threshold:g} %"}
        for arm, runs in group.groupby("arm", sort=False):
            steps = runs.step.dropna()
            row[str(arm)] = f"{len(steps)} of {len(runs)}"
            if len(steps):
                row[str(arm)] += f": {median_range(steps, '{:,.0f}')}"
        if {faster, slower} <= set(group.arm):
            pairs = group.pivot(index="seed", columns="arm", values="step")
            row[f"{faster} over {slower}"] = median_range(
                (pairs[slower] / pairs[faster]).dropna(), "{:,.1f}x"
            )
        rows.append(row)
    return labelled(tidy(rows), "threshold")


def paired_differences(
    runs: pd.DataFrame, columns: Sequence[str], arm: str = "KUMAR", other: str = "BL"
) -> pd.DataFrame:
    """Differences ``arm - other`` of errors, seed by seed, over the pairs in which both trained.

    Returns:
        One row a column: the number of pairs and of those lost to divergence, wins of `arm` with
        the two-sided p-value of the sign test, the mean difference in percentage points, and its
        95 % intervals by the bootstrap over pairs and by Student's t.
    """
    pairs, num_lost = trained_pairs(runs, arm, other)
    rows = []
    for column in columns:
        difference = pairs[column] - pairs[f"{column}_other"]
        low, high = bootstrap_interval(difference)
        rows.append(
            {
                "test error": column,
                "pairs": len(difference),
                "lost to divergence": num_lost,
                f"{arm} lower": wins(difference),
                "sign test p": f"{sign_test(difference):.2g}",
                "mean difference": f"{difference.mean():.2f}",
                "bootstrap 95 %": f"[{low:.2f}, {high:.2f}]",
                "t 95 %": "[{:.2f}, {:.2f}]".format(*t_interval(difference)),
            }
        )
    return labelled(tidy(rows), "test error")


def paired_medians(runs: pd.DataFrame, arm: str = "KUMAR", other: str = "BL") -> pd.DataFrame:
    """Differences ``arm - other`` of the measures, seed by seed, and their median.

    Args:
        runs: As `measures_table` gives.
        arm: The arm that is hoped to be lower.
        other: The arm that it is compared with.

    Returns:
        One row a data set and measure, over the pairs in which both arms trained: wins of `arm`,
        the number of pairs lost to divergence, the two-sided p-value of the sign test, the median
        difference in percentage points, and its `median_interval` with the interval's coverage.
    """
    rows = []
    for (dataset,), group in _groups(runs, ["dataset"]):
        pairs, num_lost = trained_pairs(group, arm, other)
        for column, name in MEASURES.items():
            difference = pairs[column] - pairs[f"{column}_other"]
            low, high, coverage = median_interval(difference)
            rows.append(
                {
                    f"{arm} less {other}": f"{dataset_title(dataset)}, {name}",
                    f"{arm} lower": wins(difference),
                    "pairs lost": num_lost,
                    "sign test p": f"{sign_test(difference):.2g}",
                    "median": f"{difference.median():.2f}",
                    "interval": f"[{low:.2f}, {high:.2f}]",
                    "coverage": f"{100 * coverage:.1f} %",
                }
            )
    return labelled(tidy(rows), f"{arm} less {other}")


def windows_table(
    curves: pd.DataFrame, windows: Sequence[int], arm: str = "KUMAR", other: str = "BL"
) -> pd.DataFrame:
    """Wins and median difference by data set, for means over the last epochs of several numbers.

    The mean over the last epoch is the final error, that over all epochs is the AUC; those between
    are the final error, smoothed.

    Args:
        curves: As `curves_table` gives.
        windows: Numbers of last epochs, of which those below the number of epochs are used. All
            epochs are added.
        arm: The arm that is hoped to be lower.
        other: The arm that it is compared with.

    Returns:
        One row a data set, over the pairs in which both arms trained: by number of epochs, wins of
        `arm` and the median over pairs of ``arm - other`` in percentage points.
    """
    rows = []
    for dataset, (ours, theirs) in _paired_curves(curves, arm, other).items():
        differences = ours - theirs
        row = {"mean over": dataset_title(dataset)}
        for window in (*(window for window in windows if window < len(ours)), len(ours)):
            means = differences.tail(window).mean()
            name = "all" if window == len(ours) else "the last" if window == 1 else f"last {window}"
            row[name] = f"{wins(means)}: {means.median():.2f}" if len(means) else "–"
        rows.append(row)
    return labelled(tidy(rows), "mean over")


def epochs_to_match(curves: pd.DataFrame, arm: str = "KUMAR", other: str = "BL") -> pd.DataFrame:
    """How many epochs each arm of a pair takes to the best error of `other`.

    Args:
        curves: As `curves_table` gives.
        arm: The arm that is hoped to be sooner.
        other: The arm whose lowest error at the end of an epoch is the mark.

    Returns:
        One row a data set, over the pairs in which both arms trained: the number of pairs, median
        and range of the epoch at which `other` had its best error, the number of pairs in which
        `arm` had an error at most as high, and median and range of the first epoch at which it had.
    """
    rows = []
    for dataset, (ours, theirs) in _paired_curves(curves, arm, other).items():
        # Errors are multiples of 1/N; the slack is for their rounding alone.
        reached = ours <= theirs.min() + 1e-9
        first = reached.idxmax()[reached.any()]
        rows.append(
            {
                "epochs": dataset_title(dataset),
                "pairs": len(theirs.columns),
                f"{other}'s best": median_range(theirs.idxmin(), "{:g}"),
                f"{arm} got there": f"{len(first)} of {len(theirs.columns)}",
                f"{arm}'s first": median_range(first, "{:g}"),
            }
        )
    return labelled(tidy(rows), "epochs")


def _paired_curves(
    curves: pd.DataFrame, arm: str, other: str
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """By data set, the errors of two arms by epoch (rows) and seed, where both trained."""
    paired = {}
    for (dataset,), group in _groups(curves, ["dataset"]):
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


def depth_table(records: Mapping[int, Sequence[RunRecord]]) -> pd.DataFrame:
    """Each depth and arm from its start to its end.

    Args:
        records: By number of layers.

    Returns:
        One row a depth and arm: the output std of the last layer at the start;
        seeds that diverged; the test error (%) after the first epoch, the best and the final, as
        mean and range over the seeds that trained.
    """
    rows = []
    for depth, own in records.items():
        runs, scales = runs_table(own), init_table(own)
        for arm in runs.arm.unique():
            starts = scales[scales.arm == arm].groupby("layer").std_after.mean()
            lost = runs.diverged[runs.arm == arm]
            row = {
                "layers": f"{depth}, {arm}",
                "std, last layer": two_digits(starts.iloc[-1]),
                "diverged": f"{int(lost.sum())} of {len(lost)}",
            }
            for column, name in (("first_epoch", "epoch 1"), ("best", "best"), ("final", "final")):
                row[name] = mean_range(pd.Series(trained(runs, arm, column)), "{:.2f}")
            rows.append(row)
    return labelled(tidy(rows), "layers")


def variant_table(records: Mapping[str, Sequence[RunRecord]], reference: str) -> pd.DataFrame:
    """Each variant from its start to its end, and how its final errors compare in pairs.

    Returns:
        One row a variant: std of the logits at the start; seeds that diverged; the test error (%)
        after the first epoch, the best and the final, as mean and range over the seeds that
        trained; seeds that reached 5 % and the median of their first-hit steps; the mean paired
        difference of the final error from that of `reference`, in percentage points, with its
        95 % interval by Student's t (there is none of a single pair) and the number of pairs in
        which both trained.
    """
    runs, starts = by_variant(records, runs_table), by_variant(records, init_table)
    rows = []
    for variant, own in records.items():
        layers = starts[starts.arm == variant]
        logits = layers.std_after[layers.layer == layers.layer.max()]
        hits = first_hits(own, [5.0]).step
        reached = hits.dropna()
        row = {
            "variant": variant,
            "std of logits": two_digits(logits.mean()),
            "diverged": f"{int(runs.diverged[runs.arm == variant].sum())} of {len(own)}",
        }
        for column, name in (("first_epoch", "epoch 1"), ("best", "best"), ("final", "final")):
            row[name] = mean_range(pd.Series(trained(runs, variant, column)), "{:.2f}")
        row["steps to 5 %"] = (
            f"{reached.median():,.0f} ({len(reached)} of {len(hits)})" if len(reached) else "–"
        )
        if variant == reference:
            row[f"final, less {reference}'s"] = "–"
        else:
            pairs, _ = trained_pairs(runs, variant, reference)
            difference = pairs.final - pairs.final_other
            text = f"{difference.mean():+.2f}"
            if len(difference) > 1:
                text += " [{:+.2f}, {:+.2f}]".format(*t_interval(difference))
            row[f"final, less {reference}'s"] = (
                f"{text}, {len(difference)}" if len(difference) else "–"
            )
        rows.append(row)
    return labelled(tidy(rows), "variant")


def training_losses(records: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Mean and range, over each variant's seeds that trained, of the last epoch's training loss."""
    rows = []
    for variant, own in records.items():
        losses = pd.Series([r.curves["train_loss"][-1] for r in own if not diverged(r)])
        rows.append({"variant": variant, "last training loss": mean_range(losses, "{:.3f}")})
    return labelled(tidy(rows), "variant")


def _groups(
    table: pd.DataFrame, columns: list[str]
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows that agree in some columns, with what they agree in, in order of appearance."""
    for names, group in table.groupby(columns, sort=False):
        assert isinstance(names, tuple)
        yield tuple(map(str, names)), group
