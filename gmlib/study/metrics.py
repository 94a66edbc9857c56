"""From records to tidy tables: what is measured, by run, and how it compares.

Errors are in percent here. A run *diverged* if a loss of its is not finite; its parameters are then
NaN and its "error" is that of always answering 0. Such runs count where runs are counted and are
left out where errors are averaged, and every table that leaves them out says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike, NDArray

from gmlib.study.config import RunConfig
from gmlib.study.cost import multiplications, num_parameters
from gmlib.study.families import DENSE
from gmlib.study.records import RunRecord

__all__ = [
    "COSTS",
    "MEASURES",
    "against_dense",
    "at_epoch_ends",
    "bootstrap_interval",
    "budget_summary",
    "budget_table",
    "by_variant",
    "curves_table",
    "dataset_title",
    "depth_table",
    "divergence_table",
    "epochs_to_match",
    "errors_at",
    "first_hits",
    "init_summary",
    "init_table",
    "labelled",
    "measures_summary",
    "measures_table",
    "median_interval",
    "movement_table",
    "paired_differences",
    "paired_medians",
    "pareto_front",
    "readout_movement",
    "runs_table",
    "threshold_table",
    "trained",
    "trained_pairs",
    "training_losses",
    "two_digits",
    "variant_table",
    "windows_table",
]

MEASURES: Mapping[str, str] = {
    "best": "best",
    "smoothed": "smoothed final",
    "auc": "AUC",
}
"""What the note's screen measures of a run: columns of `measures_table`, with their names."""

COSTS = ("parameters", "multiplications")
"""What a network costs: columns of `budget_table`; see `study.cost`."""

_LAST_EPOCHS = 5  # of which `smoothed` is the mean


def diverged(record: RunRecord) -> bool:
    """Whether a loss of the run is not finite."""
    return not np.isfinite(record.curves["test_loss"]).all()


def curves_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row an evaluation: dataset, arm, seed, step, epoch, test_error (%), test_loss, diverged.

    ``epoch`` is a fraction within epochs.
    """
    return _table(
        {
            "dataset": record.config.dataset,
            "arm": record.config.arm,
            "seed": record.config.seed,
            "step": step,
            "epoch": record.config.epochs * step / max(record.curves["step"][-1], 1),
            "test_error": 100.0 * error,
            "test_loss": loss,
            "diverged": diverged(record),
        }
        for record in records
        for step, error, loss in zip(
            record.curves["step"],
            record.curves["test_error"],
            record.curves["test_loss"],
            strict=True,
        )
    )


def at_epoch_ends(curves: pd.DataFrame) -> pd.DataFrame:
    """The rows of `curves_table` at the ends of epochs."""
    return curves[(curves.step > 0) & np.isclose(curves.epoch, curves.epoch.round())]


def _epoch_errors(record: RunRecord) -> NDArray[np.float64]:
    """Test errors (%) at the ends of epochs, or at the start of a run that has no epochs."""
    curve = curves_table([record])
    ends = at_epoch_ends(curve)
    return (ends if len(ends) else curve).test_error.to_numpy(dtype=float)


def runs_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run: arm, seed, first_epoch, best and final test error (%), diverged.

    ``best`` is the lowest error at the end of an epoch, ``final`` the error at the end of the
    last, ``first_epoch`` that at the end of the first.
    """
    rows = []
    for record in records:
        errors = _epoch_errors(record)
        rows.append(
            {
                "arm": record.config.arm,
                "seed": record.config.seed,
                "first_epoch": errors[0],
                "best": errors.min(),
                "final": errors[-1],
                "diverged": diverged(record),
            }
        )
    return _table(rows)


