"""Gates of clouds over training: which clouds shut for good, when, and what that goes with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from gmlib.study.analysis.curves import (
    by_variant,
    diverged,
    first_hits,
    groups,
    runs_table,
    tidy,
    trained,
    trained_pairs,
)
from gmlib.study.analysis.statistics import mean_range, median_range, t_interval
from gmlib.study.analysis.text import Table, ranged
from gmlib.study.runs.records import RunRecord

__all__ = [
    "DEAD",
    "blackouts_table",
    "clouds_table",
    "dead_and_error",
    "deaths_table",
    "deaths_thresholds",
    "error_correlations",
    "fates",
    "gates_table",
    "lag_table",
    "live_table",
    "spearman",
]

DEAD = 0.95
"""A cloud is dead if it is shut to this share of the test images or more, linear if it is open."""

_CLOUD = ["arm", "seed", "layer", "cloud"]  # what names a cloud in `gates_table`
_TIMES = {"first_epoch": "epoch 1", "end": "end"}  # columns of `fates`


def gates_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row an evaluation and cloud: arm, seed, layer, cloud (from 1), step, epoch, shut, open.

    ``shut`` and ``open`` are shares of the test images, see `runs.gates`. Left out are runs that
    diverged, and those that have no gates; if that is all, the table is empty.
    """
    columns = [*_CLOUD, "step", "epoch", "shut", "open"]
    tables = [pd.DataFrame(columns=columns)]
    for record in records:
        if diverged(record):
            continue
        steps = np.asarray(record.curves["step"])
        layers = dict.fromkeys(name.rpartition(".")[0] for name in record.gates)
        for layer, name in enumerate(layers, start=1):
            shut, is_open = (np.asarray(record.gates[f"{name}.{way}"]) for way in ("shut", "open"))
            evaluations, clouds = np.indices(shut.shape)
            own = {
                "arm": record.config.label,
                "seed": record.config.seed,
                "layer": layer,
                "cloud": clouds.ravel() + 1,
                "step": steps[evaluations.ravel()],
                "epoch": record.config.epochs * steps[evaluations.ravel()] / max(steps[-1], 1),
                "shut": shut.ravel(),
                "open": is_open.ravel(),
            }
            tables.append(pd.DataFrame(own))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def fates(gates: pd.DataFrame, threshold: float = DEAD) -> pd.DataFrame:
    """One row a cloud: whether and when it was dead, and what it is in the end.

    Args:
        gates: The output of `gates_table`.
        threshold: Share of the test images from which on a cloud that is shut to them is dead, and
            one that is open to them is linear.

    Returns:
        Beside what names the cloud, whether it is dead after the ``first_epoch`` and at the
        ``end``; the first evaluated step at which it was, ``died`` (NaN if never); and whether it
        is ``linear`` at the end.
    """
    states = gates.assign(dead=gates.shut >= threshold, linear=gates.open >= threshold)
    clouds = states.groupby(_CLOUD, sort=False)
    early = states[states.epoch < 1 + 1e-9].groupby(_CLOUD, sort=False)
    columns = {
        "first_epoch": early.dead.last(),
        "end": clouds.dead.last(),
        "died": states[states.dead].groupby(_CLOUD).step.min(),
        "linear": clouds.linear.last(),
    }
    return pd.DataFrame(columns, index=columns["end"].index).reset_index()


def live_table(gates: pd.DataFrame, threshold: float = DEAD) -> pd.DataFrame:
    """One row an evaluation and layer: arm, seed, layer, step, epoch, and the clouds not dead.

    Args:
        gates: The output of `gates_table`.
        threshold: As in `fates`.
    """
    alive = gates.assign(live=gates.shut < threshold)
    columns = ["arm", "seed", "layer", "step", "epoch"]
    return alive.groupby(columns, sort=False).live.sum().reset_index()


def clouds_table(records: Sequence[RunRecord]) -> Table:
    """Tabulate the share of test images that each cloud is shut to, over the epochs of a run.

    Args:
        records: Runs of one seed with a single layer each.

    Returns:
        One row per arm, time (the start, the first epoch and the last) and cloud.
    """
    gates = gates_table(records)
    times = sorted({0.0, min(1.0, gates.epoch.max()), gates.epoch.max()})
    kept = gates[np.isclose(gates.epoch.to_numpy()[:, None], times).any(axis=1)]
    return Table(
        kept[["arm", "epoch", "cloud", "shut"]].reset_index(drop=True),
        {"arm": "{arm}", "epoch": "{epoch:.0f}"},
        {"cloud {cloud}": "{shut:.0f %}"},
    )


