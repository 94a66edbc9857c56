"""The main study, all of it, against its bare products on the same processors."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import joblib
import torch

from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.studies import STUDIES
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.reproduce import agreement
from gmlib.study.runs.sweeps import sweep


def measure() -> dict[str, Any]:
    """Seconds of the main study and of its products, one after the other, printed."""
    configs = STUDIES["main study"]
    jobs = joblib.cpu_count()
    images = len(datasets.load("mnist", "image").x_train)
    before = products(configs, images, jobs)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        records = sweep(configs, Ledger(folder), jobs)
        seconds = time.perf_counter() - start
    after = products(configs, images, jobs)
    bare = (before + after) / 2
    print(
        f"main study: {len(configs)} runs in {seconds:.0f} s on {jobs} processors, its bare "
        f"products {before:.0f} s before and {after:.0f} s after: {seconds / bare:.2f} times"
    )
    committed = [Ledger().get(config) for config in configs]
    if None not in committed:
        print(f"against the committed records: {agreement(records, committed)}")
    return {
        "runs": len(configs),
        "processors": jobs,
        "seconds": round(seconds, 1),
        "products_seconds": [round(before, 1), round(after, 1)],
        "ratio": round(seconds / bare, 3),
    }


def products(configs: Iterable[RunConfig], images: int, jobs: int) -> float:
    """Seconds that the training steps' products in the first layer take, `jobs` at once.

    Of every run one epoch in twenty is done, and counted twenty times.
    """
    work = [
        (
            math.ceil(images / config.batch_size) * config.epochs,
            config.widths[0] * (1 if config.arm == "FC" else config.num_components),
        )
        for config in configs
    ]
    start = time.perf_counter()
    joblib.Parallel(n_jobs=jobs)(
        joblib.delayed(_multiply)(steps // 20, width) for steps, width in work
    )
    return 20 * (time.perf_counter() - start)


def _multiply(steps: int, width: int) -> None:
    torch.set_num_threads(1)
    x, weights, gradient = torch.randn(64, 784), torch.randn(784, width), torch.randn(64, width)
    inputs = x.T.contiguous()
    for _ in range(steps):
        x @ weights
        inputs @ gradient
