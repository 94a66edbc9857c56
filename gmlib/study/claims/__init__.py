"""The note's statements, each beside what the runs gave, and a verdict."""

from gmlib.study.claims.verdicts import by_section, details, review, statements, summary, table

__all__ = ["by_section", "details", "review", "statements", "summary", "table"]
