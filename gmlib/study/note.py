"""The note's statements about its figures, each beside what the runs gave.

A statement is held against a range: "9-10 %" is 9 to 10, "near 55 %" is taken as 50 to 60, "5.85 %"
as itself. The note is J. Paek, "A Calibrated Initialization for Gaussian Mixture Layers", 30 June
2026; its section 5 is where the figures are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gmlib.study.metrics import (
    MEASURES,
    Claim,
    at_epoch_ends,
    compare_with_note,
    curves_table,
    dataset_title,
    errors_at,
    first_hits,
    measures_table,
    runs_table,
    trained,
    trained_pairs,
)
from gmlib.study.propagation import propagate
from gmlib.study.training import RunRecord

__all__ = ["dynamics", "endpoints", "headlines", "propagation", "screen", "thresholds"]

Comparison = pd.DataFrame | str
"""A table of the note's statements beside ours, or a sentence where there is nothing to compare."""

MAIN_STUDY = {"dataset": "mnist", "epochs": 20, "num_components": 10, "widths": (100, 10)}
PROPAGATION = {"dataset": "mnist", "epochs": 20, "num_components": 5, "widths": (10,)}
SCREEN = {"epochs": 30, "num_components": 20, "widths": (10,)}
SCREEN_DATASETS = ("mnist", "fashion-mnist")
_NO_FIGURES = "The note has no figures for these settings."


def dynamics(records: Sequence[RunRecord]) -> Comparison:
    """Fig. 1."""
    if not _is_the_notes(records, MAIN_STUDY):
        return _NO_FIGURES
    curves, runs = curves_table(records), runs_table(records)
    start = {arm: trained(runs, arm, "first_epoch") for arm in ("BL", "KUMAR")}
    end = {arm: trained(runs, arm, "final") for arm in ("BL", "KUMAR")}
    return compare_with_note(
        [
            Claim("BL after the first epoch", (50, 60), start["BL"], " %", 1, "near 55 %"),
            Claim(
                "BL after the first epoch, worst seed",
                (75, 79),
                _highest(start["BL"]),
                " %",
                1,
                "up to ~77 %",
            ),
            Claim("BL at the end", (5.8, 5.8), end["BL"], " %"),
            Claim("KUMAR after the first epoch", (9, 10), start["KUMAR"], " %", 1, "9–10 %"),
            Claim(
                'KUMAR "within a couple of epochs" (after the second)',
                (5, 5),
                errors_at(curves, "KUMAR", 2),
                " %",
                0,
            ),
            Claim("KUMAR at the end", (4.3, 4.3), end["KUMAR"], " %"),
            Claim(
                "KUMAR's first epoch spreads less over seeds than BL's",
                True,
                _tighter(start["KUMAR"], start["BL"]),
            ),
            Claim("FC is below both at every epoch", True, _always_lowest(curves, "FC")),
            Claim(
                "seeds of BL that diverge",
                (0, 0),
                [_num_diverged(runs, "BL")],
                digits=0,
                stated="none reported",
            ),
        ]
    )


def thresholds(records: Sequence[RunRecord]) -> Comparison:
    """Fig. 2. Steps are given as evaluated here, and as if only epochs' ends were."""
    if not _is_the_notes(records, MAIN_STUDY):
        return _NO_FIGURES
    fine = first_hits(records, [10, 5, 3.5])
    coarse = first_hits(records, [10, 5, 3.5], epoch_ends=True)

    def steps(arm: str, threshold: float, hits: pd.DataFrame = coarse) -> NDArray[np.float64]:
        rows = hits[(hits.arm == arm) & (hits.threshold == threshold)]
        return rows.step.to_numpy(dtype=float)

    def share(arm: str, threshold: float) -> float | None:
        reached = np.isfinite(steps(arm, threshold))
        return float(reached.mean()) if len(reached) else None

    def is_(value: float | None, expected: float) -> bool | None:
        return None if value is None else value == expected

    dense = share("FC", 3.5)
    return compare_with_note(
        [
            Claim("KUMAR to 10 %, at epochs' ends", (1000, 2000), steps("KUMAR", 10), " steps", 0),
            Claim(
                "KUMAR to 10 %, at all evaluations",
                (1000, 2000),
                steps("KUMAR", 10, fine),
                " steps",
                0,
            ),
            Claim("BL to 10 %", (6000, 10000), steps("BL", 10), " steps", 0),
            Claim("KUMAR to 5 %", (6000, 15000), steps("KUMAR", 5), " steps", 0),
            Claim("every seed of KUMAR reaches 5 %", True, is_(share("KUMAR", 5), 1)),
            Claim("no seed of BL reaches 5 %", True, is_(share("BL", 5), 0)),
            Claim("FC reaches 3.5 %", True, None if dense is None else dense > 0),
            Claim("no seed of KUMAR reaches 3.5 %", True, is_(share("KUMAR", 3.5), 0)),
            Claim("no seed of BL reaches 3.5 %", True, is_(share("BL", 3.5), 0)),
        ]
    )


