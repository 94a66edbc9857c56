"""The note's statements about its figures, each beside what the runs gave.

Ranges are as wide as the note's own rounding: "9-10 %" is 9 to 10, "near 55 %" is 50 to 60,
"5.85 %" is itself. The note is J. Paek, "A Calibrated Initialization for Gaussian Mixture Layers",
30 June 2026; its section 5 is where the figures are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gmlib.study.metrics import (
    Claim,
    compare_with_note,
    curves_table,
    errors_at,
    first_hits,
    runs_table,
    trained,
)
from gmlib.study.propagation import mean_displacement
from gmlib.study.training import RunRecord

__all__ = ["dynamics", "endpoints", "headlines", "propagation", "thresholds"]


def dynamics(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Fig. 1."""
    curves, runs = curves_table(records), runs_table(records)
    start = {arm: trained(runs, arm, "first_epoch") for arm in ("BL", "KUMAR")}
    end = {arm: trained(runs, arm, "final") for arm in ("BL", "KUMAR")}
    return compare_with_note(
        [
            Claim("BL after the first epoch", (50, 60), start["BL"], " %"),
            Claim("BL after the first epoch, worst seed", (75, 79), _highest(start["BL"]), " %"),
            Claim("BL at the end", (5.7, 5.9), end["BL"], " %"),
            Claim("KUMAR after the first epoch", (9, 10), start["KUMAR"], " %"),
            Claim("KUMAR after the third epoch", (4.5, 5.5), errors_at(curves, "KUMAR", 3), " %"),
            Claim("KUMAR at the end", (4.2, 4.4), end["KUMAR"], " %"),
            Claim(
                "KUMAR's first epoch spreads less over seeds than BL's",
                True,
                _tighter(start["KUMAR"], start["BL"]),
            ),
            Claim("FC is below both at every epoch", True, _always_lowest(curves, "FC")),
            Claim("seeds of BL that diverge", (0, 0), [_num_diverged(runs, "BL")], digits=0),
        ]
    )


