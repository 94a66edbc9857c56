"""From records to tidy tables: what is measured, by run, and how it compares.

Errors are in percent here. A run *diverged* if a loss of its is not finite; its parameters are then
NaN and its "error" is that of always answering 0. Such runs count where runs are counted and are
left out where errors are averaged, and every table that leaves them out says how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gmlib.study.training import RunRecord

__all__ = [
    "Claim",
    "at_epoch_ends",
    "bootstrap_interval",
    "compare_with_note",
    "curves_table",
    "divergence_table",
    "errors_at",
    "first_hits",
    "init_summary",
    "init_table",
    "labelled",
    "paired_differences",
    "runs_table",
    "threshold_table",
    "trained",
    "trained_pairs",
]


def diverged(record: RunRecord) -> bool:
    """Whether a loss of the run is not finite."""
    return not np.isfinite(record.curves["test_loss"]).all()


def curves_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row an evaluation: arm, seed, step, epoch, test_error (%), test_loss, diverged."""
    return _table(
        {
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


def runs_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run: arm, seed, first_epoch, best and final test error (%), diverged.

    ``best`` is the lowest error at the end of an epoch, ``final`` the error at the end of the
    last, ``first_epoch`` that at the end of the first.
    """
    rows = []
    for record in records:
        curve = curves_table([record])
        ends = at_epoch_ends(curve)
        errors = ends.test_error.to_numpy() if len(ends) else curve.test_error.to_numpy()
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
        share = stats.binomtest(int(lost.sum()), len(lost)).proportion_ci()
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
        wins = int((difference < 0).sum())
        rows.append(
            {
                "test error": column,
                "pairs": len(difference),
                "lost to divergence": num_lost,
                f"{arm} lower": f"{wins} of {len(difference)}",
                "sign test p": f"{_sign_test(difference):.2g}",
                "mean difference": f"{difference.mean():.2f}",
                "bootstrap 95 %": f"[{low:.2f}, {high:.2f}]",
                "t 95 %": "[{:.2f}, {:.2f}]".format(*_t_interval(difference)),
            }
        )
    return labelled(_table(rows), "test error")


def bootstrap_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, with a fixed seed; NaN for fewer than 2 values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    result = stats.bootstrap(
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
    low, high = stats.t.interval(level, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


def _sign_test(differences: pd.Series) -> float:
    decided = int((differences != 0).sum())
    if not decided:
        return np.nan
    return float(stats.binomtest(int((differences < 0).sum()), decided).pvalue)


@dataclass(frozen=True)
class Claim:
    """A statement of the note beside what the runs gave.

    Args:
        quantity: What is stated.
        note: The note's figure as a range, as wide as its rounding or its "about"; or, for a
            statement without a figure, True.
        ours: Measured values, one a seed (NaN where there is none); or whether it holds, None if
            the runs cannot tell.
        unit: Unit of the figures.
        digits: Digits behind the point.
        stated: What to print for the note, where a range would not say it.
    """

    quantity: str
    note: tuple[float, float] | bool
    ours: ArrayLike | bool | None
    unit: str = ""
    digits: int = 1
    stated: str | None = None

    def row(self) -> dict[str, str]:
        """The claim as a row of a table, with the verdict that the numbers give.

        ``agrees``: the mean over seeds lies in the note's range, to the digit that is shown. Else:
        how far it is off (percentages in points), and
        ``within the spread`` if the range over seeds still meets the note's.
        """
        if isinstance(self.note, bool):
            note = "yes" if self.note else "no"
            if self.ours is None:
                return self._row(note, "not measured", "cannot be judged")
            return self._row(note, "yes" if self.ours else "no", bool(self.ours) == self.note)
        low, high = self.note
        values = np.asarray(self.ours, dtype=float)
        values = values[np.isfinite(values)]
        stated = self._with_unit(low) if low == high else self._span(low, high) + self.unit
        if not len(values):
            return self._row(stated, "not measured", "cannot be judged")
        mean = values.mean()
        slack = 0.5 * 10.0**-self.digits
        if low - slack <= mean <= high + slack:
            verdict = "agrees"
        else:
            off = mean - high if mean > high else low - mean
            unit = " points" if self.unit.strip() == "%" else self.unit
            side = "above" if mean > high else "below"
            verdict = f"{off:,.{self.digits}f}{unit} {side}"
            if values.min() <= high and low <= values.max():
                verdict += ", within the spread"
        ours = self._with_unit(mean)
        if len(values) > 1:
            ours += f" ({self._span(values.min(), values.max())})"
        return self._row(stated, ours, verdict)

    def _with_unit(self, value: float) -> str:
        return f"{value:,.{self.digits}f}{self.unit}"

    def _span(self, low: float, high: float) -> str:
        return f"{low:,.{self.digits}f} to {high:,.{self.digits}f}"

    def _row(self, note: str, ours: str, verdict: str | bool) -> dict[str, str]:
        if isinstance(verdict, bool):
            verdict = "agrees" if verdict else "disagrees"
        note = note if self.stated is None else self.stated
        return {"quantity": self.quantity, "note": note, "ours": ours, "verdict": verdict}


def compare_with_note(claims: Iterable[Claim]) -> pd.DataFrame:
    """The note's statements beside ours; ours as mean (lowest to highest) over seeds."""
    table = labelled(_table(claim.row() for claim in claims), "quantity")
    return table.replace(" %", "\N{NO-BREAK SPACE}%", regex=True)


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
