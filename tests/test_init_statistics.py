"""Modules that are not the same in training: what is measured is what training will see."""

import warnings

import pytest
import torch
from init_checks import MEASURING, SHOWN, TARGET, is_refused, output_stds, sample
from kinds import classes
from module_checks import modes
from torch import nn
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm

from gmlib.init import calibrate_, kumar_


def network_of(kinds, *front, d=6):
    """Two GM layers behind other modules."""
    layers = classes(kinds)
    return nn.Sequential(*front, next(layers)(d, 5, 3), nn.Dropout(), next(layers)(5, 4, 2))


class Rebinding(nn.Module):
    """A BatchNorm of someone's own."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x):
        if not self.training:
            return (x - self.running_mean) / self.running_var.sqrt()
        mean, variance = x.mean(0), x.var(0)
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean
        self.running_var = 0.9 * self.running_var + 0.1 * variance
        return (x - mean) / variance.sqrt()


class Activated(nn.BatchNorm1d):
    """One with an activation, as libraries of networks have it."""

    def forward(self, x):
        return torch.relu(super().forward(x))


def channels(norm):
    """A norm of three channels, for inputs of six features."""
    return nn.Sequential(nn.Unflatten(1, (3, 2)), norm, nn.Flatten())


def scripted(norm):
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return torch.jit.script(norm)


NORMS = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(6),
    "of channels": lambda: channels(nn.BatchNorm1d(3)),
    "BatchNorm2d": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2, 1)), nn.BatchNorm2d(3), nn.Flatten()
    ),
    "BatchNorm3d": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2, 1, 1)), nn.BatchNorm3d(3), nn.Flatten()
    ),
    "SyncBatchNorm, alone": lambda: nn.SyncBatchNorm(6),
    "a cumulative average": lambda: nn.BatchNorm1d(6, momentum=None),
    "without weights": lambda: nn.BatchNorm1d(6, affine=False),
    "without statistics": lambda: nn.BatchNorm1d(6, track_running_stats=False),
    "InstanceNorm": lambda: channels(nn.InstanceNorm1d(3)),
    "InstanceNorm with statistics": lambda: channels(
        nn.InstanceNorm1d(3, track_running_stats=True)
    ),
    "a subclass": lambda: Activated(6),
    "someone's own": lambda: Rebinding(6),
    "scripted": lambda: scripted(nn.BatchNorm1d(6)),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "GroupNorm": lambda: nn.GroupNorm(3, 6),
}


def far(n=200):
    """Inputs that no fresh statistics fit."""
    return 50.0 * sample(n) + 300.0


class TestNorms:
    @pytest.mark.parametrize("init_", MEASURING)
    @pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
    def test_fresh_ones_take_the_statistics_of_the_batch(self, kind, init_, norm):
        network = network_of(kind, norm())
        before, state = modes(network), {k: v.clone() for k, v in network.state_dict().items()}
        report = init_(network, far())
        expected = output_stds(network, far())
        assert [layer.std_after for layer in report] == pytest.approx(
            list(expected.values()), rel=1e-5
        )
        if init_ in SHOWN:
            assert list(expected.values()) == pytest.approx([TARGET[init_]] * 2, rel=1e-5)
        # ... and leave no trace of it
        assert modes(network) == before
        for name, _ in network.named_buffers():
            assert torch.equal(network.state_dict()[name], state[name]), name

    @pytest.mark.parametrize("init_", SHOWN)
    def test_each_batch_its_own(self, kind, init_):
        network = network_of(kind, nn.BatchNorm1d(6))
        batches = [far(64), -far(64), 0.1 * far(100)]
        report = init_(network, iter(batches))
        network[2].eval()
        with torch.no_grad():
            outputs = torch.cat([network(batch) for batch in batches])
        assert outputs.std(correction=0).item() == pytest.approx(TARGET[init_], rel=1e-5)
        assert report[-1].std_after == pytest.approx(TARGET[init_], rel=1e-5)

    @pytest.mark.parametrize("init_", SHOWN)
    def test_one_in_evaluation_mode_keeps_its_statistics(self, kind, init_):
        network = network_of(kind, nn.BatchNorm1d(6))
        for _ in range(50):
            network[0](2.0 * sample() - 7.0)
        network[0].eval()  # frozen, as for fine-tuning
        init_(network, far())
        stds = list(output_stds(network, far()).values())
        assert stds == pytest.approx([TARGET[init_]] * 2, rel=1e-5)
        assert not network[0].training

    def test_statistics_without_a_count_are_some(self, kind):
        network = network_of(kind, nn.BatchNorm1d(6))
        network[0].running_mean += 1.0  # as from an old checkpoint
        assert network[0].num_batches_tracked == 0
        report = calibrate_(network.eval(), far())
        assert report[0].std_after == pytest.approx(0.5, rel=1e-5)

    @pytest.mark.parametrize("calibration", MEASURING)
    @pytest.mark.parametrize(
        ("norm", "name"),
        [
            ("BatchNorm1d", "'0', a BatchNorm1d"),
            ("BatchNorm2d", "'0.1', a BatchNorm2d"),
            ("InstanceNorm with statistics", "'0.1', a InstanceNorm1d"),
            ("a subclass", "'0', a Activated"),
            ("someone's own", "'0', a Rebinding"),
            ("scripted", "'0', a RecursiveScriptModule"),
        ],
    )
    def test_fresh_ones_in_evaluation_mode_are_refused(self, kind, calibration, norm, name):
        network = network_of(kind, NORMS[norm]()).eval()
        message = f"^{name}, is in evaluation mode and has seen no data.*: put it in training mode"
        is_refused(calibration, network, far(), ValueError, message)

    @pytest.mark.parametrize("calibration", MEASURING)
    def test_of_one_input_there_are_no_statistics(self, kind, calibration):
        network = network_of(kind, nn.BatchNorm1d(6))
        is_refused(
            calibration, network, sample(1), ValueError, "Expected more than 1 value per channel"
        )

    @pytest.mark.parametrize("calibration", MEASURING)
    @pytest.mark.parametrize(
        "lazy", [nn.LazyBatchNorm1d, lambda: nn.LazyLinear(6)], ids=["BatchNorm", "Linear"]
    )
    def test_lazy_modules_are_refused_and_stay_lazy(self, kind, calibration, lazy):
        network = network_of(kind, lazy())
        with pytest.raises(ValueError, match=r"^'0', a Lazy\w+, has parameters without a shape"):
            calibration(network, sample())
        assert nn.parameter.is_lazy(network[0].weight)
        network(sample())
        calibration(network, sample())


@pytest.mark.parametrize("init_", MEASURING)
@pytest.mark.parametrize("norm", [spectral_norm, old_spectral_norm])
def test_spectral_norms_are_those_of_the_first_step(kind, init_, norm):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network_of(kind, norm(nn.Linear(6, 6)))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    report = init_(network, sample())
    for name, _ in network.named_buffers():
        assert torch.equal(network.state_dict()[name], state[name])
    expected = list(output_stds(network, sample()).values())
    # the newer one has iterated by then, and moves but little in that step
    assert [layer.std_after for layer in report] == pytest.approx(expected, rel=0.01)


# --- Modules that do something as their mode changes, or as they run ------------------------------


class Merging(nn.Linear):
    """Adds to its weights as evaluation begins, and takes it away as training does (LoRA)."""

    def train(self, mode=True):
        if mode != self.training:
            with torch.no_grad():
                self.weight += -1.0 if mode else 1.0
        return super().train(mode)


class Fixed(nn.Linear):
    """Cannot change its mode, as exported networks cannot."""

    def train(self, mode=True):
        raise NotImplementedError("Calling train() is not supported.")


class Table(nn.Module):
    """Adds the rows of a table, which it makes longer for long inputs."""

    def __init__(self):
        super().__init__()
        self.grow(4)

    def grow(self, length):
        self.length = length
        self.register_buffer("rows", torch.arange(6.0 * length).view(length, 6), persistent=False)

    def forward(self, x):
        if len(x) > self.length:
            self.grow(len(x))
        return x + self.rows[: len(x)]


class Counting(nn.Module):
    """Counts in a buffer, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))
        self.register_buffer("none", None)

    def forward(self, x):
        self.calls += 1
        self.last = x.sum()
        return x + self.calls


