"""Files of values that `make bench`, `torture` and `mutants` write, and tables of the values."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
    """Return the path of a file of values in the project's folder ``benchmarks``.

    Raises:
        FileNotFoundError: If neither the package nor the working directory is in the project.
    """
    root = project_root()
    if root is None:
        raise FileNotFoundError(f"neither {Path.cwd()} nor a folder above it is this project")
    return root / "benchmarks" / name


def load(path: str | os.PathLike[str] | None, name: str, command: str) -> Any:
    """Read a file of values.

    Args:
        path: The file; ``benchmarks/<name>`` in the project by default.
        name: Name of the default file.
        command: Command that writes the file, for error messages.

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
    """Read what the tests measured, one row per value.

    The columns are section, what, value, test, cpu, commit and date.

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
    # As objects: pandas would otherwise convert counts to floats, and print few digits.
    return pd.DataFrame(content, columns=columns, dtype=object)


def values_table(rows: pd.DataFrame, *sections: str) -> Table:
    """Tabulate the values of sections, in the order given, each with the test that measured it.

    Args:
        rows: The output of `torture_rows`.
        *sections: Names of sections.

    Raises:
        KeyError: If a section has no values.
    """
    own = _of(rows, *sections)
    return Table(own, {"": "{what}"}, {"value": "{value:,}", "test": "{test:in words}"})


def wide_table(rows: pd.DataFrame, section: str) -> Table:
    """Tabulate the values of a section; the part of ``what`` after the last comma is the column.

    Args:
        rows: The output of `torture_rows`.
        section: Name of the section.

    Raises:
        KeyError: If the section has no values.
    """
    own = _of(rows, section)
    parts = own.what.str.rsplit(", ", n=1, expand=True)
    own = own.assign(what=parts[0], case=parts[1])
    return Table(own, {"": "{what}"}, {"{case}": "{value:,}"})


def _of(rows: pd.DataFrame, *sections: str) -> pd.DataFrame:
    """Return the values of sections, in the order given."""
    for section in sections:
        if section not in set(rows.section):
            raise KeyError(f"no values of {section!r}, only of {', '.join(rows.section.unique())}")
    own = pd.concat([rows[rows.section == section] for section in sections], ignore_index=True)
    # Values of several types keep their types: pandas would convert counts to floats.
    return own.infer_objects() if own.value.map(type).nunique() == 1 else own


def mutants_table(mutants: Mapping[str, Mapping[str, Any]]) -> Table:
    """Tabulate the number of mutants of each module, and the number and share that died.

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
    """Tabulate why mutants survived: each reason with its number of mutants and an example.

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
    """Read the values of ``make bench`` by section, as they were measured.

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
    """Time of a training step by path: median and quartiles in bare products, and median in ms."""
    rows = {
        path: {**values["bare_products"], "ms": values["ms"]["median"]}
        for path, values in speed["step"]["paths"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("median")


def ratio_table(speed: Mapping[str, Any]) -> pd.DataFrame:
    """Ratios of paths, with quartiles over the rounds, and what they are required to be.

    A ratio to the bare products is to be at most the required value, any other at least. ``met``
    says whether the median is: by the target, or by the required value alone.
    """
    table = pd.DataFrame.from_dict(speed["step"]["ratios"], orient="index")
    sign = np.where(table.index.str.endswith("/ bare products"), 1.0, -1.0)
    by = {name: sign * table["median"] <= sign * table[name] for name in ("target", "required")}
    table["met"] = np.select([by["target"], by["required"]], ["target", "required"], "missed")
    return table


def scaling_table(speed: Mapping[str, Any]) -> pd.DataFrame:
    """Time of a layer's forward and backward pass against each of its sizes, one row per time.

    The columns are ``size``, ``value``, ``ms`` and ``exponent``. All rows of a size have the same
    exponent.
    """
    return pd.DataFrame(
        [
            {"size": size, "value": value, "ms": ms["median"], "exponent": curve["exponent"]}
            for size, curve in speed["scaling"].items()
            for value, ms in zip(curve["values"], curve["ms"], strict=True)
        ]
    )