def deaths_table(records: Mapping[str, Sequence[RunRecord]]) -> Table:
    """Count the dead clouds of a seed by variant and layer, and say when they died.

    Returns:
        One row per variant and layer: the seeds, and those of them that diverged and are left out
        of what follows; mean and range over seeds of the numbers of clouds that are dead when most
        are, after the first epoch and at the end, and of those that are linear at the end; over
        the clouds that were ever dead, their number, the median and range of the first step at
        which they were, and how many are not dead at the end.
    """
    rows = []
    gates = by_variant(records, gates_table)
    clouds, live = fates(gates), live_table(gates)
    fewest = live.groupby(["arm", "layer", "seed"]).live.min()
    for (variant, layer), own in groups(clouds, ["arm", "layer"]):
        counts = own.groupby("seed")[["first_epoch", "end", "linear"]].sum()
        counts["most"] = own.cloud.max() - fewest[variant, int(layer)]
        died = own[own.died.notna()]
        row = {
            "variant": variant,
            "layer": int(layer),
            "seeds": len(records[variant]),
            "diverged": sum(map(diverged, records[variant])),
            "died": len(died),
            "came_back": int((~died.end).sum()),
            **median_range("step", died.died),
        }
        for name in ("most", "first_epoch", "end", "linear"):
            row |= mean_range(name, counts[name])
        rows.append(row)
    return Table(
        tidy(rows),
        {"clouds": "{variant}", "layer": "{layer}"},
        {
            "diverged": "{diverged} of {seeds}",
            "dead, at most": _counted("most"),
            **{f"dead, {when}": _counted(name) for name, when in _TIMES.items()},
            "step of death": ranged("step", "{:,.0f}"),
            "came back": "{came_back} of {died}",
            "linear, end": _counted("linear"),
        },
    )


def blackouts_table(records: Mapping[str, Sequence[RunRecord]], error: float = 50.0) -> Table:
    """Tabulate when all clouds of a layer were dead at once, and when the error fell.

    Args:
        records: By variant.
        error: Test error (%) that is waited for.

    Returns:
        One row per variant and layer: the runs that trained, and those in which there was an
        evaluated step at which all clouds of the layer were dead; over the latter, median and
        range of the first such step and of the first after it at which some cloud was not dead;
        over all that trained, median and range of the first step at which the error was at or
        below `error`.
    """
    rows = []
    live = live_table(by_variant(records, gates_table))
    hits = by_variant(records, partial(first_hits, thresholds=[error])).set_index(["arm", "seed"])
    for (variant, layer), own in groups(live, ["arm", "layer"]):
        dark = own[own.live == 0].groupby("seed").step.min()
        later = own[(own.live > 0) & (own.step > own.seed.map(dark))]
        seeds = own.seed.unique()
        rows.append(
            {
                "variant": variant,
                "layer": int(layer),
                "runs": len(seeds),
                "dark": len(dark),
                **median_range("from", dark),
                **median_range("until", later.groupby("seed").step.min()),
                **median_range("hit", hits.step[variant][seeds]),
            }
        )
    return Table(
        tidy(rows),
        {"all clouds dead": "{variant}", "layer": "{layer}"},
        {
            "runs": "{dark} of {runs}",
            "from step": ranged("from", "{:,.0f}"),
            "until step": ranged("until", "{:,.0f}"),
            f"error of {error:g} % by step": ranged("hit", "{:,.0f}"),
        },
    )


def deaths_thresholds(
    records: Mapping[str, Sequence[RunRecord]], thresholds: Sequence[float] = (0.9, DEAD, 0.99)
) -> Table:
    """Count the dead clouds of a seed by variant and layer, for several meanings of dead.

    Args:
        records: By variant.
        thresholds: Shares of the test images from which on a cloud that is shut to them is dead.

    Returns:
        One row per variant, layer and threshold: mean and range over seeds of the numbers of
        clouds that are dead after the first epoch and at the end.
    """
    rows = []
    gates = by_variant(records, gates_table)
    for threshold in thresholds:
        clouds = fates(gates, threshold)
        for (variant, layer), own in groups(clouds, ["arm", "layer"]):
            counts = own.groupby("seed")[[*_TIMES]].sum()
            row = {"variant": variant, "layer": int(layer), "threshold": threshold}
            for name in _TIMES:
                row |= mean_range(name, counts[name])
            rows.append(row)
    return Table(
        tidy(rows),
        {"clouds": "{variant}", "layer": "{layer}"},
        {f"{when}, {{threshold:.0f %}}": _counted(name) for name, when in _TIMES.items()},
    )


def dead_and_error(records: Mapping[str, Sequence[RunRecord]]) -> pd.DataFrame:
    """One row a run that trained: its dead clouds in all layers, and its smoothed final error.

    Returns:
        Columns arm, seed; ``first_epoch`` and ``end``, the numbers of clouds that are dead then;
        ``smoothed``, as `runs_table` has it.
    """
    clouds = fates(by_variant(records, gates_table))
    counts = clouds.groupby(["arm", "seed"], sort=False)[[*_TIMES]].sum()
    errors = by_variant(records, runs_table)[["arm", "seed", "smoothed"]]
    return counts.reset_index().merge(errors, on=["arm", "seed"], validate="one_to_one")


