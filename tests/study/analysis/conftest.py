"""Runs with hand-made curves, whose tables can be read off them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from made_runs import MakeRecord

from gmlib.study.runs.records import RunRecord


@pytest.fixture
def curve(make_record: MakeRecord) -> Callable[..., RunRecord]:
    """A run of epochs of 10 steps, evaluated at steps 0, 1, 3, 10, 20, ..., with errors in %."""

    def make(arm: str, seed: int, *percent: float, lost: bool = False) -> RunRecord:
        steps = [0, 1, 3, *range(10, 10 * len(percent) - 20, 10)][: len(percent)]
        losses = [1.0, *([math.nan] if lost else [0.5]) * (len(percent) - 1)]
        return make_record(arm, seed, [error / 100 for error in percent], steps, losses)

    return make


@pytest.fixture
def ends(make_record: MakeRecord) -> Callable[..., RunRecord]:
    """A run with given errors (%) at the ends of its epochs, and other ones before the first."""

    def make(
        arm: str, seed: int, *percent: float, lost: bool = False, **settings: Any
    ) -> RunRecord:
        steps = [0, 1, 3, *range(10, 10 * len(percent) + 10, 10)]
        losses = [1.0, *([math.nan] if lost else [0.5]) * (len(steps) - 1)]
        errors = [error / 100 for error in (90, 1, 2, *percent)]
        return make_record(arm, seed, errors, steps, losses, **settings)

    return make
