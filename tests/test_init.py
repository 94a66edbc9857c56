"""The inits: their statistics, the calibration, and what they must leave alone."""

import copy
import itertools
import math

import mpmath
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gmlib import GaussianMixtureLayer
from gmlib.init import (
    LayerScale,
    ScaleReport,
    analytic_,
    baseline_,
    calibrate_,
    fan_in_,
    kumar_,
    lsuv_,
    output_std,
    scale_report,
)

READOUT = ("U", "v")
CALIBRATIONS = [calibrate_, kumar_]  # whose target can be chosen
DRAWN = [kumar_, lsuv_]  # which draw before they look at the data
SHOWN = [calibrate_, kumar_, lsuv_]
TARGET = {calibrate_: 0.5, kumar_: 0.5, lsuv_: 1.0}  # by default, or always


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stack(*widths, dtype=torch.float32, seed=0):
    network = nn.Sequential(
        *(GaussianMixtureLayer(d, C, 3, dtype=dtype) for d, C in itertools.pairwise(widths))
    )
    baseline_(network, generator=seeded(seed))
    return network


def mixed(seed=0):
    """GM layers among others, in training mode but for one, and with a history."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            GaussianMixtureLayer(8, 7, 3),
            nn.Dropout(0.5),
            nn.ModuleDict({"inner": GaussianMixtureLayer(7, 5, 2)})["inner"],
            nn.ReLU(),
            nn.Linear(5, 4),
            nn.Dropout(0.5),
            GaussianMixtureLayer(4, 3, 1),
        )
        network(2.0 * torch.randn(32, 6) + 1.0)
    network[3].eval()
    return network


def draw(n=200, d=6, seed=7, dtype=torch.float32):
    return torch.randn(n, d, generator=seeded(seed), dtype=dtype)


def kumar(module, *, generator=None):
    """`kumar_` with data for networks of six inputs."""
    return kumar_(module, draw(), generator=generator)


def lsuv(module, *, generator=None):
    return lsuv_(module, draw(), generator=generator)


INITS = [baseline_, fan_in_, kumar, lsuv]


def snapshot(module):
    """Parameters and buffers as bytes, so that NaN equals itself and -0 is not 0."""
    return {name: bytes(t.numpy().tobytes()) for name, t in module.state_dict().items()}


def modes(module):
    return [child.training for child in module.modules()]


def num_hooks(module):
    return sum(
        len(child._forward_hooks) + len(child._forward_pre_hooks) + len(child._backward_hooks)
        for child in module.modules()
    )


def measured(module, inputs, layer_type=GaussianMixtureLayer):
    """Output stds by layer name, from a forward of the test's own."""
    module = copy.deepcopy(module).eval()
    stds = {}
    for name, layer in module.named_modules():
        if isinstance(layer, layer_type):

            def hook(_, args, output, name=name):
                values = output.detach().double().flatten()
                stds[name] = (values - values.mean()).square().mean().sqrt().item()

            layer.register_forward_hook(hook)
    with torch.no_grad():
        module(inputs)
    return stds


