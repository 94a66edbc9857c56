"""Times measured side by side, and the file that keeps what came out of them."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.benchmark import Timer

from gmlib.study.analysis.benchmarks import values_file
from gmlib.study.runs.provenance import cpu_model


def interleaved(
    paths: Mapping[str, Callable[[], object]], rounds: int = 25, turn: float = 0.06
) -> dict[str, list[float]]:
    """Seconds a call, by path and round, on one thread.

    The paths take turns of about `turn` seconds, so that a drift of the machine meets all alike.
    """
    timers = {
        name: Timer("path()", globals={"path": path}, num_threads=1) for name, path in paths.items()
    }
    calls = {}
    for name, timer in timers.items():
        timer.timeit(3)
        calls[name] = max(1, round(turn / timer.timeit(3).mean))
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer.timeit(calls[name]).mean)
    return times


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles, to four digits."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        name: float(f"{value:.4g}")
        for name, value in {"median": middle, "low": low, "high": high}.items()
    }


def ratios(times: list[float], reference: list[float]) -> dict[str, float]:
    """Median and quartiles of the ratio, round by round."""
    return summary([a / b for a, b in zip(times, reference, strict=True)])


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for all paths alike.

    Otherwise it may give memory back after a step and take it again, page fault by page fault, in
    the next, or not, as chance has it. Freeing one large block tells it not to; in a training run
    the first evaluation does.
    """
    torch.empty(7_500_000)


def machine() -> dict[str, str]:
    """What it was measured on."""
    return {
        "cpu": cpu_model(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__.partition("+")[0],
    }


def write(sections: Mapping[str, Any]) -> None:
    """Put the sections into the file; the others stay."""
    file = values_file("speed.json")
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **sections}, indent=1) + "\n")
