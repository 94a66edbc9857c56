"""The calibration: exact on every layer, in the order of the data, whatever holds them."""

import copy

import pytest
import torch
from draws import seeded
from init_checks import CALIBRATIONS, DRAWN, READOUTS, SHOWN, TARGET, output_stds, sample
from kinds import classes
from module_checks import snapshot
from networks import mixed, stack
from torch import nn

from gmlib.init import LayerScale, calibrate_, fan_in_, kumar_


class TestCalibration:
    @pytest.mark.parametrize("calibration", CALIBRATIONS)
    @pytest.mark.parametrize("target", [0.5, 1, 1e-3, 40.0])
    def test_exact_on_every_layer_of_a_stack(self, kinds, calibration, target):
        network, inputs = stack(kinds, 6, 9, 7, 5, 4), sample()
        calibration(network, inputs, target)
        stds = output_stds(network, inputs)
        assert list(stds) == ["0", "1", "2", "3"]
        assert list(stds.values()) == pytest.approx([target] * 4, rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_exact_to_rounding_in_float64(self, kinds, calibration):
        network, inputs = (
            stack(kinds, 6, 9, 7, 5, 4, dtype=torch.float64),
            sample(dtype=torch.float64),
        )
        calibration(network, inputs)
        stds = list(output_stds(network, inputs).values())
        assert stds == pytest.approx([TARGET[calibration]] * 4, rel=1e-13)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_exact_on_few_inputs(self, kinds, calibration):
        # the divisor of the std would show: n here, not n - 1
        network, inputs = stack(kinds, 6, 3, 2), sample(n=2)
        calibration(network, inputs)
        stds = list(output_stds(network, inputs).values())
        assert stds == pytest.approx([TARGET[calibration]] * 2, rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_exact_among_other_layers(self, kinds, calibration):
        network, inputs = mixed(kinds), sample()
        report = calibration(network, inputs)
        stds = output_stds(network, inputs)
        assert list(stds) == ["2", "4", "8"] == [layer.name for layer in report]
        assert list(stds.values()) == pytest.approx([TARGET[calibration]] * 3, rel=1e-5)

    def test_default_target(self, kinds):
        network, inputs = stack(kinds, 6, 3), sample()
        calibrate_(network, inputs)
        assert output_stds(network, inputs)["0"] == pytest.approx(0.5, rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_a_single_layer(self, kind, calibration):
        layer, inputs = kind.layer(6, 4, 2), sample()
        (entry,) = calibration(layer, inputs)
        assert entry.name == ""
        assert output_stds(layer, inputs)[""] == pytest.approx(TARGET[calibration], rel=1e-5)

    @pytest.mark.parametrize("calibration", SHOWN)
    def test_more_than_one_leading_dimension(self, kinds, calibration):
        network, inputs = stack(kinds, 6, 5, 4), sample(60).view(5, 12, 6)
        calibration(network, inputs)
        stds = list(output_stds(network, inputs).values())
        assert stds == pytest.approx([TARGET[calibration]] * 2, rel=1e-5)

    def test_calibrating_again_changes_little(self, kinds):
        network, inputs = stack(kinds, 6, 9, 7), sample()
        calibrate_(network, inputs)
        assert [layer.scale for layer in calibrate_(network, inputs)] == pytest.approx(
            [1, 1], rel=1e-5
        )

    @pytest.mark.parametrize("calibration", CALIBRATIONS)
    def test_report(self, kinds, calibration):
        network, inputs = stack(kinds, 6, 9, 7, 5), sample()
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

    def test_report_is_a_sequence_that_prints_a_table(self, kinds):
        network = nn.Sequential(nn.Flatten(), stack(kinds, 6, 9, 7))
        report = calibrate_(network, sample())
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

    def test_scales_the_readout_by_one_factor_and_nothing_else(self, kinds):
        network = mixed(kinds)
        before = copy.deepcopy(network.state_dict())
        report = calibrate_(network, sample())
        scales = {entry.name: entry.scale for entry in report}
        for name, value in network.state_dict().items():
            layer, parameter = name.rsplit(".", 1)
            if layer in scales and parameter in READOUTS:
                assert not torch.equal(value, before[name])
                assert torch.equal(value, before[name] * scales[layer])
            else:
                assert torch.equal(value, before[name]), name

    def test_kumar_is_fan_in_then_calibrate(self, kinds):
        one, two, inputs = mixed(kinds), mixed(kinds), sample()
        kumar_(one, inputs, 0.7, generator=seeded(3))
        fan_in_(two, generator=seeded(3))
        calibrate_(two, inputs, 0.7)
        assert snapshot(one) == snapshot(two)

    @pytest.mark.parametrize("init_", DRAWN)
    def test_parameters_stay_trainable(self, kinds, init_):
        network, inputs = stack(kinds, 6, 5, 4), sample()
        network[1].mu.requires_grad_(False)
        init_(network, inputs)
        assert [p.requires_grad for p in network[1].parameters()] == [False, True, True, True]
        assert all(p.is_leaf and p.grad is None for p in network.parameters())
        network(inputs).sum().backward()
        assert network[0].readout[0].grad is not None

    @pytest.mark.parametrize("init_", DRAWN)
    def test_keeps_the_parameter_objects(self, kinds, init_):
        network = stack(kinds, 6, 5)
        before = list(map(id, network.parameters()))
        init_(network, sample())
        assert list(map(id, network.parameters())) == before

    @pytest.mark.parametrize("init_", DRAWN)
    def test_in_inference_mode(self, kinds, init_):
        network, inputs = stack(kinds, 6, 5, 4), sample()
        with torch.inference_mode():
            init_(network, inputs)
        stds = list(output_stds(network, inputs).values())
        assert stds == pytest.approx([TARGET[init_]] * 2, rel=1e-5)
        network(inputs).sum().backward()


class Reversed(nn.Module):
    """Registers its layers in another order than it calls them, one by keyword, one twice."""

    def __init__(self, kinds):
        super().__init__()
        layers = classes(kinds)
        self.last = next(layers)(5, 3, 2)
        self.first = next(layers)(6, 5, 2)
        self.middle = next(layers)(5, 5, 2)
        self.alias = self.middle

    def forward(self, inputs):
        return self.last(self.alias(self.middle(x=self.first(inputs))))


class TestOrder:
    @pytest.mark.parametrize("init_", DRAWN)
    def test_follows_the_data_not_the_registration(self, kinds, init_):
        network, inputs = Reversed(kinds), sample()
        report = init_(network, inputs, generator=seeded())
        assert [entry.name for entry in report] == ["first", "middle", "last"]
        with torch.no_grad():
            first = network.first(inputs)
            middle = network.middle(first)
            last = network.last(network.middle(middle))
        for output in (first, middle, last):
            assert output.std(correction=0).item() == pytest.approx(TARGET[init_], rel=1e-5)

    def test_a_layer_reached_twice_is_scaled_once(self, kinds):
        network, inputs = Reversed(kinds), sample()
        fan_in_(network, generator=seeded())
        before = [tensor.detach().clone() for tensor in network.middle.readout]
        report = calibrate_(network, inputs)
        for tensor, value in zip(network.middle.readout, before, strict=True):
            assert torch.equal(tensor, value * report[1].scale)

    @pytest.mark.parametrize("init_", DRAWN)
    def test_parallel_branches(self, kinds, init_):
        class Branches(nn.Module):
            def __init__(self):
                super().__init__()
                layers = classes(kinds)
                self.one, self.two = next(layers)(6, 4, 2), next(layers)(6, 4, 2)

            def forward(self, x):
                return self.two(x) + self.one(x)

        network, inputs = Branches(), sample()
        report = init_(network, inputs, generator=seeded())
        assert [entry.name for entry in report] == ["two", "one"]
        stds = list(output_stds(network, inputs).values())
        assert stds == pytest.approx([TARGET[init_]] * 2, rel=1e-5)
