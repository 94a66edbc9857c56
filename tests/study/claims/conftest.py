"""Records made by hand, and what a metric gives on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from gmlib.study.claims.claim import Claim
from gmlib.study.claims.results import Result, Runs
from gmlib.study.runs.records import RunRecord

EPOCH = 938


@pytest.fixture
def record(make_record: Callable[..., RunRecord]) -> Callable[..., RunRecord]:
    def make(arm: str, seed: int, errors: Sequence[float], **settings: Any) -> RunRecord:
        """Errors in percent: at the first epochs' ends, and then the last."""
        errors = [*errors, *[errors[-1]] * (20 - len(errors))]
        fractions = [0.9, *(error / 100 for error in errors)]
        steps = [EPOCH * epoch for epoch in range(21)]
        return make_record(arm, seed, fractions, steps=steps, epochs=20, **settings)

    return make


@pytest.fixture(scope="session")
def measure() -> Callable[..., Result]:
    """What a metric gives, as a statement calls it."""

    def call(
        metric: str,
        *arms: Runs,
        compare: str = "",
        against: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Result:
        settings = {"compare": compare, "against": against or {}, "parameters": parameters}
        return Claim("id", "s", "1", "quote", "q", metric=metric, **settings).measure(arms)

    return call
