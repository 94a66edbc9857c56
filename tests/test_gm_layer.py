"""The closed form: against quadrature, against sampling, and against plain autograd."""

import itertools
import math

import pytest
import torch
from closed_form import gradients, gradients_equal_the_reference, integrate_over_positive
from draws import weight_like
from kinds import AFFINE, ROLES, arguments
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from gmlib import _affine

SUBSETS = [s for r in range(1, 6) for s in itertools.combinations(ROLES, r)]
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
    def test_equals_quadrature(self, kind, d):
        affine = arguments(AFFINE, B=2, d=d, C=2, K=2, seed=d)
        out = kind.function(**kind.own(affine))
        assert_close(out, layer_by_quadrature(**affine), rtol=1e-10, atol=0)

    def test_equals_quadrature_in_the_tail(self, kind):
        affine = arguments(AFFINE, B=1, d=2, C=1, K=1)
        affine["x"], affine["sigma"] = map(torch.ones_like, (affine["x"], affine["sigma"]))
        for m in (-10.0, -30.0):
            affine["mu"].fill_(m * math.sqrt(0.5))  # z = m
            out = kind.function(**kind.own(affine))
            assert 0 < abs(out.item()) < 1e-20
            assert_close(out, layer_by_quadrature(**affine), rtol=1e-10, atol=0)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_equals_the_mean_over_sampled_neurons(self, kind, shape):
        affine = arguments(AFFINE, *shape, seed=3)
        x, mu, sigma, U, v = affine.values()
        generator = torch.Generator().manual_seed(4)
        noise = torch.randn(40_000, *mu.shape, generator=generator, dtype=x.dtype)
        beta = mu + sigma * noise
        activation = (beta @ x.T).relu()  # (S, K, B)
        readout = (U @ beta.unsqueeze(-1)).squeeze(-1) + v  # (S, K, C)
        samples = (activation.unsqueeze(-1) * readout.unsqueeze(-2)).mean(1)  # (S, B, C)
        error = samples.std(0) / math.sqrt(len(samples))
        exact = kind.function(**kind.own(affine))
        assert error.max() < 0.05 * exact.abs().max()
        assert ((samples.mean(0) - exact).abs() < 5 * error).all()


class TestAgainstAutograd:
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_float64(self, kind, shape):
        drawn = arguments(kind, *shape)
        assert_close(kind.function(**drawn), kind.reference(**drawn), rtol=1e-12, atol=1e-12)
        gradients_equal_the_reference(kind, drawn)

    @pytest.mark.parametrize("shape", [*SHAPES.values(), (64, 200, 10, 5)], ids=[*SHAPES, "large"])
    def test_float32(self, kind, shape):
        drawn = arguments(kind, *shape, dtype=torch.float32)
        exact = {name: tensor.double() for name, tensor in drawn.items()}
        fast, plain = gradients(kind.function, drawn), gradients(kind.reference, exact)
        fast["out"], plain["out"] = kind.function(**drawn), kind.reference(**exact)
        for name, value in fast.items():
            assert value.dtype == torch.float32
            # relative to the largest entry: single entries may cancel
            error = (value.double() - plain[name]).abs().max() / plain[name].abs().max()
            assert error < 5e-6, name

    @pytest.mark.parametrize("subset", SUBSETS, ids=",".join)
    def test_any_subset_of_gradients(self, kind, subset):
        expected = gradients(kind.reference, arguments(kind))
        drawn = arguments(kind, requires_grad=subset)
        out = kind.function(**drawn)
        out.backward(weight_like(out))
        for (name, tensor), role in zip(drawn.items(), ROLES, strict=True):
            if role in subset:
                assert_close(tensor.grad, expected[name], rtol=1e-12, atol=1e-12, msg=name)
            else:
                assert tensor.grad is None

    def test_none_requires_a_gradient(self, kind):
        assert not kind.function(**arguments(kind)).requires_grad

    @pytest.mark.parametrize("seed", range(3))
    def test_second_derivatives(self, kind, seed):
        def penalty(function):
            drawn = arguments(kind, seed=seed, requires_grad=ROLES)
            leaves = list(drawn.values())
            grads = torch.autograd.grad(function(**drawn).square().sum(), leaves, create_graph=True)
            return torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)

        derivatives = penalty(kind.function), penalty(kind.reference)
        for role, fast, plain in zip(ROLES, *derivatives, strict=True):
            assert_close(fast, plain, rtol=1e-10, atol=1e-10, msg=role)

    def test_backward_twice_through_one_graph(self, kind):
        drawn = arguments(kind, requires_grad=ROLES)
        total = kind.function(**drawn).sum()
        leaves = list(drawn.values())
        first = torch.autograd.grad(total, leaves, retain_graph=True)
        again = torch.autograd.grad(total, leaves)
        assert all(map(torch.equal, first, again))

    def test_a_parameter_changed_before_the_backward_is_noticed(self, kind):
        drawn = arguments(kind, requires_grad=ROLES)
        total = kind.function(**drawn).sum()
        with torch.no_grad():
            drawn["mu"].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()


