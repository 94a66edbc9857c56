"""Make small tables that figures are drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from gmlib.study import analysis
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


def curves_of(
    make_record: MakeRecord,
    errors: dict[tuple[str, int], list[float]],
    lost: Sequence[tuple[str, int]] = (),
) -> pd.DataFrame:
    """Two epochs of 10 steps, evaluated at steps 0, 1, 3, 10 and 20."""
    return analysis.curves_table(
        make_record(
            *run,
            values,
            [0, 1, 3, 10, 20],
            [1.0, *([math.nan] if run in lost else [0.5]) * 4],
        )
        for run, values in errors.items()
    )


def runs_of(best: dict[str, list[float]], lost: dict[str, int] | None = None) -> pd.DataFrame:
    """Runs by arm with their best errors, the final ones one point above; and diverged ones."""
    rows = [
        {"arm": arm, "seed": seed, "best": error, "final": error + 1, "diverged": False}
        for arm, errors in best.items()
        for seed, error in enumerate(errors)
    ]
    rows += [
        {"arm": arm, "seed": 10 + seed, "best": 30.0, "final": 90.2, "diverged": True}
        for arm, number in (lost or {}).items()
        for seed in range(number)
    ]
    return pd.DataFrame(rows)


def inits_of(stds: dict[str, list[list[float]]]) -> pd.DataFrame:
    """By arm, a list a seed of output scales by layer."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "layer": layer, "std_before": 77.0, "std_after": std}
            for arm, seeds in stds.items()
            for seed, layers in enumerate(seeds)
            for layer, std in enumerate(layers, start=1)
        ]
    )