def measures_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a run: dataset, arm, seed, three measures of its test error (%), diverged.

    ``best`` is the lowest error at the end of an epoch. ``smoothed`` is the mean over the ends of
    the last five epochs, or of all if there are fewer. ``auc`` is the area under the curve of the
    error at the ends of epochs, a bar of width one an epoch, divided by the number of epochs: their
    mean, and so an error itself.

    Raises:
        ValueError: If there are no runs.
    """
    if not records:
        raise ValueError("there are no runs: datasets, arms and seeds each need at least one entry")
    rows = []
    for record in records:
        errors = _epoch_errors(record)
        rows.append(
            {
                "dataset": record.config.dataset,
                "arm": record.config.arm,
                "seed": record.config.seed,
                "best": errors.min(),
                "smoothed": errors[-_LAST_EPOCHS:].mean(),
                "auc": errors.mean(),
                "diverged": diverged(record),
            }
        )
    return _table(rows)


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
                    name: _mean_range(survivors[column], "{:.2f}")
                    for column, name in MEASURES.items()
                },
            }
        )
    return labelled(_table(rows), "in %")


def trained(runs: pd.DataFrame, arm: str, column: str) -> NDArray[np.float64]:
    """Values of a column of `runs_table` over the seeds of `arm` that trained, by seed."""
    rows = runs[(runs.arm == arm) & ~runs.diverged]
    return rows.sort_values("seed")[column].to_numpy(dtype=float)


def errors_at(curves: pd.DataFrame, arm: str, epoch: float) -> NDArray[np.float64]:
    """Test errors (%) at the end of an epoch, over the seeds of `arm` that trained."""
    rows = curves[(curves.arm == arm) & ~curves.diverged & np.isclose(curves.epoch, epoch)]
    return rows.sort_values("seed").test_error.to_numpy(dtype=float)


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
                "diverged by step": _range(steps, "{:,.0f}"),
                "error of the others (%)": _mean_range(survivors, "{:.1f}"),
            }
        )
    return labelled(_table(rows), "arm")


def init_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a layer: arm, seed, layer (from 1), std before, scale and std after, initial loss."""
    return _table(
        {
            "arm": record.config.arm,
            "seed": record.config.seed,
            "layer": index,
            **{name: value for name, value in asdict(layer).items() if name != "name"},
            "initial_loss": record.curves["test_loss"][0],
        }
        for record in records
        for index, layer in enumerate(record.init_report, start=1)
    )


def init_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over seeds of `init_table`'s output scales by layer, and of the loss."""
    rows = []
    for arm in table.arm.unique():
        runs = table[table.arm == arm]
        row = {"arm": arm}
        for layer in sorted(runs.layer.unique()):
            values = runs.loc[runs.layer == layer, "std_after"]
            row[f"std, layer {layer}"] = _mean_range(values, "{:.2g}")
        row["initial test loss"] = _mean_range(runs.drop_duplicates("seed").initial_loss, "{:.3g}")
        rows.append(row)
    return labelled(_table(rows), "arm")


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
                    "arm": record.config.arm,
                    "seed": record.config.seed,
                    "threshold": float(threshold),
                    "step": step,
                }
            )
    return _table(rows)


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
                row[str(arm)] += f": {_range(steps, '{:,.0f}')}"
        if {faster, slower} <= set(group.arm):
            pairs = group.pivot(index="seed", columns="arm", values="step")
            row[f"{faster} over {slower}"] = _range(
                (pairs[slower] / pairs[faster]).dropna(), "{:,.1f}x"
            )
        rows.append(row)
    return labelled(_table(rows), "threshold")


def trained_pairs(runs: pd.DataFrame, arm: str, other: str) -> tuple[pd.DataFrame, int]:
    """Seeds of which both arms trained, and how many pairs were lost to divergence.

    The columns of `runs_table` are those of `arm`; those of `other` end in ``_other``.
    """
    pairs = runs[runs.arm == arm].merge(
        runs[runs.arm == other], on="seed", suffixes=("", "_other"), validate="one_to_one"
    )
    both = pairs[~(pairs.diverged | pairs.diverged_other)]
    return both, len(pairs) - len(both)


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
                f"{arm} lower": _wins(difference),
                "sign test p": f"{_sign_test(difference):.2g}",
                "mean difference": f"{difference.mean():.2f}",
                "bootstrap 95 %": f"[{low:.2f}, {high:.2f}]",
                "t 95 %": "[{:.2f}, {:.2f}]".format(*_t_interval(difference)),
            }
        )
    return labelled(_table(rows), "test error")


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
                    f"{arm} lower": _wins(difference),
                    "pairs lost": num_lost,
                    "sign test p": f"{_sign_test(difference):.2g}",
                    "median": f"{difference.median():.2f}",
                    "interval": f"[{low:.2f}, {high:.2f}]",
                    "coverage": f"{100 * coverage:.1f} %",
                }
            )
    return labelled(_table(rows), f"{arm} less {other}")


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
            row[name] = f"{_wins(means)}: {means.median():.2f}" if len(means) else "–"
        rows.append(row)
    return labelled(_table(rows), "mean over")


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
                f"{other}'s best": _range(theirs.idxmin(), "{:g}"),
                f"{arm} got there": f"{len(first)} of {len(theirs.columns)}",
                f"{arm}'s first": _range(first, "{:g}"),
            }
        )
    return labelled(_table(rows), "epochs")


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


