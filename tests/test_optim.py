"""Learning rates: which parameters are in which group, and what a step then does."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from kinds import AFFINE, PARAMETERS, Kind
from networks import make_layer
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

import gmlib
from gmlib import FoldedGaussianMixtureLayer, GaussianMixtureLayer, init
from gmlib.functional import relu_moments
from gmlib.optim import readout_factor


def rates(network: nn.Module, **settings: float) -> dict[str, float]:
    """Rates by the names of parameters."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {
        names[parameter]: group["lr"]
        for group in gmlib.param_groups(network, **settings)
        for parameter in group["params"]
    }


def test_every_parameter_has_its_rate() -> None:
    network = nn.Sequential(
        nn.Linear(8, 6),
        FoldedGaussianMixtureLayer(6, 5, 40),
        nn.LayerNorm(5),
        GaussianMixtureLayer(5, 4, 40),
        FoldedGaussianMixtureLayer(4, 3, 2),
    )
    assert rates(network, lr=0.2) == {
        **{f"0.{name}": 0.2 for name in ("weight", "bias")},
        **{"1.mu": 0.2, "1.sigma": 2.0, "1.A": 0.05, "1.w": 0.05},
        **{f"2.{name}": 0.2 for name in ("weight", "bias")},
        **{"3.mu": 0.2, "3.sigma": 2.0, "3.U": 0.2, "3.v": 0.2},
        **{"4.mu": 0.2, "4.sigma": 2.0, "4.A": 0.2, "4.w": 0.2},  # never raised
    }
    assert rates(network, lr=0.2, sigma_factor=1.0)["4.sigma"] == 0.2


def test_groups_are_few_and_each_parameter_is_in_one() -> None:
    layer = FoldedGaussianMixtureLayer(4, 4, 10)
    network = nn.Sequential(layer, nn.Identity(), layer, nn.Linear(4, 2))
    groups = gmlib.param_groups(network)
    assert [(group["lr"], group["names"]) for group in groups] == [
        (0.1, ["3.bias"]),
        (0.1, ["0.mu", "0.A", "0.w", "3.weight"]),
        (1.0, ["0.sigma"]),
    ]
    names = dict(network.named_parameters())
    for group in groups:
        assert all(map(operator.is_, group["params"], map(names.get, group["names"])))


def test_a_network_without_gm_layers_has_one_rate() -> None:
    assert rates(nn.Linear(3, 2), lr=0.3) == {"weight": 0.3, "bias": 0.3}


# --- Whatever is in a network --------------------------------------------------------------------


def test_a_subclass_has_the_rates_of_its_class() -> None:
    class Gated(FoldedGaussianMixtureLayer):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.sigma_gate = nn.Parameter(torch.ones(3, 3))
            self.inner = nn.ModuleDict({"sigma": nn.Linear(2, 2)})

    assert rates(Gated(4, 3, 20)) == {
        **{"mu": 0.1, "sigma": 1.0, "A": 0.05, "w": 0.05, "sigma_gate": 0.1},
        **{"inner.sigma.weight": 0.1, "inner.sigma.bias": 0.1},
    }


def test_shared_parameters_have_one_rate(kind: Kind) -> None:
    one, two = kind.layer(4, 4, 20), kind.layer(4, 4, 20)
    for name in ("sigma", kind.readout[0]):
        setattr(two, name, getattr(one, name))
    network = nn.Sequential(nn.Linear(4, 4), one, two)
    network[0].weight = two.mu  # decays and learns as what it also is
    found = rates(network)
    assert len(found) == len(list(network.parameters())) == 7
    assert found["1.sigma"] == 1.0
    assert found["0.weight"] == 0.1
    assert found[f"1.{kind.readout[0]}"] == (0.1 if kind is AFFINE else 0.05)


