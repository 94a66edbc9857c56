"""Values that `make bench`, `torture` and `mutants` wrote: their files, and tables of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gmlib.study.analysis.text import Table, labelled
from gmlib.study.runs.ledger import project_root

__all__ = [
    "load",
    "mutants_table",
    "ratio_table",
    "read",
    "read_gpu",
    "scaling_table",
    "step_table",
    "survivors_table",
    "torture_rows",
    "values_file",
    "values_table",
    "wide_table",
]


def values_file(name: str) -> Path:
    """Where the values are: a file in the project's folder ``benchmarks``.

    Raises:
        FileNotFoundError: If the working directory is not in the project, nor the package.
    """
    root = project_root()
    if root is None:
        raise FileNotFoundError(f"neither {Path.cwd()} nor a folder above it is this project")
    return root / "benchmarks" / name


def load(path: str | os.PathLike[str] | None, name: str, command: str) -> Any:
    """What a file of values holds.

    Args:
        path: The file; by default that of this name in the project.
        name: See `path`.
        command: Who writes such a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON.
    """
    file = values_file(name) if path is None else Path(path)
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist; `{command}` writes it") from None
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); `{command}` writes it anew") from None


def torture_rows(path: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """What the tests measured, a row each: section, what, value, test, cpu, commit and date.

    Args:
        path: The file; ``benchmarks/torture.json`` in the project by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not what ``make torture`` writes.
    """
    columns = ["section", "what", "value", "test", "cpu", "commit", "date"]
    content = load(path, "torture.json", "make torture")
    if not isinstance(content, list) or not all(set(columns) == set(row) for row in content):
        raise ValueError("not values of tests; `make torture` writes them anew")
    # Without a type of their own: pandas would make floats of counts, and print few digits.
    return pd.DataFrame(content, columns=columns, dtype=object)


def values_table(rows: pd.DataFrame, *sections: str) -> Table:
    """The values of some sections, in their order, each with the test that measured it.

    Args:
        rows: As `torture_rows` gives.
        *sections: Names of sections.

    Raises:
        KeyError: If there is none of a section.
    """
    own = _of(rows, *sections)
    return Table(own, {"": "{what}"}, {"value": "{value:,}", "test": "{test:in words}"})


def wide_table(rows: pd.DataFrame, section: str) -> Table:
    """The values of a section by what they are of, whose part after the last comma is the column.

    Args:
        rows: As `torture_rows` gives.
        section: Name of the section.

    Raises:
        KeyError: If there is none of the section.
    """
    own = _of(rows, section)
    parts = own.what.str.rsplit(", ", n=1, expand=True)
    own = own.assign(what=parts[0], case=parts[1])
    return Table(own, {"": "{what}"}, {"{case}": "{value:,}"})


def _of(rows: pd.DataFrame, *sections: str) -> pd.DataFrame:
    """The values of some sections, in their order."""
    for section in sections:
        if section not in set(rows.section):
            raise KeyError(f"no values of {section!r}, only of {', '.join(rows.section.unique())}")
    own = pd.concat([rows[rows.section == section] for section in sections], ignore_index=True)
    # Values of several types keep them: pandas would make floats of counts.
    return own.infer_objects() if own.value.map(type).nunique() == 1 else own


def mutants_table(mutants: Mapping[str, Mapping[str, Any]]) -> Table:
    """By module: how many mutants there were, how many died, and their share.

    Args:
        mutants: The modules that ``make mutants`` writes.
    """
    rows = [
        {"module": module, "mutants": own["mutants"], "survivors": len(own["survivors"])}
        for module, own in mutants.items()
    ]
    numbers = pd.DataFrame(rows)
    numbers["died"] = numbers.mutants - numbers.survivors
    numbers["share"] = numbers.died / numbers.mutants
    return Table(
        numbers,
        {"module": "{module}"},
        {"mutants": "{mutants}", "died": "{died}", "share": "{share:.1%}"},
    )


def survivors_table(mutants: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Why mutants survived: each reason with their number, and one of them.

    Args:
        mutants: The modules that ``make mutants`` writes.
    """
    survivors: Sequence[Mapping[str, str]] = [
        survivor for own in mutants.values() for survivor in own["survivors"]
    ]
    counts = Counter(survivor["reason"] for survivor in survivors)
    rows = []
    for reason, count in counts.most_common():
        one = next(survivor for survivor in survivors if survivor["reason"] == reason)
        rows.append({"why": reason, "survivors": count, "for example": one["change"]})
    return labelled(pd.DataFrame(rows), "why")


def read(path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The values, section by section, as they were measured.

    Args:
        path: The file; ``benchmarks/speed.json`` in the project by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not what ``make bench`` writes.
    """
    content = load(path, "speed.json", "make bench")
    missing = {"machine", "step", "scaling", "sampling"} - set(content)
    if missing:
        raise ValueError(
            f"{path or values_file('speed.json')} lacks {sorted(missing)}; "
            "`make bench` writes it anew"
        )
    return content  # type: ignore[no-any-return]


def read_gpu() -> dict[str, Any] | None:
    """What ``benchmarks/gpu.sh`` measured, or nothing if it never ran where there was a GPU."""
    file = values_file("gpu.json")
    return load(file, "gpu.json", "bash benchmarks/gpu.sh") if file.exists() else None


def step_table(speed: Mapping[str, Any]) -> pd.DataFrame:
    """Time of a training step by path, in bare products: median and quartiles; and in ms."""
    rows = {
        path: {**values["bare_products"], "ms": values["ms"]["median"]}
        for path, values in speed["step"]["paths"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("median")


def ratio_table(speed: Mapping[str, Any]) -> pd.DataFrame:
    """The ratios of paths that the step is held to, with their quartiles over the rounds."""
    return pd.DataFrame.from_dict(speed["step"]["ratios"], orient="index")


def scaling_table(speed: Mapping[str, Any]) -> pd.DataFrame:
    """Time of a layer's forward and backward against each of its sizes, one row a time.

    Columns ``size``, ``value``, ``ms`` and ``exponent``, the last the same for all of a size.
    """
    return pd.DataFrame(
        [
            {"size": size, "value": value, "ms": ms["median"], "exponent": curve["exponent"]}
            for size, curve in speed["scaling"].items()
            for value, ms in zip(curve["values"], curve["ms"], strict=True)
        ]
    )
