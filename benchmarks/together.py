"""Forty seeds as one program against one seed, on an accelerator where there is one."""

from __future__ import annotations

import time
from typing import Any

import torch

from gmlib.study.plan.config import run_configs
from gmlib.study.runs.training import train_together

SEEDS = 40


def measure() -> dict[str, Any] | None:
    """Seconds a run, alone and together; nothing where there is no accelerator."""
    if not torch.cuda.is_available():
        print("seeds as one program: not measured, no GPU here")
        return None
    configs = run_configs(["KUMAR"], list(range(SEEDS)), epochs=1)
    seconds = {}
    for name, group in {"warm-up": configs[:1], "alone": configs[:1], "together": configs}.items():
        start = time.perf_counter()
        train_together(group, "cuda")
        seconds[name] = (time.perf_counter() - start) / len(group)
    result = {
        "device": torch.cuda.get_device_name(),
        "seeds": SEEDS,
        "seconds_a_run": {name: round(seconds[name], 3) for name in ("alone", "together")},
        "faster": round(seconds["alone"] / seconds["together"], 2),
    }
    print(f"{SEEDS} seeds as one program on {result['device']}: {result['faster']} times as fast")
    return result
