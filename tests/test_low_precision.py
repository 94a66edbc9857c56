"""Layers in bfloat16 and float16: computed in float32, and rounded once."""

import copy
import statistics
import warnings

import pytest
import torch
from draws import draw, seeded, weight_like
from init_checks import sample
from kinds import AFFINE, KINDS, ROLES, arguments
from module_checks import outcome
from networks import make_layer, make_network
from torch import nn
from torch.func import jvp

import gmlib
from gmlib import functional, init
from gmlib.functional import fold, gm_layer_monte_carlo, relu_moments, unfold

LOW = (torch.bfloat16, torch.float16)
every_low = pytest.mark.parametrize("low", LOW, ids=["bfloat16", "float16"])
# What rounding to the nearest may change, relative to a number.
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def assert_rounded(found, exact):
    """Right but for one rounding, and the errors of float32."""
    allowed = ROUNDING[found.dtype] * exact.abs() + 1e-5 * exact.abs().max()
    assert ((found.double() - exact).abs() <= allowed).all()


def double(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def graded(function, drawn, weight):
    """Outputs, and gradients of a weighting of them, by name."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in drawn.items()}
    out = function(**leaves)
    grads = torch.autograd.grad(out, list(leaves.values()), weight.to(out.dtype))
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}


@every_low
class TestAccuracy:
    @pytest.mark.parametrize("blocks", [False, True], ids=["at once", "in blocks"])
    @pytest.mark.parametrize("shape", [(5, 4, 3, 2), (2, 40, 7, 3), (1, 1, 1, 1)], ids=str)
    def test_is_that_of_float32_but_for_one_rounding(self, kind, low, shape, blocks, monkeypatch):
        if blocks:
            monkeypatch.setattr(functional, "_BLOCK", 1)
        drawn = arguments(kind, *shape, dtype=low)
        weight = weight_like(kind.function(**drawn))
        found = graded(kind.function, drawn, weight)
        # In blocks autograd adds up gradients of the parameters that are in float32 yet.
        for name, exact in graded(kind.function, double(drawn), weight).items():
            assert found[name].dtype == low
            assert_rounded(found[name], exact)

    def test_of_a_second_derivative(self, kind, low):
        drawn = arguments(kind, dtype=low, requires_grad=ROLES)

        def penalty(drawn):
            leaves = [tensor.detach().requires_grad_() for tensor in drawn.values()]
            out = kind.function(*leaves)
            (slope,) = torch.autograd.grad(out.sum(), leaves[0], create_graph=True)
            return torch.autograd.grad(slope.double().square().sum(), leaves)

        # A gradient that was rounded is differentiated.
        for found, exact in zip(penalty(drawn), penalty(double(drawn)), strict=True):
            assert found.dtype == low
            assert (found.double() - exact).abs().max() < 4 * ROUNDING[low] * exact.abs().max()

    def test_of_a_tangent(self, kind, low):
        drawn = arguments(kind, dtype=low)
        found, exact = (
            jvp(kind.function, values := tuple(given.values()), values)
            for given in (drawn, double(drawn))
        )
        for one, other in zip(found, exact, strict=True):
            assert one.dtype == low
            assert_rounded(one, other)

    def test_of_other_functions(self, low):
        drawn = arguments(AFFINE, dtype=low)
        x, *parameters = drawn.values()
        m, t = x[:, :1], x[:, 1:].abs()
        _, *exact = double(drawn).values()
        for found, expected in [
            (relu_moments(m, t), relu_moments(m.double(), t.double())),
            (fold(*parameters), fold(*exact)),
        ]:
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == low
                assert_rounded(one, other)
        assert gm_layer_monte_carlo(**drawn, num_samples=3).dtype == low

    def test_what_is_kept_for_the_backward_is_in_float32(self, kind, low):
        layer, x = make_layer(kind, dtype=low), draw(5, 4, dtype=low)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            layer(x)
        assert {tensor.dtype for tensor in kept} == {torch.float32}

    def test_compiled(self, kind, low):
        network = make_network(kind, low)
        compiled = torch.compile(network[1], fullgraph=True, backend="aot_eager")
        x = draw(9, 5, dtype=low)
        for found, expected in zip(outcome(compiled, x), outcome(network[1], x), strict=True):
            assert found.dtype == low
            assert_rounded(found, expected.double())


@every_low
class TestWays:
    """Each of the ways in which a layer comes to be in low precision."""

    def test_all_lead_to_the_same(self, kind, low):
        layer, x = make_layer(kind, dtype=torch.float32), draw(5, 4, dtype=low)
        by_name = {torch.bfloat16: nn.Module.bfloat16, torch.float16: nn.Module.half}[low]
        made = kind.layer(4, 3, 2, dtype=low)
        made.load_state_dict(layer.state_dict())
        expected = made(x)
        assert expected.dtype == low
        for other in (copy.deepcopy(layer).to(low), by_name(copy.deepcopy(layer))):
            assert torch.equal(other(x), expected)

    def test_back_again_gives_float32(self, kind, low):
        layer = make_layer(kind, dtype=low).float()
        assert layer(draw(5, 4, dtype=torch.float32)).dtype == torch.float32

    @pytest.mark.parametrize("role", ROLES)
    def test_in_part_is_refused_and_the_way_is_told(self, kind, low, role):
        name = kind.names[role]
        drawn = arguments(kind, dtype=torch.float32)
        drawn[name] = drawn[name].to(low)
        message = (
            r"must share a dtype, got .*: \.to\(dtype\) converts, and torch.autocast takes both"
        )
        with pytest.raises(TypeError, match=message):
            kind.function(**drawn)
        with torch.autocast("cpu", low):  # which is the way
            out = kind.function(**drawn)
        assert out.dtype == torch.float32
        assert torch.equal(out, kind.function(**{n: t.float() for n, t in drawn.items()}))

    def test_both_in_one_are_refused(self, kind, low):
        drawn = arguments(kind, dtype=torch.float16)
        drawn["mu"] = drawn["mu"].bfloat16()
        with pytest.raises(TypeError, match=r"got torch\.float16 and torch\.bfloat16"):
            kind.function(**drawn)

    def test_under_autocast_it_returns_float32(self, kind, low):
        layer, x = make_layer(kind, dtype=low), draw(5, 4, dtype=low)
        expected = copy.deepcopy(layer).float()(x.float())
        for other in LOW:
            with torch.autocast("cpu", other):
                assert torch.equal(layer(x), expected)

    def test_converted_to_the_other_coordinates(self, kind, low):
        network, x = nn.Sequential(make_layer(kind, dtype=low)), draw(5, 4, dtype=low)
        there = gmlib.fold if kind is AFFINE else gmlib.unfold
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "rounding changes the mean readouts")
            other = there(network)
            with torch.autocast("cpu", low):
                under_autocast = there(network)
        for each in (other, under_autocast):
            assert {p.dtype for p in each.parameters()} == {low}
        expected = network.double()(x.double())
        error = (other(x).double() - expected).abs().max()
        assert error < 8 * ROUNDING[low] * expected.abs().max()

    def test_what_unfolding_loses_is_warned_of(self, low):
        layer = make_layer(KINDS["folded"], dtype=low)
        with torch.no_grad():
            layer.sigma.mul_(0.25)
        with pytest.warns(UserWarning, match="rounding changes the mean readouts") as warned:
            unfold(layer.mu, layer.sigma, *layer.readout)
        assert warned[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            unfold(*(t.float() for t in (layer.mu, layer.sigma, *layer.readout)))


@every_low
@pytest.mark.parametrize("init_", [init.kumar_, init.lsuv_, init.calibrate_])
def test_initializations(kind, low, init_):
    network = nn.Sequential(kind.layer(6, 20, 5, dtype=low), kind.layer(20, 10, 5, dtype=low))
    wide = copy.deepcopy(network).float()
    options = {} if init_ is init.calibrate_ else {"generator": seeded()}
    x = sample(dtype=low)
    report = init_(network, x, **options)
    target = 1.0 if init_ is init.lsuv_ else 0.5
    assert [row.std_after for row in report] == pytest.approx([target] * 2, rel=1e-2)
    assert network(x).float().std().item() == pytest.approx(target, rel=2e-2)
    if init_ is init.kumar_:
        for parameter in (network[0].mu, network[1].mu):
            expected = init.fan_in_scale(parameter.shape[1])
            assert parameter.float().std().item() == pytest.approx(expected, rel=0.3)
    elif init_ is init.calibrate_:
        for row, expected in zip(report, init_(wide, x.float()), strict=True):
            assert row.scale == pytest.approx(expected.scale, rel=1e-2)


@every_low
def test_what_has_no_scale_is_refused_as_in_float32(kind, low):
    network = nn.Sequential(kind.layer(6, 4, 3, dtype=low))
    with pytest.raises(ValueError, match="standard deviation"):
        init.kumar_(network, torch.zeros(32, 6, dtype=low))


def test_a_network_in_bfloat16_trains_as_one_in_float32(kind):
    x = draw(512, 8, dtype=torch.float32)
    target = make_layer(kind, 8, 3, 4, dtype=torch.float32)(x).detach()
    target /= target.std()

    def final_loss(dtype, seed):
        network = nn.Sequential(kind.layer(8, 16, 5), kind.layer(16, 3, 5))
        init.kumar_(network, x, generator=seeded(seed))
        network.to(dtype)
        optimizer = torch.optim.SGD(gmlib.param_groups(network, lr=0.1), momentum=0.9)
        for step in range(200):
            batch = slice(64 * (step % 8), 64 * (step % 8 + 1))
            optimizer.zero_grad()
            nn.functional.mse_loss(network(x[batch].to(dtype)), target[batch].to(dtype)).backward()
            optimizer.step()
        with torch.no_grad():
            return nn.functional.mse_loss(network(x.to(dtype)).float(), target).item()

    high, low = (
        [final_loss(dtype, seed) for seed in range(3)] for dtype in (torch.float32, torch.bfloat16)
    )
    assert max(high + low) < 0.02  # of a target of variance 1
    assert abs(statistics.mean(low) - statistics.mean(high)) < max(high) - min(high)