class TestDraws:
    @pytest.mark.parametrize("gamma", [0.5, 2.0, 3])
    def test_baseline_statistics(self, gamma):
        network = nn.Sequential(GaussianMixtureLayer(50, 40, 20), GaussianMixtureLayer(40, 30, 20))
        baseline_(network, gamma, generator=seeded())
        for layer in network:
            self.check(layer, gamma)

    def test_baseline_default_is_one_half(self):
        one, two = stack(4, 3), stack(4, 3)
        baseline_(one, generator=seeded(5))
        baseline_(two, 0.5, generator=seeded(5))
        assert snapshot(one) == snapshot(two)
        assert (one[0].sigma == 0.5).all()

    def test_fan_in_statistics(self):
        network = nn.Sequential(GaussianMixtureLayer(50, 40, 20), GaussianMixtureLayer(40, 30, 20))
        fan_in_(network, generator=seeded())
        self.check(network[0], math.sqrt(2 / 50))
        self.check(network[1], math.sqrt(2 / 40))

    @staticmethod
    def check(layer, scale):
        assert torch.equal(layer.sigma, torch.full_like(layer.sigma, scale))
        for tensor in (layer.mu, layer.U, layer.v):
            n = tensor.numel()
            assert tensor.mean().abs() < 5 * scale / math.sqrt(n)
            assert abs(tensor.std().item() / scale - 1) < 5 / math.sqrt(2 * n)

    def test_layers_differ(self):
        network = stack(4, 4, 4)
        fan_in_(network, generator=seeded())
        assert not torch.equal(network[0].mu, network[1].mu)

    @pytest.mark.parametrize("init_", INITS)
    def test_generator_decides_and_the_global_state_is_untouched(self, init_):
        one, two, other = stack(6, 3, seed=1), stack(6, 3, seed=2), stack(6, 3, seed=3)
        before = torch.get_rng_state()
        init_(one, generator=seeded(9))
        init_(two, generator=seeded(9))
        init_(other, generator=seeded(10))
        assert torch.equal(torch.get_rng_state(), before)
        assert snapshot(one) == snapshot(two) != snapshot(other)

    @pytest.mark.parametrize("init_", INITS)
    def test_global_seed_decides_without_a_generator(self, init_):
        one, two = stack(6, 3, seed=1), stack(6, 3, seed=2)
        with torch.random.fork_rng():
            torch.manual_seed(9)
            init_(one)
        init_(two, generator=seeded(9))
        assert snapshot(one) == snapshot(two)

    @pytest.mark.parametrize("init_", INITS)
    def test_touches_gm_layers_alone(self, init_):
        network = mixed()
        before = snapshot(network)
        init_(network, generator=seeded(4))
        changed = {
            name.split(".")[0] for name, value in snapshot(network).items() if value != before[name]
        }
        assert changed == {"2", "4", "8"}

    @pytest.mark.parametrize("init_", INITS)
    def test_a_layer_is_a_module_too(self, init_):
        layer = GaussianMixtureLayer(6, 3, 2)
        before = snapshot(layer)
        init_(layer)
        assert snapshot(layer) != before
        assert all(p.requires_grad and p.is_leaf for p in layer.parameters())

    @pytest.mark.parametrize("gamma", [0, -1.0, math.nan, math.inf])
    def test_refuses_a_scale_that_is_none(self, gamma):
        network = stack(4, 3)
        before = snapshot(network)
        with pytest.raises(ValueError, match=f"gamma must be positive and finite, got {gamma}"):
            baseline_(network, gamma)
        assert snapshot(network) == before

    @pytest.mark.parametrize("gamma", [True, "0.5", None])
    def test_refuses_a_scale_that_is_no_number(self, gamma):
        with pytest.raises(TypeError, match=f"gamma must be a number, got {gamma!r}"):
            baseline_(stack(4, 3), gamma)

    @pytest.mark.parametrize("init_", INITS)
    def test_refuses_a_network_without_gm_layers(self, init_):
        with pytest.raises(ValueError, match="Sequential holds no GaussianMixtureLayer"):
            init_(nn.Sequential(nn.Linear(3, 3)))
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got list"):
            init_([GaussianMixtureLayer(3, 3, 1)])


