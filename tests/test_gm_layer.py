"""The closed form: against quadrature, against sampling, and against plain autograd."""

import itertools
import math

import pytest
import torch
from closed_form import gradients, integrate_over_positive, reference
from draws import NAMES, arguments, weight_like
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from gmlib import functional
from gmlib.functional import gm_layer

SUBSETS = [s for r in range(1, 6) for s in itertools.combinations(NAMES, r)]
# B, d, C, K
SHAPES = {
    "C > B": (3, 4, 7, 2),
    "C < B": (9, 4, 2, 3),
    "B = 1": (1, 4, 3, 2),
    "K = 1": (5, 3, 2, 1),
    "d = 1": (5, 1, 3, 2),
    "C = 1": (4, 3, 1, 2),
    "all 1": (1, 1, 1, 1),
}


def layer_by_quadrature(x, mu, sigma, U, v):
    """The layer without Stein's lemma: given s, the mean of beta is linear in s."""
    out = torch.zeros(len(x), U.shape[1], dtype=torch.float64)
    for b, c, k in itertools.product(range(len(x)), range(U.shape[1]), range(len(mu))):
        m = float(mu[k] @ x[b])
        variance = float(sigma[k].square() @ x[b].square())
        slope = sigma[k].square() * x[b] / variance
        at_the_mean, per_s = float(U[k, c] @ mu[k] + v[k, c]), float(U[k, c] @ slope)

        def output(s, m=m, at_the_mean=at_the_mean, per_s=per_s):
            return (at_the_mean + per_s * (s - m)) * s

        out[b, c] += float(integrate_over_positive(output, m, math.sqrt(variance)))
    return out / len(mu)


class TestAgainstTheIntegral:
    @pytest.mark.parametrize("d", [1, 3])
    def test_equals_quadrature(self, d):
        drawn = arguments(B=2, d=d, C=2, K=2, seed=d)
        assert_close(gm_layer(**drawn), layer_by_quadrature(**drawn), rtol=1e-10, atol=0)

    def test_equals_quadrature_in_the_tail(self):
        drawn = arguments(B=1, d=2, C=1, K=1)
        drawn["x"], drawn["sigma"] = torch.ones_like(drawn["x"]), torch.ones_like(drawn["sigma"])
        for m in (-10.0, -30.0):
            drawn["mu"].fill_(m * math.sqrt(0.5))  # z = m
            out = gm_layer(**drawn)
            assert 0 < abs(out.item()) < 1e-20
            assert_close(out, layer_by_quadrature(**drawn), rtol=1e-10, atol=0)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_equals_the_mean_over_sampled_neurons(self, shape):
        drawn = arguments(*shape, seed=3)
        x, mu, sigma, U, v = drawn.values()
        generator = torch.Generator().manual_seed(4)
        noise = torch.randn(40_000, *mu.shape, generator=generator, dtype=x.dtype)
        beta = mu + sigma * noise
        activation = (beta @ x.T).relu()  # (S, K, B)
        readout = (U @ beta.unsqueeze(-1)).squeeze(-1) + v  # (S, K, C)
        samples = (activation.unsqueeze(-1) * readout.unsqueeze(-2)).mean(1)  # (S, B, C)
        error = samples.std(0) / math.sqrt(len(samples))
        exact = gm_layer(**drawn)
        assert error.max() < 0.05 * exact.abs().max()
        assert ((samples.mean(0) - exact).abs() < 5 * error).all()


