"""The layer as a module."""

import copy
import pickle

import pytest
import torch
from torch import nn

import gmlib
from gmlib import GaussianMixtureLayer
from gmlib.functional import gm_layer

SHAPES = {"mu": (2, 4), "sigma": (2, 4), "U": (2, 3, 4), "v": (2, 3)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def layer():
    layer = GaussianMixtureLayer(4, 3, num_components=2)
    layer.reset_parameters(generator=seeded())
    return layer


@pytest.fixture
def x():
    return torch.randn(5, 4, generator=seeded(1))


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_holds_four_parameters(layer):
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == SHAPES
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())
    assert not list(layer.buffers())
    assert (layer.in_features, layer.out_features, layer.num_components) == (4, 3, 2)


def test_computes_the_closed_form(layer, x):
    assert torch.equal(layer(x), gm_layer(x, layer.mu, layer.sigma, layer.U, layer.v))


@pytest.mark.parametrize("leading", [(), (0,), (5,), (2, 0, 3), (2, 3)], ids=str)
def test_any_leading_shape(layer, leading):
    out = layer(torch.ones(*leading, 4))
    assert out.shape == (*leading, 3)
    out.sum().backward()
    assert {name: tuple(p.grad.shape) for name, p in layer.named_parameters()} == SHAPES


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(dtype, x):
    layer = GaussianMixtureLayer(4, 3, 2, dtype=dtype)
    assert {p.dtype for p in layer.parameters()} == {dtype}
    assert layer(x.to(dtype)).dtype == dtype


def test_moves_between_dtypes(layer, x):
    single = layer(x)
    double = layer.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


def test_follows_the_default_dtype():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert GaussianMixtureLayer(4, 3, 2).mu.dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_refuses_inputs_of_another_dtype(layer, x):
    with pytest.raises(TypeError, match=r"x and mu.*torch\.float64 and torch\.float32"):
        layer(x.double())


def test_refuses_inputs_of_another_width(layer):
    with pytest.raises(ValueError, match=r"\(\.\.\., 4\), got \(5, 3\)"):
        layer(torch.ones(5, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int64])
def test_refuses_other_dtypes(dtype):
    with pytest.raises(TypeError, match=f"float32 or float64, got {dtype}"):
        GaussianMixtureLayer(4, 3, 2, dtype=dtype)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "2", None])
@pytest.mark.parametrize("position", range(3))
def test_refuses_sizes(position, size):
    sizes = [4, 3, 2]
    sizes[position] = size
    name = ("in_features", "out_features", "num_components")[position]
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {size!r}"):
        GaussianMixtureLayer(*sizes)


def test_draws_the_default_of_its_authors():
    layer = GaussianMixtureLayer(50, 40, 30)
    layer.reset_parameters(generator=seeded())
    for tensor in (layer.mu, layer.U, layer.v):
        n = tensor.numel()
        assert tensor.mean().abs() < 5 * 0.5 / n**0.5
        assert abs(tensor.std() / 0.5 - 1) < 5 / (2 * n) ** 0.5
    assert (layer.sigma == 0.5).all()


def test_reset_parameters_follows_the_generator(layer):
    twin = GaussianMixtureLayer(4, 3, 2)
    assert not same(layer, twin)
    before = torch.get_rng_state()
    twin.reset_parameters(generator=seeded())
    assert torch.equal(before, torch.get_rng_state())
    assert same(layer, twin)
    twin.reset_parameters(generator=seeded(1))
    assert not same(layer, twin)


def test_reset_parameters_draws_mu_U_v_in_this_order(layer):
    generator = seeded()
    layer.reset_parameters(0.25, generator=seeded())
    for tensor in (layer.mu, layer.U, layer.v):
        expected = torch.empty(tensor.shape).normal_(0.0, 0.25, generator=generator)
        assert torch.equal(tensor, expected)
    assert (layer.sigma == 0.25).all()


def test_follows_the_global_seed():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one = GaussianMixtureLayer(4, 3, 2)
        torch.manual_seed(3)
        two = GaussianMixtureLayer(4, 3, 2)
    assert same(one, two)


def test_state_dict_round_trip(layer, x, tmp_path):
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    twin = GaussianMixtureLayer(4, 3, 2)
    twin.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert list(layer.state_dict()) == list(SHAPES)
    assert same(layer, twin)
    assert torch.equal(layer(x), twin(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(layer, x, duplicate):
    twin = duplicate(layer)
    assert same(layer, twin)
    assert torch.equal(layer(x), twin(x))
    nn.init.zeros_(twin.U)
    assert not same(layer, twin)


def test_meta_device_then_real():
    layer = GaussianMixtureLayer(4, 3, 2, device="meta")
    assert all(p.is_meta for p in layer.parameters())
    assert layer(torch.ones(5, 4, device="meta")).shape == (5, 3)
    layer.to_empty(device="cpu").reset_parameters()
    assert layer(torch.ones(5, 4)).isfinite().all()


def test_skip_init():
    layer = nn.utils.skip_init(GaussianMixtureLayer, 4, 3, num_components=2)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == SHAPES


def test_repr(layer):
    assert repr(layer) == "GaussianMixtureLayer(in_features=4, out_features=3, num_components=2)"


def test_double_backward_through_a_network(x):
    network = nn.Sequential(GaussianMixtureLayer(4, 3, 2), nn.ReLU(), GaussianMixtureLayer(3, 1, 2))
    network.double()
    x = x.double().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_is_exported():
    assert gmlib.GaussianMixtureLayer is GaussianMixtureLayer
