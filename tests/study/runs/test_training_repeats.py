"""A run is the same whenever repeated, and has no side effects."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from record_checks import assert_same_run
from training_checks import ARMS

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.training import train

Configure = Callable[..., RunConfig]


@pytest.mark.parametrize("arm", ARMS)
def test_a_run_repeats_bit_for_bit(arm: str, tiny: Configure) -> None:
    config = tiny(arm, epochs=2, snapshots=True)
    first = train(config)
    torch.manual_seed(999)
    random.seed(999)
    np.random.seed(999)  # noqa: NPY002
    assert_same_run(first, train(config))
    assert first.config is config


@pytest.mark.parametrize("arm", ARMS)
def test_the_global_state_is_as_before(
    arm: str, tiny: Configure, state: Callable[[], object]
) -> None:
    before = state()
    train(tiny(arm))
    assert state() == before


@pytest.mark.parametrize("arm", ["KUMAR", "own_runs:failing"])
def test_the_global_state_is_as_before_after_an_exception(
    arm: str, tiny: Configure, state: Callable[[], object]
) -> None:
    steps = iter([0, 1, 2, 3])

    def fail() -> None:
        if next(steps) == 3:
            raise ArithmeticError("no luck at step 3")

    before = state()
    with pytest.raises(ArithmeticError, match="no luck"):
        train(tiny(arm), fail)
    assert state() == before


def test_the_global_state_does_not_matter(tiny: Configure, state: Callable[[], object]) -> None:
    config = tiny("BL", gamma=3.0, epochs=2)  # Phi saturates
    record = train(config)
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
    assert_same_run(record, train(config))


def test_nothing_is_written(
    tiny: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "results"))
    train(tiny(snapshots=True))
    assert os.listdir(tmp_path) == []
