"""What `make bench` measured: from its file to tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from gmlib.study.measured import load, measured_file

__all__ = ["ratio_table", "read", "scaling_table", "step_table"]


def read(path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The figures, section by section, as they were measured.

    Args:
        path: The file; ``benchmarks/speed.json`` in the project by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not what ``make bench`` writes.
    """
    content = load(path, "speed.json", "make bench")
    missing = {"machine", "step", "scaling", "sampling", "together"} - set(content)
    if missing:
        raise ValueError(
            f"{path or measured_file('speed.json')} lacks {sorted(missing)}; "
            "`make bench` writes it anew"
        )
    return content  # type: ignore[no-any-return]


def step_table(speed: Mapping[str, Any]) -> pd.DataFrame:
    """Time of a training step by path, in bare products: median and quartiles; and in ms."""
    rows = {
        path: {**figures["bare_products"], "ms": figures["ms"]["median"]}
        for path, figures in speed["step"]["paths"].items()
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
