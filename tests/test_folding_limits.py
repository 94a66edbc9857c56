"""Where folding and calibrating could go wrong in silence: rounding, autocast, sharing, hooks."""

import copy
import functools
import warnings

import pytest
import torch
from draws import draw, seeded
from module_checks import snapshot
from networks import make_layer, stack
from torch import nn

from gmlib import FoldedGaussianMixtureLayer, GaussianMixtureLayer, fold, functional, init, unfold


class TestSmallSigma:
    """Where a sigma is small beside its A, U is large, and v loses what w is."""

    @staticmethod
    def readout(sigma, dtype=torch.float32):
        ones = torch.ones(1, 1, dtype=dtype)
        return ones, sigma * ones, ones.unsqueeze(0), 0.1 * ones

    def test_a_lost_mean_is_warned_of(self):
        with pytest.warns(UserWarning, match=r"^rounding changes the mean readouts, up to"):
            functional.unfold(*self.readout(1e-4))

    def test_in_double_precision_there_is_none(self):
        mu, sigma, A, w = self.readout(1e-4, torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            U, v = functional.unfold(mu, sigma, A, w)
        x = draw(5, 1)
        found = functional.gm_layer(x, mu, sigma, U, v)
        expected = functional.gm_layer_folded(x, mu, sigma, A, w)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    def test_a_U_that_is_no_number_is_refused(self):
        with pytest.raises(ValueError, match=r"^sigma\[0, 0\] is too small for A\[0, :, 0\]"):
            functional.unfold(*self.readout(1e-21))

    def test_what_is_no_number_already_passes(self):
        mu, sigma, A, w = self.readout(1.0)
        U, _ = functional.unfold(mu, sigma, A * torch.nan, w)
        assert U.isnan().all()

    def test_of_a_network_the_layer_is_named(self):
        layer = FoldedGaussianMixtureLayer(1, 1, 1)
        with torch.no_grad():
            layer.sigma.zero_()
        with pytest.raises(ValueError, match=r"^GM layer '0': sigma\[0, 0\] is zero"):
            unfold(nn.Sequential(layer))


@pytest.mark.parametrize("convert", [fold, unfold])
def test_autocast_changes_nothing_of_a_conversion(convert, kind):
    network = stack(kind, 50, 20, 5)
    expected = snapshot(convert(network))
    with torch.autocast("cpu", torch.bfloat16):
        assert snapshot(convert(network)) == expected


@pytest.mark.parametrize("init_", [init.baseline_, init.fan_in_])
def test_autocast_changes_nothing_of_a_draw(init_, kind):
    one, two = stack(kind, 50, 20), stack(kind, 50, 20)
    init_(one, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        init_(two, generator=seeded())
    assert snapshot(one) == snapshot(two)


@pytest.mark.parametrize("init_", [init.baseline_, init.fan_in_])
def test_a_folded_readout_of_two_layers_is_not_drawn(init_):
    layers = [FoldedGaussianMixtureLayer(6, 6, 4) for _ in range(2)]
    network = nn.Sequential(*layers)
    layers[1].A = layers[0].A
    before = snapshot(network)
    with pytest.raises(ValueError, match=r"^'0\.A' and '1\.A' are one tensor: a readout has to be"):
        init_(network)
    assert snapshot(network) == before


def test_readouts_that_are_one_buffer_are_refused():
    network = nn.Sequential(GaussianMixtureLayer(4, 4, 2), GaussianMixtureLayer(4, 4, 2))
    shared = network[0].U.detach().clone()
    for layer in network:
        del layer.U
        layer.register_buffer("U", shared)
    for function in (fold, functools.partial(init.calibrate_, data=torch.randn(50, 4))):
        with pytest.raises(ValueError, match=r"^'0\.U' and '1\.U' are one tensor"):
            function(network)


def test_the_next_layer_is_calibrated_on_what_hooks_make_of_the_first(kind):
    network, x = stack(kind, 4, 4, 4), draw(256, 4, dtype=torch.float32)
    network[0].register_forward_hook(lambda layer, args, out: 2.0 * out + 5.0)
    report = init.calibrate_(network, x)
    assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-5)
    seen = []
    network[1].register_forward_hook(lambda layer, args, out: seen.append(out))
    network(x)
    assert seen[0].std(correction=0).item() == pytest.approx(0.5, rel=1e-5)


def test_a_readout_in_a_buffer_is_put_back_too():
    network = nn.Sequential(GaussianMixtureLayer(6, 4, 2), GaussianMixtureLayer(4, 3, 2))
    U = network[0].U.detach().clone()
    del network[0].U
    network[0].register_buffer("U", U.clone())
    with torch.no_grad():
        network[1].U.zero_()
        network[1].v.zero_()
    with pytest.raises(ValueError, match="a positive, finite one above rounding error is needed"):
        init.calibrate_(network, torch.randn(64, 6))
    assert torch.equal(network[0].U, U)


def test_a_buffer_keeps_whether_it_needs_a_gradient():
    layer = GaussianMixtureLayer(4, 4, 2)
    U = layer.U.detach().clone().requires_grad_()
    del layer.U
    layer.register_buffer("U", U)
    assert fold(layer).A.requires_grad


def test_a_name_that_is_taken_is_told_with_the_layer():
    layer = GaussianMixtureLayer(4, 4, 2)
    layer.register_buffer("w", torch.ones(3))
    with pytest.raises(ValueError, match=r"^GM layer 'inner': attribute 'w' already exists$"):
        fold(nn.ModuleDict({"inner": layer}))


def test_unfold_under_vmap(kind):
    layers = [fold(make_layer(kind, seed=seed)) for seed in range(3)]
    arguments = [
        torch.stack([getattr(layer, name).detach() for layer in layers])
        for name in ("mu", "sigma", "A", "w")
    ]
    U, v = torch.vmap(functional.unfold)(*arguments)
    for index, layer in enumerate(map(copy.deepcopy, layers)):
        expected = functional.unfold(layer.mu, layer.sigma, layer.A, layer.w)
        torch.testing.assert_close((U[index], v[index]), expected)
