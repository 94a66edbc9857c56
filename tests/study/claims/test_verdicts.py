"""Results held against statements."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gmlib.study.claims import judge
from gmlib.study.claims.claim import Claim
from gmlib.study.claims.metrics import METRICS
from gmlib.study.claims.results import Result

Note = tuple[float, float] | bool


def claim_of(note: Note, digits: int = 1, unit: str = "%", metric: str = "error") -> Claim:
    return Claim("id", "s", "1", "quote", "q", note, metric, unit=unit, digits=digits)


def result_of(claim: Claim, values: Sequence[Any], kind: type = float) -> Result:
    return Result(pd.Series(values, dtype=kind), METRICS[claim.metric].entries)


def comparison(first: float, second: float, *interval: float) -> Result:
    return Result(pd.Series([first / second]), "", (first, second), interval)


@pytest.mark.parametrize(
    ("note", "ours", "digits", "verdict"),
    [
        # The mean decides, to the digit that is shown.
        ((9, 10), [9.5], 1, "holds"),
        ((9, 10), [8.0, 11.0], 1, "holds"),
        ((9, 10), [10.04], 1, "holds"),
        ((9, 10), [8.96], 1, "holds"),
        ((9, 10), [10.4], 0, "holds"),
        ((4.2, 4.2), [4.2], 1, "holds"),
        ((4.2, 4.2), [4.24], 1, "holds"),
        ((9, math.inf), [1e6], 1, "holds"),
        ((-math.inf, 0), [-3.0, -1.0], 1, "holds"),
        # Else it says how far off, and whether some seed comes near.
        ((9, 10), [9.9, 10.9], 1, "holds in part: 0.4 points above"),
        ((9, 10), [10.0, 20.0], 1, "holds in part: 5.0 points above"),
        ((9, 10), [1.0, 9.0], 1, "holds in part: 4.0 points below"),
        # To either side, none inside.
        ((9, 10), [1.0, 11.0], 1, "holds in part: 3.0 points below"),
        # Or only how far off.
        ((9, 10), [10.1, 20.1], 1, "does not hold: 5.1 points above"),
        ((9, 10), [1.0, 8.0], 1, "does not hold: 4.5 points below"),
        # A single value has no range, so a tenth of the note's figure stands in for it.
        ((9, 10), [10.06], 1, "holds in part: 0.1 points above"),
        ((9, 10), [8.94], 1, "holds in part: 0.1 points below"),
        ((4.25, 4.25), [4.26], 2, "holds in part: 0.01 points above"),
        ((9, 10), [11.0], 1, "holds in part: 1.0 points above"),
        ((9, 10), [11.1], 1, "does not hold: 1.1 points above"),
        ((9, 10), [8.0], 1, "does not hold: 1.0 points below"),
        ((1000, 1000), [3000.0], 0, "does not hold: 2,000 points above"),
        # What is not finite does not count.
        ((9, 10), [math.nan, 9.5, math.inf], 1, "holds"),
        ((9, 10), [math.nan], 1, "cannot be judged"),
        ((9, 10), [], 1, "cannot be judged"),
        ((0, 0), [0.0, 0.0], 0, "holds"),
    ],
)
def test_verdicts_on_figures(note: Note, ours: Sequence[float], digits: int, verdict: str) -> None:
    claim = claim_of(note, digits)
    found = judge(claim, result_of(claim, ours))
    assert ": ".join(filter(None, [found.verdict, found.off])) == verdict


@pytest.mark.parametrize(
    ("note", "ours", "expected"),
    [
        (True, [True, True], ("all", "2 of 2 seeds", "holds")),
        (True, [True, True, False], ("all", "2 of 3 seeds", "holds in part")),
        (True, [True, False], ("all", "1 of 2 seeds", "does not hold")),
        (True, [False, False], ("all", "0 of 2 seeds", "does not hold")),
        (False, [False, False], ("none", "0 of 2 seeds", "holds")),
        (False, [False, True, False], ("none", "1 of 3 seeds", "holds in part")),
        (False, [True], ("none", "1 of 1 seeds", "does not hold")),
        (True, [], ("all", "not measured", "cannot be judged")),
    ],
)
def test_verdicts_on_statements_about_each(
    note: bool, ours: Sequence[bool], expected: tuple[str, str, str]
) -> None:
    claim = claim_of(note, metric="reaches")
    found = judge(claim, result_of(claim, ours, bool))
    assert (claim.stated_text, found.measured, found.verdict) == expected


@pytest.mark.parametrize(
    ("note", "ours", "expected"),
    [
        (True, [True], ("yes", "yes", "holds")),
        (True, [False], ("yes", "no", "does not hold")),
        (False, [False], ("no", "no", "holds")),
        (False, [True], ("no", "yes", "does not hold")),
        (True, [], ("yes", "not measured", "cannot be judged")),
    ],
)
def test_verdicts_on_statements(
    note: bool, ours: Sequence[bool], expected: tuple[str, str, str]
) -> None:
    claim = claim_of(note, metric="on_the_front")
    found = judge(claim, result_of(claim, ours, bool))
    assert (claim.stated_text, found.measured, found.verdict) == expected


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (comparison(1.0, 4.0, 0.1, 0.9), "holds"),
        (comparison(1.0, 4.0), "holds"),  # there is no interval
        (comparison(1.0, 4.0, 0.1, 1.1), "holds in part"),
        (comparison(5.0, 4.0, 0.9, 1.9), "does not hold"),
        (comparison(5.0, 4.0), "does not hold"),
        (comparison(1.04, 1.0), "does not hold"),  # no digit is shown that would hide it
        (comparison(math.nan, 4.0), "cannot be judged"),
    ],
)
def test_verdicts_on_comparisons(result: Result, verdict: str) -> None:
    assert judge(claim_of((0, 1)), result).verdict == verdict


def test_a_comparison_shows_both_numbers() -> None:
    found = judge(claim_of((0, 1), 2, " points"), comparison(1.0, 4.0, 0.0512, 0.91))
    assert found.measured == "1.00 against 4.00 points: ratio 0.25"
    assert found.interval == "0.051 to 0.91"


@pytest.mark.parametrize(
    ("claim", "ours", "note", "text", "interval"),
    [
        # Student's t with one degree of freedom: 12.706 standard errors.
        (claim_of((9, 10)), [9.4, 9.5], "9.0 to 10.0%", "9.4% (9.4 to 9.5)", "8.8 to 10.1"),
        (claim_of((5.85, 5.85), 2), [6.0], "5.85%", "6.00%", ""),
        (claim_of((5.85, 5.85), 2), [6.0, 6.0], "5.85%", "6.00%", ""),
        (claim_of((1000, 2000), 0, ""), [1234.5], "1,000 to 2,000", "1,234", ""),
        (claim_of((9, 10)), [math.nan], "9.0 to 10.0%", "not measured", ""),
        # Components are no sample.
        (claim_of((9, 10), 0, "", "size"), [9.0, 10.0], "9 to 10", "10 (9 to 10)", ""),
    ],
)
def test_figures_are_written_with_their_unit_and_digits(
    claim: Claim, ours: Sequence[float], note: str, text: str, interval: str
) -> None:
    found = judge(claim, result_of(claim, ours))
    assert (claim.stated_text, found.measured, found.interval) == (note, text, interval)


def test_intervals() -> None:
    claim = claim_of(True, metric="reaches")
    five = judge(claim, result_of(claim, [True] * 5, bool))
    assert five.interval == "48 to 100 %"  # 0.025 ** (1 / 5)
    values = np.array([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    claim = claim_of((2, 2), 3)
    found = judge(claim, result_of(claim, values))
    assert found.interval == f"{low:.3f} to {high:.3f}".replace("-", "−")
