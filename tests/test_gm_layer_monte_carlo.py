"""The layer by sampled neurons."""

import math

import pytest
import torch
from kinds import AFFINE, arguments
from torch.testing import assert_close

from gmlib.functional import gm_layer, gm_layer_monte_carlo


class TestMonteCarlo:
    def test_is_unbiased(self):
        drawn = arguments(AFFINE)
        generator = torch.Generator().manual_seed(5)
        estimates = torch.stack(
            [gm_layer_monte_carlo(**drawn, num_samples=500, generator=generator) for _ in range(50)]
        )
        error = estimates.std(0) / math.sqrt(len(estimates))
        exact = gm_layer(**drawn)
        assert error.max() < 0.02 * exact.abs().max()
        assert ((estimates.mean(0) - exact).abs() < 5 * error).all()

    def test_error_falls_with_the_root_of_the_samples(self):
        drawn = arguments(AFFINE)
        generator = torch.Generator().manual_seed(6)
        few, many = (
            torch.stack(
                [
                    gm_layer_monte_carlo(**drawn, num_samples=n, generator=generator)
                    for _ in range(100)
                ]
            ).std(0)
            for n in (20, 500)
        )
        assert (few / many).mean().item() == pytest.approx(5.0, rel=0.2)

    def test_generator(self):
        drawn = arguments(AFFINE)
        before = torch.get_rng_state()
        first, again = (
            gm_layer_monte_carlo(**drawn, num_samples=7, generator=torch.Generator().manual_seed(8))
            for _ in range(2)
        )
        assert torch.equal(first, again)
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize("leading", [(), (0,), (2, 3)])
    def test_any_leading_shape(self, leading):
        drawn = arguments(AFFINE) | {"x": torch.ones(*leading, 4, dtype=torch.float64)}
        assert gm_layer_monte_carlo(**drawn, num_samples=2).shape == (*leading, 3)

    def test_one_sample_is_one_neuron_of_each_component(self):
        drawn = arguments(AFFINE)
        torch.manual_seed(3)
        beta = drawn["mu"] + drawn["sigma"] * torch.randn(1, 2, 4, dtype=torch.float64)[0]
        readout = torch.einsum("kcd,kd->kc", drawn["U"], beta) + drawn["v"]
        torch.manual_seed(3)
        out = gm_layer_monte_carlo(**drawn, num_samples=1)
        expected = torch.relu(drawn["x"] @ beta.T) @ readout / 2
        assert_close(out, expected, rtol=1e-13, atol=1e-13)

    def test_draws_on_the_device_of_the_parameters(self):
        drawn = {name: tensor.to("meta") for name, tensor in arguments(AFFINE).items()}
        assert gm_layer_monte_carlo(**drawn, num_samples=2).is_meta

    def test_refuses_no_samples(self):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            gm_layer_monte_carlo(**arguments(AFFINE), num_samples=0)