def endpoints(records: Sequence[RunRecord]) -> Comparison:
    """Fig. 3."""
    if not _is_the_notes(records, MAIN_STUDY):
        return _NO_FIGURES
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
                Claim(
                    f"KUMAR {column} below BL's in every pair",
                    True,
                    _wins(runs, column),
                    stated="clearly below",
                )
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


def propagation(records: Sequence[RunRecord]) -> Comparison:
    """Fig. 4, from records with snapshots."""
    if not _is_the_notes(records, PROPAGATION):
        return _NO_FIGURES
    runs = runs_table(records)
    final = {arm: trained(runs, arm, "final") for arm in ("BL", "KUMAR")}
    paired = len(final["BL"]) == len(final["KUMAR"])
    gap = final["BL"] - final["KUMAR"] if paired else np.empty(0)
    moved = {record.config.arm: _moved_in_plane(record) for record in records}
    both = {"BL", "KUMAR"} <= set(moved)
    return compare_with_note(
        [
            Claim("BL, final error", (6.68, 6.68), final["BL"], " %", 2),
            Claim("KUMAR, final error", (6.49, 6.49), final["KUMAR"], " %", 2),
            Claim("BL's final error less KUMAR's", (0.19, 0.19), gap, " %", 2),
            Claim(
                "in the plane drawn, KUMAR's clouds move farther than BL's",
                True,
                moved["KUMAR"] > moved["BL"] if both else None,
            ),
        ]
    )


def screen(records: Sequence[RunRecord]) -> Comparison:
    """The earlier screen, of which section 4 gives the wins."""
    datasets = {record.config.dataset for record in records}
    if not (_is_the_notes(records, SCREEN) and datasets <= set(SCREEN_DATASETS)):
        return _NO_FIGURES
    table = measures_table(records)
    claims = []
    for dataset in SCREEN_DATASETS:
        runs, title = table[table.dataset == dataset], dataset_title(dataset)
        pairs, _ = trained_pairs(runs, "KUMAR", "BL")
        for column, name in MEASURES.items():
            wins = int((pairs[column] < pairs[f"{column}_other"]).sum())
            claims.append(
                Claim(
                    f"{title}, {name}: KUMAR lower",
                    (len(pairs), len(pairs)),
                    [wins] if len(pairs) else [],
                    f" of {len(pairs)}",
                    digits=0,
                    stated="10 of 10",
                )
            )
        claims.append(
            Claim(
                f"{title}: seeds of BL that diverge",
                (0, 0),
                [_num_diverged(runs, "BL")],
                digits=0,
                stated="none reported",
            )
        )
    return compare_with_note(claims)


def headlines(records: Sequence[RunRecord]) -> Comparison:
    """The few statements that say most, from the runs of the main study."""
    tables = [table(records) for table in (dynamics, thresholds, endpoints)]
    frames = [table for table in tables if isinstance(table, pd.DataFrame)]
    if not frames:
        return _NO_FIGURES
    return pd.concat(frames).loc[
        [
            "BL after the first epoch",
            "KUMAR after the first epoch",
            "BL to 10 %",
            "KUMAR to 10 %, at epochs' ends",
            "BL, best",
            "KUMAR, best",
            "BL, final",
            "KUMAR, final",
            "FC is below both at every epoch",
            "seeds of BL that diverge",
        ]
    ]


def _is_the_notes(records: Sequence[RunRecord], settings: Mapping[str, object]) -> bool:
    """Whether the runs are of the note's setting, whatever their arms and seeds."""
    return all(
        getattr(record.config, name) == value
        for record in records
        for name, value in settings.items()
    )


def _moved_in_plane(record: RunRecord) -> float:
    centers = propagate(record).centers
    return float(np.linalg.norm(centers[-1] - centers[0], axis=-1).mean())


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
    pairs, _ = trained_pairs(runs, "KUMAR", "BL")
    return bool((pairs[column] < pairs[f"{column}_other"]).all()) if len(pairs) else None


def _always_lowest(curves: pd.DataFrame, arm: str) -> bool | None:
    """Whether the arm's mean error is the lowest at the end of every epoch."""
    ends = at_epoch_ends(curves[~curves.diverged])
    means = ends.pivot_table(index="epoch", columns="arm", values="test_error")
    others = [other for other in means.columns if other != arm]
    if arm not in means or not others:
        return None
    return bool((means[arm] < means[others].min(axis=1)).all())


def _num_diverged(runs: pd.DataFrame, arm: str) -> float:
    rows = runs[runs.arm == arm]
    return float(rows.diverged.sum()) if len(rows) else np.nan