def test_frozen_parameters_are_there_and_stay(kind: Kind) -> None:
    layer = kind.layer(4, 3, 5)
    layer.sigma.requires_grad_(False)
    assert rates(layer)["sigma"] == 1.0
    before = layer.sigma.clone()
    optimizer = torch.optim.AdamW(gmlib.param_groups(layer), weight_decay=0.1)
    layer(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(layer.sigma, before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "register",
    [
        lambda layer, name: parametrize.register_parametrization(layer, name, nn.Softplus()),
        weight_norm,
        nn.utils.weight_norm,
        lambda layer, name: prune.random_unstructured(layer, name, amount=0.5),
    ],
    ids=["softplus", "weight_norm", "weight_norm, as of old", "pruned"],
)
@pytest.mark.parametrize("role", PARAMETERS)
def test_what_a_parameter_is_computed_from_has_its_rate(
    kind: Kind, role: str, register: Callable[[nn.Module, str], object]
) -> None:
    layer, name = kind.layer(4, 3, 5), kind.names[role]
    expected, others = rates(layer), set(kind.parameters) - {name}
    decay = {names: not decays for names, decays in decays_of(layer).items()}
    register(layer, name)
    found = rates(layer)
    assert {other: found.pop(other) for other in others} == {
        other: expected[other] for other in others
    }
    assert set(found.values()) == {expected[name]}
    assert {not decays_of(layer)[source] for source in found} == {decay[name]}


# --- Weight decay --------------------------------------------------------------------------------


def decays_of(network: nn.Module) -> dict[str, bool]:
    """Whether each parameter would decay, by name."""
    groups = gmlib.param_groups(network)
    torch.optim.SGD(groups, weight_decay=0.5)
    return {name: group["weight_decay"] == 0.5 for group in groups for name in group["names"]}


def test_sigma_biases_and_norms_do_not_decay(kind: Kind) -> None:
    network = nn.Sequential(
        nn.Conv1d(8, 6, 1), nn.Linear(6, 6), kind.layer(6, 5, 4, bias=True), nn.LayerNorm(5)
    )
    decays = {name for name, decays in decays_of(network).items() if decays}
    assert decays == {"0.weight", "1.weight", *(f"2.{name}" for name in ("mu", *kind.readout))}


def test_the_decay_of_a_readout_is_that_of_its_function(kind: Kind) -> None:
    layer, x = make_layer(kind), torch.randn(5, 4, dtype=torch.float64)
    before, mu = layer(x).detach(), layer.mu.clone()
    groups = gmlib.param_groups(layer, lr=0.1, sigma_factor=1.0)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.5)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.mu, 0.95 * mu)
    with torch.no_grad():
        layer.mu.copy_(mu)
    factor = 1.0 - 0.1 * 0.5 * (1.0 if kind is AFFINE else readout_factor(2))
    torch.testing.assert_close(layer(x), factor * before)


# --- What optimizers and schedulers make of the groups -------------------------------------------


def test_the_table_shows_what_the_optimizer_does(kind: Kind) -> None:
    network = nn.Sequential(nn.Linear(8, 6), kind.layer(6, 5, 20))
    groups = gmlib.param_groups(network, lr=0.2)
    assert "weight decay" in repr(groups).splitlines()[0]

    def row(name: str) -> list[str]:
        [line] = [line for line in repr(groups).splitlines() if line.split()[0] == name]
        return re.split(r"\s{2,}", line)

    assert row("1.sigma") == ["1.sigma", "(20, 6)", "2", "0.0"]
    assert row("1.mu") == ["1.mu", "(20, 6)", "0.2", "-"]
    optimizer = torch.optim.SGD(groups, weight_decay=0.3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    assert row("1.sigma") == ["1.sigma", "(20, 6)", "1", "0.0"]
    assert row("1.mu") == ["1.mu", "(20, 6)", "0.1", "0.3"]


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], LRScheduler]] = {
    "LambdaLR": lambda o: LambdaLR(o, lambda step: 1.0 / (1 + step)),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 10),
    "OneCycleLR, of each": lambda o: OneCycleLR(o, [g["lr"] for g in o.param_groups], 10),
}


def rates_on_the_way(
    kind: Kind, make: Callable[[torch.optim.Optimizer], LRScheduler]
) -> Iterator[list[float]]:
    layer = kind.layer(4, 3, 20)
    optimizer = torch.optim.SGD(gmlib.param_groups(layer), momentum=0.9)
    scheduler = make(optimizer)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        yield sorted({group["lr"] for group in optimizer.param_groups})


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers_keep_the_ratios(
    kind: Kind, make: Callable[[torch.optim.Optimizer], LRScheduler]
) -> None:
    ratios = [1.0, 10.0] if kind is AFFINE else [1.0, 2.0, 20.0]
    seen = set()
    for rates in rates_on_the_way(kind, make):
        assert [rate / rates[0] for rate in rates] == pytest.approx(ratios)
        seen.add(rates[0])
    assert len(seen) > 5


