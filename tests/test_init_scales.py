"""Scales of outputs: measured, by the closed form, and as a table."""

import math

import mpmath
import pytest
import torch
from draws import seeded
from init_checks import READOUTS, is_refused, output_stds, sample
from module_checks import snapshot
from networks import Times, Unreached, mixed, stack
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gmlib.init import (
    LayerScale,
    ScaleReport,
    analytic_,
    calibrate_,
    fan_in_,
    output_std,
    scale_report,
)
from gmlib.layer import MixtureLayer


class TestScaleReport:
    @pytest.mark.parametrize("layer_type", [MixtureLayer, nn.Linear])
    def test_measures(self, kinds, layer_type):
        network, inputs = mixed(kinds), sample()
        report = scale_report(network, inputs, layer_type)
        assert {e.name: e.std_before for e in report} == pytest.approx(
            output_stds(network, inputs, layer_type), rel=1e-12
        )
        assert all(e.scale == 1.0 and e.std_after == e.std_before for e in report)

    def test_measures_linear_layers_by_name(self, kinds):
        report = scale_report(mixed(kinds), sample(), layer_type=nn.Linear)
        assert [entry.name for entry in report] == ["0", "6"]

    def test_changes_nothing(self, kinds):
        network = mixed(kinds)
        before = snapshot(network)
        scale_report(network, DataLoader(TensorDataset(sample(), torch.arange(200)), batch_size=32))
        assert snapshot(network) == before

    def test_agrees_with_the_calibration(self, kinds):
        network, inputs = mixed(kinds), sample()
        before = scale_report(network, inputs)[0].std_before
        report = calibrate_(network, inputs)
        after = scale_report(network, inputs)
        assert report[0].std_before == before
        assert [e.std_after for e in report] == pytest.approx(
            [e.std_after for e in after], rel=1e-6
        )

    def test_reports_any_standard_deviation(self, kinds):
        layers = stack(kinds, 6, 5, 4, 3)
        network = nn.Sequential(layers[0], Times(0.0), layers[1], Times(math.nan), layers[2])
        first, second, third = scale_report(network, sample())
        assert first.std_before > 0
        assert second.std_before == pytest.approx(0, abs=1e-18)  # the floor on the variance
        assert math.isnan(third.std_before)

    @pytest.mark.parametrize(
        ("network", "data", "message"),
        [
            (lambda kinds: nn.Sequential(nn.ReLU()), sample(), "holds no GM layer"),
            (Unreached, sample(), "never reached the layers 'unused'"),
            (lambda kinds: stack(kinds, 6, 5), [], "data is empty"),
        ],
        ids=["no layer", "not reached", "no data"],
    )
    def test_refuses(self, kinds, network, data, message):
        is_refused(scale_report, network(kinds), data, ValueError, message)


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
def test_output_std_is_that_of_many_draws(kind, d, K, gamma):
    generator = seeded()
    x = sample(1, d, dtype=torch.float64)
    layer = kind.layer(d, 64, K, dtype=torch.float64)
    squares = []
    for _ in range(400):
        layer.reset_parameters(gamma, generator=generator)
        squares.append(layer(x).square().mean().detach())
    measured = torch.stack(squares).mean().sqrt().item()
    predicted = output_std(gamma, d, K, x.square().sum().item())
    assert measured == pytest.approx(predicted, rel=0.05)


def test_analytic_is_fan_in_with_another_readout(kinds):
    one, other = stack(kinds, 6, 8, 3), stack(kinds, 6, 8, 3)
    fan_in_(one, generator=seeded(5))
    report = analytic_(other, 6.0, 0.25, generator=seeded(5))
    assert [layer.name for layer in report] == ["0", "1"]
    assert report[0].std_before == output_std(math.sqrt(2 / 6), 6, 3, 6.0)
    assert report[1].std_before == output_std(math.sqrt(2 / 8), 8, 3, 8 * 0.25**2)
    for layer in report:
        assert layer.scale == 0.25 / layer.std_before
        assert layer.std_after == 0.25
    for name, parameter in one.named_parameters():
        scale = report[int(name[0])].scale if name[2:] in READOUTS else 1.0
        assert torch.equal(dict(other.named_parameters())[name], parameter * scale)


def test_analytic_gives_the_target_on_average(kinds):
    x = sample(512, 50)
    network = stack(kinds, 50, 30, 20)
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
def test_analytic_refuses(kinds, arguments, error, match):
    network = stack(kinds, 6, 5)
    before = snapshot(network)
    with pytest.raises(error, match=match):
        analytic_(network, *arguments)
    assert snapshot(network) == before


def test_analytic_needs_a_layer():
    with pytest.raises(ValueError, match="holds no GM layer"):
        analytic_(nn.Linear(6, 5), 6.0)


def test_output_std_refuses():
    with pytest.raises(ValueError, match="num_components must be positive and finite, got 0"):
        output_std(0.5, 784, 0, 784.0)


def test_a_report_prints_a_table():
    report = ScaleReport([LayerScale("a long name", 0.030612, 16.3333, 0.5)])
    assert repr(report) == (
        "layer        std before       scale   std after\na long name     0.03061       16.33"
        "         0.5"
    )
