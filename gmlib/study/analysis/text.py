"""Tables: numbers, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import pandas as pd

from gmlib.study.datasets.catalogue import dataset_title

__all__ = [
    "Table",
    "labelled",
    "ranged",
    "two_digits",
    "unbroken",
]


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Numbers, and the templates by which they are written.

    A template is one of `str.format`, with the columns of the numbers as its names. Beyond that:

    - ``|`` separates alternatives. The first that lacks no number is written, or else the last.
    - A range in parentheses is left out where both of its ends are written alike.
    - A single name, as in ``{seeds}``, stands for the value itself: an integer stays one.
    - ``{x:.1f %}`` writes a fraction in percent, and ``{x:.0e or below 1e-4}`` a bound instead of
      what is below it.
    - ``{x:two digits}``, ``{x:title}`` of a data set, ``{x:in words}`` of a test and
      ``{x:unbroken}`` write as the functions of this module do.
    - Text is written as it is under any other format.

    A header may be a template, too. Then rows with the same labels are on one line.

    Attributes:
        numbers: One row an entry, one column a quantity; NaN where there is none.
        labels: Templates of what a line begins with, by name.
        columns: Templates of the cells, by header.
    """

    numbers: pd.DataFrame
    labels: Mapping[str, str]
    columns: Mapping[str, str]

    @property
    def text(self) -> pd.DataFrame:
        """The table for reading."""
        rows: list[Any] = self.numbers.to_dict("records")
        labels = [
            {name: _written(template, row) for name, template in self.labels.items()}
            for row in rows
        ]
        is_spread = any(map(_names, self.columns))
        keys = [tuple(own.values()) if is_spread else number for number, own in enumerate(labels)]
        lines = dict(zip(keys, labels, strict=True))
        for header, template in self.columns.items():
            for key, row in zip(keys, rows, strict=True):
                lines[key][_written(header, row)] = _written(template, row)
        columns = None if rows else [*self.labels, *self.columns]
        text = pd.DataFrame(list(lines.values()), columns=columns)
        return labelled(text, *self.labels)

    def __repr__(self) -> str:
        return repr(self.text)

    def _repr_html_(self) -> str | None:
        return self.text._repr_html_()  # type: ignore[no-any-return, operator]

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """The numbers as CSV, into a file or, without one, as a string."""
        return self.numbers.to_csv(path, index=False)


def labelled(table: pd.DataFrame, *labels: str) -> pd.DataFrame:
    """The table with columns as its row labels; a single one has its name in the header's row."""
    indexed = table.set_index(list(labels))
    return indexed.rename_axis(index=None, columns=labels[0]) if len(labels) == 1 else indexed


def ranged(name: str, form: str, otherwise: str = "–") -> str:
    """Template of a quantity with its range, as `statistics.mean_range` names them.

    Args:
        name: The quantity.
        form: Template of a number without its name, such as ``"{:.2f}"``.
        otherwise: What is written if there are no numbers.
    """
    middle, low, high = (
        form.replace("{", "{" + part) for part in (name, f"{name}_low", f"{name}_high")
    )
    return f"{middle} ({low} to {high})|{otherwise}"


def unbroken(text: str) -> str:
    """With spaces at which a table's cell does not break."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def two_digits(value: float) -> str:
    """The number to two digits, as prose writes it: 0.0028, 61, 8,200."""
    return f"{float(f'{value:.2g}'):,g}"


def _test_in_words(test: str) -> str:
    """A test by its file and the words of its name, at which a table's cell can break."""
    path, *_, name = test.split("::")
    return f"{Path(path).name}: {name.removeprefix('test_').replace('_', ' ')}"


_STYLES: Mapping[str, Callable[[Any], str]] = {
    "in words": _test_in_words,
    "title": dataset_title,
    "two digits": two_digits,
    "unbroken": unbroken,
}


class _Writer(Formatter):
    """`str.format` with the formats of `Table`."""

    def format_field(self, value: Any, form: str) -> str:
        if form in _STYLES:
            return _STYLES[form](value)
        if isinstance(value, str):
            return value
        form, _, bound = form.partition(" or below ")
        if bound and value < float(bound):
            return f"below {bound}"
        if form.endswith(" %"):
            return format(100 * value, form.removesuffix(" %")) + " %"
        return format(value, form)


_WRITER = _Writer()
_POINT = re.compile(r" \(([^()]+) to \1\)")  # a range of which both ends are written alike


def _names(template: str) -> list[str]:
    """The names in a template."""
    return [name for _, name, _, _ in _WRITER.parse(template) if name]


def _written(template: str, row: Mapping[str, Any]) -> Any:
    """What a template of `Table` stands for, with the numbers of a row."""
    if not _names(template):
        return template
    *alternatives, chosen = template.split("|")
    for alternative in alternatives:
        if not any(pd.isna(row[name]) for name in _names(alternative)):
            chosen = alternative
            break
    if bare := re.fullmatch(r"{(\w+)}", chosen):
        return row[bare[1]]
    return _POINT.sub("", _WRITER.vformat(chosen, (), row))
