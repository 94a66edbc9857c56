"""Tables: numbers, and templates that format them."""

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
    "estimated",
    "labelled",
    "ranged",
    "two_digits",
    "unbroken",
]


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Numbers, and the templates that format them.

    A template is a `str.format` string whose field names are columns of the numbers. In addition:

    - ``|`` separates alternatives. The first that lacks no number is used, or else the last.
    - A range in parentheses is left out if both of its ends are formatted alike.
    - A template of a single name, such as ``{seeds}``, gives the value itself: an integer stays
      one.
    - ``{x:.1f %}`` formats a fraction in percent, and ``{x:.0e or below 1e-4}`` gives the bound for
      numbers below it.
    - ``{x:two digits}``, ``{x:title}`` (of a data set), ``{x:in words}`` (of a test) and
      ``{x:unbroken}`` apply the functions in `_STYLES`.
    - Any other format leaves text unchanged.

    A header may be a template, too. Rows with the same labels are then on one line.

    Attributes:
        numbers: One row per entry, one column per quantity; NaN for missing numbers.
        labels: Templates of the labels of a line, by name.
        columns: Templates of the cells, by header.
    """

    numbers: pd.DataFrame
    labels: Mapping[str, str]
    columns: Mapping[str, str]

    @property
    def text(self) -> pd.DataFrame:
        """The formatted table."""
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
        with pd.option_context("display.max_rows", None):
            return repr(self.text)

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_rows", None):
            return self.text._repr_html_()  # type: ignore[no-any-return, operator]

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Write the numbers as CSV to a file or, without `path`, return them as a string."""
        return self.numbers.to_csv(path, index=False)


def labelled(table: pd.DataFrame, *labels: str) -> pd.DataFrame:
    """Make columns the row labels; the name of a single one is in the row of the header."""
    indexed = table.set_index(list(labels))
    return indexed.rename_axis(index=None, columns=labels[0]) if len(labels) == 1 else indexed


def ranged(name: str, form: str, otherwise: str = "–") -> str:
    """Return the template of a quantity with its range, named as by `statistics.mean_range`.

    Args:
        name: The quantity.
        form: Template of a number without its name, such as ``"{:.2f}"``.
        otherwise: Text if there are no numbers.
    """
    middle, low, high = (
        form.replace("{", "{" + part) for part in (name, f"{name}_low", f"{name}_high")
    )
    return f"{middle} ({low} to {high})|{otherwise}"


def estimated(name: str) -> str:
    """Return the template of a mean difference with its interval, named as by `mean_interval`."""
    return f"{{{name}:+.2f}} [{{{name}_low:+.2f}}, {{{name}_high:+.2f}}]|{{{name}:+.2f}}|–"


def unbroken(text: str) -> str:
    """Replace spaces by no-break spaces, at which a table's cell does not wrap."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def two_digits(value: float) -> str:
    """Format a number to two significant digits, as in prose: 0.0028, 61, 8,200."""
    return f"{float(f'{value:.2g}'):,g}"


def _test_in_words(test: str) -> str:
    """Return a test's file and the words of its name, between which a table's cell can wrap."""
    path, *_, name = test.split("::")
    return f"{Path(path).name}: {name.removeprefix('test_').replace('_', ' ')}"


_STYLES: Mapping[str, Callable[[Any], str]] = {
    "in words": _test_in_words,
    "title": dataset_title,
    "two digits": two_digits,
    "unbroken": unbroken,
}


class _Writer(Formatter):
    """Formatter that adds the formats of `Table` to those of `str.format`."""

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
_POINT = re.compile(r" \(([^()]+) to \1\)")  # a range whose ends are formatted alike


def _names(template: str) -> list[str]:
    """The names in a template."""
    return [name for _, name, _, _ in _WRITER.parse(template) if name]


def _written(template: str, row: Mapping[str, Any]) -> Any:
    """Format a template of `Table` with the numbers of a row."""
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