def test_a_scheduler_of_one_number_for_all_takes_them_away(kind: Kind) -> None:
    for rates in rates_on_the_way(kind, lambda o: OneCycleLR(o, 1.0, 10)):
        assert rates == pytest.approx(rates[:1])


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop]
)
def test_optimizers_take_them_store_them_and_load_them(
    kind: Kind, optimizer: type[torch.optim.Optimizer]
) -> None:
    layer = kind.layer(4, 3, 5)
    one = optimizer(gmlib.param_groups(layer, 1e-3))
    layer(torch.randn(5, 4)).sum().backward()
    one.step()
    two = optimizer(gmlib.param_groups(layer, 0.5))
    two.load_state_dict(one.state_dict())
    assert [group["lr"] for group in two.param_groups] == [
        group["lr"] for group in one.param_groups
    ]


def test_groups_of_ones_own_go_with_them(kind: Kind) -> None:
    layer, head = kind.layer(4, 3, 5), nn.Linear(3, 2)
    groups = gmlib.param_groups(layer)
    optimizer = torch.optim.SGD([*groups, {"params": head.parameters(), "lr": 0.01}])
    assert [group["lr"] for group in optimizer.param_groups][-1] == 0.01


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs a newer PyTorch")
def test_muon_is_for_the_matrices_of_other_layers(kind: Kind) -> None:
    network = nn.Sequential(nn.Linear(6, 4, bias=False), kind.layer(4, 3, 5))
    with pytest.raises(ValueError, match="2D"):
        torch.optim.Muon(gmlib.param_groups(network))
    muon = torch.optim.Muon(network[0].parameters(), lr=1e-2)
    adam = torch.optim.AdamW(gmlib.param_groups(network[1], lr=1e-2, sigma_factor=1.0))
    x, y, losses = torch.randn(64, 6), torch.randn(64, 3), []
    init.kumar_(network, x)
    for _ in range(30):
        loss = nn.functional.mse_loss(network(x), y)
        losses.append(loss.item())
        network.zero_grad()
        loss.backward()
        muon.step()
        adam.step()
    assert losses[-1] < 0.9 * losses[0]


# --- Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lr", "sigma_factor"])
@pytest.mark.parametrize(
    ("value", "error"), [(0.0, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_rates_are_positive_numbers(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{name} must be"):
        gmlib.param_groups(nn.Linear(3, 2), **{name: value})


def test_a_step_in_the_readout_is_the_sum_that_the_rule_is_derived_from() -> None:
    layer = FoldedGaussianMixtureLayer(5, 3, 7, dtype=torch.float64)
    x, other = torch.randn(2, 1, 5, dtype=torch.float64).unbind()
    g = torch.randn(1, 3, dtype=torch.float64)
    before = layer(other)
    (layer(x) * g).sum().backward()
    with torch.no_grad():
        for tensor in layer.readout:
            tensor -= 0.3 * tensor.grad
    (F, G), (F_other, G_other) = (
        relu_moments(y @ layer.mu.T, (y.square() @ layer.sigma.square().T).sqrt())
        for y in (x, other)
    )
    kernel = (F * F_other).sum() + (G * G_other).sum() * (x @ other.T)
    torch.testing.assert_close(layer(other) - before, -0.3 * g * kernel)


def test_at_the_rates_of_the_rule_a_step_is_as_long_for_any_number_of_components() -> None:
    x = torch.randn(256, 20)
    y = torch.randn(256, 3)

    def moved(components: int, scaled: bool) -> float:
        torch.manual_seed(0)
        layer = FoldedGaussianMixtureLayer(20, 3, components)
        init.kumar_(layer, x)
        before = layer(x)
        (layer(x) * y).mean(0).sum().backward()
        factor = readout_factor(components) if scaled else 1.0
        with torch.no_grad():
            for tensor in layer.readout:
                tensor -= 0.01 * factor * tensor.grad
        return (layer(x) - before).square().mean().sqrt().item()

    sizes = (10, 20, 80, 320)
    fixed = [moved(K, scaled=False) for K in sizes]
    scaled = [moved(K, scaled=True) for K in sizes]
    assert fixed[-1] / fixed[0] == pytest.approx(32, rel=0.5)
    assert max(scaled) / min(scaled) < 2
