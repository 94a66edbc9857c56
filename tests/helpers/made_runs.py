"""Make runs and tables of runs by hand, and read tables of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from gmlib.init import LayerScale
from gmlib.study.analysis.text import Table
from gmlib.study.runs.records import RunRecord

MakeRecord = Callable[..., RunRecord]


def rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(table.itertuples(index=False, name=None))


def assert_numbers(table: Table, *expected: dict[str, Any]) -> None:
    """The numbers of a table are these, row by row, up to rounding."""
    found = table.numbers.to_dict("records")
    assert len(found) == len(expected)
    for row, numbers in zip(found, expected, strict=True):
        assert list(row) == list(numbers)
        assert row == pytest.approx(numbers, nan_ok=True)


def spread(
    name: str, middle: float = math.nan, low: float | None = None, high: float | None = None
) -> dict[str, float]:
    """A quantity with its range; without one, its only value; without any, NaN."""
    return {
        name: middle,
        f"{name}_low": middle if low is None else low,
        f"{name}_high": middle if high is None else high,
    }


def hits_of(threshold: float, **steps: dict[int, float]) -> pd.DataFrame:
    """First-hit steps by arm and seed; NaN where the threshold is never reached."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "threshold": threshold, "step": step}
            for arm, seeds in steps.items()
            for seed, step in seeds.items()
        ]
    )


def runs_of(dataset: str = "mnist", **errors: dict[int, float | None]) -> pd.DataFrame:
    """Runs by arm and seed, with measures made from one error; None for one that diverged."""
    return pd.DataFrame(
        [
            {
                "dataset": dataset,
                "arm": arm,
                "seed": seed,
                "smoothed": 90.2 if error is None else error,
                "best": 90.2 if error is None else 2 * error,
                "final": 90.2 if error is None else 3 * error,
                "auc": 90.2 if error is None else 4 * error,
                "diverged": error is None,
            }
            for arm, seeds in errors.items()
            for seed, error in seeds.items()
        ]
    )


def estimate(name: str, *values: float) -> dict[str, float]:
    """The mean of values with its 95 % interval, from a table of Student's t."""
    t = (math.nan, 12.7062047, 4.3026527, 3.1824463)[len(values) - 1] if values else math.nan
    mean = sum(values) / len(values) if values else math.nan
    margin = t * float(pd.Series(values, dtype=float).std()) / math.sqrt(max(len(values), 1))
    return spread(name, mean, mean - margin, mean + margin)


def with_stds(record: RunRecord, *stds: float) -> RunRecord:
    """The record with these output scales, by layer."""
    layers = (LayerScale(str(index), 77.0, 1.0, std) for index, std in enumerate(stds))
    return replace(record, init_report=tuple(layers))