class TestLargeReadouts:
    """A backward that goes component by component, as large affine readouts have it."""

    @pytest.fixture(autouse=True)
    def _all_are_large(self, monkeypatch):
        monkeypatch.setattr(_affine, "_SMALL", 0)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_float64(self, shape):
        drawn = arguments(AFFINE, *shape)
        gradients_equal_the_reference(AFFINE, drawn)

    def test_twice(self):
        drawn = arguments(AFFINE, B=2, d=2, C=2, requires_grad=ROLES)
        assert gradgradcheck(AFFINE.function, tuple(drawn.values()), check_fwd_over_rev=True)

    def test_stacked(self):
        pairs = [arguments(AFFINE, seed=seed) for seed in (0, 1)]
        stacked = {n: torch.stack([drawn[n] for drawn in pairs]) for n in pairs[0]}
        grads = gradients(lambda **drawn: torch.vmap(AFFINE.function)(*drawn.values()), stacked)
        weight = weight_like(torch.empty(2, 5, 3, dtype=torch.float64))
        for run, drawn in enumerate(pairs):
            leaves = [tensor.requires_grad_() for tensor in drawn.values()]
            expected = torch.autograd.grad(AFFINE.reference(*leaves), leaves, weight[run])
            for name, grad in zip(drawn, expected, strict=True):
                assert_close(grads[name][run], grad, rtol=1e-12, atol=1e-12, msg=name)


class TestGradcheck:
    @pytest.mark.parametrize("role", ROLES)
    def test_one_at_a_time(self, kind, role):
        drawn = arguments(kind, B=3, d=2, C=2, requires_grad=[role])
        assert gradcheck(kind.function, tuple(drawn.values()))

    def test_all_together_twice(self, kind):
        drawn = arguments(kind, B=2, d=2, C=2, requires_grad=ROLES)
        assert gradcheck(kind.function, tuple(drawn.values()))
        assert gradgradcheck(kind.function, tuple(drawn.values()))

    @pytest.mark.parametrize("zeros", ["all", "one component", "one coordinate"])
    def test_sigma_zero(self, kind, zeros):
        drawn = arguments(kind, B=2, d=2, C=2)
        part = {"all": ..., "one component": 0, "one coordinate": (slice(None), 0)}[zeros]
        drawn["sigma"][part] = 0.0
        inputs = tuple(tensor.requires_grad_() for tensor in drawn.values())
        assert (drawn["x"] @ drawn["mu"].T).abs().min() > 0.01  # away from the kink of the ReLU
        assert gradcheck(kind.function, inputs)
        assert gradgradcheck(kind.function, inputs)

    def test_x_zero(self, kind):
        # The layer has a kink there; its gradient, as gradcheck's central differences, is the
        # mean of the one-sided ones.
        drawn = arguments(kind, B=2, d=2, C=2)
        drawn["x"][0] = 0.0
        assert gradcheck(kind.function, tuple(t.requires_grad_() for t in drawn.values()))

    def test_x_zero_in_one_coordinate(self, kind):
        drawn = arguments(kind, B=2, d=2, C=2)
        drawn["x"][:, 0] = 0.0
        inputs = tuple(tensor.requires_grad_() for tensor in drawn.values())
        assert gradcheck(kind.function, inputs)
        assert gradgradcheck(kind.function, inputs)
