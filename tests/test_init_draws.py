"""What the inits draw: its statistics, and whose random numbers they are."""

import itertools
import math

import pytest
import torch
from draws import seeded
from init_checks import output_stds, sample
from kinds import affine_readout
from module_checks import snapshot
from networks import mixed, stack
from torch import nn

from gmlib.init import baseline_, fan_in_, kumar_, lsuv_


def kumar(module, *, generator=None):
    """`kumar_` with data for networks of six inputs."""
    return kumar_(module, sample(), generator=generator)


def lsuv(module, *, generator=None):
    return lsuv_(module, sample(), generator=generator)


INITS = [baseline_, fan_in_, kumar, lsuv]


class TestDraws:
    @pytest.mark.parametrize("gamma", [0.5, 2.0, 3])
    def test_baseline_statistics(self, kinds, gamma):
        network = stack(kinds, 50, 40, 30)
        baseline_(network, gamma, generator=seeded())
        for layer in network:
            self.check(layer, gamma)

    def test_baseline_default_is_one_half(self, kinds):
        one, two = stack(kinds, 4, 3), stack(kinds, 4, 3)
        baseline_(one, generator=seeded(5))
        baseline_(two, 0.5, generator=seeded(5))
        assert snapshot(one) == snapshot(two)
        assert (one[0].sigma == 0.5).all()

    def test_fan_in_statistics(self, kinds):
        network = stack(kinds, 50, 40, 30)
        fan_in_(network, generator=seeded())
        self.check(network[0], math.sqrt(2 / 50))
        self.check(network[1], math.sqrt(2 / 40))

    @staticmethod
    def check(layer, scale):
        assert torch.equal(layer.sigma, torch.full_like(layer.sigma, scale))
        for tensor in (layer.mu, *affine_readout(layer)):
            n = tensor.numel()
            assert tensor.mean().abs() < 5 * scale / math.sqrt(n)
            assert abs(tensor.std().item() / scale - 1) < 5 / math.sqrt(2 * n)

    def test_layers_differ(self, kinds):
        network = stack(kinds, 4, 4, 4)
        fan_in_(network, generator=seeded())
        assert not torch.equal(network[0].mu, network[1].mu)

    @pytest.mark.parametrize("init_", INITS)
    def test_generator_decides_and_the_global_state_is_untouched(self, kinds, init_):
        one, two, other = (
            stack(kinds, 6, 3, seed=1),
            stack(kinds, 6, 3, seed=2),
            stack(kinds, 6, 3, seed=3),
        )
        before = torch.get_rng_state()
        init_(one, generator=seeded(9))
        init_(two, generator=seeded(9))
        init_(other, generator=seeded(10))
        assert torch.equal(torch.get_rng_state(), before)
        assert snapshot(one) == snapshot(two) != snapshot(other)

    @pytest.mark.parametrize("init_", INITS)
    def test_global_seed_decides_without_a_generator(self, kinds, init_):
        one, two = stack(kinds, 6, 3, seed=1), stack(kinds, 6, 3, seed=2)
        with torch.random.fork_rng():
            torch.manual_seed(9)
            init_(one)
        init_(two, generator=seeded(9))
        assert snapshot(one) == snapshot(two)

    @pytest.mark.parametrize("init_", INITS)
    def test_touches_gm_layers_alone(self, kinds, init_):
        network = mixed(kinds)
        before = snapshot(network)
        init_(network, generator=seeded(4))
        changed = {
            name.split(".")[0] for name, value in snapshot(network).items() if value != before[name]
        }
        assert changed == {"2", "4", "8"}

    @pytest.mark.parametrize("init_", INITS)
    def test_a_layer_is_a_module_too(self, kind, init_):
        layer = kind.layer(6, 3, 2)
        before = snapshot(layer)
        init_(layer)
        assert snapshot(layer) != before
        assert all(p.requires_grad and p.is_leaf for p in layer.parameters())

    @pytest.mark.parametrize("gamma", [0, -1.0, math.nan, math.inf])
    def test_refuses_a_scale_that_is_none(self, kinds, gamma):
        network = stack(kinds, 4, 3)
        before = snapshot(network)
        with pytest.raises(ValueError, match=f"gamma must be positive and finite, got {gamma}"):
            baseline_(network, gamma)
        assert snapshot(network) == before

    @pytest.mark.parametrize("gamma", [True, "0.5", None])
    def test_refuses_a_scale_that_is_no_number(self, kinds, gamma):
        with pytest.raises(TypeError, match=f"gamma must be a number, got {gamma!r}"):
            baseline_(stack(kinds, 4, 3), gamma)

    @pytest.mark.parametrize("init_", INITS)
    def test_refuses_a_network_without_gm_layers(self, kind, init_):
        with pytest.raises(ValueError, match="Sequential holds no GM layer"):
            init_(nn.Sequential(nn.Linear(3, 3)))
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got list"):
            init_([kind.layer(3, 3, 1)])


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
    def test_directions_and_every_readout_matrix(self, kinds, widths, dtype):
        network = stack(kinds, *widths, dtype=dtype)
        report = lsuv_(network, sample(d=widths[0], dtype=dtype), generator=seeded())
        for layer, entry in zip(network, report, strict=True):
            self.check(layer.mu, 1.0)
            for matrix in affine_readout(layer)[0]:
                self.check(matrix, entry.scale)

    @WIDTHS
    def test_all_else_is_that_of_kumar(self, kinds, widths):
        network, fan_in = stack(kinds, *widths), stack(kinds, *widths)
        report = lsuv_(network, sample(d=widths[0]), generator=seeded(4))
        fan_in_(fan_in, generator=seeded(4))
        for layer, plain, entry in zip(network, fan_in, report, strict=True):
            assert torch.equal(
                layer.sigma, torch.full_like(layer.sigma, math.sqrt(2.0 / layer.in_features))
            )
            (_, found), (_, drawn) = affine_readout(layer), affine_readout(plain)
            torch.testing.assert_close(found, entry.scale * drawn)

    def test_matrices_and_layers_differ(self, kinds):
        network = stack(kinds, 6, 6, 6)
        report = lsuv_(network, sample(), generator=seeded())
        drawn = [layer.mu for layer in network]
        for layer, entry in zip(network, report, strict=True):
            drawn += [matrix[:3] / entry.scale for matrix in affine_readout(layer)[0]]
        for one, other in itertools.combinations(drawn, 2):
            assert (one - other).abs().max() > 0.1

    def test_directions_prefer_none(self, kind):
        # means and covariances of the rows' entries over many matrices: 0, and 2 / d
        layer = kind.layer(5, 4, 1000)
        (entry,) = lsuv_(layer, sample(8, 5), generator=seeded())
        rows = affine_readout(layer)[0].detach().flatten(0, 1) / entry.scale
        assert rows.mean(0).abs().max() < 0.05
        torch.testing.assert_close(rows.T @ rows / len(rows), 0.4 * torch.eye(5), rtol=0, atol=0.05)

    def test_every_layer_gets_unit_variance_on_any_scale_of_the_data(self, kinds):
        for factor in (1e-3, 1.0, 1e3):
            network, inputs = stack(kinds, 6, 9, 7, 5, 4), factor * sample() + factor
            lsuv_(network, inputs)
            assert list(output_stds(network, inputs).values()) == pytest.approx([1.0] * 4, rel=1e-5)

    def test_report(self, kinds):
        network, inputs = stack(kinds, 6, 9, 7, 5), sample()
        report = lsuv_(network, inputs, generator=seeded(3))
        assert [entry.name for entry in report] == ["0", "1", "2"]
        x = inputs
        with torch.no_grad():
            for layer, entry in zip(network, report, strict=True):
                outputs = layer(x)
                for tensor in layer.readout:
                    tensor /= entry.scale
                std = layer(x).double().std(correction=0).item()
                assert entry.std_before == pytest.approx(std, rel=1e-5)
                assert entry.scale == pytest.approx(1.0 / std, rel=1e-5)
                assert entry.std_after == pytest.approx(1.0, rel=1e-5)
                x = outputs

    def test_takes_no_target(self, kinds):
        with pytest.raises(TypeError):
            lsuv_(stack(kinds, 6, 5), sample(), 0.5)