def thresholds(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Fig. 2. Steps are given as evaluated here, and as if only epochs' ends were."""
    fine = first_hits(records, [10, 5, 3.5])
    coarse = first_hits(records, [10, 5, 3.5], epoch_ends=True)

    def steps(arm: str, threshold: float, hits: pd.DataFrame = fine) -> NDArray[np.float64]:
        rows = hits[(hits.arm == arm) & (hits.threshold == threshold)]
        return rows.step.to_numpy(dtype=float)

    def all_reach(arm: str, threshold: float) -> bool | None:
        found = np.isfinite(steps(arm, threshold))
        return bool(found.all()) if len(found) else None

    def none_reaches(arm: str, threshold: float) -> bool | None:
        found = np.isfinite(steps(arm, threshold))
        return bool(not found.any()) if len(found) else None

    return compare_with_note(
        [
            Claim("KUMAR to 10 %", (1000, 2000), steps("KUMAR", 10), " steps", 0),
            Claim(
                "KUMAR to 10 %, at epochs' ends",
                (1000, 2000),
                steps("KUMAR", 10, coarse),
                " steps",
                0,
            ),
            Claim("BL to 10 %", (6000, 10000), steps("BL", 10), " steps", 0),
            Claim("KUMAR to 5 %", (6000, 15000), steps("KUMAR", 5), " steps", 0),
            Claim("every seed of KUMAR reaches 5 %", True, all_reach("KUMAR", 5)),
            Claim("no seed of BL reaches 5 %", True, none_reaches("BL", 5)),
            Claim("every seed of FC reaches 3.5 %", True, all_reach("FC", 3.5)),
            Claim("no seed of KUMAR reaches 3.5 %", True, none_reaches("KUMAR", 3.5)),
            Claim("no seed of BL reaches 3.5 %", True, none_reaches("BL", 3.5)),
        ]
    )


def endpoints(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Fig. 3."""
    runs = runs_table(records)
    errors = {
        (arm, column): trained(runs, arm, column)
        for arm in ("FC", "BL", "KUMAR")
        for column in ("best", "final")
    }
    return compare_with_note(
        [
            Claim("BL, best", (5.85, 5.85), errors["BL", "best"], " %", 2),
            Claim("BL, final", (5.9, 5.9), errors["BL", "final"], " %"),
            Claim("KUMAR, best", (4.2, 4.2), errors["KUMAR", "best"], " %"),
            Claim("KUMAR, final", (4.7, 4.7), errors["KUMAR", "final"], " %"),
            *(
                Claim(f"KUMAR {column} below BL's in every pair", True, _wins(runs, column))
                for column in ("best", "final")
            ),
            Claim(
                "KUMAR's best errors spread less than BL's",
                True,
                _tighter(errors["KUMAR", "best"], errors["BL", "best"]),
            ),
            *(
                Claim(
                    f"every FC {column} below every KUMAR {column}",
                    True,
                    _below(errors["FC", column], errors["KUMAR", column]),
                )
                for column in ("best", "final")
            ),
        ]
    )


def propagation(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Fig. 4, from records with snapshots."""
    runs = runs_table(records)
    moved = {record.config.arm: mean_displacement(record) for record in records}

    def farther(kind: str, time: int) -> bool | None:
        if not {"BL", "KUMAR"} <= set(moved):
            return None
        return bool(moved["KUMAR"][kind][time] > moved["BL"][kind][time])

    def grows(arm: str) -> bool | None:
        return bool(moved[arm]["spread"][-1] > moved[arm]["spread"][0]) if arm in moved else None

    return compare_with_note(
        [
            Claim("BL, final error", (6.68, 6.68), trained(runs, "BL", "final"), " %", 2),
            Claim("KUMAR, final error", (6.49, 6.49), trained(runs, "KUMAR", "final"), " %", 2),
            Claim(
                "KUMAR's clouds move farther for their size, first epoch",
                True,
                farther("relative", 1),
            ),
            Claim(
                "KUMAR's clouds move farther for their size, all epochs",
                True,
                farther("relative", -1),
            ),
            Claim(
                "KUMAR's clouds move farther in distance, all epochs", True, farther("absolute", -1)
            ),
            Claim("KUMAR's clouds grow", True, grows("KUMAR")),
        ]
    )


def headlines(records: Sequence[RunRecord]) -> pd.DataFrame:
    """The few statements that say most, from the runs of the main study."""
    table = pd.concat([dynamics(records), thresholds(records), endpoints(records)])
    return table.loc[
        [
            "BL after the first epoch",
            "KUMAR after the first epoch",
            "BL to 10 %",
            "KUMAR to 10 %",
            "BL, best",
            "KUMAR, best",
            "BL, final",
            "KUMAR, final",
            "FC is below both at every epoch",
            "seeds of BL that diverge",
        ]
    ]


def _highest(values: NDArray[np.float64]) -> list[float]:
    return [float(values.max())] if len(values) else []


def _tighter(values: NDArray[np.float64], others: NDArray[np.float64]) -> bool | None:
    if min(len(values), len(others)) < 2:
        return None
    return bool(values.std() < others.std())


def _below(values: NDArray[np.float64], others: NDArray[np.float64]) -> bool | None:
    if not (len(values) and len(others)):
        return None
    return bool(values.max() < others.min())


def _wins(runs: pd.DataFrame, column: str) -> bool | None:
    table = runs[~runs.diverged].pivot(index="seed", columns="arm", values=column)
    if not {"BL", "KUMAR"} <= set(table.columns):
        return None
    difference = (table["KUMAR"] - table["BL"]).dropna()
    return bool((difference < 0).all()) if len(difference) else None


def _always_lowest(curves: pd.DataFrame, arm: str) -> bool | None:
    """Whether the arm's mean error is the lowest at the end of every epoch."""
    ends = curves[~curves.diverged & (curves.epoch > 0.5)]
    ends = ends[np.isclose(ends.epoch, ends.epoch.round())]
    means = ends.pivot_table(index="epoch", columns="arm", values="test_error")
    others = [other for other in means.columns if other != arm]
    if arm not in means or not others:
        return None
    return bool((means[arm] < means[others].min(axis=1)).all())


def _num_diverged(runs: pd.DataFrame, arm: str) -> float:
    rows = runs[runs.arm == arm]
    return float(rows.diverged.sum()) if len(rows) else np.nan