def budget_table(
    records: Iterable[RunRecord], num_features: int, measure: str = "smoothed"
) -> pd.DataFrame:
    """What each network costs and how well it does, over all seeds.

    Args:
        records: The runs; those that differ in nothing but the seed are one network.
        num_features: Size of the inputs, on which the costs depend.
        measure: Which error, one of `MEASURES`.

    Returns:
        One row a network: its name, arm, family, number of layers, hidden units of a GM network
        and size, its cost by each name of `COSTS`, seeds and those that diverged, and median,
        lowest and highest error (%), to which a run that diverged contributes what it came to.
    """
    rows = []
    for own in _networks(records).values():
        config, runs = own[0].config, measures_table(own)
        errors = runs[measure]
        rows.append(
            {
                "network": _network_name(config, num_features),
                "arm": config.arm,
                "family": config.family.name,
                "layers": len(config.widths),
                "hidden": "" if config.family is DENSE else ", ".join(map(str, config.widths[:-1])),
                "size": config.family.size(config),
                "parameters": num_parameters(config, num_features),
                "multiplications": multiplications(config, num_features),
                "seeds": len(runs),
                "diverged": int(runs.diverged.sum()),
                "error": errors.median(),
                "low": errors.min(),
                "high": errors.max(),
            }
        )
    return _table(rows)