@pytest.mark.parametrize("init_", MEASURING)
class TestChanging:
    @pytest.mark.parametrize("module", [Merging, Fixed])
    def test_no_mode_is_switched_on_or_off(self, kind, init_, module):
        network = network_of(kind, module(6, 6))
        before = network[0].weight.detach().clone()
        init_(network, sample())
        assert torch.equal(network[0].weight, before)
        assert all(modes(network))

    def test_a_table_that_grows_is_as_long_as_it_says(self, kind, init_):
        network = network_of(kind, Table())
        init_(network, sample(9))
        assert network[0].length == 9
        assert network(sample(9)).shape == (9, 4)

    def test_what_counts_starts_anew_at_each_pass(self, kind, init_):
        network = network_of(kind, Counting())
        calls = network[0].calls
        report = init_(network, sample())
        assert network[0].calls is calls
        assert calls == network[0].last == 0
        assert [layer.std_after for layer in report] == pytest.approx(
            list(output_stds(network, sample()).values()), rel=1e-5
        )

    def test_buffers_that_are_shared_stay_so(self, kind, init_):
        network = network_of(kind, Counting(), Counting())
        network[1].calls = network[0].calls
        report = init_(network, sample())
        assert network[1].calls is network[0].calls
        assert network[0].calls == 0
        assert [layer.std_after for layer in report] == pytest.approx(
            list(output_stds(network, sample()).values()), rel=1e-5
        )


class Remembering(nn.Module):
    """Has a state of its own, outside of parameters and buffers."""

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def forward(self, x):
        self.factor *= 2.0
        return self.factor * x


@pytest.mark.parametrize("calibration", SHOWN)
def test_a_network_that_is_another_at_each_pass_is_refused(kind, calibration):
    network = network_of(kind, Remembering())
    is_refused(calibration, network, sample(), ValueError, "does not do the same at each pass$")


def test_it_can_be_made_the_same(kind):
    network = network_of(kind, Remembering())

    def forward(module, batch):
        module[0].factor = 1.0
        return module(batch)

    report = kumar_(network, sample(), forward=forward)
    assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-5)