def error_correlations(records: Mapping[str, Sequence[RunRecord]]) -> Table:
    """Rank correlation, over the seeds of a variant, of dead clouds and smoothed final error.

    Returns:
        One row per variant: the runs that trained, and those that diverged; for the clouds that
        are dead after the first epoch and at the end, Spearman's correlation of their number with
        the error, its 95 % interval and the p-value, as `spearman` gives them.
    """
    rows = []
    counts = dead_and_error(records)
    for variant, own in records.items():
        runs = counts[counts.arm == variant]
        row = {"variant": variant, "runs": len(runs), "diverged": sum(map(diverged, own))}
        for name in _TIMES:
            parts = ("rho", "low", "high", "p")
            found = spearman(runs[name], runs.smoothed)
            row |= {f"{name}_{part}": value for part, value in zip(parts, found, strict=True)}
        rows.append(row)
    columns = {"runs": "{runs}", "diverged": "{diverged}"}
    for name in _TIMES:
        rho, interval = f"{{{name}_rho:.2f}}", f"[{{{name}_low:.2f}}, {{{name}_high:.2f}}]"
        columns[f"dead, {_TIMES[name]}"] = f"{rho} {interval}|{rho}|–"
        columns[f"p, {_TIMES[name]}"] = f"{{{name}_p:.2f}}|–"
    return Table(tidy(rows), {"correlation": "{variant}"}, columns)


def spearman(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> tuple[float, float, float, float]:
    """Spearman's rank correlation of a few pairs, with an interval and a test.

    The interval is Fisher's, with the variance ``(1 + rho^2 / 2) / (n - 3)`` of Bonett and Wright.
    It is rough for so few pairs as here, all the more with ties. The two-sided p-value is that of
    the permutations of the pairs: of all up to 8 pairs, of 99,999 random ones beyond, with a fixed
    seed.

    Returns:
        Correlation, lower and upper end, p-value; NaN where they are not defined: all for fewer
        than 2 pairs or equal values, the interval for fewer than 4 pairs or a correlation of 1.
    """
    a, b = (scipy.stats.rankdata(values) for values in (x, y))
    n = len(a)
    if n < 2 or a.std() == 0.0 or b.std() == 0.0:
        return np.nan, np.nan, np.nan, np.nan
    a, b = ((ranks - ranks.mean()) / ranks.std() for ranks in (a, b))
    test = scipy.stats.permutation_test(
        (a,),
        lambda ranks, axis: (ranks * b).mean(axis=axis).round(12),  # ties are ties
        permutation_type="pairings",
        vectorized=True,
        n_resamples=99_999,
        rng=np.random.default_rng(0),
    )
    rho, low, high = float(test.statistic), np.nan, np.nan
    if n > 3 and abs(rho) < 1.0 - 1e-9:
        error = np.sqrt((1.0 + rho**2 / 2.0) / (n - 3))
        reach = scipy.stats.norm.ppf((1.0 + level) / 2.0) * error
        low, high = np.tanh(np.arctanh(rho) + np.array([-reach, reach])).tolist()
    return rho, low, high, float(test.pvalue)


def lag_table(records: Mapping[str, Sequence[RunRecord]], references: Sequence[str]) -> Table:
    """Tabulate test errors by variant, and how far they are behind those of some of the variants.

    Returns:
        One row per variant: the seeds, and those that diverged; the test error (%) after the
        first epoch and the smoothed final one, as mean and range over the seeds that trained; for
        each of `references`, the mean paired difference from its smoothed error in percentage
        points, with its 95 % interval by Student's t (a single pair has none) and the number of
        pairs in which both trained.
    """
    runs = by_variant(records, runs_table)
    rows = []
    for variant in records:
        own = runs[runs.arm == variant]
        row: dict[str, object] = {
            "variant": variant,
            "seeds": len(own),
            "diverged": int(own.diverged.sum()),
        }
        for column in ("first_epoch", "smoothed"):
            row |= mean_range(column, pd.Series(trained(runs, variant, column)))
        for number, reference in enumerate(references):
            pairs, _ = trained_pairs(runs, variant, reference)
            if variant == reference:
                pairs = pairs[:0]  # not compared with itself
            difference = pairs.smoothed - pairs.smoothed_other
            low, high = t_interval(difference)
            row |= {
                f"less_{number}": difference.mean(),
                f"less_{number}_low": low,
                f"less_{number}_high": high,
                f"pairs_{number}": len(difference),
            }
        rows.append(row)
    columns = {
        "diverged": "{diverged} of {seeds}",
        "epoch 1": ranged("first_epoch", "{:.1f}"),
        "smoothed": ranged("smoothed", "{:.2f}"),
    }
    for number, reference in enumerate(references):
        mean, count = f"{{less_{number}:+.2f}}", f"{{pairs_{number}}}"
        interval = f"[{{less_{number}_low:+.2f}}, {{less_{number}_high:+.2f}}]"
        header = f"smoothed, less {reference}'s"
        columns[header] = f"{mean} {interval}, {count}|{mean}, {count}|–"
    return Table(tidy(rows), {"variant": "{variant}"}, columns)


def _counted(name: str) -> str:
    """Template of a mean number of clouds with its range."""
    return f"{{{name}:.1f}} ({{{name}_low:.0f}} to {{{name}_high:.0f}})|–"
