"""The layer as a module."""

import copy
import operator
import pickle
import re

import numpy as np
import pytest
import torch
from draws import draw, seeded
from kinds import FOLDED, affine_readout
from module_checks import snapshot
from networks import make_layer
from torch import nn
from torch.testing import assert_close

import gmlib
from gmlib._validation import DTYPES


@pytest.fixture
def layer(kind):
    return make_layer(kind, dtype=torch.float32)


@pytest.fixture
def x():
    return draw(5, 4, dtype=torch.float32)


def shapes(kind):
    """Those of a layer of four features, three outputs and two components, by name."""
    return dict(zip(kind.parameters, [(2, 4), (2, 4), (2, 3, 4), (2, 3)], strict=True))


def test_holds_four_parameters(kind, layer):
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == shapes(kind)
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())
    assert not list(layer.buffers())
    assert (layer.in_features, layer.out_features, layer.num_components) == (4, 3, 2)


def test_computes_the_closed_form(kind, layer, x):
    parameters = {name: getattr(layer, name) for name in kind.parameters}
    assert torch.equal(layer(x), kind.function(x=x, **parameters))


def test_knows_its_readout(kind, layer):
    assert layer.readout_names == kind.readout
    readout = [getattr(layer, name) for name in kind.readout]
    assert all(map(operator.is_, layer.readout, readout))


@pytest.mark.parametrize("leading", [(), (0,), (5,), (2, 0, 3), (2, 3)], ids=str)
def test_any_leading_shape(kind, layer, leading):
    out = layer(torch.ones(*leading, 4))
    assert out.shape == (*leading, 3)
    out.sum().backward()
    assert {name: tuple(p.grad.shape) for name, p in layer.named_parameters()} == shapes(kind)


def test_trains(layer, x):
    target = torch.randn(5, 3, generator=seeded(2))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype(kind, dtype, x):
    layer = kind.layer(4, 3, 2, dtype=dtype)
    assert {p.dtype for p in layer.parameters()} == {dtype}
    assert layer(x.to(dtype)).dtype == dtype


def test_moves_between_dtypes(layer, x):
    single = layer(x)
    double = layer.double()(x.double())
    assert double.dtype == torch.float64
    assert_close(double.float(), single)


@pytest.mark.parametrize("dtype", DTYPES)
def test_follows_the_default_dtype(kind, dtype):
    expected = make_layer(kind, dtype=dtype)(draw(5, 4, dtype=dtype))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        layer = kind.layer(4, 3, 2)
        layer.reset_parameters(generator=seeded())
        assert layer.mu.dtype == dtype
        assert torch.equal(layer(draw(5, 4, dtype=dtype)), expected)
    finally:
        torch.set_default_dtype(before)


def test_refuses_inputs_of_another_dtype(layer, x):
    with pytest.raises(TypeError, match=r"x and mu.*torch\.float64 and torch\.float32"):
        layer(x.double())


def test_refuses_inputs_of_another_width(layer):
    with pytest.raises(ValueError, match=r"\(\.\.\., 4\), got \(5, 3\)"):
        layer(torch.ones(5, 3))


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.complex64, torch.int64, torch.bool, torch.qint8, "float32"]
)
def test_refuses_other_dtypes(kind, dtype):
    message = f"^dtype must be float16, bfloat16, float32 or float64, got {dtype!r}$"
    with pytest.raises(TypeError, match=message):
        kind.layer(4, 3, 2, dtype=dtype)


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8, torch.tensor])
def test_sizes_of_other_integer_types(kind, integer):
    layer = kind.layer(*map(integer, (4, 3, 2)))
    assert repr(layer) == repr(kind.layer(4, 3, 2))
    sizes = (layer.in_features, layer.out_features, layer.num_components)
    assert [type(size) for size in sizes] == [int] * 3


@pytest.mark.parametrize(
    "size", [0, -1, 2.0, True, np.True_, np.float64(2), np.int64(0), "2", None]
)
@pytest.mark.parametrize("position", range(3))
def test_refuses_sizes(kind, position, size):
    sizes = [4, 3, 2]
    sizes[position] = size
    name = ("in_features", "out_features", "num_components")[position]
    with pytest.raises(
        ValueError, match=re.escape(f"{name} must be an integer of at least 1, got {size!r}")
    ):
        kind.layer(*sizes)


def test_draws_the_default_of_its_authors(kind):
    layer = make_layer(kind, 50, 40, 30)
    for tensor in (layer.mu, *affine_readout(layer)):
        n = tensor.numel()
        assert tensor.mean().abs() < 5 * 0.5 / n**0.5
        assert abs(tensor.std() / 0.5 - 1) < 5 / (2 * n) ** 0.5
    assert (layer.sigma == 0.5).all()


def test_reset_parameters_follows_the_generator(kind, layer):
    twin = kind.layer(4, 3, 2)
    assert snapshot(layer) != snapshot(twin)
    before = torch.get_rng_state()
    twin.reset_parameters(generator=seeded())
    assert torch.equal(before, torch.get_rng_state())
    assert snapshot(layer) == snapshot(twin)
    twin.reset_parameters(generator=seeded(1))
    assert snapshot(layer) != snapshot(twin)


def test_reset_parameters_draws_mu_U_v_in_this_order(kind, layer):
    layer.reset_parameters(0.25, generator=seeded())
    generator = seeded()
    mu, U, v = (
        torch.empty(shape).normal_(0.0, 0.25, generator=generator)
        for shape in [(2, 4), (2, 3, 4), (2, 3)]
    )
    sigma = torch.full((2, 4), 0.25)
    assert torch.equal(layer.mu, mu)
    assert torch.equal(layer.sigma, sigma)
    rounding = torch.finfo(torch.float32).eps if kind is FOLDED else 0.0
    for tensor, expected in zip(layer.readout, kind.coordinates(mu, sigma, U, v), strict=True):
        assert_close(tensor, expected, rtol=4 * rounding, atol=rounding)


def test_follows_the_global_seed(kind):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one = kind.layer(4, 3, 2)
        torch.manual_seed(3)
        two = kind.layer(4, 3, 2)
    assert snapshot(one) == snapshot(two)


def test_state_dict_round_trip(kind, layer, x, tmp_path):
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    twin = kind.layer(4, 3, 2)
    twin.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert list(layer.state_dict()) == list(shapes(kind))
    assert snapshot(layer) == snapshot(twin)
    assert torch.equal(layer(x), twin(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(layer, x, duplicate):
    twin = duplicate(layer)
    assert snapshot(layer) == snapshot(twin)
    assert torch.equal(layer(x), twin(x))
    nn.init.zeros_(twin.readout[0])
    assert snapshot(layer) != snapshot(twin)


def test_meta_device_then_real(kind):
    layer = kind.layer(4, 3, 2, device="meta")
    assert all(p.is_meta for p in layer.parameters())
    assert layer(torch.ones(5, 4, device="meta")).shape == (5, 3)
    layer.to_empty(device="cpu").reset_parameters()
    assert layer(torch.ones(5, 4)).isfinite().all()


def test_skip_init(kind):
    layer = nn.utils.skip_init(kind.layer, 4, 3, num_components=2)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == shapes(kind)


def test_repr(kind, layer):
    name = kind.layer.__name__
    assert repr(layer) == f"{name}(in_features=4, out_features=3, num_components=2)"


def test_double_backward_through_a_network(kind, x):
    network = nn.Sequential(kind.layer(4, 3, 2), nn.ReLU(), kind.layer(3, 1, 2))
    network.double()
    x = x.double().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_is_exported(kind):
    assert getattr(gmlib, kind.layer.__name__) is kind.layer
