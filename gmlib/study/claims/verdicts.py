"""Verdicts: comparisons of results with the note's statements."""

from __future__ import annotations

from dataclasses import dataclass

from gmlib.study.claims.claim import Claim
from gmlib.study.claims.results import Result

__all__ = ["VERDICTS", "Judgement", "judge"]

VERDICTS = ("holds", "holds in part", "does not hold", "cannot be judged", "not measured")
"""The possible verdicts on a statement; see `judge`."""


@dataclass(frozen=True)
class Judgement:
    """A measured result, and the verdict on a statement.

    Args:
        measured: The numbers, as text.
        verdict: One of `VERDICTS`.
        interval: The 95 % interval, as text; empty if there is none.
        off: Distance of a mean from the note's range, as text.
        seeds: How many seeds it rests on, as text; empty if on no runs.
        remark: How many runs diverged, or why there is no verdict.
    """

    measured: str
    verdict: str
    interval: str = ""
    off: str = ""
    seeds: str = ""
    remark: str = ""


def judge(claim: Claim, result: Result) -> Judgement:
    """Judge a statement by a result.

    The value of a result is the mean of its numbers, the share of its truth values that are true,
    or the ratio of two numbers. The statement holds if that value lies in the note's range, and
    holds in part if only part of the result does:

    ===============  =============================================================================
    several numbers  not the mean, but the range from lowest to highest overlaps the note's range
    one number       it is off by at most a tenth of the note's figure
    truth values     not all, but more than half are as the note says
    a ratio          the ratio lies in the note's range, but its 95 % interval is not all inside
    ===============  =============================================================================

    Otherwise it does not hold. Numbers are compared to the number of digits shown. A result without
    a finite value cannot be judged.
    """
    values = result.finite
    if not len(values):
        return Judgement("not measured", "cannot be judged")
    low, high = claim.range
    value = float(values.mean())
    bound, off = (high, value - high) if value > high else (low, low - value)
    is_number = not (result.compared or result.are_truths)
    slack = 0.5 * 10.0**-claim.digits if is_number else 0.0
    inside = low - slack <= value <= high + slack
    holds = inside and all(low <= end <= high for end in result.ratio_interval)
    if result.compared:
        in_part = inside
    elif result.are_truths:
        in_part = off < 0.5
    elif len(values) == 1:
        in_part = off <= 0.1 * abs(bound)
    else:
        in_part = bool(values.min() <= high and low <= values.max())
    distance = ""
    if is_number and not holds:
        unit = " points" if claim.unit.strip() == "%" else claim.unit
        distance = f"{_number(claim, off)}{unit} {'above' if value > high else 'below'}"
    verdict = "holds" if holds else "holds in part" if in_part else "does not hold"
    return Judgement(_measured(claim, result), verdict, _interval(claim, result), distance)


def _measured(claim: Claim, result: Result) -> str:
    """The result as text."""
    values = result.finite
    if result.compared:
        first, second = (f"{part:,.{claim.digits}f}" for part in result.compared)
        return f"{first} against {second}{claim.unit}: ratio {values[0]:.2g}"
    if result.are_truths:
        if not result.entries:
            return "yes" if values[0] else "no"
        return f"{values.sum()} of {len(values)} {result.entries}"
    mean, least, most = (_number(claim, x) for x in (values.mean(), values.min(), values.max()))
    return f"{mean}{claim.unit}" + (f" ({least} to {most})" if least != most else "")


def _interval(claim: Claim, result: Result) -> str:
    """The result's interval as text; empty for numbers that are all formatted alike."""
    if not result.interval:
        return ""
    low, high = result.interval
    if result.compared:
        return f"{low:.2g} to {high:.2g}"
    if result.are_truths:
        return f"{100 * low:.0f} to {100 * high:.0f} %"
    least, most = (_number(claim, x) for x in (result.finite.min(), result.finite.max()))
    return f"{_number(claim, low)} to {_number(claim, high)}" if least != most else ""


def _number(claim: Claim, value: float) -> str:
    return f"{value:,.{claim.digits}f}".replace("-", "−")
