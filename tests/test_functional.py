"""The closed form: against quadrature, against sampling, and against plain autograd."""

import itertools
import math
import subprocess
import sys

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from gmlib import functional
from gmlib.functional import gm_layer, gm_layer_monte_carlo, relu_moments

NAMES = ("x", "mu", "sigma", "U", "v")
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


def arguments(B=5, d=4, C=3, K=2, *, dtype=torch.float64, seed=0, requires_grad=()):
    """x, mu, sigma, U and v by name, drawn at random; sigma has both signs."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (B, d), "mu": (K, d), "sigma": (K, d), "U": (K, C, d), "v": (K, C)}
    drawn = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in shapes.items()
    }
    for name in requires_grad:
        drawn[name].requires_grad_()
    return drawn


def reference(x, mu, sigma, U, v):
    """The formula as the book writes it, for autograd to differentiate."""
    m = torch.einsum("...d,kd->...k", x, mu)
    t = torch.einsum("...d,kd->...k", x**2, sigma**2).sqrt()
    z = m / t
    Phi = 0.5 * torch.erfc(-z / math.sqrt(2))
    phi = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    F = m * Phi + t * phi
    at_the_mean = torch.einsum("kcd,kd->kc", U, mu) + v
    covariance = torch.einsum("kcd,kd,...d->...kc", U, sigma**2, x)
    return (at_the_mean * F.unsqueeze(-1) + covariance * Phi.unsqueeze(-1)).mean(-2)


def relu_network(x, mu, U, v):
    """What is left of the layer when the clouds have shrunk to K neurons."""
    readout = torch.einsum("kcd,kd->kc", U, mu) + v
    return torch.relu(x @ mu.T) @ readout / len(mu)


def gradients(function, tensors, seed=1):
    """The gradients, by name, of a random weighting of the outputs."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    out = function(**leaves)
    grads = torch.autograd.grad(out, list(leaves.values()), weight_like(out, seed))
    return dict(zip(leaves, grads, strict=True))


def equals_the_reference(leading):
    """Check the outputs and all gradients for inputs of a leading shape."""
    drawn = arguments()
    drawn["x"] = arguments(B=math.prod(leading), seed=1)["x"].view(*leading, 4)
    assert gm_layer(**drawn).shape == (*leading, 3)
    assert_close(gm_layer(**drawn), reference(**drawn), rtol=1e-12, atol=1e-12)
    fast, plain = gradients(gm_layer, drawn), gradients(reference, drawn)
    for name in NAMES:
        assert_close(fast[name], plain[name], rtol=1e-12, atol=1e-12, msg=name)


def weight_like(out, seed=1):
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
    return weight.to(out.dtype)


def integrate_over_positive(function, m, t):
    """The integral over s > 0 of function(s) times the density of N(m, t^2) at s."""
    m, t = mpmath.mpf(m), mpmath.mpf(t)
    if m > -t:
        cuts = [m + k * t for k in (-12, -6, -3, -1, 0, 1, 3, 6, 12)]
    else:  # the density falls off like exp(-|m| s / t^2)
        cuts = [k * t * t / -m for k in (1, 2, 4, 8, 16, 32, 64)]
    with mpmath.workdps(25):
        peak = mpmath.npdf(max(m, 0), m, t)  # taken out, since mpmath stops at an absolute error
        value, error = mpmath.quad(
            lambda s: function(s) * mpmath.npdf(s, m, t) / peak,
            [0, *(cut for cut in cuts if cut > 0)],
            error=True,
        )
    assert error < 1e-11 * abs(value)
    return peak * value


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


