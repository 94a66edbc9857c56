"""Learning rates: tables of errors, and which rate is best."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gmlib.study import analysis
from gmlib.study.runs.records import RunRecord

Ends = Callable[..., RunRecord]


@pytest.fixture
def records(ends: Ends) -> dict[str, list[RunRecord]]:
    """Two variants at three rates with two seeds; of one, a seed diverged at the highest."""
    errors = {0.1: (8.0, 6.0), 0.2: (4.0, 6.0), 0.4: (1.0, 2.0)}
    return {
        "one": [
            ends("KUMAR", seed, error, error, lost=lr == 0.4 and seed == 1, lr=lr)
            for lr, own in errors.items()
            for seed, error in enumerate(own)
        ],
        "other": [
            ends("FC", seed, 2 * error, error, lr=lr)
            for lr, own in errors.items()
            for seed, error in enumerate(own)
        ],
    }


def test_errors_are_one_row_a_run(records: dict[str, list[RunRecord]]) -> None:
    errors = analysis.rate_errors(records)
    assert list(errors) == ["variant", "lr", "seed", "error", "diverged"]
    assert errors.variant.tolist() == ["one"] * 6 + ["other"] * 6
    assert errors.error.tolist() == pytest.approx([8, 6, 4, 6, 1, 2, 12, 9, 6, 9, 1.5, 3])
    assert errors.diverged.tolist() == [*[False] * 5, True, *[False] * 6]
    final = analysis.rate_errors(records, "final")
    assert final.error.tolist() == pytest.approx([8, 6, 4, 6, 1, 2] * 2)


def test_a_rate_at_which_a_seed_diverges_is_not_the_best(
    records: dict[str, list[RunRecord]],
) -> None:
    best = analysis.best_rates(analysis.rate_errors(records))
    assert best.to_dict("records") == [
        {"variant": "one", "lr": 0.2, "error": pytest.approx(5.0), "at_edge": False},
        {"variant": "other", "lr": 0.4, "error": pytest.approx(2.25), "at_edge": True},
    ]


def test_there_may_be_no_rate_at_all(ends: Ends) -> None:
    errors = analysis.rate_errors({"lost": [ends("BL", 0, 90.0, 90.0, lost=True)]})
    (best,) = analysis.best_rates(errors).to_dict("records")
    assert math.isnan(best["lr"])
    assert math.isnan(best["error"])
    assert analysis.best_rates_table(errors).text.to_dict("index") == {"lost": {"0.1": "lost"}}


def test_the_table_marks_the_best_and_counts_the_lost(
    records: dict[str, list[RunRecord]],
) -> None:
    text = analysis.best_rates_table(analysis.rate_errors(records)).text
    assert text.to_dict("index") == {
        "one": {"0.1": "7.00", "0.2": "5.00 *", "0.4": "1.00 (1 lost)"},
        "other": {"0.1": "10.50", "0.2": "7.50", "0.4": "2.25 *"},
    }
