"""Costs: counted by hand, and by what PyTorch sees of the networks themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gmlib import GaussianMixtureLayer
from gmlib.study import datasets
from gmlib.study.analysis.budgets import multiplications, num_parameters
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.neurons import draw_neurons
from gmlib.study.runs.training import build_network


@pytest.mark.parametrize(
    ("config", "parameters", "products"),
    [
        # Softmax regression: ten rows of 784 weights, ten biases.
        (RunConfig("FC", 0, widths=(10,)), 7_850, 7_840),
        (RunConfig("FC", 0, widths=(100, 10)), 78_400 + 100 + 1_000 + 10, 78_400 + 1_000),
        # mu and sigma, U, v; the squares, mu x and sigma^2 x^2, U sigma^2 x, by F and by G.
        (
            RunConfig("BL", 0, widths=(10,), num_components=1),
            1_568 + 7_840 + 10,
            784 + 1_568 + 7_840 + 20,
        ),
        (
            RunConfig("KUMAR", 0, widths=(10,), num_components=40),
            40 * (1_568 + 7_840 + 10),
            784 + 40 * (1_568 + 7_840 + 20),
        ),
        (
            RunConfig("KUMAR", 0, widths=(100, 10), num_components=1),
            (1_568 + 78_400 + 100) + (200 + 1_000 + 10),
            (784 + 1_568 + 78_400 + 200) + (100 + 200 + 1_000 + 20),
        ),
        (RunConfig("NEURONS", 0, widths=(10,), num_neurons=100), 79_400, 79_400),
    ],
    ids=lambda value: f"{value.arm} {value.widths}" if isinstance(value, RunConfig) else "",
)
def test_by_hand(config: RunConfig, parameters: int, products: int) -> None:
    assert num_parameters(config, 784) == parameters
    assert multiplications(config, 784) == products


@pytest.mark.parametrize("arm", ["FC", "BL", "KUMAR", "NEURONS"])
@pytest.mark.parametrize("widths", [(3,), (6, 3), (5, 6, 3)])
def test_as_many_parameters_as_the_network_that_trains(
    arm: str, widths: tuple[int, ...], tiny: Any
) -> None:
    config = tiny(arm, widths=widths, num_components=4, num_neurons=8)
    dataset = datasets.load(config.dataset)
    network, _ = build_network(config, dataset)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert num_parameters(config, dataset.num_features) == count


class _Elementwise(TorchDispatchMode):
    """Counts multiplications of arrays entry by entry, but those of one number a component."""

    def __init__(self, moments: tuple[int, ...]) -> None:
        super().__init__()
        self.moments, self.count = moments, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        products = (torch.ops.aten.mul, torch.ops.aten.pow, torch.ops.aten.addcmul)
        if func.overloadpacket in products and result.shape != self.moments:
            self.count += result.numel()
        return result


def _observed(network: nn.Module, d: int, batch: int, moments: tuple[int, ...]) -> int:
    """Multiplications of a forward: in matrix products by PyTorch's counter, and by entry."""
    x = torch.randn(batch, d)
    flops, entries = FlopCounterMode(display=False), _Elementwise(moments)
    with torch.no_grad(), flops, entries:
        network(x)
    products, odd = divmod(flops.get_total_flops(), 2)  # a multiplication and an addition each
    assert odd == 0
    return products + entries.count


@pytest.mark.parametrize(("d", "C", "K"), [(30, 5, 3), (7, 11, 2), (784, 10, 1)])
def test_the_layer_multiplies_as_often_as_counted(d: int, C: int, K: int) -> None:
    layer = GaussianMixtureLayer(d, C, K)
    # Two batches tell what an input costs from what a batch costs. They are larger than C, or the
    # layer would scale the inputs rather than U.
    small, large = (_observed(layer, d, batch, (K, batch)) for batch in (64, 96))
    config = RunConfig("BL", 0, widths=(C,), num_components=K)
    assert large - small == 32 * multiplications(config, d)
    assert small - 64 * multiplications(config, d) == K * d * (2 * C + 1)  # a batch's


def test_dense_layers_and_neurons_multiply_as_often_as_counted() -> None:
    dense = nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 5))
    expected = multiplications(RunConfig("FC", 0, widths=(8, 5)), 30)
    assert _observed(dense, 30, 64, ()) == 64 * expected
    neurons = draw_neurons(GaussianMixtureLayer(30, 5, 2), 12)
    config = RunConfig("NEURONS", 0, widths=(5,), num_components=2, num_neurons=12)
    assert _observed(neurons, 30, 64, ()) == 64 * multiplications(config, 30)
