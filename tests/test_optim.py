"""Learning rates: which parameters are in which group, and what a step then does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

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
        **{"4.mu": 0.2, "4.sigma": 2.0, "4.A": 1.0, "4.w": 1.0},
    }
    assert rates(network, lr=0.2, sigma_factor=1.0)["4.sigma"] == 0.2


def test_groups_are_few_and_each_parameter_is_in_one() -> None:
    layer = FoldedGaussianMixtureLayer(4, 4, 10)
    network = nn.Sequential(layer, nn.Identity(), layer, nn.Linear(4, 2))
    groups = gmlib.param_groups(network)
    assert [group["lr"] for group in groups] == [0.1, 1.0]
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(map(id, network.parameters()))
    optimizer = torch.optim.SGD(groups)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5]


def test_a_network_without_gm_layers_has_one_group() -> None:
    (group,) = gmlib.param_groups(nn.Linear(3, 2), lr=0.3)
    assert group["lr"] == 0.3
    assert len(group["params"]) == 2


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

    sizes = (5, 20, 80, 320)
    fixed = [moved(K, scaled=False) for K in sizes]
    scaled = [moved(K, scaled=True) for K in sizes]
    assert fixed[-1] / fixed[0] == pytest.approx(64, rel=0.5)
    assert max(scaled) / min(scaled) < 2
