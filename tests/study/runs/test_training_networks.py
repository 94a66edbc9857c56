"""The networks that are trained, and an initialization of one's own."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from training_checks import ARMS, calibration_inputs

from gmlib import GaussianMixtureLayer
from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.neurons import NeuronLayer
from gmlib.study.runs.training import build_network, train

Configure = Callable[..., RunConfig]
MIXTURES = tuple(arm for arm in ARMS if arm not in ("FC", "NEURONS"))


def test_the_dense_reference(tiny: Configure, blobs: datasets.Dataset) -> None:
    network, _ = build_network(tiny("FC", widths=(400, 300, 3)), blobs)
    kinds = [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in network] == kinds
    sizes = [(layer.in_features, layer.out_features) for layer in network[::2]]
    assert sizes == [(25, 400), (400, 300), (300, 3)]
    for layer in network[::2]:
        assert not layer.bias.any()
        std = layer.weight.std().item()  # Kaiming: sqrt(2 / fan_in)
        assert std == pytest.approx(math.sqrt(2 / layer.in_features), rel=0.1)


@pytest.mark.parametrize("arm", MIXTURES)
def test_the_stack_of_gm_layers(arm: str, tiny: Configure, blobs: datasets.Dataset) -> None:
    network, _ = build_network(tiny(arm, widths=(6, 4, 3), num_components=5), blobs)
    assert all(type(layer) is GaussianMixtureLayer for layer in network)
    sizes = [(layer.in_features, layer.out_features, layer.num_components) for layer in network]
    assert sizes == [(25, 6, 5), (6, 4, 5), (4, 3, 5)]


def test_the_stack_of_neurons(tiny: Configure, blobs: datasets.Dataset) -> None:
    network, _ = build_network(tiny("NEURONS", widths=(6, 4, 3), num_neurons=14), blobs)
    assert all(type(layer) is NeuronLayer for layer in network)
    sizes = [(*layer.beta.shape, *layer.omega.shape) for layer in network]
    assert sizes == [(14, 25, 14, 6), (14, 6, 14, 4), (14, 4, 14, 3)]


@pytest.mark.parametrize(
    ("arm", "settings", "sigmas"),
    [
        ("BL", {}, [0.5, 0.5]),
        ("BL", {"gamma": 0.25}, [0.25, 0.25]),
        ("FAN-IN", {}, [math.sqrt(2 / 25), math.sqrt(2 / 6)]),
        ("KUMAR", {}, [math.sqrt(2 / 25), math.sqrt(2 / 6)]),
    ],
)
def test_each_arm_has_its_initialization(
    arm: str,
    settings: dict[str, float],
    sigmas: list[float],
    tiny: Configure,
    blobs: datasets.Dataset,
) -> None:
    network, _ = build_network(tiny(arm, **settings), blobs)
    for layer, sigma in zip(network, sigmas, strict=True):
        torch.testing.assert_close(layer.sigma, torch.full_like(layer.sigma, sigma))


def test_kumar_is_fan_in_with_another_readout(tiny: Configure, blobs: datasets.Dataset) -> None:
    (plain, _), (scaled, report) = (build_network(tiny(arm), blobs) for arm in ("FAN-IN", "KUMAR"))
    for before, after, layer in zip(plain, scaled, report, strict=True):
        assert torch.equal(before.mu, after.mu)
        torch.testing.assert_close(layer.scale * before.U, after.U)
        torch.testing.assert_close(layer.scale * before.v, after.v)


# --- An initialization of one's own --------------------------------------------------------------


def test_an_initialization_of_ones_own(
    tiny: Configure, blobs: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = importlib.import_module("own_runs").CALLS
    calls.clear()
    config = tiny("own_runs:spy", 7)
    train(config)
    ((network, inputs, given, drawn, threads, flushed),) = calls
    assert [type(layer) for layer in network] == [GaussianMixtureLayer] * 2
    assert given is config
    assert torch.equal(inputs, calibration_inputs(tiny("KUMAR", 7), monkeypatch))
    assert torch.equal(drawn, torch.randn(5, generator=torch.Generator().manual_seed(7)))
    assert (threads, flushed) == (1, True)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("no_such_module:f", "cannot be imported: No module named 'no_such_module'"),
        ("own_runs.missing:f", "cannot be imported: .*'own_runs' is not a package"),
        ("own_runs:missing", "cannot be imported: .*no attribute 'missing'"),
        ("own_runs:NOT_A_FUNCTION", "must name a function, got 3"),
    ],
)
def test_an_initialization_that_cannot_be_had(arm: str, message: str, tiny: Configure) -> None:
    with pytest.raises(ValueError, match=f"^arm '{re.escape(arm)}' {message}"):
        train(tiny(arm))