class TestAgainstAutograd:
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_float64(self, shape):
        drawn = arguments(*shape)
        assert_close(gm_layer(**drawn), reference(**drawn), rtol=1e-12, atol=1e-12)
        fast, plain = gradients(gm_layer, drawn), gradients(reference, drawn)
        for name in NAMES:
            assert_close(fast[name], plain[name], rtol=1e-12, atol=1e-12, msg=name)

    @pytest.mark.parametrize("shape", [*SHAPES.values(), (64, 200, 10, 5)], ids=[*SHAPES, "large"])
    def test_float32(self, shape):
        drawn = arguments(*shape, dtype=torch.float32)
        exact = {name: tensor.double() for name, tensor in drawn.items()}
        fast, plain = gradients(gm_layer, drawn), gradients(reference, exact)
        fast["out"], plain["out"] = gm_layer(**drawn), reference(**exact)
        for name, value in fast.items():
            assert value.dtype == torch.float32
            # relative to the largest entry: single entries may cancel
            error = (value.double() - plain[name]).abs().max() / plain[name].abs().max()
            assert error < 5e-6, name

    @pytest.mark.parametrize("subset", SUBSETS, ids=",".join)
    def test_any_subset_of_gradients(self, subset):
        expected = gradients(reference, arguments())
        drawn = arguments(requires_grad=subset)
        out = gm_layer(**drawn)
        out.backward(weight_like(out))
        for name, tensor in drawn.items():
            if name in subset:
                assert_close(tensor.grad, expected[name], rtol=1e-12, atol=1e-12, msg=name)
            else:
                assert tensor.grad is None

    def test_none_requires_a_gradient(self):
        assert not gm_layer(**arguments()).requires_grad

    @pytest.mark.parametrize("seed", range(3))
    def test_second_derivatives(self, seed):
        def penalty(function):
            drawn = arguments(seed=seed, requires_grad=NAMES)
            leaves = list(drawn.values())
            grads = torch.autograd.grad(function(**drawn).square().sum(), leaves, create_graph=True)
            return torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)

        for name, fast, plain in zip(NAMES, penalty(gm_layer), penalty(reference), strict=True):
            assert_close(fast, plain, rtol=1e-10, atol=1e-10, msg=name)

    def test_backward_twice_through_one_graph(self):
        drawn = arguments(requires_grad=NAMES)
        total = gm_layer(**drawn).sum()
        leaves = list(drawn.values())
        first = torch.autograd.grad(total, leaves, retain_graph=True)
        again = torch.autograd.grad(total, leaves)
        assert all(map(torch.equal, first, again))

    def test_a_parameter_changed_before_the_backward_is_noticed(self):
        drawn = arguments(requires_grad=NAMES)
        total = gm_layer(**drawn).sum()
        with torch.no_grad():
            drawn["mu"].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()


class TestLargeReadouts:
    """A backward that goes component by component, as large readouts have it."""

    @pytest.fixture(autouse=True)
    def _all_are_large(self, monkeypatch):
        monkeypatch.setattr(functional, "_SMALL", 0)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_float64(self, shape):
        drawn = arguments(*shape)
        fast, plain = gradients(gm_layer, drawn), gradients(reference, drawn)
        for name in NAMES:
            assert_close(fast[name], plain[name], rtol=1e-12, atol=1e-12, msg=name)

    def test_twice(self):
        drawn = arguments(B=2, d=2, C=2, requires_grad=NAMES)
        assert gradgradcheck(gm_layer, tuple(drawn.values()), check_fwd_over_rev=True)

    def test_stacked(self):
        pairs = [arguments(seed=seed) for seed in (0, 1)]
        stacked = {n: torch.stack([drawn[n] for drawn in pairs]) for n in NAMES}
        grads = gradients(lambda **drawn: torch.vmap(gm_layer)(*drawn.values()), stacked)
        weight = weight_like(torch.empty(2, 5, 3, dtype=torch.float64))
        for run, drawn in enumerate(pairs):
            leaves = [tensor.requires_grad_() for tensor in drawn.values()]
            expected = torch.autograd.grad(reference(*leaves), leaves, weight[run])
            for name, grad in zip(NAMES, expected, strict=True):
                assert_close(grads[name][run], grad, rtol=1e-12, atol=1e-12, msg=name)


class TestGradcheck:
    @pytest.mark.parametrize("name", NAMES)
    def test_one_at_a_time(self, name):
        drawn = arguments(B=3, d=2, C=2, requires_grad=[name])
        assert gradcheck(gm_layer, tuple(drawn.values()))

    def test_all_together_twice(self):
        drawn = arguments(B=2, d=2, C=2, requires_grad=NAMES)
        assert gradcheck(gm_layer, tuple(drawn.values()))
        assert gradgradcheck(gm_layer, tuple(drawn.values()))

    @pytest.mark.parametrize("zeros", ["all", "one component", "one coordinate"])
    def test_sigma_zero(self, zeros):
        drawn = arguments(B=2, d=2, C=2)
        part = {"all": ..., "one component": 0, "one coordinate": (slice(None), 0)}[zeros]
        drawn["sigma"][part] = 0.0
        inputs = tuple(tensor.requires_grad_() for tensor in drawn.values())
        assert (drawn["x"] @ drawn["mu"].T).abs().min() > 0.01  # away from the kink of the ReLU
        assert gradcheck(gm_layer, inputs)
        assert gradgradcheck(gm_layer, inputs)

    def test_x_zero(self):
        # The layer has a kink there; its gradient, as gradcheck's central differences, is the
        # mean of the one-sided ones.
        drawn = arguments(B=2, d=2, C=2)
        drawn["x"][0] = 0.0
        assert gradcheck(gm_layer, tuple(t.requires_grad_() for t in drawn.values()))

    def test_x_zero_in_one_coordinate(self):
        drawn = arguments(B=2, d=2, C=2)
        drawn["x"][:, 0] = 0.0
        inputs = tuple(tensor.requires_grad_() for tensor in drawn.values())
        assert gradcheck(gm_layer, inputs)
        assert gradgradcheck(gm_layer, inputs)