class TestCalibration:
    @pytest.mark.parametrize("calibration", CALIBRATIONS)
    @pytest.mark.parametrize("target", [0.5, 1, 1e-3, 40.0])
    def test_exact_on_every_layer_of_a_stack(self, calibration, target):
        network, inputs = stack(6, 9, 7, 5, 4), draw()
        calibration(network, inputs, target)
        stds = measured(network, inputs)
        assert list(stds) == ["0", "1", "2", "3"]
        assert list(stds.values()) == pytest.approx([target] * 4, rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_exact_to_rounding_in_float64(self, calibration):
        network, inputs = stack(6, 9, 7, 5, 4, dtype=torch.float64), draw(dtype=torch.float64)
        calibration(network, inputs)
        stds = list(measured(network, inputs).values())
        assert stds == pytest.approx([TARGET[calibration]] * 4, rel=1e-13)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_exact_on_few_inputs(self, calibration):
        # the divisor of the std would show: n here, not n - 1
        network, inputs = stack(6, 3, 2), draw(n=2)
        calibration(network, inputs)
        stds = list(measured(network, inputs).values())
        assert stds == pytest.approx([TARGET[calibration]] * 2, rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_exact_among_other_layers(self, calibration):
        network, inputs = mixed(), draw()
        report = calibration(network, inputs)
        stds = measured(network, inputs)
        assert list(stds) == ["2", "4", "8"] == [layer.name for layer in report]
        assert list(stds.values()) == pytest.approx([TARGET[calibration]] * 3, rel=1e-5)

    def test_default_target(self):
        network, inputs = stack(6, 3), draw()
        calibrate_(network, inputs)
        assert measured(network, inputs)["0"] == pytest.approx(0.5, rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_a_single_layer(self, calibration):
        layer, inputs = GaussianMixtureLayer(6, 4, 2), draw()
        (entry,) = calibration(layer, inputs)
        assert entry.name == ""
        assert measured(layer, inputs)[""] == pytest.approx(TARGET[calibration], rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_more_than_one_leading_dimension(self, calibration):
        network, inputs = stack(6, 5, 4), draw(60).view(5, 12, 6)
        calibration(network, inputs)
        stds = list(measured(network, inputs).values())
        assert stds == pytest.approx([TARGET[calibration]] * 2, rel=1e-5)

    def test_calibrating_again_changes_little(self):
        network, inputs = stack(6, 9, 7), draw()
        calibrate_(network, inputs)
        assert [layer.scale for layer in calibrate_(network, inputs)] == pytest.approx(
            [1, 1], rel=1e-5
        )

    @pytest.mark.parametrize("calibration", CALIBRATIONS)
    def test_report(self, calibration):
        network, inputs = stack(6, 9, 7, 5), draw()
        expected = copy.deepcopy(network)
        if calibration is kumar_:
            fan_in_(expected, generator=seeded(3))
            report = kumar_(network, inputs, 0.8, generator=seeded(3))
        else:
            report = calibrate_(network, inputs, 0.8)
        assert [entry.name for entry in report] == ["0", "1", "2"]
        x = inputs
        with torch.no_grad():
            for layer, entry in zip(expected, report, strict=True):
                std = layer(x).double().std(correction=0).item()
                assert entry.std_before == pytest.approx(std, rel=1e-5)
                assert entry.scale == pytest.approx(0.8 / std, rel=1e-5)
                assert entry.std_after == pytest.approx(0.8, rel=1e-5)
                x = 0.8 / std * layer(x)

    def test_report_is_a_sequence_that_prints_a_table(self):
        network = nn.Sequential(nn.Flatten(), stack(6, 9, 7))
        report = calibrate_(network, draw())
        assert len(report) == 2
        assert isinstance(report[0], LayerScale)
        assert report[-1].name == "1.1"
        assert [entry.name for entry in report[:]] == ["1.0", "1.1"]
        header, *rows = str(report).splitlines()
        assert header.split("  ")[0] == "layer"
        assert [row.split()[0] for row in rows] == ["1.0", "1.1"]
        for row, entry in zip(rows, report, strict=True):
            assert [float(cell) for cell in row.split()[1:]] == pytest.approx(
                [entry.std_before, entry.scale, entry.std_after], rel=1e-3
            )

    def test_scales_U_and_v_by_one_factor_and_nothing_else(self):
        network = mixed()
        before = copy.deepcopy(network.state_dict())
        report = calibrate_(network, draw())
        scales = {entry.name: entry.scale for entry in report}
        for name, value in network.state_dict().items():
            layer, parameter = name.rsplit(".", 1)
            if layer in scales and parameter in READOUT:
                assert not torch.equal(value, before[name])
                assert torch.equal(value, before[name] * scales[layer])
            else:
                assert torch.equal(value, before[name]), name

    def test_kumar_is_fan_in_then_calibrate(self):
        one, two, inputs = mixed(), mixed(), draw()
        kumar_(one, inputs, 0.7, generator=seeded(3))
        fan_in_(two, generator=seeded(3))
        calibrate_(two, inputs, 0.7)
        assert snapshot(one) == snapshot(two)

    @pytest.mark.parametrize("init_", DRAWN)
    def test_parameters_stay_trainable(self, init_):
        network, inputs = stack(6, 5, 4), draw()
        network[1].mu.requires_grad_(False)
        init_(network, inputs)
        assert [p.requires_grad for p in network[1].parameters()] == [False, True, True, True]
        assert all(p.is_leaf and p.grad is None for p in network.parameters())
        network(inputs).sum().backward()
        assert network[0].U.grad is not None

    @pytest.mark.parametrize("init_", DRAWN)
    def test_keeps_the_parameter_objects(self, init_):
        network = stack(6, 5)
        before = list(map(id, network.parameters()))
        init_(network, draw())
        assert list(map(id, network.parameters())) == before

    @pytest.mark.parametrize("init_", DRAWN)
    def test_in_inference_mode(self, init_):
        network, inputs = stack(6, 5, 4), draw()
        with torch.inference_mode():
            init_(network, inputs)
        stds = list(measured(network, inputs).values())
        assert stds == pytest.approx([TARGET[init_]] * 2, rel=1e-5)
        network(inputs).sum().backward()


class Reversed(nn.Module):
    """Registers its layers in another order than it calls them, one by keyword, one twice."""

    def __init__(self):
        super().__init__()
        self.last = GaussianMixtureLayer(5, 3, 2)
        self.first = GaussianMixtureLayer(6, 5, 2)
        self.middle = GaussianMixtureLayer(5, 5, 2)
        self.alias = self.middle

    def forward(self, inputs):
        return self.last(self.alias(self.middle(x=self.first(inputs))))


class TestOrder:
    @pytest.mark.parametrize("init_", DRAWN)
    def test_follows_the_data_not_the_registration(self, init_):
        network, inputs = Reversed(), draw()
        report = init_(network, inputs, generator=seeded())
        assert [entry.name for entry in report] == ["first", "middle", "last"]
        with torch.no_grad():
            first = network.first(inputs)
            middle = network.middle(first)
            last = network.last(network.middle(middle))
        for output in (first, middle, last):
            assert output.std(correction=0).item() == pytest.approx(TARGET[init_], rel=1e-5)

    def test_a_layer_reached_twice_is_scaled_once(self):
        network, inputs = Reversed(), draw()
        fan_in_(network, generator=seeded())
        before = network.middle.U.detach().clone()
        report = calibrate_(network, inputs)
        assert torch.equal(network.middle.U, before * report[1].scale)

    @pytest.mark.parametrize("init_", DRAWN)
    def test_parallel_branches(self, init_):
        class Branches(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = GaussianMixtureLayer(6, 4, 2), GaussianMixtureLayer(6, 4, 2)

            def forward(self, x):
                return self.two(x) + self.one(x)

        network, inputs = Branches(), draw()
        report = init_(network, inputs, generator=seeded())
        assert [entry.name for entry in report] == ["two", "one"]
        stds = list(measured(network, inputs).values())
        assert stds == pytest.approx([TARGET[init_]] * 2, rel=1e-5)


class Untouchable:
    """A label that fails the test when anything is done with it."""

    def __getattribute__(self, name):
        raise AssertionError(f"a label was asked for {name}")


@pytest.mark.parametrize("init_", DRAWN)
class TestData:
    def calibrated(self, init_, data):
        network = mixed()
        report = init_(network, data, generator=seeded(3))
        return snapshot(network), list(report)

    @pytest.mark.parametrize(
        "batches",
        [
            lambda x: [x],
            lambda x: list(x.split(64)),
            lambda x: tuple(x.split(64)),
            lambda x: (batch for batch in x.split(1)),
            lambda x: [[batch] for batch in x.split(64)],
            lambda x: [(batch, Untouchable()) for batch in x.split(64)],
            lambda x: [x[:0], x],
            lambda x: DataLoader(x, batch_size=64),
            lambda x: DataLoader(TensorDataset(x), batch_size=64),
            lambda x: DataLoader(TensorDataset(x, torch.arange(len(x))), batch_size=64),
        ],
        ids=[
            "one batch",
            "list",
            "tuple",
            "generator",
            "lists",
            "pairs",
            "with an empty one",
            "DataLoader",
            "DataLoader of lists",
            "DataLoader of pairs",
        ],
    )
    def test_batches_are_joined(self, batches, init_):
        inputs = draw()
        assert self.calibrated(init_, batches(inputs)) == self.calibrated(init_, inputs)

    def test_labels_do_not_enter(self, init_):
        inputs, labels = draw(), torch.arange(200)
        shuffled = labels[torch.randperm(200, generator=seeded())]
        one, two = (
            self.calibrated(init_, DataLoader(TensorDataset(inputs, y), batch_size=64))
            for y in (labels, shuffled)
        )
        assert one == two

    def test_inputs_are_left_alone(self, init_):
        inputs = draw()
        before = inputs.clone()
        init_(stack(6, 5), inputs.requires_grad_())
        assert torch.equal(inputs, before)
        assert inputs.requires_grad
        assert inputs.grad is None


class Noisy(nn.Module):
    """Draws from the global generator, in evaluation mode too."""

    def forward(self, x):
        return x + 0.1 * torch.randn(x.shape)


class TestLeavesAlone:
    @pytest.mark.parametrize("calibration", [*SHOWN, scale_report])
    def test_training_modes_and_buffers(self, calibration):
        network = mixed()
        before, buffers = modes(network), [b.clone() for b in network.buffers()]
        assert len(set(before)) == 2
        assert len(buffers) == 3
        calibration(network, draw())
        assert modes(network) == before
        assert all(map(torch.equal, network.buffers(), buffers))
        assert num_hooks(network) == 0

    @pytest.mark.parametrize("init_", DRAWN)
    def test_hooks_of_others(self, init_):
        network, calls = stack(6, 5), []
        network[0].register_forward_hook(lambda *_: calls.append("kept"))
        init_(network, draw())
        assert num_hooks(network) == 1
        assert calls

    @pytest.mark.parametrize("calibration", [calibrate_, scale_report])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_global_random_state(self, calibration, shuffle):
        network = nn.Sequential(Noisy(), nn.Dropout(), *stack(6, 5, 4))
        loader = DataLoader(TensorDataset(draw()), batch_size=64, shuffle=shuffle)
        before = torch.get_rng_state()
        calibration(network, loader)
        assert torch.equal(torch.get_rng_state(), before)

    def test_kumar_advances_the_generator_by_its_draws_alone(self):
        network, twin = nn.Sequential(Noisy(), *stack(6, 5, 4)), stack(6, 5, 4)
        used, expected, before = seeded(), seeded(), torch.get_rng_state()
        kumar_(network, DataLoader(draw(), batch_size=64), generator=used)
        fan_in_(twin, generator=expected)
        assert torch.equal(used.get_state(), expected.get_state())
        assert torch.equal(torch.get_rng_state(), before)

    def test_kumar_advances_the_global_state_by_its_draws_alone(self):
        network, twin = nn.Sequential(Noisy(), *stack(6, 5, 4)), stack(6, 5, 4)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            fan_in_(twin)
            expected = torch.get_rng_state()
            torch.manual_seed(3)
            kumar_(network, DataLoader(draw(), batch_size=64))
            assert torch.equal(torch.get_rng_state(), expected)

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_what_lsuv_draws_does_not_depend_on_the_data(self, shuffle):
        noisy, plain = nn.Sequential(Noisy(), *stack(6, 5, 4)), stack(6, 5, 4)
        loader = DataLoader(TensorDataset(draw()), batch_size=64, shuffle=shuffle)
        one, other, before = seeded(), seeded(), torch.get_rng_state()
        lsuv_(noisy, loader, generator=one)
        lsuv_(plain, 3.0 * draw(17, seed=8), generator=other)
        assert torch.equal(one.get_state(), other.get_state())
        assert not torch.equal(one.get_state(), seeded().get_state())
        assert torch.equal(torch.get_rng_state(), before)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            lsuv_(noisy, loader)
            assert torch.equal(torch.get_rng_state(), one.get_state())
        for layer, twin in zip(noisy[1:], plain, strict=True):
            assert torch.equal(layer.mu, twin.mu)
            torch.testing.assert_close(layer.U / layer.U.norm(), twin.U / twin.U.norm())

    @pytest.mark.parametrize("init_", DRAWN)
    def test_dropout_is_off(self, init_):
        one, two, inputs = mixed(), mixed(), draw()
        for layer in two:
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        init_(one, inputs, generator=seeded())
        init_(two, inputs, generator=seeded())
        assert snapshot(one) == snapshot(two)


class Unreached(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = GaussianMixtureLayer(6, 5, 2), GaussianMixtureLayer(6, 5, 2)

    def forward(self, x):
        return self.used(x)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


class WithBias(GaussianMixtureLayer):
    def forward(self, x):
        return super().forward(x) + x.sum(-1, keepdim=True)


def broken_loader():
    yield draw(8)
    raise OSError("the disk is gone")


def is_refused(calibration, network, data, error, match, **target):
    """Check that the call raises and leaves no trace."""
    before, training, generator = snapshot(network), modes(network), seeded(3)
    states = [torch.get_rng_state(), generator.get_state()]
    if calibration in DRAWN:
        target["generator"] = generator
    with pytest.raises(error, match=match):
        calibration(network, data, **target)
    assert snapshot(network) == before
    assert modes(network) == training
    assert num_hooks(network) == 0
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(generator.get_state(), states[1])


@pytest.mark.parametrize("calibration", CALIBRATIONS)
class TestRefusesTargets:
    @pytest.mark.parametrize("target", [0, 0.0, -1, math.nan, math.inf, -math.inf])
    def test_target_out_of_range(self, calibration, target):
        message = f"target_std must be positive and finite, got {target}"
        is_refused(calibration, mixed(), draw(), ValueError, message, target_std=target)

    @pytest.mark.parametrize("target", [True, "a", None, [0.5]])
    def test_target_that_is_no_number(self, calibration, target):
        is_refused(
            calibration,
            mixed(),
            draw(),
            TypeError,
            "target_std must be a number",
            target_std=target,
        )

    @pytest.mark.parametrize("target", [1e300, 1e-300])
    def test_target_out_of_reach(self, calibration, target):
        message = r"GM layer '2'.* out of range for torch\.float32"
        is_refused(calibration, mixed(), draw(), ValueError, message, target_std=target)


@pytest.mark.parametrize("calibration", SHOWN)
class TestRefuses:
    @pytest.mark.parametrize(
        "data",
        [
            torch.empty(0, 6),
            torch.empty(4, 0),
            [],
            [torch.empty(0, 6)],
            DataLoader([], batch_size=4),
            iter(()),
        ],
        ids=["tensor", "no features", "list", "batch", "DataLoader", "iterator"],
    )
    def test_empty_data(self, calibration, data):
        is_refused(calibration, mixed(), data, ValueError, "data is empty")

    @pytest.mark.parametrize(
        ("data", "error", "message"),
        [
            (None, TypeError, "got NoneType"),
            (3, TypeError, "got int"),
            ("train", TypeError, "got str"),
            ({"x": torch.ones(3, 6)}, TypeError, "got dict"),
            (TensorDataset(torch.ones(3, 6)), TypeError, "got TensorDataset"),
            ([[1.0, 2.0]], TypeError, "each batch of data must be a tensor, got float"),
            (torch.ones(3, 6).numpy(), TypeError, "each batch .* got ndarray"),
            ([{"x": torch.ones(3, 6)}], TypeError, "each batch .* got dict"),
            (
                torch.tensor(1.0),
                ValueError,
                "^each batch of data needs a batch dimension, got a scalar$",
            ),
            ((torch.ones(3, 6), torch.arange(3)), ValueError, r"\(3, 6\) and \(3,\).*\[\(inputs"),
        ],
        ids=[
            *("None", "number", "text", "dict", "data set", "list of lists"),
            *("array", "batch of dicts", "scalar", "inputs and labels"),
        ],
    )
    def test_data_of_the_wrong_kind(self, calibration, data, error, message):
        is_refused(calibration, mixed(), data, error, message)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_data_not_finite(self, calibration, bad):
        data = draw()
        data[17, 3] = bad
        is_refused(calibration, mixed(), data, ValueError, "GM layer '2' have standard deviation")

    def test_data_of_another_width(self, calibration):
        is_refused(
            calibration, stack(6, 5), draw(d=4), ValueError, r"x must have shape \(\.\.\., 6\)"
        )

    def test_data_of_another_dtype(self, calibration):
        is_refused(calibration, stack(6, 5), draw().double(), TypeError, "share a dtype")

    # 513 inputs: two blocks of a matrix product, whose equal rows differ in their last bits
    @pytest.mark.parametrize("n", [1, 2, 7, 513])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_constant_outputs(self, calibration, n, dtype):
        network = stack(6, 1, dtype=dtype)
        data = draw(1, dtype=dtype).expand(n, 6)
        is_refused(calibration, network, data, ValueError, f"over {n} inputs; a positive")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_inputs_of_zero(self, calibration, dtype):
        # the floor on the variance makes outputs of about 1e-20 from them
        data = torch.zeros(7, 6, dtype=dtype)
        is_refused(calibration, stack(6, 5, dtype=dtype), data, ValueError, "standard deviation")

    @pytest.mark.parametrize("factor", [0.0, math.inf, math.nan])
    def test_scale_lost_on_the_way(self, calibration, factor):
        # in front of the last layer, so that others have been rescaled before
        layers = stack(6, 5, 4, 3)
        network = nn.Sequential(layers[0], layers[1], Times(factor), layers[2])
        is_refused(calibration, network, draw(), ValueError, "GM layer '3' have standard deviation")

    def test_layer_never_reached(self, calibration):
        is_refused(
            calibration, Unreached(), draw(), ValueError, "never reached the layers 'unused'"
        )

    def test_no_gm_layer(self, calibration):
        network = nn.Sequential(nn.Linear(6, 5))
        is_refused(calibration, network, draw(), ValueError, "holds no GaussianMixtureLayer")

    @pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt("broken")])
    def test_network_that_raises(self, calibration, error):
        network = nn.Sequential(*stack(6, 5, 4), Raises(error))
        is_refused(calibration, network, draw(), type(error), "broken")

    def test_data_that_raises(self, calibration):
        is_refused(calibration, mixed(), broken_loader(), OSError, "the disk is gone")

    def test_outputs_not_linear_in_the_readout(self, calibration):
        torch.manual_seed(0)  # by chance, a scale of 1 would hide it
        network = nn.Sequential(*stack(6, 5), WithBias(5, 4, 2))
        message = "GM layer '1'.*, or the layer's outputs are not linear in U and v$"
        is_refused(calibration, network, draw(), ValueError, message)


@pytest.mark.parametrize("init_", DRAWN)
def test_a_refused_initialization_puts_the_global_state_back(init_):
    network = nn.Sequential(*stack(6, 5, 4), Raises(RuntimeError("broken")))
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        init_(network, draw())
    assert torch.equal(torch.get_rng_state(), before)


class TestRefusesToCalibrate:
    def test_readout_of_zero(self):
        network = stack(6, 5, 4)
        nn.init.zeros_(network[1].U)
        nn.init.zeros_(network[1].v)
        is_refused(
            calibrate_, network, draw(), ValueError, "GM layer '1' have standard deviation 0 "
        )

    def test_parameters_not_a_number(self):
        network = stack(6, 5, 4)
        nn.init.constant_(network[1].v, math.nan)
        is_refused(
            calibrate_, network, draw(), ValueError, "GM layer '1' have standard deviation nan"
        )

    def test_no_module(self):
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
            calibrate_(lambda x: x, draw())


class TestOrthogonal:
    """What LSUV has of its own."""

    # wider than K = 3 and C; as wide; narrower, so that columns are orthogonal in place of rows
    WIDTHS = pytest.mark.parametrize("widths", [(12, 9, 4), (3, 3, 3), (2, 7, 6), (1, 5, 2)])

    @staticmethod
    def check(rows, scale):
        """Rows orthogonal, of norm sqrt(2) * scale, or as many columns where there are more."""
        rows = rows.detach() / (math.sqrt(2.0) * scale)
        gram = rows @ rows.mT if rows.shape[0] <= rows.shape[1] else rows.mT @ rows
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype))

    @WIDTHS
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_directions_and_every_readout_matrix(self, widths, dtype):
        network = stack(*widths, dtype=dtype)
        report = lsuv_(network, draw(d=widths[0], dtype=dtype), generator=seeded())
        for layer, entry in zip(network, report, strict=True):
            self.check(layer.mu, 1.0)
            for matrix in layer.U:
                self.check(matrix, entry.scale)

    @WIDTHS
    def test_all_else_is_that_of_kumar(self, widths):
        network, fan_in = stack(*widths), stack(*widths)
        report = lsuv_(network, draw(d=widths[0]), generator=seeded(4))
        fan_in_(fan_in, generator=seeded(4))
        for layer, plain, entry in zip(network, fan_in, report, strict=True):
            assert torch.equal(
                layer.sigma, torch.full_like(layer.sigma, math.sqrt(2.0 / layer.in_features))
            )
            torch.testing.assert_close(layer.v, entry.scale * plain.v)

    def test_matrices_and_layers_differ(self):
        network = stack(6, 6, 6)
        report = lsuv_(network, draw(), generator=seeded())
        drawn = [layer.mu for layer in network]
        for layer, entry in zip(network, report, strict=True):
            drawn += [matrix[:3] / entry.scale for matrix in layer.U]
        for one, other in itertools.combinations(drawn, 2):
            assert (one - other).abs().max() > 0.1

    def test_directions_prefer_none(self):
        # means and covariances of the rows' entries over many matrices: 0, and 2 / d
        layer = GaussianMixtureLayer(5, 4, 1000)
        (entry,) = lsuv_(layer, draw(8, 5), generator=seeded())
        rows = layer.U.detach().flatten(0, 1) / entry.scale
        assert rows.mean(0).abs().max() < 0.05
        torch.testing.assert_close(rows.T @ rows / len(rows), 0.4 * torch.eye(5), rtol=0, atol=0.05)

    def test_every_layer_gets_unit_variance_on_any_scale_of_the_data(self):
        for factor in (1e-3, 1.0, 1e3):
            network, inputs = stack(6, 9, 7, 5, 4), factor * draw() + factor
            lsuv_(network, inputs)
            assert list(measured(network, inputs).values()) == pytest.approx([1.0] * 4, rel=1e-5)

    def test_report(self):
        network, inputs = stack(6, 9, 7, 5), draw()
        report = lsuv_(network, inputs, generator=seeded(3))
        assert [entry.name for entry in report] == ["0", "1", "2"]
        x = inputs
        with torch.no_grad():
            for layer, entry in zip(network, report, strict=True):
                outputs = layer(x)
                layer.U /= entry.scale
                layer.v /= entry.scale
                std = layer(x).double().std(correction=0).item()
                assert entry.std_before == pytest.approx(std, rel=1e-5)
                assert entry.scale == pytest.approx(1.0 / std, rel=1e-5)
                assert entry.std_after == pytest.approx(1.0, rel=1e-5)
                x = outputs

    def test_takes_no_target(self):
        with pytest.raises(TypeError):
            lsuv_(stack(6, 5), draw(), 0.5)


class TestScaleReport:
    @pytest.mark.parametrize("layer_type", [GaussianMixtureLayer, nn.Linear])
    def test_measures(self, layer_type):
        network, inputs = mixed(), draw()
        report = scale_report(network, inputs, layer_type)
        assert {e.name: e.std_before for e in report} == pytest.approx(
            measured(network, inputs, layer_type), rel=1e-12
        )
        assert all(e.scale == 1.0 and e.std_after == e.std_before for e in report)

    def test_measures_linear_layers_by_name(self):
        report = scale_report(mixed(), draw(), layer_type=nn.Linear)
        assert [entry.name for entry in report] == ["0", "6"]

    def test_changes_nothing(self):
        network = mixed()
        before = snapshot(network)
        scale_report(network, DataLoader(TensorDataset(draw(), torch.arange(200)), batch_size=32))
        assert snapshot(network) == before

    def test_agrees_with_the_calibration(self):
        network, inputs = mixed(), draw()
        before = scale_report(network, inputs)[0].std_before
        report = calibrate_(network, inputs)
        after = scale_report(network, inputs)
        assert report[0].std_before == before
        assert [e.std_after for e in report] == pytest.approx(
            [e.std_after for e in after], rel=1e-6
        )

    def test_reports_any_standard_deviation(self):
        layers = stack(6, 5, 4, 3)
        network = nn.Sequential(layers[0], Times(0.0), layers[1], Times(math.nan), layers[2])
        first, second, third = scale_report(network, draw())
        assert first.std_before > 0
        assert second.std_before == pytest.approx(0, abs=1e-18)  # the floor on the variance
        assert math.isnan(third.std_before)

    @pytest.mark.parametrize(
        ("network", "data", "message"),
        [
            (nn.Sequential(nn.ReLU()), draw(), "holds no GaussianMixtureLayer"),
            (Unreached(), draw(), "never reached the layers 'unused'"),
            (stack(6, 5), [], "data is empty"),
        ],
        ids=["no layer", "not reached", "no data"],
    )
    def test_refuses(self, network, data, message):
        is_refused(scale_report, network, data, ValueError, message)


# --- The closed form of the scale ----------------------------------------------------------------


def gaussian_mean(function):
    """The mean of function(z) for z standard normal, by quadrature."""
    return mpmath.quad(lambda z: function(z) * mpmath.npdf(z), [-12, -3, 0, 3, 12])


@pytest.mark.parametrize(
    ("gamma", "d", "K", "q"), [(0.5, 784, 10, 784.0), (0.05, 784, 10, 30.0), (1.3, 1, 2, 0.2)]
)
def test_output_std_is_the_integral(gamma, d, K, q):
    def f(z):  # the mean of relu(N(z, 1))
        return z * mpmath.ncdf(z) + mpmath.npdf(z)

    squares = gaussian_mean(lambda z: f(z) ** 2)
    along = gaussian_mean(lambda z: (z * f(z)) ** 2)
    mixed = gaussian_mean(lambda z: z * f(z) * mpmath.ncdf(z))
    gates = gaussian_mean(lambda z: mpmath.ncdf(z) ** 2)
    linear = gamma**2 * (along + (d - 1) * squares + 2 * mixed + gates)
    expected = mpmath.sqrt(q * gamma**4 / K * (linear + squares))
    assert output_std(gamma, d, K, q) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("d", "K", "gamma"), [(40, 3, 0.5), (40, 3, 0.1), (9, 20, 2.0)])
def test_output_std_is_that_of_many_draws(d, K, gamma):
    generator = seeded()
    x = draw(1, d, dtype=torch.float64)
    layer = GaussianMixtureLayer(d, 64, K, dtype=torch.float64)
    squares = []
    for _ in range(400):
        layer.reset_parameters(gamma, generator=generator)
        squares.append(layer(x).square().mean().detach())
    measured = torch.stack(squares).mean().sqrt().item()
    predicted = output_std(gamma, d, K, x.square().sum().item())
    assert measured == pytest.approx(predicted, rel=0.05)


def test_analytic_is_fan_in_with_another_readout():
    one, other = stack(6, 8, 3), stack(6, 8, 3)
    fan_in_(one, generator=seeded(5))
    report = analytic_(other, 6.0, 0.25, generator=seeded(5))
    assert [layer.name for layer in report] == ["0", "1"]
    assert report[0].std_before == output_std(math.sqrt(2 / 6), 6, 3, 6.0)
    assert report[1].std_before == output_std(math.sqrt(2 / 8), 8, 3, 8 * 0.25**2)
    for layer in report:
        assert layer.scale == 0.25 / layer.std_before
        assert layer.std_after == 0.25
    for name, parameter in one.named_parameters():
        scale = report[int(name[0])].scale if name[2:] in READOUT else 1.0
        assert torch.equal(dict(other.named_parameters())[name], parameter * scale)


def test_analytic_gives_the_target_on_average():
    x = draw(512, 50)
    network = stack(50, 30, 20)
    variances = torch.zeros(2)
    for seed in range(40):
        analytic_(network, 50.0, generator=seeded(seed))
        variances += torch.tensor([layer.std_after**2 for layer in scale_report(network, x)])
    assert (variances / 40).sqrt().tolist() == pytest.approx([0.5, 0.5], rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((0.0,), ValueError, "squared_norm must be positive and finite, got 0.0"),
        ((math.nan,), ValueError, "squared_norm must be positive and finite, got nan"),
        (("6",), TypeError, "squared_norm must be a number, got '6'"),
        ((6.0, -0.5), ValueError, "target_std must be positive and finite, got -0.5"),
    ],
)
def test_analytic_refuses(arguments, error, match):
    network = stack(6, 5)
    before = snapshot(network)
    with pytest.raises(error, match=match):
        analytic_(network, *arguments)
    assert snapshot(network) == before


def test_analytic_needs_a_layer():
    with pytest.raises(ValueError, match="holds no GaussianMixtureLayer"):
        analytic_(nn.Linear(6, 5), 6.0)


def test_output_std_refuses():
    with pytest.raises(ValueError, match="num_components must be positive and finite, got 0"):
        output_std(0.5, 784, 0, 784.0)


# --- Showing a report ----------------------------------------------------------------------------


def test_a_report_prints_a_table():
    report = ScaleReport([LayerScale("a long name", 0.030612, 16.3333, 0.5)])
    assert repr(report) == (
        "layer        std before       scale   std after\na long name     0.03061       16.33"
        "         0.5"
    )
