"""What the tests of several modules need: a module of the user's own, and records made by hand."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from gmlib.init import LayerScale
from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import RunRecord

OWN_MODULE = '''
"""A data set and initializations of a user's own: 96 + 48 images of 5 x 5 pixels, 3 classes."""

import itertools
import os
import signal
import time
from pathlib import Path

import torch

CALLS = []  # arguments of `spy`, with the state of PyTorch that it met
NOT_A_FUNCTION = 3


def blobs():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(3, 25, generator=generator)
    labels = torch.arange(144) % 3
    images = (centers[labels] + torch.randn(144, 25, generator=generator)).reshape(144, 5, 5)
    return images[:96], labels[:96], images[96:], labels[96:]


def draw(network, inputs, config, generator):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, config.gamma, generator=generator)


def spy(network, inputs, config, generator):
    flushed = bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0) == 0.0)
    drawn = torch.randn(5, generator=generator)
    CALLS.append((network, inputs, config, drawn, torch.get_num_threads(), flushed))


def failing(network, inputs, config, generator):
    raise ArithmeticError(f"no luck with seed {config.seed}")


class Picky(Exception):
    """Pickles, and cannot be unpickled: its constructor wants two arguments."""

    def __init__(self, what, number):
        super().__init__(f"{what} number {number}")


def picky(network, inputs, config, generator):
    raise Picky("misfortune", config.seed)


def held(network, inputs, config, generator):
    """From seed 2 on, stops in the middle of training for as long as the folder $HOLD exists."""
    draw(network, inputs, config, generator)
    hold, calls = Path(os.environ.get("HOLD", "no such folder")), itertools.count()

    def wait(*_):
        if config.seed >= 2 and next(calls) == 9 and hold.exists():
            (hold / str(os.getpid())).touch()
            while hold.exists():
                time.sleep(0.02)

    network.register_forward_hook(wait)


def killed(network, inputs, config, generator):
    """Kills its process for as long as the folder $HOLD exists."""
    draw(network, inputs, config, generator)
    if Path(os.environ["HOLD"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.fixture(scope="session", autouse=True)
def own_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make the module `own_runs` importable, here and in the processes of a sweep."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_runs.py").write_text(OWN_MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture
def tiny() -> Callable[..., RunConfig]:
    """Configuration of a run that takes milliseconds: 6 steps an epoch on 96 images."""

    def configure(arm: str = "KUMAR", seed: int = 0, **settings: Any) -> RunConfig:
        small = {
            "dataset": "own_runs:blobs",
            "widths": (6, 3),
            "num_components": 2,
            "epochs": 1,
            "batch_size": 16,
            "calibration_size": 64,
            "num_neurons": 40,
        }
        return RunConfig(arm, seed, **{**small, **settings})

    return configure


@pytest.fixture
def blobs() -> datasets.Dataset:
    """The small data set that `tiny` runs are trained on."""
    return datasets.load("own_runs:blobs")


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    """A record with given test errors (fractions), one an epoch of 10 steps unless `steps` says."""

    def make(
        arm: str = "KUMAR",
        seed: int = 0,
        errors: Sequence[float] = (0.9, 0.5, 0.25),
        steps: Sequence[int] | None = None,
        losses: Sequence[float] | None = None,
        init: Sequence[LayerScale] | None = None,
        snapshots: dict[str, np.ndarray] | None = None,
        movement: dict[str, list[float]] | None = None,
        **settings: Any,
    ) -> RunRecord:
        steps = list(range(0, 10 * len(errors), 10)) if steps is None else list(steps)
        settings = {"epochs": steps[-1] // 10, "snapshots": snapshots is not None, **settings}
        curves = {
            "step": steps,
            "test_error": list(errors),
            "test_loss": [2 * error for error in errors] if losses is None else list(losses),
            "train_loss": [math.nan, *(3 * error for error in errors[1:])],
        }
        return RunRecord(
            config=RunConfig(arm, seed, **settings),
            curves=curves,
            init_report=(LayerScale("0", 2.0, 0.25, 0.5), LayerScale("1", 0.125, 4.0, 0.5))
            if init is None
            else tuple(init),
            wall_time=12.5,
            provenance={"gmlib": "0.1.0", "git_commit": None, "data": {"file": "md5"}},
            snapshots=snapshots or {},
            movement=movement or {},
        )

    return make
