"""Give records gates that are laid out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gmlib.study.runs.records import RunRecord

Shares = Sequence[Sequence[float]]


def gated(record: RunRecord, *shut: Shares, is_open: Sequence[Shares] | None = None) -> RunRecord:
    """The record with these shares of shut images by layer, evaluation and cloud.

    Unless `is_open` says otherwise, no cloud is open to any image.
    """
    gates = {}
    for layer, shares in enumerate(shut):
        gates[f"{layer}.shut"] = np.asarray(shares, dtype=float).tolist()
        opened = np.zeros(np.shape(shares)) if is_open is None else is_open[layer]
        gates[f"{layer}.open"] = np.asarray(opened, dtype=float).tolist()
    return replace(record, gates=gates)
