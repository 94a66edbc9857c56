"""Networks in single precision against themselves in double, on real images, through training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import training
from gmlib.study.runs.training import build_network, generator_of, reproducible_arithmetic


def errors(network: nn.Module, images: torch.Tensor) -> list[float]:
    """By layer, the largest error of an output, relative to the outputs' root mean square.

    The error of a layer includes what those before it hand on.
    """
    worst, single, double = [], images, images.double()
    for layer, exact in zip(network, copy.deepcopy(network).double(), strict=True):
        single, double = layer(single), exact(double)
        error = (single - double).abs().max() / double.square().mean().sqrt()
        worst.append(error.item())
    return worst


def trained(
    network: nn.Module, dataset: datasets.Dataset, config: RunConfig, stops: list[int]
) -> Iterator[int]:
    """Train as a run of the study does; yields at the given steps."""
    groups = training._parameter_groups(dict(network.named_parameters()), config)
    optimizer = torch.optim.SGD(groups)
    order = generator_of(config.seed, "order")
    step = 0
    while step <= stops[-1]:
        for batch in torch.randperm(len(dataset.x_train), generator=order).split(config.batch_size):
            if step in stops:
                yield step
            if step == stops[-1]:
                return
            optimizer.zero_grad()
            cross_entropy(network(dataset.x_train[batch]), dataset.y_train[batch]).backward()
            optimizer.step()
            step += 1


@pytest.fixture(scope="module")
def mnist() -> datasets.Dataset:
    return datasets.load("mnist")


@pytest.mark.parametrize("arm", ["BL", "KUMAR"])
def test_single_precision_against_double(
    arm: str, mnist: datasets.Dataset, torture: bool, measured: Any
) -> None:
    config = RunConfig(arm=arm, seed=0)
    with reproducible_arithmetic():
        network, _ = build_network(config, mnist)
        for step in trained(network, mnist, config, [0, 100, *([10_000] if torture else [])]):
            with torch.no_grad():
                worst = errors(network, mnist.x_test[:2000])
            for number, error in enumerate(worst, 1):
                measured(
                    "precision", f"{arm}, layer {number}, step {step:,}", float(f"{error:.2g}")
                )
            assert max(worst) < 1e-4
