"""The note's statements, each beside what the runs gave, and a verdict.

=================  ==============================================================
`claims.toml`      what the note says, and by which metric it is measured
`claim`            a statement, and the file read
`metrics`          what is measured of runs, and `motion`, of their components
`results`          what metrics give, and how the results of arms are compared
`verdicts`         the rule by which a result is held against a statement
`tables`           statements, results and verdicts as tables and as text
=================  ==============================================================
"""

from gmlib.study.claims.claim import load
from gmlib.study.claims.tables import by_section, details, review, statements, summary, table
from gmlib.study.claims.verdicts import VERDICTS, judge

__all__ = [
    "VERDICTS",
    "by_section",
    "details",
    "judge",
    "load",
    "review",
    "statements",
    "summary",
    "table",
]
