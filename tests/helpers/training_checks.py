"""What tests of training share: arms, rates, and looks at networks and what they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gmlib.study import datasets
from gmlib.study.plan.arms import ARMS as BUILT_IN
from gmlib.study.plan.arms import arm_of
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import training
from gmlib.study.runs.training import build_network

ARMS = (*BUILT_IN, "own_runs:draw")
NOTHING = 1e-30  # as a learning rate: an update that vanishes beside any float32 parameter
MILD = {"lr": 0.05, "lr_sigma": 0.1}  # rates at which these arms learn and none diverges


class Spied:
    """Networks that were built and the batches they were trained on."""

    def __init__(self) -> None:
        self.networks: list[nn.Module] = []
        self.batches: list[Tensor] = []

    def build(self, config: RunConfig, dataset: datasets.Dataset) -> tuple[nn.Module, Any]:
        network, report = build_network(config, dataset)
        network.register_forward_pre_hook(self.look)
        self.networks.append(network)
        return network, report

    def look(self, _: nn.Module, arguments: tuple[Tensor]) -> None:
        if torch.is_grad_enabled():  # evaluation has gradients off
            self.batches.append(arguments[0].clone())


def values(network: nn.Module) -> dict[str, np.ndarray]:
    """Copies of the parameters by name."""
    return {name: p.detach().numpy().copy() for name, p in network.named_parameters()}


def sorted_rows(rows: Tensor) -> list[list[float]]:
    return sorted(rows.tolist())


def calibration_inputs(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the initialization of a run is shown, and what its scale is measured on."""
    seen: list[Tensor] = []

    def spied(function: Callable[..., Any]) -> Callable[..., Any]:
        def spy(network: nn.Module, inputs: Tensor, *rest: Any, **more: Any) -> Any:
            seen.append(inputs)
            return function(network, inputs, *rest, **more)

        return spy

    arm = arm_of(config.arm)
    with monkeypatch.context() as patch:
        patch.setattr(training, "arm_of", lambda _: replace(arm, initialize=spied(arm.initialize)))
        patch.setattr(training, "scale_report", spied(training.scale_report))
        build_network(config, datasets.load(config.dataset, config.standardize))
    assert seen
    assert all(torch.equal(inputs, seen[0]) for inputs in seen)
    return seen[0]
