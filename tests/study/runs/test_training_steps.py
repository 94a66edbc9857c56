"""Training step by step: the steps are those of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.training import (
    build_network,
    reproducible_arithmetic,
    train,
    training_steps,
)

Configure = Callable[..., RunConfig]


@contextmanager
def trained_by_steps(
    config: RunConfig, dataset: datasets.Dataset
) -> Iterator[tuple[nn.Module, Iterator[Tensor]]]:
    with reproducible_arithmetic():
        network, _ = build_network(config, dataset)
        yield network, training_steps(network, config, dataset)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam", "warmup": 4, "between": "relu"}])
def test_steps_are_those_of_the_run(
    settings: dict[str, object], tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny("BL", seed=3, epochs=2, snapshots=True, **settings)
    record = train(config)
    with trained_by_steps(config, blobs) as (network, steps):
        losses = [loss.item() for loss in steps]
    assert len(losses) == 12
    assert record.curves["train_loss"][-1] == np.mean(losses[6:])
    for name, parameter in network.named_parameters():
        np.testing.assert_array_equal(parameter.detach().numpy(), record.snapshots[name][-1])


def test_each_step_is_taken_when_its_loss_is_asked_for(
    tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny("BL")
    with trained_by_steps(config, blobs) as (network, steps):
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        loss = next(steps)
        assert loss.shape == ()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            rate = config.family.learning_rate(config, name.rpartition(".")[2])
            moved = before[name] - rate * parameter.grad
            torch.testing.assert_close(parameter.detach(), moved)
