"""Tables: the numbers that they hold, and the templates by which these are written."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made_runs import hits_of, runs_of

from gmlib.study import analysis
from gmlib.study.analysis import text
from gmlib.study.analysis.text import Table
from gmlib.study.datasets import dataset_title


def cell(template: str, **numbers: object) -> object:
    """What a template makes of a row."""
    return Table(pd.DataFrame([numbers]), {"": "row"}, {"cell": template}).text.loc["row", "cell"]


# --- Templates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "numbers", "written"),
    [
        ("{x:.2f} of {n}", {"x": 1.234, "n": 3}, "1.23 of 3"),
        ("{x:.2f}", {"x": math.nan}, "nan"),  # there is no alternative
        ("{x:.2f}|–", {"x": math.nan}, "–"),
        ("{x:.2f}|–", {"x": 2.0}, "2.00"),
        ("{x:g} [{y:g}]|{x:g}|–", {"x": 2.0, "y": 0.5}, "2 [0.5]"),
        ("{x:g} [{y:g}]|{x:g}|–", {"x": 2.0, "y": math.nan}, "2"),
        ("{x:g} [{y:g}]|{x:g}|–", {"x": math.nan, "y": 0.5}, "–"),
        ("{name}|–", {"name": None}, "–"),
        ("{share:.1f %}", {"share": 0.9765}, "97.7 %"),
        ("{share:.0%}", {"share": 0.9765}, "98%"),
        ("{x:.0e or below 1e-4}", {"x": 0.00009}, "below 1e-4"),
        ("{x:.0e or below 1e-4}", {"x": 0.0001}, "1e-04"),
        ("{x:two digits}", {"x": 8159.9}, "8,200"),
        ("{name:unbroken}", {"name": "n = 5"}, "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}5"),
        ("{name:title}, {arm}", {"name": "cifar-10", "arm": "a|b {c}"}, "CIFAR-10, a|b {c}"),
        ("{test:in words}", {"test": "tests/a/test_b.py::TestC::test_d_e"}, "test_b.py: d e"),
        ("{value:,}", {"value": 100_000}, "100,000"),
        ("{value:,}", {"value": 3.4e-07}, "3.4e-07"),
        ("{value:,}", {"value": "0.01 points"}, "0.01 points"),
    ],
)
def test_a_template_is_written_with_the_numbers_of_a_row(
    template: str, numbers: dict[str, object], written: str
) -> None:
    assert cell(template, **numbers) == written


@pytest.mark.parametrize(
    ("numbers", "written"),
    [
        ((2.0, 1.0, 3.0), "2.00 (1.00 to 3.00)"),
        ((2.0, 1.999, 2.001), "2.00"),  # a range that is written alike is a point
        ((2.0, 2.0, 2.01), "2.00 (2.00 to 2.01)"),
        ((math.nan, math.nan, math.nan), "–"),
    ],
)
def test_a_range_is_written_unless_it_is_a_point(numbers: tuple[float, ...], written: str) -> None:
    own = dict(zip(("x", "x_low", "x_high"), numbers, strict=True))
    assert cell(text.ranged("x", "{:.2f}"), **own) == written


def test_a_range_has_its_unit_at_each_number_and_says_what_else_is_written() -> None:
    template = text.ranged("x", "{:,.1f}x", otherwise="{n} of 5")
    assert template == "{x:,.1f}x ({x_low:,.1f}x to {x_high:,.1f}x)|{n} of 5"
    assert cell(template, x=1234.5, x_low=2.0, x_high=3.0, n=0) == "1,234.5x (2.0x to 3.0x)"
    assert cell(template, x=math.nan, x_low=math.nan, x_high=math.nan, n=0) == "0 of 5"


def test_a_single_name_is_the_value_itself() -> None:
    table = Table(pd.DataFrame({"seed": [7, 8], "n": [1, 20]}), {"seed": "{seed}"}, {"n": "{n}"})
    assert table.text.index.tolist() == [7, 8]
    assert table.text["n"].tolist() == [1, 20]


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0028, "0.0028"), (61.32, "61"), (8159.9, "8,200"), (1.48e-7, "1.5e-07"), (0.0, "0")],
)
def test_two_digits(value: float, written: str) -> None:
    assert text.two_digits(value) == written


@pytest.mark.parametrize(
    ("dataset", "title"),
    [
        *(("mnist", "MNIST"), ("fashion-mnist", "Fashion-MNIST"), ("cifar-10", "CIFAR-10")),
        ("my_data:images", "my_data:images"),
    ],
)
def test_dataset_title(dataset: str, title: str) -> None:
    assert dataset_title(dataset) == title


# --- Tables --------------------------------------------------------------------------------------


@pytest.fixture
def table() -> Table:
    numbers = pd.DataFrame({"arm": ["BL", "FC"], "seeds": [5, 4], "error": [1.25, math.nan]})
    return Table(numbers, {"arm": "{arm}"}, {"seeds": "{seeds}", "error (%)": "{error:.1f}|–"})


def test_a_table_is_shown_as_its_text(table: Table) -> None:
    expected = pd.DataFrame({"seeds": [5, 4], "error (%)": ["1.2", "–"]}, index=["BL", "FC"])
    pd.testing.assert_frame_equal(table.text, expected.rename_axis(columns="arm"))
    assert repr(table) == repr(table.text)
    assert table._repr_html_() == table.text._repr_html_()
    assert "<td>1.2</td>" in table._repr_html_()


def test_csv_is_of_the_numbers(table: Table, tmp_path: Path) -> None:
    assert table.to_csv() == "arm,seeds,error\nBL,5,1.25\nFC,4,\n"
    assert table.to_csv(tmp_path / "table.csv") is None
    read = pd.read_csv(io.StringIO((tmp_path / "table.csv").read_text()))
    pd.testing.assert_frame_equal(read, table.numbers)


def test_rows_with_one_label_are_one_line_if_headers_are_templates() -> None:
    numbers = pd.DataFrame(
        [("b", "one", 1, 0.5), ("a", "one", 2, 0.25), ("b", "two", 3, 0.5)],
        columns=["line", "column", "x", "y"],
    )
    found = Table(numbers, {"": "{line}"}, {"{column}": "{x} of 3", "y": "{y:g}"}).text
    assert found.columns.tolist() == ["one", "two", "y"]
    assert found.loc["b"].tolist() == ["1 of 3", "3 of 3", "0.5"]
    assert found.loc["a"].isna().tolist() == [False, True, False]
    alone = Table(numbers, {"": "{line}"}, {"x": "{x} of 3"}).text
    assert alone.index.tolist() == ["b", "a", "b"]


def test_a_table_of_no_rows_has_its_headers(table: Table) -> None:
    empty = Table(table.numbers[:0], table.labels, table.columns).text
    assert (len(empty), list(empty), empty.columns.name) == (0, ["seeds", "error (%)"], "arm")


def test_several_labels_name_the_levels_of_the_index(table: Table) -> None:
    labels = {"arm": "{arm}", "number": "{seeds}"}
    index = Table(table.numbers, labels, {"error": "{error:.1f}"}).text.index
    assert (index.names, index.tolist()) == (["arm", "number"], [("BL", 5), ("FC", 4)])


def test_the_name_of_the_labels_stands_in_the_headers_only_row() -> None:
    table = text.labelled(pd.DataFrame({"arm": ["BL", "FC"], "seeds": [5, 4]}), "arm")
    assert table.to_dict("index") == {"BL": {"seeds": 5}, "FC": {"seeds": 4}}
    header, *body = table.to_string().splitlines()
    assert header.split() == ["arm", "seeds"]
    assert [line.split() for line in body] == [["BL", "5"], ["FC", "4"]]


@pytest.mark.parametrize(
    ("table", "label"),
    [
        (analysis.paired_differences, "KUMAR less BL"),
        (lambda _: analysis.threshold_table(hits_of(10.0, BL={0: 1})), "threshold"),
    ],
)
def test_tables_name_their_labels(table: Callable[[pd.DataFrame], Table], label: str) -> None:
    found = table(runs_of(KUMAR={0: 4.0}, BL={0: 5.0})).text
    assert (found.index.name, found.columns.name) == (None, label)


def test_a_long_table_is_shown_whole() -> None:
    table = Table(pd.DataFrame({"K": range(100)}), {"size": "K = {K}"}, {"twice": "{K} {K}"})
    for shown in (repr(table), table._repr_html_() or ""):
        assert all(f"K = {K}" in shown for K in range(100))
