"""What the calibrations refuse, with no trace left."""

import math

import pytest
import torch
from init_checks import CALIBRATIONS, SHOWN, is_refused, sample
from networks import Raises, Times, Unreached, mixed, stack
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gmlib.init import calibrate_


def with_bias(kind):
    class WithBias(kind.layer):
        def forward(self, x):
            return super().forward(x) + x.sum(-1, keepdim=True)

    return WithBias


def broken_loader():
    yield sample(8)
    raise OSError("the disk is gone")


@pytest.mark.parametrize("calibration", CALIBRATIONS)
class TestRefusesTargets:
    @pytest.mark.parametrize("target", [0, 0.0, -1, math.nan, math.inf, -math.inf])
    def test_target_out_of_range(self, kinds, calibration, target):
        message = f"target_std must be positive and finite, got {target}"
        is_refused(calibration, mixed(kinds), sample(), ValueError, message, target_std=target)

    @pytest.mark.parametrize("target", [True, "a", None, [0.5]])
    def test_target_that_is_no_number(self, kinds, calibration, target):
        is_refused(
            calibration,
            mixed(kinds),
            sample(),
            TypeError,
            "target_std must be a number",
            target_std=target,
        )

    @pytest.mark.parametrize("target", [1e300, 1e-300])
    def test_target_out_of_reach(self, kinds, calibration, target):
        message = r"GM layer '2'.* out of range for torch\.float32"
        is_refused(calibration, mixed(kinds), sample(), ValueError, message, target_std=target)


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
    def test_empty_data(self, kinds, calibration, data):
        is_refused(calibration, mixed(kinds), data, ValueError, "data is empty")

    @pytest.mark.parametrize(
        ("data", "error", "message"),
        [
            (None, TypeError, "got NoneType"),
            (3, TypeError, "got int"),
            ("train", TypeError, "got str"),
            ({"x": torch.ones(3, 6)}, TypeError, "got dict"),
            (TensorDataset(torch.ones(3, 6)), TypeError, "got TensorDataset"),
            ([[1.0, 2.0]], TypeError, "each batch .* or a tuple or list .* got float"),
            ([()], TypeError, "each batch .* got tuple"),
            (torch.ones(3, 6).numpy(), TypeError, "each batch .* got ndarray"),
            (
                torch.tensor(1.0),
                ValueError,
                "^each batch of data needs a batch dimension, got a scalar$",
            ),
        ],
        ids=[
            *("None", "number", "text", "dict", "data set", "list of lists"),
            *("empty tuple", "array", "scalar"),
        ],
    )
    def test_data_of_the_wrong_kind(self, kinds, calibration, data, error, message):
        is_refused(calibration, mixed(kinds), data, error, message)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_data_not_finite(self, kinds, calibration, bad):
        data = sample()
        data[17, 3] = bad
        is_refused(
            calibration, mixed(kinds), data, ValueError, "GM layer '2' have standard deviation"
        )

    def test_data_of_another_width(self, kinds, calibration):
        is_refused(
            calibration,
            stack(kinds, 6, 5),
            sample(d=4),
            ValueError,
            r"x must have shape \(\.\.\., 6\)",
        )

    def test_data_of_another_dtype(self, kinds, calibration):
        is_refused(calibration, stack(kinds, 6, 5), sample().double(), TypeError, "share a dtype")

    # 513 inputs: two blocks of a matrix product, whose equal rows differ in their last bits
    @pytest.mark.parametrize("n", [1, 2, 7, 513])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_constant_outputs(self, kinds, calibration, n, dtype):
        network = stack(kinds, 6, 1, dtype=dtype)
        data = sample(1, dtype=dtype).expand(n, 6)
        is_refused(calibration, network, data, ValueError, f"over {n} values; a positive")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_inputs_of_zero(self, kinds, calibration, dtype):
        # the floor on the variance makes outputs of about 1e-20 from them
        data = torch.zeros(7, 6, dtype=dtype)
        is_refused(
            calibration, stack(kinds, 6, 5, dtype=dtype), data, ValueError, "standard deviation"
        )

    @pytest.mark.parametrize("factor", [0.0, math.inf, math.nan])
    def test_scale_lost_on_the_way(self, kinds, calibration, factor):
        # in front of the last layer, so that others have been rescaled before
        layers = stack(kinds, 6, 5, 4, 3)
        network = nn.Sequential(layers[0], layers[1], Times(factor), layers[2])
        is_refused(
            calibration, network, sample(), ValueError, "GM layer '3' have standard deviation"
        )

    def test_layer_never_reached(self, kinds, calibration):
        is_refused(
            calibration, Unreached(kinds), sample(), ValueError, "never reached the layers 'unused'"
        )

    def test_no_gm_layer(self, calibration):
        network = nn.Sequential(nn.Linear(6, 5))
        is_refused(calibration, network, sample(), ValueError, "holds no GM layer")

    @pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt("broken")])
    def test_network_that_raises(self, kinds, calibration, error):
        network = nn.Sequential(*stack(kinds, 6, 5, 4), Raises(error))
        is_refused(calibration, network, sample(), type(error), "broken")

    def test_data_that_raises(self, kinds, calibration):
        is_refused(calibration, mixed(kinds), broken_loader(), OSError, "the disk is gone")

    def test_outputs_not_linear_in_the_readout(self, kind, calibration):
        torch.manual_seed(0)  # by chance, a scale of 1 would hide it
        network = nn.Sequential(*stack(kind, 6, 5), with_bias(kind)(5, 4, 2))
        names = " and ".join(kind.readout)
        message = (
            f"GM layer '1'.*, or the layer's outputs are not linear in {names}, or the network"
        )
        is_refused(calibration, network, sample(), ValueError, message)


class TestRefusesToCalibrate:
    def test_readout_of_zero(self, kinds):
        network = stack(kinds, 6, 5, 4)
        for tensor in network[1].readout:
            nn.init.zeros_(tensor)
        is_refused(
            calibrate_, network, sample(), ValueError, "GM layer '1' have standard deviation 0 "
        )

    def test_parameters_not_a_number(self, kinds):
        network = stack(kinds, 6, 5, 4)
        nn.init.constant_(network[1].readout[1], math.nan)
        is_refused(
            calibrate_, network, sample(), ValueError, "GM layer '1' have standard deviation nan"
        )

    def test_no_module(self):
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
            calibrate_(lambda x: x, sample())
