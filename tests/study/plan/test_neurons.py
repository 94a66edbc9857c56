"""Networks of neurons: the formula, the draw, and steps that go with those of the clouds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from gmlib import GaussianMixtureLayer
from gmlib.init import fan_in_, kumar_
from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.neurons import NeuronLayer, draw_neurons
from gmlib.study.runs import training
from gmlib.study.runs.training import build_network, train

Configure = Callable[..., RunConfig]

D, C, K = 7, 3, 4


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def layer() -> GaussianMixtureLayer:
    """Clouds that are not round, of which one has a negative sigma and one a coordinate of none."""
    layer = GaussianMixtureLayer(D, C, K, dtype=torch.float64)
    layer.reset_parameters(1.0, generator=generator())
    with torch.no_grad():
        layer.sigma.copy_(0.2 + torch.rand(K, D, generator=generator(1), dtype=torch.float64))
        layer.sigma[1] *= -1.0
        layer.sigma[2, 3] = 0.0
    return layer


@pytest.fixture
def x() -> Tensor:
    return torch.randn(50, D, generator=generator(2), dtype=torch.float64)


def by_component(neurons: NeuronLayer) -> tuple[Tensor, Tensor]:
    """Directions (K, m / K, d) and readouts (K, m / K, C)."""
    return neurons.beta.detach().unflatten(0, (K, -1)), neurons.omega.detach().unflatten(0, (K, -1))


# --- The layer -----------------------------------------------------------------------------------


def test_the_layer_is_the_mean_over_its_neurons(x: Tensor) -> None:
    beta = torch.randn(11, D, generator=generator(3), dtype=torch.float64)
    omega = torch.randn(11, C, generator=generator(4), dtype=torch.float64)
    outputs = NeuronLayer(beta, omega)(x)
    assert outputs.shape == (50, C)
    for i, c in itertools.product(range(50), range(C)):
        total = 0.0
        for j in range(11):
            s = sum(b * value for b, value in zip(beta[j].tolist(), x[i].tolist(), strict=True))
            total += omega[j, c].item() * max(s, 0.0)
        assert outputs[i, c].item() == pytest.approx(total / 11, rel=1e-12)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (4, 0, 2)])
def test_any_number_of_leading_dimensions(shape: tuple[int, ...], x: Tensor) -> None:
    neurons = NeuronLayer(torch.randn(6, D).double(), torch.randn(6, C).double())
    inputs = x[: math.prod(shape)].reshape(*shape, D)
    outputs = neurons(inputs)
    assert outputs.shape == (*shape, C)
    torch.testing.assert_close(outputs.reshape(-1, C), neurons(inputs.reshape(-1, D)))


def test_the_layer_has_the_gradients_of_its_formula(x: Tensor) -> None:
    beta, omega = torch.randn(6, D).double(), torch.randn(6, C).double()

    def outputs(beta: Tensor, omega: Tensor, x: Tensor) -> Tensor:
        neurons = NeuronLayer(beta, omega)
        parameters = {"beta": beta, "omega": omega}
        result: Tensor = torch.func.functional_call(neurons, parameters, (x,))
        return result

    arguments = (beta.requires_grad_(), omega.requires_grad_(), x[:5].clone().requires_grad_())
    assert torch.autograd.gradcheck(outputs, arguments)


def test_the_parameters_are_beta_and_omega() -> None:
    beta, omega = torch.randn(6, D), torch.randn(6, C)
    named = dict(NeuronLayer(beta, omega).named_parameters())
    assert list(named) == ["beta", "omega"]
    assert torch.equal(named["beta"], beta)
    assert torch.equal(named["omega"], omega)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in named.values())


# --- The draw ------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [1, 2, 25])
def test_every_component_gets_equally_many_neurons(each: int, layer: GaussianMixtureLayer) -> None:
    with torch.no_grad():
        layer.mu.copy_(100.0 * torch.arange(K).unsqueeze(1).expand(K, D))
    neurons = draw_neurons(layer, each * K, generator=generator())
    assert neurons.beta.shape == (each * K, D)
    assert neurons.omega.shape == (each * K, C)
    nearest = torch.cdist(neurons.beta.detach(), layer.mu.detach()).argmin(1)
    assert nearest.bincount().tolist() == [each] * K


def test_a_readout_is_that_of_the_neurons_own_component(layer: GaussianMixtureLayer) -> None:
    beta, omega = by_component(draw_neurons(layer, 25 * K, generator=generator()))
    for k in range(K):
        expected = torch.stack([layer.U[k] @ b + layer.v[k] for b in beta[k]])
        torch.testing.assert_close(omega[k], expected.detach())


def test_clouds_of_no_width_give_copies_of_their_centers(
    layer: GaussianMixtureLayer, x: Tensor
) -> None:
    nn.init.zeros_(layer.sigma)
    neurons = draw_neurons(layer, 3 * K)
    assert torch.equal(by_component(neurons)[0], layer.mu.detach().unsqueeze(1).expand(K, 3, D))
    torch.testing.assert_close(neurons(x), layer(x))


def test_moments_are_those_of_the_components(layer: GaussianMixtureLayer) -> None:
    n = 20_000
    beta, _ = by_component(draw_neurons(layer, n * K, generator=generator()))
    mu, sigma = layer.mu.detach(), layer.sigma.detach().abs()
    assert ((beta.mean(1) - mu).abs() <= 5 * sigma / math.sqrt(n) + 1e-12).all()
    assert ((beta.std(1) - sigma).abs() <= 5 * sigma / math.sqrt(2 * n) + 1e-12).all()
    scores = ((beta - mu.unsqueeze(1)) / sigma.unsqueeze(1))[sigma.all(1)]
    assert len(scores) == 3
    assert (scores.pow(3).mean(1).abs() < 5 * math.sqrt(15 / n)).all()
    assert ((scores.pow(4).mean(1) - 3).abs() < 5 * math.sqrt(96 / n)).all()
    # independent: by coordinate, and by component
    flat = scores.transpose(1, 2).flatten(0, 1)
    correlation = flat @ flat.T / n
    correlation.fill_diagonal_(0.0)
    assert correlation.abs().max() < 5 / math.sqrt(n)


def test_the_layer_is_the_limit_of_many_neurons(layer: GaussianMixtureLayer, x: Tensor) -> None:
    exact = layer(x).detach()

    def mean_square(each: int, draws: int) -> float:
        rng = generator(each)
        errors = [draw_neurons(layer, each * K, generator=rng)(x) - exact for _ in range(draws)]
        return torch.stack(errors).square().mean().item()

    # Theory: the variance of a neuron's contribution within its component, over m.
    beta, omega = by_component(draw_neurons(layer, 20_000 * K, generator=generator(9)))
    terms = torch.relu(beta @ x.T).unsqueeze(-1) * omega.unsqueeze(2)
    variance = terms.var(1).mean().item()
    for each, draws in {1: 400, 10: 100, 100: 100, 1000: 40}.items():
        m = each * K
        assert mean_square(each, draws) == pytest.approx(variance / m, rel=0.25), m
    relative = math.sqrt(mean_square(1000, 40) / exact.square().mean().item())
    assert relative < 0.05


def test_the_draw_has_no_bias(layer: GaussianMixtureLayer, x: Tensor) -> None:
    rng = generator()
    outputs = torch.stack([draw_neurons(layer, K, generator=rng)(x) for _ in range(1000)]).detach()
    errors = (outputs.mean(0) - layer(x).detach()).abs()
    assert (errors < 5 * outputs.std(0) / math.sqrt(1000)).all()


def test_the_generator_decides(layer: GaussianMixtureLayer) -> None:
    before = torch.get_rng_state()
    one, same, other = (draw_neurons(layer, 5 * K, generator=generator(s)) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.beta, same.beta)
    assert torch.equal(one.omega, same.omega)
    assert not torch.isclose(one.beta, other.beta).all(1).any()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(draw_neurons(layer, 5 * K).beta, one.beta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neurons_have_the_type_of_the_layer(dtype: torch.dtype) -> None:
    neurons = draw_neurons(GaussianMixtureLayer(D, C, K, dtype=dtype), K)
    assert neurons.beta.dtype == neurons.omega.dtype == dtype


def test_neurons_and_layer_go_their_own_ways(layer: GaussianMixtureLayer, x: Tensor) -> None:
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    neurons = draw_neurons(layer, K)
    neurons(x).square().sum().backward()
    assert all(parameter.grad is None for parameter in layer.parameters())
    nn.init.zeros_(neurons.beta)
    nn.init.zeros_(neurons.omega)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("number", [0, 1, K - 1, K + 1, 10 * K - 2, -1, -K])
def test_a_number_that_does_not_fit_is_refused(number: int, layer: GaussianMixtureLayer) -> None:
    rng = generator()
    message = f"num_neurons must be a positive multiple of the layer's {K} components, got {number}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        draw_neurons(layer, number, generator=rng)
    assert torch.equal(rng.get_state(), generator().get_state())


# --- Steps ---------------------------------------------------------------------------------------


def step(network: nn.Module, config: RunConfig, x: Tensor) -> dict[str, Tensor]:
    """How far one step of SGD moves each parameter."""
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    groups = training._parameter_groups(dict(network.named_parameters()), config)
    optimizer = torch.optim.SGD(groups)
    cross_entropy(network(x), torch.arange(len(x)) % C).backward()
    optimizer.step()
    return {name: value.detach() - before[name] for name, value in network.named_parameters()}


def clouds(sigma: float) -> nn.Sequential:
    """Two layers of round clouds with readouts that do not depend on the neuron: U = 0."""
    network = nn.Sequential(
        *(GaussianMixtureLayer(d, width, K, dtype=torch.float64) for d, width in ((D, 6), (6, C)))
    )
    for layer in network:
        layer.reset_parameters(1.0, generator=generator(layer.in_features))
        nn.init.constant_(layer.sigma, sigma)
        nn.init.zeros_(layer.U)
    return network


@pytest.mark.parametrize("each", [1, 2, 9])
def test_a_neuron_moves_as_the_center_of_a_cloud_would(each: int, x: Tensor) -> None:
    network = clouds(1e-9)
    neurons = nn.Sequential(*(draw_neurons(layer, each * K) for layer in network))
    settings = {"num_components": K, "num_neurons": each * K, "lr": 0.3}
    expected = step(network, RunConfig("KUMAR", 0, num_components=K, lr=0.3), x)
    found = step(neurons, RunConfig("NEURONS", 0, **settings), x)
    for i in range(2):
        for name, center in (("beta", "mu"), ("omega", "v")):
            move = expected[f"{i}.{center}"]
            assert move.abs().max() > 1e-4
            torch.testing.assert_close(
                found[f"{i}.{name}"].unflatten(0, (K, each)),
                move.unsqueeze(1).expand(-1, each, -1),
                rtol=1e-6,
                atol=1e-9,
            )


def test_the_neurons_of_a_wide_cloud_move_as_its_center_on_average(x: Tensor) -> None:
    each = 40_000
    network = clouds(0.7)[:1]
    neurons = nn.Sequential(draw_neurons(network[0], each * K, generator=generator()))
    # A readout of six, of which the labels make use of three.
    expected = step(network, RunConfig("KUMAR", 0, num_components=K), x)
    settings = {"num_components": K, "num_neurons": each * K}
    found = step(neurons, RunConfig("NEURONS", 0, **settings), x)
    for name, center in (("0.beta", "0.mu"), ("0.omega", "0.v")):
        moves = found[name].unflatten(0, (K, each))
        scale = expected[center].abs().max().item()
        assert moves.std(1).max() > 0.05 * scale  # one by one they do not
        torch.testing.assert_close(moves.mean(1), expected[center], rtol=0, atol=0.02 * scale)


def test_only_neurons_have_a_rate_that_grows_with_their_number() -> None:
    parameters = {"0.beta": torch.zeros(3), "0.omega": torch.zeros(2)}
    settings = {"num_components": 5, "num_neurons": 60, "lr": 0.2, "lr_sigma": 0.7}
    (group,) = training._parameter_groups(parameters, RunConfig("NEURONS", 0, **settings))
    assert group["lr"] == pytest.approx(0.2 * 60 / 5)
    assert list(map(id, group["params"])) == list(map(id, parameters.values()))
    parameters = {"0.mu": torch.zeros(3), "0.sigma": torch.zeros(2)}
    for arm in ("KUMAR", "package.module:function"):
        rest, sigma = training._parameter_groups(parameters, RunConfig(arm, 0, **settings))
        assert (rest["lr"], sigma["lr"]) == (0.2, 0.7)
    parameters = {"0.weight": torch.zeros(3), "0.bias": torch.zeros(2)}
    (group,) = training._parameter_groups(parameters, RunConfig("FC", 0, **settings))
    assert group["lr"] == 0.2


# --- The arm -------------------------------------------------------------------------------------


def test_the_network_is_drawn_from_kumars_mixtures(tiny: Configure) -> None:
    dataset = datasets.load("own_runs:blobs")
    settings = {"num_neurons": 2000, "widths": (6, 4, 3), "target_std": 0.8}
    network, _ = build_network(tiny("NEURONS", 3, **settings), dataset)
    mixtures, _ = build_network(tiny("KUMAR", 3, **settings), dataset)
    assert all(type(layer) is NeuronLayer for layer in network)
    for neurons, layer in zip(network, mixtures, strict=True):
        assert neurons.beta.shape == (2000, layer.in_features)
        beta = neurons.beta.detach().unflatten(0, (2, 1000))
        omega = neurons.omega.detach().unflatten(0, (2, 1000))
        torch.testing.assert_close(omega, (beta @ layer.U.mT + layer.v.unsqueeze(1)).detach())
        scores = (beta - layer.mu.detach().unsqueeze(1)) / layer.sigma.detach().unsqueeze(1)
        assert scores.mean(1).abs().max() < 5 / math.sqrt(1000)
        assert (scores.std(1) - 1).abs().max() < 5 / math.sqrt(2000)


def test_neurons_are_drawn_after_the_parameters(tiny: Configure) -> None:
    dataset = datasets.load("own_runs:blobs")
    network, _ = build_network(tiny("NEURONS", 3), dataset)
    rng = generator(3)
    layers = nn.Sequential(GaussianMixtureLayer(25, 6, 2), GaussianMixtureLayer(6, 3, 2))
    order = torch.randperm(96, generator=training.generator_of(3, "calibration"))
    kumar_(layers, dataset.x_train[order[:64]], generator=rng)
    for neurons, layer in zip(network, layers, strict=True):
        drawn = draw_neurons(layer, 40, generator=rng)
        assert torch.equal(neurons.beta, drawn.beta)
        assert torch.equal(neurons.omega, drawn.omega)
    assert not torch.equal(network[0].beta[:, :6], network[1].beta)


def test_what_the_neurons_give_is_reported(tiny: Configure) -> None:
    dataset = datasets.load("own_runs:blobs")
    config = tiny("NEURONS", num_neurons=20_000)
    network, report = build_network(config, dataset)
    order = torch.randperm(96, generator=training.generator_of(0, "calibration"))
    x = dataset.x_train[order[:64]]
    assert [entry.name for entry in report] == ["0", "1"]
    for layer, entry in zip(network, report, strict=True):
        x = layer(x).detach()
        assert entry.std_after == pytest.approx(x.double().std(correction=0).item(), rel=1e-6)
        assert (entry.scale, entry.std_before) == (1.0, entry.std_after)
        assert entry.std_after == pytest.approx(0.5, rel=0.1)  # that of the mixtures is 0.5


@pytest.mark.parametrize(("each", "share"), [(1, 1.0), (20, 0.8)])
def test_a_run_of_neurons_learns_and_repeats_bit_for_bit(
    each: int, share: float, tiny: Configure
) -> None:
    config = tiny("NEURONS", epochs=3, num_neurons=2 * each, lr=0.05, snapshots=True)
    record = train(config)
    names = ["0.beta", "0.omega", "1.beta", "1.omega"]
    assert list(record.snapshots) == list(record.movement) == names
    shapes = [(2 * each, 25), (2 * each, 6), (2 * each, 6), (2 * each, 3)]
    assert [found.shape for found in record.snapshots.values()] == [(4, *s) for s in shapes]
    assert record.curves["test_loss"][-1] < share * record.curves["test_loss"][0]
    torch.manual_seed(999)
    again = train(config)
    np.testing.assert_equal(again.curves, record.curves)
    np.testing.assert_equal(again.movement, record.movement)
    for name, found in record.snapshots.items():
        np.testing.assert_array_equal(again.snapshots[name], found)


def test_many_neurons_train_as_their_mixture_does_in_the_beginning(tiny: Configure) -> None:
    # Over few small steps: clouds keep their form, while the neurons of one drift apart.
    small = {"lr": 1e-3, "lr_sigma": 1e-3}
    neurons = train(tiny("NEURONS", num_neurons=40_000, **small)).curves
    mixtures = train(tiny("KUMAR", **small)).curves
    assert neurons["step"] == mixtures["step"]
    np.testing.assert_allclose(neurons["test_loss"], mixtures["test_loss"], rtol=0.03)


def test_the_limit_holds_through_a_stack() -> None:
    network = nn.Sequential(GaussianMixtureLayer(D, 6, K), GaussianMixtureLayer(6, C, K))
    fan_in_(network, generator=generator())
    x = torch.randn(50, D, generator=generator(2))
    exact = network(x).detach()
    errors = []
    for each in (100, 10_000):
        rng = generator(each)
        squares = [
            (nn.Sequential(*(draw_neurons(g, each * K, generator=rng) for g in network))(x) - exact)
            .detach()
            .square()
            .mean()
            for _ in range(20)
        ]
        errors.append(torch.stack(squares).mean().sqrt().item())
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.4)