class TestReLUMoments:
    @pytest.mark.parametrize("t", [2.0**-10, 0.7, 3.0])
    @pytest.mark.parametrize("z", [-30, -20, -10, -5, -2, -0.5, 0, 0.5, 2, 5, 10, 30])
    def test_equals_quadrature(self, z, t):
        m = z * t
        F, G = relu_moments(*(torch.tensor(a, dtype=torch.float64) for a in (m, t)))
        assert F.item() == pytest.approx(
            float(integrate_over_positive(lambda s: s, m, t)), rel=1e-10, abs=0
        )
        assert G.item() == pytest.approx(
            float(integrate_over_positive(lambda s: 1, m, t)), rel=1e-10, abs=0
        )

    @pytest.mark.parametrize(
        ("dtype", "end", "digits"), [(torch.float32, 15, 8), (torch.float64, 40, 16)]
    )
    def test_polynomials_give_the_mills_ratio(self, dtype, end, digits):
        with mpmath.workdps(50):
            P, Q, S = (
                [mpmath.mpf(c) for c in coefficients] for coefficients in functional._TAIL[dtype]
            )
            assert min(P + Q + S) > 0  # so that nothing cancels
            for i in range(1001):
                a = mpmath.mpf(end) * i / 1000
                p, q, s = (mpmath.polyval(coefficients, a) for coefficients in (P, Q, S))
                mills = mpmath.ncdf(-a) / mpmath.npdf(a)
                assert mpmath.almosteq(p / q, 1 / mills - a, rel_eps=mpmath.mpf(10) ** -digits)
                assert mpmath.almosteq(
                    s, mpmath.sqrt(2 * mpmath.pi) * (a * q + p), rel_eps=mpmath.mpf(10) ** -digits
                )

    @pytest.mark.parametrize("t", [1e-3, 1.0, 40.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_shape_from_tail_to_tail(self, dtype, t):
        z = torch.arange(-30 * 128, 30 * 128 + 1, dtype=dtype) / 128
        near = torch.logspace(-30, -3, 109, dtype=dtype)
        m = t * torch.cat([z, near, -near]).sort().values
        F, G = relu_moments(m, torch.tensor(t, dtype=dtype))
        assert (m.clamp_min(0.0) <= F).all()  # and so never negative
        assert (G >= 0).all()
        assert (G <= 1).all()
        for moment in (F, G):
            assert (moment.diff() >= -2 * torch.finfo(dtype).eps * moment[1:]).all()
        for moment in relu_moments(t * z, torch.tensor(t, dtype=dtype)):
            assert (moment.diff() >= 0).all()  # in steps that rounding cannot turn

    def test_keeps_the_lower_tail_in_float32(self):
        z = torch.linspace(-13.0, -5.0, 65, dtype=torch.float64)
        exact = relu_moments(z, torch.ones_like(z))
        for single, double in zip(relu_moments(z.float(), torch.ones(65)), exact, strict=True):
            assert_close(single.double(), double, rtol=1e-4, atol=0)

    def test_probability_is_not_zero_where_it_is_1e_8(self):
        _, G = relu_moments(torch.tensor(-5.6), torch.tensor(1.0))
        assert G.item() == pytest.approx(1.0717590e-8, rel=1e-5)

    @pytest.mark.parametrize("t", [1e-3, 1.0, 40.0])
    def test_grows_with_m_in_float32(self, t):
        z = torch.linspace(-13.0, 13.0, 105)
        F, G = relu_moments(z * t, torch.tensor(t))
        assert (F > 0).all()
        assert (F.diff() > 0).all()
        assert (G > 0).all()
        assert (G <= 1).all()
        assert (G.diff() >= 0).all()
        assert (G[z <= 4].diff() > 0).all()

    @pytest.mark.parametrize("m", [-10.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 10.0])
    def test_grows_with_t_in_float32(self, m):
        t = torch.logspace(-4, 4, 81)
        F, _ = relu_moments(torch.tensor(m), t)
        assert (max(m, 0.0) <= F).all()
        assert (F.diff() >= 0).all()
        resolved = t > abs(m) / 4  # F - relu(m) is above rounding
        assert (F[resolved].diff() > 0).all()

    def test_point_mass(self):
        m = torch.tensor([-2.0, 0.0, 3.0])
        F, G = relu_moments(m, torch.zeros(3))
        assert F.tolist() == [0.0, 0.0, 3.0]
        assert G.tolist() == [0.0, 0.5, 1.0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("t", [0.0, 1e-45, 1e-30, 1.0, 1e30])
    @pytest.mark.parametrize("m", [-3e38, -1e30, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1e30, 3e38])
    def test_finite_with_finite_gradients(self, m, t, dtype):
        m, t = (torch.tensor(a, dtype=dtype, requires_grad=True) for a in (m, t))
        F, G = relu_moments(m, t)
        assert F.isfinite()
        assert F >= 0
        assert 0 <= G <= 1
        for moment in (F, G):
            for grad in torch.autograd.grad(moment, (m, t), retain_graph=True):
                assert grad.isfinite()

    def test_gradcheck(self):
        z = torch.tensor([-6.0, -2.5, -0.3, 0.0, 0.4, 3.0], dtype=torch.float64)
        t = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64).unsqueeze(1)
        m, t = (z * t).requires_grad_(), t.requires_grad_()  # broadcast: (3, 6) and (3, 1)
        assert gradcheck(relu_moments, (m, t))
        assert gradgradcheck(relu_moments, (m, t))

    def test_gradients_in_the_tail(self):
        # gradcheck's absolute tolerance would pass zero here
        m = torch.tensor([-20.0, -10.0, -6.0], dtype=torch.float64, requires_grad=True)
        t = torch.ones(3, dtype=torch.float64, requires_grad=True)
        F, G = relu_moments(m, t)
        phi = torch.exp(-0.5 * m.detach() ** 2) / math.sqrt(2 * math.pi)
        dF_dm, dF_dt = torch.autograd.grad(F.sum(), (m, t), retain_graph=True)
        dG_dm, dG_dt = torch.autograd.grad(G.sum(), (m, t))
        assert_close(dF_dm, G.detach(), rtol=1e-12, atol=0)
        assert_close(dF_dt, phi, rtol=1e-12, atol=0)
        assert_close(dG_dm, phi, rtol=1e-12, atol=0)
        assert_close(dG_dt, -m.detach() * phi, rtol=1e-12, atol=0)

    def test_broadcasts(self):
        F, G = relu_moments(torch.zeros(3, 1), torch.ones(2))
        assert F.shape == G.shape == (3, 2)

    @pytest.mark.parametrize(
        ("m", "t"),
        [
            (torch.ones(2), torch.ones(2).double()),
            (torch.ones(2).int(), torch.ones(2).int()),
            (torch.ones(2).half(), torch.ones(2).half()),
        ],
        ids=["mixed", "int", "half"],
    )
    def test_refuses_other_dtypes(self, m, t):
        with pytest.raises(TypeError, match=str(t.dtype)):
            relu_moments(m, t)


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


class TestMonteCarlo:
    def test_is_unbiased(self):
        drawn = arguments()
        generator = torch.Generator().manual_seed(5)
        estimates = torch.stack(
            [gm_layer_monte_carlo(**drawn, num_samples=500, generator=generator) for _ in range(50)]
        )
        error = estimates.std(0) / math.sqrt(len(estimates))
        exact = gm_layer(**drawn)
        assert error.max() < 0.02 * exact.abs().max()
        assert ((estimates.mean(0) - exact).abs() < 5 * error).all()

    def test_error_falls_with_the_root_of_the_samples(self):
        drawn = arguments()
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
        drawn = arguments()
        before = torch.get_rng_state()
        first, again = (
            gm_layer_monte_carlo(**drawn, num_samples=7, generator=torch.Generator().manual_seed(8))
            for _ in range(2)
        )
        assert torch.equal(first, again)
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize("leading", [(), (0,), (2, 3)])
    def test_any_leading_shape(self, leading):
        drawn = arguments() | {"x": torch.ones(*leading, 4, dtype=torch.float64)}
        assert gm_layer_monte_carlo(**drawn, num_samples=2).shape == (*leading, 3)

    def test_one_sample_is_one_neuron_of_each_component(self):
        drawn = arguments()
        torch.manual_seed(3)
        beta = drawn["mu"] + drawn["sigma"] * torch.randn(1, 2, 4, dtype=torch.float64)[0]
        readout = torch.einsum("kcd,kd->kc", drawn["U"], beta) + drawn["v"]
        torch.manual_seed(3)
        out = gm_layer_monte_carlo(**drawn, num_samples=1)
        expected = torch.relu(drawn["x"] @ beta.T) @ readout / 2
        assert_close(out, expected, rtol=1e-13, atol=1e-13)

    def test_draws_on_the_device_of_the_parameters(self):
        drawn = {name: tensor.to("meta") for name, tensor in arguments().items()}
        assert gm_layer_monte_carlo(**drawn, num_samples=2).is_meta

    def test_refuses_no_samples(self):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            gm_layer_monte_carlo(**arguments(), num_samples=0)


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


# What 10,000 inputs of the study's network take above the parameters and the inputs themselves.
PEAK_OF_AN_EVALUATION = """
import torch
from gmlib import GaussianMixtureLayer, functional

functional._BLOCK = {block}


def status(field):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


torch.manual_seed(0)
network = torch.nn.Sequential(GaussianMixtureLayer(784, 100, 10), GaussianMixtureLayer(100, 10, 10))
images = torch.randn(10_000, 784)
with torch.no_grad():
    network(images[:200])  # libraries allot what they need at their first call
    before = status("VmRSS")
    assert network(images).isfinite().all()
print(status("VmHWM") - before)
"""


def peak_of_an_evaluation(block):
    code = PEAK_OF_AN_EVALUATION.format(block=block)
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class TestBlocks:
    """A large batch goes through in blocks, so that intermediate results stay small."""

    @pytest.fixture(params=["several", "one row each", "as shipped"])
    def drawn(self, request, monkeypatch):
        if request.param == "as shipped":
            drawn = arguments(B=1, d=2, C=2**16, K=4)
            rows = functional._BLOCK // drawn["v"].numel()
            drawn["x"] = arguments(B=2 * rows + 3, d=2, seed=1)["x"]
            assert rows > 1
        else:
            drawn = arguments(B=11, C=3, K=2)
            rows = 4 if request.param == "several" else 1
            block = 6 * rows + 1 if rows > 1 else 1
            monkeypatch.setattr(functional, "_BLOCK", block)
        self.rows = rows
        return drawn

    def test_equals_its_pieces_bit_for_bit(self, drawn):
        pieces = [gm_layer(**(drawn | {"x": x})) for x in drawn["x"].split(self.rows)]
        assert len(pieces) > 2
        assert torch.equal(gm_layer(**drawn), torch.cat(pieces))

        out_grad = weight_like(gm_layer(**drawn))
        leaves = {name: tensor.requires_grad_() for name, tensor in drawn.items()}
        grads = torch.autograd.grad(gm_layer(**leaves), list(leaves.values()), out_grad)
        parts = [
            torch.autograd.grad(gm_layer(**(leaves | {"x": x})), [x, *list(leaves.values())[1:]], g)
            for x, g in zip(drawn["x"].split(self.rows), out_grad.split(self.rows), strict=True)
        ]
        assert torch.equal(grads[0], torch.cat([part[0] for part in parts]))
        # The order in which autograd adds the others up is its own.
        for grad, *summands in zip(grads[1:], *(part[1:] for part in parts), strict=True):
            assert_close(grad, sum(summands), rtol=1e-12, atol=1e-12)

    def test_equals_its_rows(self, drawn):
        # Products of other shapes add up in another order.
        rows = [gm_layer(**(drawn | {"x": x})) for x in drawn["x"]]
        assert_close(gm_layer(**drawn), torch.stack(rows), rtol=1e-12, atol=1e-12)
        assert_close(gm_layer(**drawn), reference(**drawn), rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("leading", [(0,), (2, 0, 3), (11,), (3, 5), (2, 1, 7)], ids=str)
    def test_any_leading_shape(self, leading, monkeypatch):
        monkeypatch.setattr(functional, "_BLOCK", 4 * 6)
        equals_the_reference(leading)

    def test_gradcheck(self, monkeypatch):
        monkeypatch.setattr(functional, "_BLOCK", 2 * 4)  # of 5 rows: 2, 2 and 1
        inputs = tuple(arguments(B=5, d=2, C=2, requires_grad=NAMES).values())
        assert gradcheck(gm_layer, inputs, check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(gm_layer, inputs, check_fwd_over_rev=True)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_an_evaluation_takes_little_memory(self):
        in_blocks = peak_of_an_evaluation("functional._BLOCK")
        at_once = peak_of_an_evaluation(2**62)
        assert in_blocks <= 100e6
        # Y and Y G of all inputs at once are 10 x 100 x 10,000 floats each.
        assert at_once - in_blocks > 50e6


class TestCost:
    """Floating-point operations of the matrix products, in units of one B x (K C) x d product."""

    @pytest.mark.parametrize(
        ("wanted", "products"),
        [
            ((), 0),
            (("mu",), 0),
            (("sigma",), 1),
            (("U",), 1),
            (("v",), 0),
            (NAMES[1:], 1),
            (NAMES, 2),
        ],
        ids=lambda value: ",".join(value) or "none" if isinstance(value, tuple) else None,
    )
    def test_large_products(self, wanted, products):
        B, d, C, K = shape = (64, 48, 64, 3)
        drawn = arguments(*shape, requires_grad=wanted)
        with FlopCounterMode(display=False) as forward:
            total = gm_layer(**drawn).sum()
        with FlopCounterMode(display=False) as backward:
            if wanted:
                total.backward()
        product = 2 * B * K * C * d
        assert forward.get_total_flops() / product == pytest.approx(1, abs=0.2)
        assert backward.get_total_flops() / product == pytest.approx(products, abs=0.2)


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


class TestDegenerate:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("zero", [("x",), ("sigma",), ("x", "sigma"), ("mu", "sigma"), NAMES])
    def test_gradients_are_finite(self, zero, dtype):
        drawn = arguments(dtype=dtype)
        for name in zero:
            drawn[name].zero_()
        for name, grad in gradients(gm_layer, drawn).items():
            assert grad.isfinite().all(), name

    @pytest.mark.parametrize("zero", ["x", "sigma"])
    def test_large_readouts_keep_gradients_finite(self, zero):
        # 1 / t^2 at an unfloored t would overflow in float32
        drawn = arguments(dtype=torch.float32)
        drawn[zero].zero_()
        drawn["U"].mul_(1e4)
        drawn["v"].mul_(1e4)
        for name, grad in gradients(gm_layer, drawn).items():
            assert grad.isfinite().all(), name

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_zero_at_zero(self, dtype):
        drawn = arguments(dtype=dtype)
        drawn["x"].zero_()
        floor = math.sqrt(torch.finfo(dtype).tiny)
        assert (gm_layer(**drawn).abs() < 10 * floor).all()

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e-12])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_sigma_zero_is_a_relu_network(self, scale, dtype):
        drawn = arguments(dtype=dtype)
        drawn["sigma"].mul_(scale)
        expected = relu_network(*(drawn[name] for name in ("x", "mu", "U", "v")))
        accuracy = 10 * torch.finfo(dtype).eps
        assert_close(gm_layer(**drawn), expected, rtol=accuracy, atol=accuracy)

    def test_sigma_to_zero_tends_to_a_relu_network(self):
        drawn = arguments()
        sigma = drawn.pop("sigma")
        expected = relu_network(**drawn)
        distances = [
            (gm_layer(sigma=scale * sigma, **drawn) - expected).abs().max().item()
            for scale in (1.0, 1e-1, 1e-2, 1e-3)
        ]
        assert distances == sorted(distances, reverse=True)
        assert distances[0] > 0.1
        assert distances[-1] < 1e-5

    @pytest.mark.parametrize("scale", [1e-15, 1e15])
    def test_inputs_of_any_scale_in_float32(self, scale):
        drawn = arguments(dtype=torch.float32)
        expected = gm_layer(**drawn)
        drawn["x"].mul_(scale)
        assert_close(gm_layer(**drawn) / scale, expected)
        assert all(grad.isfinite().all() for grad in gradients(gm_layer, drawn).values())


class TestSymmetries:
    def test_order_of_components_is_immaterial(self):
        drawn = arguments(K=4)
        order = torch.tensor([2, 0, 3, 1])
        permuted = {n: t if n == "x" else t[order] for n, t in drawn.items()}
        assert_close(gm_layer(**permuted), gm_layer(**drawn), rtol=1e-12, atol=1e-12)
        grads, grads_permuted = gradients(gm_layer, drawn), gradients(gm_layer, permuted)
        for name in NAMES:
            expected = grads[name] if name == "x" else grads[name][order]
            assert_close(grads_permuted[name], expected, rtol=1e-12, atol=1e-12)

    def test_equal_components_act_as_one(self):
        one = arguments(K=1)
        three = {n: t if n == "x" else t.repeat(3, *[1] * (t.ndim - 1)) for n, t in one.items()}
        assert_close(gm_layer(**three), gm_layer(**one), rtol=1e-12, atol=1e-12)

    def test_sign_of_sigma_is_immaterial(self):
        drawn = arguments()
        flipped = drawn | {"sigma": -drawn["sigma"]}
        assert torch.equal(gm_layer(**flipped), gm_layer(**drawn))
        grads, grads_flipped = gradients(gm_layer, drawn), gradients(gm_layer, flipped)
        assert torch.equal(grads_flipped.pop("sigma"), -grads.pop("sigma"))
        assert all(torch.equal(grads_flipped[name], grads[name]) for name in grads)

    def test_linear_in_the_readout(self):
        one, two = arguments(), arguments(seed=1)
        total = one | {n: 1.7 * one[n] - 0.3 * two[n] for n in ("U", "v")}
        other = one | {n: two[n] for n in ("U", "v")}
        expected = 1.7 * gm_layer(**one) - 0.3 * gm_layer(**other)
        assert_close(gm_layer(**total), expected, rtol=1e-12, atol=1e-12)

    def test_positively_homogeneous_in_x(self):
        drawn = arguments()
        out = gm_layer(**drawn)
        drawn["x"] = 1.7 * drawn["x"]
        assert_close(gm_layer(**drawn), 1.7 * out, rtol=1e-12, atol=1e-12)


class TestShapes:
    @pytest.mark.parametrize(
        "leading", [(), (1,), (3,), (2, 3), (2, 1, 2), (0,), (2, 0, 3)], ids=str
    )
    def test_any_leading_shape(self, leading):
        equals_the_reference(leading)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("layout", ["reversed", "swapped", "strided", "expanded"])
    def test_any_memory_layout(self, name, layout):
        drawn = arguments()
        tensor = drawn[name]
        if layout == "reversed":
            tensor = tensor.permute(*reversed(range(tensor.ndim))).contiguous()
            tensor = tensor.permute(*reversed(range(tensor.ndim)))
        elif layout == "swapped":
            tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
        elif layout == "strided":
            tensor = tensor.repeat_interleave(2, -1)[..., ::2]
        else:
            tensor = tensor[:1].expand_as(tensor)
        assert not tensor.is_contiguous()
        drawn[name] = tensor
        copied = drawn | {name: tensor.contiguous()}
        assert_close(gm_layer(**drawn), gm_layer(**copied), rtol=1e-12, atol=1e-12)
        grads, expected = gradients(gm_layer, drawn), gradients(gm_layer, copied)
        for key in NAMES:
            assert_close(grads[key], expected[key], rtol=1e-12, atol=1e-12, msg=key)

    def test_leading_dimensions_that_no_view_can_join(self):
        drawn = arguments()
        x = arguments(B=6, seed=1)["x"].view(2, 3, 4)
        drawn["x"] = x.transpose(0, 1)
        expected = gm_layer(**(drawn | {"x": x})).transpose(0, 1)
        assert_close(gm_layer(**drawn), expected, rtol=1e-12, atol=1e-12)

    def test_gradient_of_an_expanded_output(self):
        # sum() hands the backward a gradient of stride zero
        leaves = list(arguments(requires_grad=NAMES).values())
        grads = torch.autograd.grad(gm_layer(*leaves).sum(), leaves)
        expected = torch.autograd.grad(reference(*leaves).sum(), leaves)
        for grad, plain in zip(grads, expected, strict=True):
            assert_close(grad, plain, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("x", (5, 3), r"x must have shape \(\.\.\., 4\), got \(5, 3\)"),
            ("x", (), r"x must have shape \(\.\.\., 4\), got \(\)"),
            ("mu", (2, 3), r"mu must have shape \(2, 4\).*got \(2, 3\)"),
            ("sigma", (4,), r"sigma must have shape \(2, 4\).*got \(4,\)"),
            ("U", (3, 4), r"U must have shape \(K, C, d\), none of them zero, got \(3, 4\)"),
            ("U", (2, 3, 5), r"to fit U of shape \(2, 3, 5\)"),
            ("v", (1, 3), r"v must have shape \(2, 3\).*got \(1, 3\)"),
        ],
    )
    @pytest.mark.parametrize("sampled", [False, True], ids=["exact", "sampled"])
    def test_refuses_shapes_that_do_not_fit(self, sampled, name, shape, message):
        drawn = arguments() | {name: torch.zeros(shape, dtype=torch.float64)}
        with pytest.raises(ValueError, match=message):
            gm_layer_monte_carlo(**drawn, num_samples=1) if sampled else gm_layer(**drawn)

    @pytest.mark.parametrize("name", NAMES)
    def test_refuses_mixed_dtypes(self, name):
        drawn = arguments()
        drawn[name] = drawn[name].float()
        with pytest.raises(TypeError, match=r"torch\.float(32|64) and torch\.float(32|64)"):
            gm_layer(**drawn)

    @pytest.mark.parametrize("sampled", [False, True])
    @pytest.mark.parametrize("name", NAMES)
    def test_refuses_what_is_no_tensor(self, name, sampled):
        drawn = {**arguments(), name: [1.0]}
        with pytest.raises(TypeError, match=f"^{name} must be a tensor, got list$"):
            gm_layer_monte_carlo(**drawn, num_samples=1) if sampled else gm_layer(**drawn)

    @pytest.mark.parametrize("name", ["m", "t"])
    def test_moments_refuse_what_is_no_tensor(self, name):
        with pytest.raises(TypeError, match=f"^{name} must be a tensor, got float$"):
            relu_moments(**{"m": torch.tensor(1.0), "t": torch.tensor(1.0), name: 1.0})

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
    def test_refuses_other_dtypes(self, dtype):
        with pytest.raises(TypeError, match=f"float32 or float64, got {dtype}"):
            gm_layer(**arguments(dtype=dtype))