def _networks(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by network: those that differ in nothing but the seed."""
    networks: dict[str, list[RunRecord]] = {}
    for record in records:
        networks.setdefault(replace(record.config, seed=0).run_id, []).append(record)
    return networks


def _network_name(config: RunConfig, num_features: int) -> str:
    layers = "→".join(map(str, (num_features, *config.widths)))
    size = "" if config.family is DENSE else f", {config.family.size(config)}"
    return _unbroken(f"{config.arm} {layers}{size}")


def pareto_front(costs: ArrayLike, errors: ArrayLike) -> NDArray[np.bool_]:
    """Which networks no other beats, none costing less and erring no more, or the reverse.

    Args:
        costs: Costs by network.
        errors: Errors by network.
    """
    costs, errors = np.asarray(costs, dtype=float), np.asarray(errors, dtype=float)
    no_worse = (costs[:, None] <= costs) & (errors[:, None] <= errors)  # [i, j]: i than j
    better = (costs[:, None] < costs) | (errors[:, None] < errors)
    return np.asarray(~(no_worse & better).any(axis=0))


def budget_summary(table: pd.DataFrame) -> pd.DataFrame:
    """`budget_table` for reading, from the smallest network on, with who is on which front.

    Returns:
        One row a network: parameters, multiplications, seeds that diverged, median and range of
        the error (%), and the costs by which the network is on the Pareto front of all.
    """
    ordered = table.sort_values("parameters", kind="stable")
    fronts = {cost: pareto_front(ordered[cost], ordered.error) for cost in COSTS}
    rows = []
    for index, row in enumerate(ordered.to_dict("records")):
        on = [cost for cost in COSTS if fronts[cost][index]]
        errors = pd.Series([row["low"], row["high"]])
        rows.append(
            {
                "network": row["network"],
                **{cost: f"{row[cost]:,}" for cost in COSTS},
                "diverged": f"{row['diverged']} of {row['seeds']}",
                "test error (%)": _with_range(errors, row["error"], "{:.2f}"),
                "on the front": "both" if len(on) == len(COSTS) else ", ".join(on) or "–",
            }
        )
    return labelled(_table(rows), "network")


def against_dense(table: pd.DataFrame, cost: str = "parameters") -> pd.DataFrame:
    """For each other network, what a dense one costs at its error, and does at its cost.

    Args:
        table: As `budget_table` gives.
        cost: Which cost, one of `COSTS`.

    Returns:
        One row a network that is not dense: its error (%); by its hidden units, the cheapest dense
        network that errs no more, and how many times as much as that one the network costs; the
        dense network that errs least of those that cost no more, and its error.
    """
    is_dense = table.family == DENSE.name
    dense = table[is_dense]
    rows = []
    for _, own in table[~is_dense].sort_values(cost, kind="stable").iterrows():
        row = {"network": own.network, "error": f"{own.error:.2f}"}
        as_good, affordable = dense[dense.error <= own.error], dense[dense[cost] <= own[cost]]
        if len(as_good):
            cheapest = as_good.loc[as_good[cost].idxmin()]
            row["FC as good"] = _unbroken(cheapest["size"])
            row["cost ratio"] = f"{own[cost] / cheapest[cost]:.1f}"
        if len(affordable):
            best = affordable.loc[affordable.error.idxmin()]
            row["FC in its budget"] = _unbroken(best["size"])
            row["its error"] = f"{best.error:.2f}"
        rows.append(row)
    columns = ["error", "FC as good", "cost ratio", "FC in its budget", "its error"]
    return labelled(pd.DataFrame(rows, columns=["network", *columns]).fillna("–"), "network")


def readout_movement(records: Iterable[RunRecord], num_features: int) -> pd.DataFrame:
    """How far the means and the readouts of the first layer of each GM network have come.

    Returns:
        One row a network: distance of mu and of U from the initialization at the end, relative to
        the norm there, as the median over the seeds that trained; and the share of the network's
        parameters that is in that U.
    """
    rows = []
    for own in _networks(records).values():
        config = own[0].config
        table = movement_table(own)
        last = table[(table.layer == 1) & (table.step == table.step.max())]
        if config.family is DENSE or last.empty:
            continue
        width = config.widths[0]
        share = config.num_components * width * num_features / num_parameters(config, num_features)
        moved = last.groupby("parameter").moved.median()
        rows.append(
            {
                "network": _network_name(config, num_features),
                "mu moved": two_digits(moved["mu"]),
                "U moved": two_digits(moved["U"]),
                "share of parameters in U": f"{100 * share:.0f} %",
            }
        )
    return labelled(_table(rows), "network")


def _unbroken(text: str) -> str:
    """With spaces at which a table's cell does not break."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def median_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Exact interval of the median between two of the values, and its coverage.

    Of n independent draws from a continuous distribution, the number below its median is binomial
    with probability 1/2. The median therefore lies between the r-th lowest and the r-th highest
    with probability ``1 - 2 P(binomial < r)``, whatever the distribution. The narrowest such
    interval is taken that covers the median with at least probability `level`; or, where none does
    (of 95 %: below six values), that from the lowest to the highest value.

    Returns:
        Lower end, upper end and coverage; NaN for fewer than 2 values.
    """
    values = np.sort(np.asarray(values, dtype=float))
    n = len(values)
    if n < 2:
        return np.nan, np.nan, np.nan
    ranks = np.arange(1, n // 2 + 1)
    coverages = 1.0 - 2.0 * scipy.stats.binom.cdf(ranks - 1, n, 0.5)  # falls as the rank grows
    rank = max(1, int((coverages >= level).sum()))
    return float(values[rank - 1]), float(values[n - rank]), float(coverages[rank - 1])


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
                row[name] = _mean_range(pd.Series(trained(runs, arm, column)), "{:.2f}")
            rows.append(row)
    return labelled(_table(rows), "layers")


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
                "arm": record.config.arm,
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
            row[name] = _mean_range(pd.Series(trained(runs, variant, column)), "{:.2f}")
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
                text += " [{:+.2f}, {:+.2f}]".format(*_t_interval(difference))
            row[f"final, less {reference}'s"] = (
                f"{text}, {len(difference)}" if len(difference) else "–"
            )
        rows.append(row)
    return labelled(_table(rows), "variant")


def training_losses(records: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """Mean and range, over each variant's seeds that trained, of the last epoch's training loss."""
    rows = []
    for variant, own in records.items():
        losses = pd.Series([r.curves["train_loss"][-1] for r in own if not diverged(r)])
        rows.append({"variant": variant, "last training loss": _mean_range(losses, "{:.3f}")})
    return labelled(_table(rows), "variant")


def bootstrap_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, with a fixed seed; NaN for fewer than 2 values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    result = scipy.stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _t_interval(values: pd.Series, level: float = 0.95) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    if values.min() == values.max():  # of which SciPy makes NaN
        return float(values.min()), float(values.max())
    low, high = scipy.stats.t.interval(
        level, len(values) - 1, values.mean(), scipy.stats.sem(values)
    )
    return float(low), float(high)


def _wins(differences: pd.Series) -> str:
    return f"{int((differences < 0).sum())} of {len(differences)}"


def _sign_test(differences: pd.Series) -> float:
    decided = int((differences != 0).sum())
    if not decided:
        return np.nan
    return float(scipy.stats.binomtest(int((differences < 0).sum()), decided).pvalue)


def _groups(
    table: pd.DataFrame, columns: list[str]
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows that agree in some columns, with what they agree in, in order of appearance."""
    for names, group in table.groupby(columns, sort=False):
        assert isinstance(names, tuple)
        yield tuple(map(str, names)), group


def dataset_title(dataset: str) -> str:
    """A data set's name as prose writes it; that of one's own as it is."""
    titles = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
    return titles.get(dataset, dataset if ":" in dataset else dataset.upper())


def two_digits(value: float) -> str:
    """The number to two digits, as prose writes it: 0.0028, 61, 8,200."""
    return f"{float(f'{value:.2g}'):,g}"


def _table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def labelled(table: pd.DataFrame, label: str) -> pd.DataFrame:
    """The table with a column as its row labels, and its name in the header's only row."""
    return table.set_index(label).rename_axis(index=None, columns=label)


def _range(values: pd.Series, form: str) -> str:
    """Median and range, or a dash."""
    return _with_range(values, values.median(), form) if len(values) else "–"


def _mean_range(values: pd.Series, form: str) -> str:
    """Mean and range, or a dash."""
    return _with_range(values, values.mean(), form) if len(values) else "–"


def _with_range(values: pd.Series, middle: float, form: str) -> str:
    low, center, high = (form.format(value) for value in (values.min(), middle, values.max()))
    return center if low == high else f"{center} ({low} to {high})"
