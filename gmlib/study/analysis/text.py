"""How tables write their numbers."""

from __future__ import annotations

import pandas as pd

__all__ = [
    "labelled",
    "mean_range",
    "median_range",
    "two_digits",
    "unbroken",
    "with_range",
]


def unbroken(text: str) -> str:
    """With spaces at which a table's cell does not break."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def two_digits(value: float) -> str:
    """The number to two digits, as prose writes it: 0.0028, 61, 8,200."""
    return f"{float(f'{value:.2g}'):,g}"


def labelled(table: pd.DataFrame, label: str) -> pd.DataFrame:
    """The table with a column as its row labels, and its name in the header's only row."""
    return table.set_index(label).rename_axis(index=None, columns=label)


def median_range(values: pd.Series, form: str) -> str:
    """Median and range, or a dash."""
    return with_range(values, values.median(), form) if len(values) else "–"


def mean_range(values: pd.Series, form: str) -> str:
    """Mean and range, or a dash."""
    return with_range(values, values.mean(), form) if len(values) else "–"


def with_range(values: pd.Series, middle: float, form: str) -> str:
    """A number, with the range of others unless that is a point."""
    low, center, high = (form.format(value) for value in (values.min(), middle, values.max()))
    return center if low == high else f"{center} ({low} to {high})"
