"""Comparisons of arms and variants: summaries over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy

from gmlib.study.analysis.curves import (
    MEASURES,
    by_variant,
    diverged,
    first_hits,
    groups,
    init_table,
    runs_table,
    tidy,
    trained,
)
from gmlib.study.analysis.statistics import mean_interval, mean_range, median_range
from gmlib.study.analysis.text import Table, estimated, ranged
from gmlib.study.runs.records import RunRecord

__all__ = [
    "arm_differences",
    "depth_table",
    "difference_table",
    "divergence_table",
    "init_summary",
    "measures_summary",
    "threshold_table",
    "training_losses",
    "two_by_two_table",
    "variant_table",
]

_ENDS = {name: MEASURES[name] for name in ("smoothed", "best", "final")}
_ERRORS = {"first_epoch": "epoch 1", **_ENDS}  # columns of `runs_table`
_DIFFERENCES = {
    **{name: estimated(column) for column, name in _ENDS.items()},
    "pairs": "{pairs}",
}
_DIVERGED = "{diverged} of {seeds}"


def measures_summary(runs: pd.DataFrame) -> Table:
    """Count the diverged seeds by data set and arm, and average the measures (%) of the others.

    Args:
        runs: The output of `runs_table`.

    Returns:
        One row per data set and arm: the numbers of seeds and of those that diverged, and mean and
        range of each measure.
    """
    rows = []
    for (dataset, arm), group in groups(runs, ["dataset", "arm"]):
        survivors = group[~group.diverged]
        row = {"dataset": dataset, "arm": arm, **_fates(group)}
        for measure in MEASURES:
            row |= mean_range(measure, survivors[measure])
        rows.append(row)
    return Table(
        tidy(rows),
        {"in %": "{dataset:title}, {arm}"},
        {
            "seeds": "{seeds}",
            "diverged": "{diverged}",
            **{name: ranged(measure, "{:.2f}") for measure, name in MEASURES.items()},
        },
    )


def divergence_table(records: Sequence[RunRecord]) -> Table:
    """Tabulate how many of each arm's seeds diverged and when, and how the others trained.

    Returns:
        One row per arm: seeds that diverged, their share with an exact 95 % interval, the median
        and range of the first evaluated step at which their loss was not finite, and the mean and
        range of the others' test error (%) at the end of the first epoch.
    """
    rows = []
    runs = runs_table(records)
    for arm in runs.arm.unique():
        own = runs[runs.arm == arm]
        steps = [
            record.curves["step"][np.isfinite(record.curves["test_loss"]).argmin()]
            for record in records
            if record.config.label == arm and diverged(record)
        ]
        interval = scipy.stats.binomtest(int(own.diverged.sum()), len(own)).proportion_ci()
        rows.append(
            {
                "arm": arm,
                **_fates(own),
                "share": own.diverged.mean(),
                "share_low": interval.low,
                "share_high": interval.high,
                **median_range("step", pd.Series(steps, dtype=float)),
                **mean_range("first_epoch", pd.Series(trained(runs, arm, "first_epoch"))),
            }
        )
    return Table(
        tidy(rows),
        {"arm": "{arm}"},
        {
            "seeds": "{seeds}",
            "diverged": "{diverged}",
            "share": "{share:.0%}",
            "95 % interval": "{share_low:.0%} to {share_high:.0%}",
            "diverged by step": ranged("step", "{:,.0f}"),
            "error of the others (%)": ranged("first_epoch", "{:.1f}"),
        },
    )


def init_summary(table: pd.DataFrame) -> Table:
    """Mean and range over seeds of `init_table`'s output scales by layer, and of the loss.

    Returns:
        One row per arm and layer; the loss is the same for all layers of an arm.
    """
    rows = []
    for arm in table.arm.unique():
        runs = table[table.arm == arm]
        loss = mean_range("initial_loss", runs.drop_duplicates("seed").initial_loss)
        for layer in sorted(runs.layer.unique()):
            std = mean_range("std", runs.std_after[runs.layer == layer])
            rows.append({"arm": arm, "layer": layer, **std, **loss})
    return Table(
        tidy(rows),
        {"arm": "{arm}"},
        {
            "std, layer {layer}": ranged("std", "{:.2g}"),
            "initial test loss": ranged("initial_loss", "{:.3g}"),
        },
    )


def threshold_table(hits: pd.DataFrame, faster: str = "KUMAR", slower: str = "BL") -> Table:
    """Seeds that reached each threshold, their first-hit steps, and the speed-up by pairs.

    Steps are given as median and range. The speed-up is the steps of `slower` divided by those of
    `faster`, seed by seed, for the seeds with which both reached the threshold. It is also given as
    median and range.

    Returns:
        One row per threshold and arm; the speed-up is the same for all arms of a threshold.
    """
    rows = []
    for threshold, group in hits.groupby("threshold", sort=False):
        speedups = pd.Series(dtype=float)
        if {faster, slower} <= set(group.arm):
            pairs = group.pivot(index="seed", columns="arm", values="step")
            speedups = pairs[slower] / pairs[faster]
        for arm, runs in group.groupby("arm", sort=False):
            rows.append(
                {
                    "threshold": threshold,
                    "arm": arm,
                    "seeds": len(runs),
                    "reached": int(runs.step.count()),
                    **median_range("step", runs.step),
                    **median_range("speedup", speedups),
                }
            )
    reached = "{reached} of {seeds}"
    columns = {"{arm}": f"{reached}: {ranged('step', '{:,.0f}', otherwise=reached)}"}
    if {faster, slower} <= set(hits.arm):
        columns[f"{faster} over {slower}"] = ranged("speedup", "{:,.1f}x")
    return Table(tidy(rows), {"threshold": "{threshold:g} %"}, columns)


def depth_table(records: Mapping[int, Sequence[RunRecord]]) -> Table:
    """Tabulate the initial scale, divergence and test errors of each depth and arm.

    Args:
        records: Records by number of layers.

    Returns:
        One row per depth and arm: the output std of the last layer at the start; seeds that
        diverged; the test error (%) after the first epoch, the smoothed final, the best and the
        final one, as mean and range over the seeds that trained.
    """
    rows = []
    for depth, own in records.items():
        runs, scales = runs_table(own), init_table(own)
        for arm in runs.arm.unique():
            starts = scales[scales.arm == arm].groupby("layer").std_after.mean()
            rows.append(
                {
                    "layers": depth,
                    "arm": arm,
                    "std": starts.iloc[-1],
                    **_fates(runs[runs.arm == arm]),
                    **_errors(runs, arm),
                }
            )
    return Table(
        tidy(rows),
        {"layers": "{layers}, {arm}"},
        {
            "std, last layer": "{std:two digits}",
            "diverged": _DIVERGED,
            **{name: ranged(column, "{:.2f}") for column, name in _ERRORS.items()},
        },
    )


def variant_table(records: Mapping[str, Sequence[RunRecord]]) -> Table:
    """Tabulate initial scale, divergence and test errors of each variant.

    Returns:
        One row per variant: std of the logits at the start; seeds that diverged; the test error (%)
        after the first epoch, the smoothed final, the best and the final one, as mean and range
        over the seeds that trained (the last two are shown without the range); seeds that reached
        5 % and the median of their first-hit steps.
    """
    runs, starts = by_variant(records, runs_table), by_variant(records, init_table)
    rows = []
    for variant, own in records.items():
        layers = starts[starts.arm == variant]
        steps = first_hits(own, [5.0]).step
        rows.append(
            {
                "variant": variant,
                "std": layers.std_after[layers.layer == layers.layer.max()].mean(),
                **_fates(runs[runs.arm == variant]),
                **_errors(runs, variant),
                "reached": int(steps.count()),
                "step": steps.median(),
            }
        )
    return Table(
        tidy(rows),
        {"variant": "{variant}"},
        {
            "std of logits": "{std:two digits}",
            "diverged": _DIVERGED,
            "epoch 1": ranged("first_epoch", "{:.1f}"),
            "smoothed final": ranged("smoothed", "{:.2f}"),
            "best": "{best:.2f}|–",
            "final": "{final:.2f}|–",
            "steps to 5 %": "{step:,.0f} ({reached} of {seeds})|–",
        },
    )


def difference_table(records: Mapping[str, Sequence[RunRecord]], reference: str) -> Table:
    """Tabulate the paired differences of each variant's errors from those of a reference.

    Args:
        records: By variant.
        reference: The variant to compare with. If it is not among them, there are no pairs.

    Returns:
        One row per variant other than `reference`: the number of pairs in which both trained, and
        the mean over these pairs of the difference, in percentage points, of the smoothed final,
        the best and the final error, with its 95 % interval by Student's t (a single pair has
        none).
    """
    errors = {variant: _by_seed(runs_table(own)) for variant, own in records.items()}
    theirs = errors.get(reference, pd.DataFrame(columns=list(_ERRORS), dtype=float))
    rows = [
        {"variant": variant, **_differences(own - theirs)}
        for variant, own in errors.items()
        if variant != reference
    ]
    return Table(
        tidy(rows),
        {f"less {reference}": "{variant}"},
        _DIFFERENCES,
    )


def arm_differences(
    records: Mapping[str, Sequence[RunRecord]], arm: str = "KUMAR", other: str = "BL"
) -> Table:
    """Tabulate the paired differences ``arm - other`` of errors in several settings.

    Args:
        records: Runs of both arms, by setting.
        arm: The arm that is expected to have lower errors.
        other: The arm to compare with.

    Returns:
        One row per setting; else as `difference_table`.
    """
    rows = []
    for setting, own in records.items():
        runs = runs_table(own)
        ours, theirs = (_by_seed(runs[runs.arm == name]) for name in (arm, other))
        rows.append({"setting": setting, **_differences(ours - theirs)})
    return Table(tidy(rows), {f"{arm} less {other}": "{setting}"}, _DIFFERENCES)


def two_by_two_table(
    records: Mapping[str, Sequence[RunRecord]],
    rows: Mapping[str, tuple[str, str]],
    columns: Sequence[str],
) -> Table:
    """Tabulate what each of two choices does, given the other, and their interaction.

    Args:
        records: By variant.
        rows: The two variants of each row of the two-by-two, by the row's name.
        columns: Names of the two columns.

    Returns:
        One row per comparison, with the number of pairs (by seed) in which all of its variants
        trained, and the mean difference of the test errors, in percentage points, with its 95 %
        interval by Student's t: the second column less the first in each row, and the second row
        less the first in each column; last the interaction, which is the former difference in the
        second row less that in the first.
    """
    errors = {variant: _by_seed(runs_table(own)) for variant, own in records.items()}
    (above, (a, b)), (below, (c, d)) = ((row, [errors[own] for own in rows[row]]) for row in rows)
    first, second = columns
    comparisons = {
        f"{above}: {second}, less {first}": b - a,
        f"{below}: {second}, less {first}": d - c,
        f"{first}: {below}, less {above}": c - a,
        f"{second}: {below}, less {above}": d - b,
        "interaction": (d - c) - (b - a),
    }
    return Table(
        tidy({"comparison": name, **_differences(own)} for name, own in comparisons.items()),
        {"difference": "{comparison}"},
        {_ERRORS["first_epoch"]: estimated("first_epoch"), **_DIFFERENCES},
    )


def _by_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """The errors in a `runs_table` of one variant, of the seeds that trained, one row each."""
    return runs[~runs.diverged].set_index("seed")[list(_ERRORS)]


def _differences(differences: pd.DataFrame) -> dict[str, float]:
    """The number of pairs, and the mean and interval of each column over them."""
    pairs = differences.dropna()
    row: dict[str, float] = {"pairs": len(pairs)}
    for column in pairs:
        row |= mean_interval(str(column), pairs[column])
    return row


def training_losses(records: Mapping[str, Sequence[RunRecord]]) -> Table:
    """Mean and range of the last epoch's training loss over each variant's seeds that trained."""
    rows = []
    for variant, own in records.items():
        losses = [record.curves["train_loss"][-1] for record in own if not diverged(record)]
        rows.append({"variant": variant, **mean_range("loss", pd.Series(losses, dtype=float))})
    return Table(
        tidy(rows), {"variant": "{variant}"}, {"last training loss": ranged("loss", "{:.3f}")}
    )


def _fates(runs: pd.DataFrame) -> dict[str, object]:
    """How many seeds there are, and how many of them diverged."""
    return {"seeds": len(runs), "diverged": int(runs.diverged.sum())}


def _errors(runs: pd.DataFrame, arm: str) -> dict[str, float]:
    """Mean and range of each of an arm's errors over the seeds that trained."""
    errors: dict[str, float] = {}
    for column in _ERRORS:
        errors |= mean_range(column, pd.Series(trained(runs, arm, column)))
    return errors
