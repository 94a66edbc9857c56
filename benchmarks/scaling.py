"""Forward and backward of one layer against its sizes, over a range of 16 each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from harness import interleaved, keep_freed_memory, summary

from gmlib import GaussianMixtureLayer
from gmlib.study.analysis.closed_form import fitted_slope

SIZES = {"K": 10, "d": 784, "C": 100, "batch": 64}
RANGES = {
    "K": (4, 8, 16, 32, 64),
    "d": (196, 392, 784, 1568, 3136),
    "C": (25, 50, 100, 200, 400),
    "batch": (16, 32, 64, 128, 256),
}


def measure() -> dict[str, Any]:
    """Times by size, and the exponent fitted to each."""
    torch.manual_seed(0)
    result: dict[str, Any] = {}
    print(f"{'cost against':<14}{'from':>8}{'to':>8}{'exponent':>12}")
    for name, values in RANGES.items():
        paths = {str(value): layer_pass(**{**SIZES, name: value}) for value in values}
        keep_freed_memory()
        times = interleaved(paths, rounds=15)
        exponent = fitted_slope(values, np.array([times[str(value)] for value in values]))
        result[name] = {
            "values": values,
            "ms": [summary([1e3 * t for t in times[str(value)]]) for value in values],
            "exponent": round(exponent, 3),
        }
        print(f"{name:<14}{values[0]:>8}{values[-1]:>8}{exponent:>12.2f}")
    return result


def layer_pass(K: int, d: int, C: int, batch: int):
    """Forward, and backward into the parameters, of a layer of these sizes."""
    layer = GaussianMixtureLayer(d, C, K)
    x, grad = torch.randn(batch, d), torch.randn(batch, C)

    def run() -> None:
        layer.zero_grad()
        layer(x).backward(grad)

    return run
