"""Networks that differentiate as they run, in whatever mode of autograd they are initialized."""

import pytest
import torch
from init_checks import MEASURING, SHOWN, TARGET, sample, seeded_init
from kinds import classes
from module_checks import assert_all_close
from torch import nn

from gmlib.init import kumar_

MODES = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
    "anomaly mode": torch.autograd.detect_anomaly,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


class Energy(nn.Module):
    """The gradient of one layer's outputs, seen by another layer; `how` says by which means."""

    def __init__(self, kind, how):
        super().__init__()
        layers = classes(kind)
        self.energy, self.readout = next(layers)(6, 5, 3), next(layers)(6, 4, 2)
        self.how = how

    def forward(self, x):
        return self.readout(self.how(lambda inputs: self.energy(inputs).square().sum(), x))


def by_autograd(energy, x):
    with torch.enable_grad():
        x = x.requires_grad_()
        return torch.autograd.grad(energy(x), x, create_graph=True)[0]


def with_the_mode_left_on(energy, x):
    torch.set_grad_enabled(True)
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x), x)[0]


def by_backward(energy, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x), x, retain_graph=True)
        return gradient + 0.0 * energy(x)


def by_func(energy, x):
    return torch.func.grad(energy)(x)


def by_jacrev(energy, x):
    return torch.func.jacrev(energy)(x)


WAYS = [by_autograd, with_the_mode_left_on, by_backward, by_func, by_jacrev]


def stds_after(init_, network, data):
    return [entry.std_after for entry in seeded_init(init_, network, data)]


@pytest.mark.parametrize("init_", MEASURING)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
def test_a_network_that_differentiates(kind, init_, way, mode):
    plain, network = Energy(kind, way), Energy(kind, way)
    expected = stds_after(init_, plain, sample())
    with mode():
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        report = stds_after(init_, network, sample())
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (grad, inference)
    assert report == pytest.approx(expected, rel=1e-5)
    if init_ in SHOWN:
        assert report == pytest.approx([TARGET[init_]] * 2, rel=1e-5)
    assert_all_close(network.parameters(), plain.parameters())
    for parameter in network.parameters():
        assert parameter.is_leaf
        assert parameter.requires_grad
        assert (parameter.grad, parameter.grad_fn) == (None, None)
        assert not parameter.is_inference()
    network(sample()).sum().backward()
    assert network.readout.mu.grad is not None


def test_one_that_needs_the_callers_mode_is_given_it_by_forward(kind):
    def way(energy, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(energy(x), x)[0]

    network = Energy(kind, way)
    with pytest.raises(RuntimeError, match="does not require grad"):
        kumar_(network, sample())
    report = kumar_(network, sample(), forward=torch.enable_grad()(lambda module, x: module(x)))
    assert [entry.std_after for entry in report] == pytest.approx([0.5, 0.5], rel=1e-5)


@pytest.mark.parametrize("init_", MEASURING)
def test_data_that_are_made_in_inference_mode(kind, init_):
    with torch.inference_mode():
        data = sample()
    assert data.is_inference()
    report = stds_after(init_, Energy(kind, by_autograd), data)
    assert report == pytest.approx(stds_after(init_, Energy(kind, by_autograd), sample()), rel=1e-6)


@pytest.mark.parametrize("init_", SHOWN)
def test_a_network_that_is_made_in_inference_mode(kind, init_):
    with torch.inference_mode():
        network = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), kind.layer(6, 5, 3))
        report = init_(network, sample())
    assert report[0].std_after == pytest.approx(TARGET[init_], rel=1e-5)
