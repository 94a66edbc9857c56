"""What the inits must leave alone."""

import pytest
import torch
from draws import seeded
from init_checks import DRAWN, SHOWN, sample
from module_checks import modes, num_hooks, snapshot
from networks import Raises, mixed, stack
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gmlib.init import calibrate_, fan_in_, kumar_, lsuv_, scale_report


class Noisy(nn.Module):
    """Draws from the global generator, in evaluation mode too."""

    def forward(self, x):
        return x + 0.1 * torch.randn(x.shape)


class TestLeavesAlone:
    @pytest.mark.parametrize("calibration", [*SHOWN, scale_report])
    def test_training_modes_and_buffers(self, kinds, calibration):
        network = mixed(kinds)
        before, buffers = modes(network), [b.clone() for b in network.buffers()]
        assert len(set(before)) == 2
        assert len(buffers) == 3
        calibration(network, sample())
        assert modes(network) == before
        assert all(map(torch.equal, network.buffers(), buffers))
        assert num_hooks(network) == 0

    @pytest.mark.parametrize("init_", DRAWN)
    def test_hooks_of_others(self, kinds, init_):
        network, calls = stack(kinds, 6, 5), []
        network[0].register_forward_hook(lambda *_: calls.append("kept"))
        init_(network, sample())
        assert num_hooks(network) == 1
        assert calls

    @pytest.mark.parametrize("calibration", [calibrate_, scale_report])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_global_random_state(self, kinds, calibration, shuffle):
        network = nn.Sequential(Noisy(), nn.Dropout(), *stack(kinds, 6, 5, 4))
        loader = DataLoader(TensorDataset(sample()), batch_size=64, shuffle=shuffle)
        before = torch.get_rng_state()
        calibration(network, loader)
        assert torch.equal(torch.get_rng_state(), before)

    def test_kumar_advances_the_generator_by_its_draws_alone(self, kinds):
        network, twin = nn.Sequential(Noisy(), *stack(kinds, 6, 5, 4)), stack(kinds, 6, 5, 4)
        used, expected, before = seeded(), seeded(), torch.get_rng_state()
        kumar_(network, DataLoader(sample(), batch_size=64), generator=used)
        fan_in_(twin, generator=expected)
        assert torch.equal(used.get_state(), expected.get_state())
        assert torch.equal(torch.get_rng_state(), before)

    def test_kumar_advances_the_global_state_by_its_draws_alone(self, kinds):
        network, twin = nn.Sequential(Noisy(), *stack(kinds, 6, 5, 4)), stack(kinds, 6, 5, 4)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            fan_in_(twin)
            expected = torch.get_rng_state()
            torch.manual_seed(3)
            kumar_(network, DataLoader(sample(), batch_size=64))
            assert torch.equal(torch.get_rng_state(), expected)

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_what_lsuv_draws_does_not_depend_on_the_data(self, kinds, shuffle):
        noisy, plain = nn.Sequential(Noisy(), *stack(kinds, 6, 5, 4)), stack(kinds, 6, 5, 4)
        loader = DataLoader(TensorDataset(sample()), batch_size=64, shuffle=shuffle)
        one, other, before = seeded(), seeded(), torch.get_rng_state()
        lsuv_(noisy, loader, generator=one)
        lsuv_(plain, 3.0 * sample(17, seed=8), generator=other)
        assert torch.equal(one.get_state(), other.get_state())
        assert not torch.equal(one.get_state(), seeded().get_state())
        assert torch.equal(torch.get_rng_state(), before)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            lsuv_(noisy, loader)
            assert torch.equal(torch.get_rng_state(), one.get_state())
        for layer, twin in zip(noisy[1:], plain, strict=True):
            assert torch.equal(layer.mu, twin.mu)
            (weights, _), (others, _) = layer.readout, twin.readout
            torch.testing.assert_close(weights / weights.norm(), others / others.norm())

    @pytest.mark.parametrize("init_", DRAWN)
    def test_dropout_is_off(self, kinds, init_):
        one, two, inputs = mixed(kinds), mixed(kinds), sample()
        for layer in two:
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        init_(one, inputs, generator=seeded())
        init_(two, inputs, generator=seeded())
        assert snapshot(one) == snapshot(two)


@pytest.mark.parametrize("init_", DRAWN)
def test_a_refused_initialization_puts_the_global_state_back(kinds, init_):
    network = nn.Sequential(*stack(kinds, 6, 5, 4), Raises(RuntimeError("broken")))
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        init_(network, sample())
    assert torch.equal(torch.get_rng_state(), before)
