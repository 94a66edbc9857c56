"""The note's statements, each with the measured result and a verdict.

=================  ==============================================================
`claims.toml`      the note's statements, and the metrics that measure them
`claim`            the class of statements, and a reader of the file
`metrics`          metrics of runs; `motion` has those of their components
`evidence`         the runs that a statement is judged on
`results`          results of metrics, and comparisons of arms' results
`verdicts`         the rule that gives a verdict on a statement from a result
`tables`           statements, results and verdicts as tables and as text
=================  ==============================================================
"""

from gmlib.study.claims.claim import load
from gmlib.study.claims.tables import (
    by_section,
    changed,
    details,
    folded,
    folded_summary,
    review,
    statements,
    summary,
    table,
)
from gmlib.study.claims.verdicts import VERDICTS, judge

__all__ = [
    "VERDICTS",
    "by_section",
    "changed",
    "details",
    "folded",
    "folded_summary",
    "judge",
    "load",
    "review",
    "statements",
    "summary",
    "table",
]
