"""Layers with a bias: those without one, on inputs that have a 1 behind them."""

import copy
import functools
import itertools
import math
import pickle

import pytest
import torch
from draws import draw, seeded
from kinds import AFFINE, classes
from module_checks import assert_all_close, outcome, snapshot
from networks import make_layer
from torch import nn
from torch.testing import assert_close

import gmlib
from gmlib import functional, init
from gmlib.layer import MixtureLayer

SIZES = (4, 3, 2)


def with_one(x):
    """The inputs with a 1 behind each."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


@pytest.fixture
def biased(kind):
    layer = kind.layer(*SIZES, bias=True, dtype=torch.float64)
    layer.reset_parameters(generator=seeded())
    return layer


@pytest.fixture
def twin(kind):
    """The layer without a bias that computes the same on `with_one`."""
    return make_layer(kind, 5, 3, 2)


def test_there_is_none_unless_asked_for(kind):
    layer = kind.layer(*SIZES)
    assert layer.bias is False
    assert snapshot(make_layer(kind)) == snapshot(make_layer(kind))
    assert not layer(torch.zeros(4)).abs().max() > 1e-15


def test_has_the_same_parameters_as_one_of_a_feature_more(kind, biased, twin):
    assert (biased.in_features, biased.fan_in, twin.in_features) == (4, 5, 5)
    assert snapshot(biased) == snapshot(twin)  # names, shapes and what was drawn
    assert repr(biased) == repr(make_layer(kind)).replace(")", ", bias=True)")


@pytest.mark.parametrize("leading", [(), (0,), (2,), (9,), (2, 0, 3), (2, 3)], ids=str)
def test_computes_what_that_one_does_of_a_1_behind_each_input(kind, biased, twin, leading):
    x = draw(*leading, 4)
    assert torch.equal(biased(x), twin(with_one(x)))
    found, (out, dx, *expected) = outcome(biased, x), outcome(twin, with_one(x))
    assert all(map(torch.equal, found, (out, dx[..., :-1], *expected)))


def test_in_blocks(kind, biased, twin, monkeypatch):
    monkeypatch.setattr(functional, "_BLOCK", 4 * 6)
    x = draw(11, 4)
    assert torch.equal(biased(x), twin(with_one(x)))


def test_the_function_has_one_too(kind, biased):
    x = draw(5, 4)
    parameters = dict(biased.named_parameters())
    assert torch.equal(kind.function(x, **parameters, bias=True), biased(x))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 5\), got \(5, 4\)"):
        kind.function(x, **parameters)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_state_dicts_keep_it(kind, biased, duplicate):
    x = draw(5, 4)
    assert torch.equal(duplicate(biased)(x), biased(x))
    fresh = kind.layer(*SIZES, bias=True, dtype=torch.float64)
    fresh.load_state_dict(biased.state_dict())
    assert torch.equal(fresh(x), biased(x))


def test_layers_that_were_pickled_before_there_was_one(kind):
    layer, x = make_layer(kind), draw(5, 4)
    expected = layer(x)
    del layer.__dict__["bias"]
    old = pickle.loads(pickle.dumps(layer))
    assert "bias" not in old.__dict__
    assert torch.equal(old(x), expected)
    assert repr(old) == repr(layer)
    other = gmlib.fold(old) if kind is AFFINE else gmlib.unfold(old)
    assert_close(other(x), expected)


def test_on_the_meta_device(kind):
    layer = kind.layer(*SIZES, bias=True, device="meta")
    assert layer(torch.ones(5, 4, device="meta")).shape == (5, 3)
    layer.to_empty(device="cpu").reset_parameters()
    assert layer(torch.ones(5, 4)).isfinite().all()


def test_under_transforms_and_compiled(kind, biased):
    x = draw(9, 4)
    expected = outcome(biased, x)
    assert_close(torch.vmap(biased)(x), expected[0])
    compiled = torch.compile(biased, fullgraph=True, backend="eager", dynamic=True)
    assert_all_close(outcome(compiled, x), expected, rtol=1e-10, atol=1e-12)
    exported = torch.export.export(biased, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert_close(exported.module()(x[:4]), expected[0][:4])


# --- Initializations and coordinates -------------------------------------------------------------

DATA = draw(200, 4)
INITS = {
    "baseline_": lambda module, _, **options: init.baseline_(module, **options),
    "fan_in_": lambda module, _, **options: init.fan_in_(module, **options),
    "kumar_": init.kumar_,
    "lsuv_": init.lsuv_,
    "analytic_": lambda module, data, **options: init.analytic_(
        module, data.square().sum(1).mean().item(), **options
    ),
}


@pytest.mark.parametrize("init_", INITS.values(), ids=INITS)
def test_initializations_draw_the_coordinate_as_the_others(kind, biased, twin, init_):
    reports = [
        init_(layer, data, generator=seeded(3))
        for layer, data in [(biased, DATA), (twin, with_one(DATA))]
    ]
    assert snapshot(biased) == snapshot(twin)
    assert [*(reports[0] or ())] == [*(reports[1] or ())]


def test_calibration_of_a_network(kinds):
    one, two = itertools.islice(classes(kinds), 2)
    network, x = nn.Sequential(one(4, 6, 3, bias=True), two(6, 2, 3, bias=True)), DATA.float()
    report = init.kumar_(network, x)
    assert [row.std_after for row in report] == pytest.approx([0.5, 0.5], rel=1e-5)
    assert network(x).std(correction=0).item() == pytest.approx(0.5, rel=1e-5)


def test_folding_keeps_it(kind, biased):
    network, x = nn.Sequential(biased, nn.Tanh(), kind.layer(3, 2, 4).double()), draw(5, 4)
    there, back = (gmlib.fold, gmlib.unfold) if kind is AFFINE else (gmlib.unfold, gmlib.fold)
    folded = there(network)
    assert [layer.bias for layer in folded if isinstance(layer, MixtureLayer)] == [True, False]
    assert type(folded[0]) is not type(biased)
    for other in (folded, back(folded)):
        assert_close(other(x), network(x), rtol=1e-10, atol=1e-10)


# --- What it is for ------------------------------------------------------------------------------


def test_without_one_a_norm_behind_the_layer_throws_that_of_the_inputs_away(kind, biased):
    x, norm = draw(5, 4), nn.LayerNorm(3, eps=0.0, dtype=torch.float64)
    layer = make_layer(kind)
    assert_close(norm(layer(100.0 * x)), norm(layer(x)), rtol=1e-10, atol=1e-10)
    assert (norm(biased(100.0 * x)) - norm(biased(x))).abs().max() > 0.1


X = torch.linspace(-math.pi, math.pi, 256).unsqueeze(1)
SINE = torch.sin(3.0 * X)


@functools.cache
def least_error_of_two_lines():
    """The least mean squared error of a line to either side of zero, which meet there."""
    sides = torch.cat([X.clamp_min(0.0), X.clamp_max(0.0)], 1)
    residual = SINE - sides @ torch.linalg.lstsq(sides, SINE).solution
    return residual.square().mean().item()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
def test_a_sine_of_one_variable(kind, bias):
    torch.manual_seed(2)
    network = nn.Sequential(kind.layer(1, 16, 8, bias=bias), kind.layer(16, 1, 8, bias=bias))
    init.kumar_(network, X)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    least = math.inf
    for _ in range(1500 if bias else 100):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(X), SINE)
        least = min(least, loss.item())
        if least < 0.005:
            break
        loss.backward()
        optimizer.step()
    if bias:
        assert least < 0.01
    else:
        assert 0.46 < least_error_of_two_lines() < least + 1e-6
