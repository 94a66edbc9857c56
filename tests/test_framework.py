"""What the layer promises to PyTorch: compilers, function transforms, autocast, devices."""

import copy
import shutil
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.functional import hessian as classic_hessian
from torch.autograd.functional import hvp
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vmap,
)
from torch.testing import assert_close

from gmlib import GaussianMixtureLayer, init
from gmlib.functional import gm_layer, relu_moments

NAMES = ("x", "mu", "sigma", "U", "v")
# The code multiplies in another order where the batch is smaller than the layer is wide.
BATCHES = {"B < C": (2, 3), "B >= C": (3, 2)}
SOME_INPUTS = [NAMES, ("mu", "v"), ("x",), ("sigma", "U"), ("x", "sigma")]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

both_batches = pytest.mark.parametrize(("B", "C"), BATCHES.values(), ids=BATCHES)
some_inputs = pytest.mark.parametrize("wanted", SOME_INPUTS, ids=",".join)
every_backend = pytest.mark.parametrize("backend", ["eager", "aot_eager"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def arguments(B=3, C=2, d=2, K=2, *, seed=0, requires_grad=()):
    """x, mu, sigma, U and v, drawn at random in float64."""
    shapes = {"x": (B, d), "mu": (K, d), "sigma": (K, d), "U": (K, C, d), "v": (K, C)}
    generator = seeded(seed)
    drawn = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return tuple(tensor.requires_grad_(name in requires_grad) for name, tensor in drawn.items())


def moments(*, requires_grad=()):
    """m (3, 6) and t (3, 1) for `relu_moments`, in float64."""
    z = torch.tensor([-6.0, -2.5, -0.3, 0.0, 0.4, 3.0], dtype=torch.float64)
    t = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64).unsqueeze(1)
    return (z * t).requires_grad_("m" in requires_grad), t.requires_grad_("t" in requires_grad)


def tangents_like(tensors, seed=1):
    generator = seeded(seed)
    return tuple(torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in tensors)


def energy(*inputs):
    return gm_layer(*inputs).square().sum()


def moment_energy(m, t):
    F, G = relu_moments(m, t)
    return (F.square() + F * G + G.square()).sum()


def make_network(dtype=torch.float64, seed=0):
    """GM layers between others; from 6 features to 2."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 5),
            GaussianMixtureLayer(5, 4, 3),
            nn.LayerNorm(4),
            nn.Tanh(),
            GaussianMixtureLayer(4, 7, 2),
            nn.Linear(7, 2),
        ).to(dtype)


def make_inputs(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def outcome(module, x, parameters=None):
    """Outputs, and the gradients of a weighting of them in `x` and the parameters."""
    x = x.detach().requires_grad_()
    parameters = list(module.parameters() if parameters is None else parameters)
    out = module(x)
    weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view(out.shape).to(out.device)
    return out.detach(), *torch.autograd.grad(out, [x, *parameters], weight)


def assert_all_close(actual, expected, **tolerances):
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, **tolerances)


class TestCompile:
    @pytest.fixture(autouse=True)
    def _fresh(self):
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    @every_backend
    def test_equals_eager_for_any_batch(self, backend):
        network = make_network()
        compiled = torch.compile(network, fullgraph=True, backend=backend)
        for batch in (9, 20):  # the second size has it compiled anew, for any
            x = make_inputs(batch, 6)
            assert_all_close(outcome(compiled, x), outcome(network, x), rtol=1e-10, atol=1e-12)
        with torch.compiler.set_stance("fail_on_recompile"):
            for batch in (3, 50):  # fewer than either layer is wide, and more
                x = make_inputs(batch, 6)
                assert_all_close(outcome(compiled, x), outcome(network, x), rtol=1e-10, atol=1e-12)

    @every_backend
    @pytest.mark.parametrize("leading", [(), (1,), (2, 3), (0,)], ids=str)
    def test_without_gradients_for_any_leading_shape(self, backend, leading):
        layer = make_network()[1]
        x = make_inputs(*leading, 5)
        with torch.no_grad():
            out = torch.compile(layer, fullgraph=True, backend=backend)(x)
            assert_close(out, layer(x), rtol=1e-12, atol=1e-12)

    @pytest.mark.skipif(
        not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler"
    )
    def test_to_machine_code(self):
        # One graph only: a C++ compiler takes its time.
        layer = make_network(torch.float32)[1]
        compiled = torch.compile(layer, fullgraph=True, dynamic=True)
        for batch in (9, 3):
            x = make_inputs(batch, 5, dtype=torch.float32)
            for found, expected in zip(outcome(compiled, x), outcome(layer, x), strict=True):
                # relative to the largest entry: single entries may cancel
                assert (found - expected).abs().max() < 1e-5 * expected.abs().max()

    @every_backend
    def test_under_autocast(self, backend):
        # GM layers last: a layer in bfloat16 behind them would turn rounding into steps.
        network = make_network(torch.float32)[:5]
        compiled = torch.compile(network, fullgraph=True, backend=backend)
        x = make_inputs(9, 6, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            (out, *grads), (expected, *expected_grads) = (
                outcome(module, x, network[4].parameters()) for module in (compiled, network)
            )
        assert out.dtype == torch.float32
        assert_close(out, expected, rtol=1e-5, atol=1e-5)
        for grad_, expected_grad in zip(grads[1:], expected_grads[1:], strict=True):
            assert grad_.dtype == torch.float32
            assert (grad_ - expected_grad).abs().max() < 1e-5 * expected_grad.abs().max()

    @every_backend
    def test_the_backward_under_autocast_is_in_float32(self, backend):
        layer = make_network(torch.float32)[4]
        compiled = torch.compile(layer, fullgraph=True, backend=backend)
        x = make_inputs(9, 4, dtype=torch.float32)
        expected = outcome(layer, x)
        with torch.autocast("cpu", torch.bfloat16):
            assert_all_close(outcome(compiled, x), expected, rtol=1e-4, atol=1e-5)

    @every_backend
    def test_relu_moments(self, backend):
        def both(function):
            m, t = moments(requires_grad=("m", "t"))
            F, G = function(m, t)
            return F, G, *torch.autograd.grad((F * F + G).sum(), (m, t))

        compiled = torch.compile(relu_moments, fullgraph=True, backend=backend)
        assert_all_close(both(compiled), both(relu_moments), rtol=1e-12, atol=1e-14)

    def test_with_a_gradient_inside(self):
        network = make_network()
        x = make_inputs(4, 6)
        slope = grad(lambda x: network(x).square().sum())
        compiled = torch.compile(slope, fullgraph=True, backend="eager")
        assert_close(compiled(x), slope(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_export_for_any_batch(strict):
    network = make_network()
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        network, (make_inputs(9, 6),), dynamic_shapes=({0: batch},), strict=strict
    )
    exported = program.module()
    for size in (1, 3, 9, 50):
        x = make_inputs(size, 6, seed=size)
        assert_close(exported(x), network(x), rtol=1e-12, atol=1e-12)


class TestVmap:
    def test_over_inputs(self):
        network = make_network()
        x = make_inputs(5, 6)
        assert_close(vmap(network)(x), network(x), rtol=1e-12, atol=1e-12)
        x = make_inputs(5, 3, 6)
        assert_close(vmap(network, in_dims=1, out_dims=1)(x), network(x), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("batch", [3, 9])
    @pytest.mark.parametrize("shared", [True, False], ids=["one batch", "a batch each"])
    def test_over_stacked_networks(self, shared, batch):
        networks = [make_network(seed=seed) for seed in range(3)]
        parameters, buffers = stack_module_state(networks)
        base = copy.deepcopy(networks[0]).to("meta")

        def call(parameters, x):
            return functional_call(base, (parameters, buffers), (x,))

        if shared:
            x = make_inputs(batch, 6)
            out, each = vmap(call, (0, None))(parameters, x), [x] * 3
        else:
            each = make_inputs(3, batch, 6)
            out = vmap(call)(parameters, each)
        singles = [outcome(network, x) for network, x in zip(networks, each, strict=True)]
        assert_all_close(out, [single[0] for single in singles], rtol=1e-10, atol=1e-12)

        weight = torch.linspace(-1.0, 2.0, out[0].numel(), dtype=out.dtype).view(out[0].shape)
        grads = torch.autograd.grad(out, list(parameters.values()), weight.expand_as(out))
        for run, (_, _, *expected) in enumerate(singles):
            assert_all_close([g[run] for g in grads], expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("inside", [True, False], ids=["vmap(grad)", "grad(vmap)"])
    def test_over_stacked_networks_without_a_loop(self, inside):
        networks = [make_network(seed=seed) for seed in range(3)]
        parameters, _ = stack_module_state(networks)
        x = make_inputs(3, 9, 6)

        def loss(parameters, x):
            return functional_call(networks[0], parameters, (x,)).square().sum()

        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PyTorch warns where it falls back to one
            if inside:
                parameters = {name: value.detach() for name, value in parameters.items()}
                vmap(grad(loss))(parameters, x)
            else:
                vmap(loss)(parameters, x).sum().backward()

    def test_relu_moments(self):
        m, t = moments()
        F, G = vmap(relu_moments)(m, t)
        assert_all_close((F, G), relu_moments(m, t), rtol=1e-14, atol=0)
        columns = vmap(relu_moments, in_dims=(1, None), out_dims=1)(m, t.squeeze(1))
        assert_all_close(columns, (F, G), rtol=1e-14, atol=0)


class TestTransforms:
    @both_batches
    def test_grad(self, B, C):
        inputs = arguments(B, C, requires_grad=NAMES)
        expected = torch.autograd.grad(energy(*inputs), inputs)
        assert_all_close(grad(energy, argnums=tuple(range(5)))(*inputs), expected)

    def test_gradients_by_example(self):
        network = make_network()
        parameters = dict(network.named_parameters())
        x, y = make_inputs(5, 6), make_inputs(5, 2, seed=2)

        def loss(parameters, x, y):
            return (functional_call(network, parameters, (x,)) - y).square().sum()

        by_example = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
        for i in range(5):
            single = torch.autograd.grad(loss(parameters, x[i], y[i]), list(parameters.values()))
            assert_all_close(
                [by_example[name][i] for name in parameters], single, rtol=1e-10, atol=1e-12
            )

    @both_batches
    def test_jacobians(self, B, C):
        inputs = arguments(B, C)
        everything = tuple(range(5))
        reverse = jacrev(gm_layer, argnums=everything)(*inputs)
        forward = jacfwd(gm_layer, argnums=everything)(*inputs)
        classic = torch.autograd.functional.jacobian(gm_layer, inputs)
        assert_all_close(reverse, classic, rtol=1e-12, atol=1e-12)
        assert_all_close(forward, classic, rtol=1e-12, atol=1e-12)

    def test_jacobians_of_relu_moments(self):
        for moment in (0, 1):
            reverse, forward = (
                jacobian(lambda m, t, moment=moment: relu_moments(m, t)[moment], argnums=(0, 1))(
                    *moments()
                )
                for jacobian in (jacrev, jacfwd)
            )
            assert_all_close(forward, reverse, rtol=1e-13, atol=1e-15)

    @pytest.mark.parametrize("name", [*NAMES, "all"])
    @both_batches
    def test_jvp_equals_finite_differences(self, B, C, name):
        inputs = arguments(B, C)
        directions = [
            tangent if name in (of, "all") else torch.zeros_like(tangent)
            for of, tangent in zip(NAMES, tangents_like(inputs), strict=True)
        ]

        def along(step):
            moved = [x + step * dx for x, dx in zip(inputs, directions, strict=True)]
            return gm_layer(*moved)

        out, tangent = jvp(gm_layer, inputs, tuple(directions))
        h = 1e-4
        # The fourth-order rule: its error is of order h^4 and that of rounding / h.
        slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        assert torch.equal(out, gm_layer(*inputs))
        assert_close(tangent, slope, rtol=1e-9, atol=1e-9)

    def test_jvp_of_a_network_equals_its_vjp(self):
        network = make_network()
        x = make_inputs(4, 6)
        parameters = dict(network.named_parameters())
        primals = tuple(p.detach() for p in parameters.values())

        def call(x, *values):
            return functional_call(network, dict(zip(parameters, values, strict=True)), (x,))

        tangents = tangents_like((x, *primals))
        out, tangent = jvp(call, (x, *primals), tangents)
        (weight,) = tangents_like((out,), seed=2)
        _, pull = torch.func.vjp(call, x, *primals)
        products = (g * dx for g, dx in zip(pull(weight), tangents, strict=True))
        assert_close((weight * tangent).sum(), sum(p.sum() for p in products), rtol=1e-10, atol=0)

    def test_vmap_of_jvp(self):
        network = make_network()
        x = make_inputs(4, 6)
        (dx,) = tangents_like((x,))
        rows = vmap(lambda x, dx: jvp(network, (x,), (dx,)))(x, dx)
        assert_all_close(rows, jvp(network, (x,), (dx,)), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("gradients", [True, False], ids=["grad on", "no_grad"])
    @both_batches
    def test_hessian(self, B, C, gradients):
        inputs = arguments(B, C)
        expected = classic_hessian(energy, inputs)
        everything = tuple(range(5))

        def reverse_over_forward(function, argnums):
            return jacrev(jacfwd(function, argnums), argnums)

        def reverse_over_reverse(function, argnums):
            return jacrev(jacrev(function, argnums), argnums)

        with torch.set_grad_enabled(gradients):
            for method in (hessian, reverse_over_forward, reverse_over_reverse):
                found = method(energy, everything)(*inputs)
                for row, expected_row in zip(found, expected, strict=True):
                    assert_all_close(row, expected_row, rtol=1e-10, atol=1e-12)

    def test_hessian_of_relu_moments(self):
        found = hessian(moment_energy, (0, 1))(*moments())
        for row, expected in zip(found, classic_hessian(moment_energy, moments()), strict=True):
            assert_all_close(row, expected, rtol=1e-10, atol=1e-12)


class TestDualNumbers:
    """Forward mode over a backward of which no graph is kept.

    What the forward saved is constant to it, and a backward that relied on that would be wrong.
    """

    @staticmethod
    def hessian_vector(function, inputs, tangents):
        leaves = tuple(tensor.detach().requires_grad_() for tensor in inputs)
        with forward_ad.dual_level():
            duals = [
                leaf if tangent is None else forward_ad.make_dual(leaf, tangent)
                for leaf, tangent in zip(leaves, tangents, strict=True)
            ]
            grads = torch.autograd.grad(function(*duals), duals)
            found = [forward_ad.unpack_dual(g).tangent for g in grads]
        return [torch.zeros_like(x) if h is None else h for h, x in zip(found, inputs, strict=True)]

    def check(self, function, inputs, tangents):
        found = self.hessian_vector(function, inputs, tangents)
        vector = tuple(
            torch.zeros_like(x) if dx is None else dx
            for x, dx in zip(inputs, tangents, strict=True)
        )
        _, expected = hvp(function, inputs, vector)
        assert any(h.abs().max() > 1e-3 for h in expected)
        assert_all_close(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("name", [*NAMES, "all"])
    @both_batches
    def test_forward_over_reverse(self, B, C, name):
        inputs = arguments(B, C)
        tangents = [
            tangent if name in (of, "all") else None
            for of, tangent in zip(NAMES, tangents_like(inputs), strict=True)
        ]
        self.check(energy, inputs, tangents)

    @pytest.mark.parametrize("wanted", ["m", "t", "both"])
    def test_forward_over_reverse_of_relu_moments(self, wanted):
        m, t = moments()
        away = m.abs().min(0).values > 0
        m, t = m[:, away], t
        dm, dt = tangents_like((m, t))
        self.check(
            moment_energy, (m, t), (None if wanted == "t" else dm, None if wanted == "m" else dt)
        )

    def test_forward_over_reverse_of_relu_moments_at_zero(self):
        inputs = (torch.zeros(3).double(), torch.tensor([0.3, 1.0, 2.0]).double())
        self.check(moment_energy, inputs, tangents_like(inputs))

    def test_forward_over_reverse_where_mu_is_zero(self):
        x, mu, *rest = arguments()
        inputs = (x, torch.zeros_like(mu), *rest)
        self.check(energy, inputs, tangents_like(inputs))

    @pytest.mark.parametrize("name", NAMES)
    @both_batches
    def test_reverse_over_forward(self, B, C, name):
        inputs = arguments(B, C)
        index = NAMES.index(name)
        leaf = inputs[index].detach().requires_grad_()
        (direction,) = tangents_like((leaf,))

        def function(tensor):
            return energy(*inputs[:index], tensor, *inputs[index + 1 :])

        with forward_ad.dual_level():
            slope = forward_ad.unpack_dual(function(forward_ad.make_dual(leaf, direction))).tangent
        (found,) = torch.autograd.grad(slope, leaf)
        _, expected = hvp(function, inputs[index], direction)
        assert_close(found, expected, rtol=1e-10, atol=1e-12)

    def test_of_a_network(self):
        network = make_network()
        x = make_inputs(3, 6)

        def function(x):
            return network(x).square().sum()

        self.check(function, (x,), tangents_like((x,)))


class TestGradcheck:
    @some_inputs
    @both_batches
    def test_layer(self, B, C, wanted):
        assert gradcheck(
            gm_layer,
            arguments(B, C, requires_grad=wanted),
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
        )

    @some_inputs
    @both_batches
    def test_layer_twice(self, B, C, wanted):
        inputs = arguments(B, C, requires_grad=wanted)
        assert gradgradcheck(gm_layer, inputs, check_fwd_over_rev=True, check_batched_grad=True)

    @pytest.mark.parametrize("wanted", ["m", "t", "mt"])
    def test_relu_moments(self, wanted):
        inputs = moments(requires_grad=wanted)
        assert gradcheck(
            relu_moments,
            inputs,
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
        )
        assert gradgradcheck(relu_moments, inputs, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
class TestAutocast:
    @pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
    @pytest.mark.parametrize("batch", [2, 9])
    def test_changes_no_bit_of_a_float32_result(self, low, batch, inside):
        layer = make_network(torch.float32)[1]
        x = make_inputs(batch, 5, dtype=torch.float32).requires_grad_()
        leaves = [x, *layer.parameters()]
        expected = layer(x)
        expected_grads = torch.autograd.grad(expected.square().sum(), leaves)
        with torch.autocast("cpu", low):
            out = layer(x)
            loss = out.square().sum()
            if inside:
                grads = torch.autograd.grad(loss, leaves)
        if not inside:
            grads = torch.autograd.grad(loss, leaves)
        assert out.dtype == torch.float32
        assert torch.equal(out, expected)
        assert all(map(torch.equal, grads, expected_grads))
        assert {g.dtype for g in grads} == {torch.float32}

    @pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
    def test_between_layers_that_it_casts(self, low, inside):
        network = make_network(torch.float32)
        x = make_inputs(9, 6, dtype=torch.float32)
        seen = []
        network[1].register_forward_hook(lambda _, args, out: seen.append((*args, out)))
        with torch.autocast("cpu", low):
            out = network(x)
            if inside:
                out.float().square().sum().backward()
        if not inside:
            out.float().square().sum().backward()
        ((given, returned),) = seen
        assert (given.dtype, returned.dtype, out.dtype) == (low, torch.float32, low)
        assert torch.equal(returned, network[1](given.float()))
        assert {p.grad.dtype for p in network.parameters()} == {torch.float32}
        found = [p.grad.clone() for p in network.parameters()]
        network.zero_grad()
        network(x).square().sum().backward()
        for grad_, p in zip(found, network.parameters(), strict=True):
            assert (grad_ - p.grad).norm() < 0.05 * p.grad.norm()

    def test_leaves_float64_alone(self, low):
        layer = make_network()[1]
        x = make_inputs(9, 5)
        with torch.autocast("cpu", low):
            assert torch.equal(layer(x), layer(x.clone()))
            assert layer(x).dtype == torch.float64
        with torch.autocast("cpu", low), pytest.raises(TypeError, match="x and mu must share"):
            layer(x.float())

    def test_is_needed_for_other_inputs(self, low):
        layer = make_network(torch.float32)[1]
        with pytest.raises(TypeError, match=f"^x must be float32 or float64, got {low}$"):
            layer(make_inputs(9, 5, dtype=low))

    def test_second_derivatives(self, low):
        layer = make_network(torch.float32)[1]
        x = make_inputs(9, 5, dtype=torch.float32).requires_grad_()
        leaves = [x, layer.mu, layer.sigma, layer.U]
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        expected = torch.autograd.grad(slope.square().sum(), leaves)
        with torch.autocast("cpu", low):
            (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        found = torch.autograd.grad(slope.square().sum(), leaves)
        assert all(map(torch.equal, found, expected))


class TestMeta:
    @pytest.mark.parametrize("leading", [(), (0,), (3,), (9,), (2, 3)], ids=str)
    def test_shapes(self, leading):
        with torch.device("meta"):
            layer = GaussianMixtureLayer(5, 4, 3)
            x = torch.empty(*leading, 5, requires_grad=True)
        out = layer(x)
        out.sum().backward()
        assert (out.device.type, out.shape) == ("meta", (*leading, 4))
        for tensor in (x, *layer.parameters()):
            assert (tensor.grad.device.type, tensor.grad.shape) == ("meta", tensor.shape)

    def test_of_relu_moments(self):
        F, G = relu_moments(torch.empty(3, 1, device="meta"), torch.empty(2, device="meta"))
        assert F.shape == G.shape == (3, 2)

    def test_a_network_made_real(self):
        network = make_network(torch.float32).to("meta")
        assert network(torch.empty(9, 6, device="meta")).shape == (9, 2)
        network.to_empty(device="cpu")
        for layer in network:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        report = init.kumar_(network, make_inputs(64, 6, dtype=torch.float32))
        assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-4)


def test_activation_checkpointing():
    network = make_network()

    def checkpointed(x):
        return torch.utils.checkpoint.checkpoint(network, x, use_reentrant=False)

    x = make_inputs(9, 6)
    expected = outcome(network, x)
    for one, other in zip(outcome(checkpointed, x, network.parameters()), expected, strict=True):
        assert torch.equal(one, other)


def test_a_parametrized_sigma():
    layer = GaussianMixtureLayer(5, 4, 3)
    nn.utils.parametrize.register_parametrization(layer, "sigma", nn.Softplus())
    x = make_inputs(9, 5, dtype=torch.float32)
    layer(x).sum().backward()
    raw = layer.parametrizations.sigma.original
    assert torch.equal(layer(x), gm_layer(x, layer.mu, layer.sigma, layer.U, layer.v))
    assert raw.grad.isfinite().all()
    assert raw.grad.abs().max() > 0


@CUDA
class TestCUDA:
    @pytest.mark.parametrize("batch", [3, 9])
    @pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
    def test_equals_the_cpu(self, dtype, accuracy, batch):
        network = make_network(dtype)
        twin = copy.deepcopy(network).to("cuda")
        x = make_inputs(batch, 6, dtype=dtype)
        expected, found = outcome(network, x), outcome(twin, x.to("cuda"))
        for one, other in zip(found, expected, strict=True):
            assert one.device.type == "cuda"
            # relative to the largest entry: single entries may cancel
            assert (one.cpu() - other).abs().max() < accuracy * other.abs().max()

    def test_large_layer_equals_the_cpu(self):
        layer = GaussianMixtureLayer(784, 100, 10)
        layer.reset_parameters(0.05, generator=seeded())
        x = make_inputs(3000, 784, dtype=torch.float32)  # several blocks
        expected = outcome(layer.double(), x.double())
        found = outcome(layer.float().to("cuda"), x.to("cuda"))
        for one, other in zip(found, expected, strict=True):
            assert (one.cpu() - other).abs().max() < 1e-4 * other.abs().max()

    def test_calibration(self):
        network = make_network(torch.float32)
        twin = copy.deepcopy(network).to("cuda")
        x = make_inputs(256, 6, dtype=torch.float32)
        expected, found = init.calibrate_(network, x), init.calibrate_(twin, x.to("cuda"))
        for one, other in zip(found, expected, strict=True):
            assert one.name == other.name
            assert one.std_before == pytest.approx(other.std_before, rel=1e-4)
            assert one.scale == pytest.approx(other.scale, rel=1e-4)
            assert one.std_after == pytest.approx(0.5, rel=1e-5)
        report = init.kumar_(twin, x.to("cuda"))
        assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-5)

    @pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
    def test_autocast(self, low):
        layer = make_network(torch.float32)[1].to("cuda")
        x = make_inputs(9, 5, dtype=torch.float32).to("cuda")
        expected = outcome(layer, x)
        with torch.autocast("cuda", low):
            found = outcome(layer, x)
            assert layer(x.to(low)).dtype == torch.float32
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)

    def test_over_stacked_networks(self):
        networks = [make_network(torch.float32, seed).to("cuda") for seed in range(3)]
        parameters, _ = stack_module_state(networks)
        x = make_inputs(3, 9, 6, dtype=torch.float32).to("cuda")
        out = vmap(lambda p, x: functional_call(networks[0], p, (x,)))(parameters, x)
        out.square().sum().backward()
        for run, network in enumerate(networks):
            single = network(x[run])
            single.square().sum().backward()
            assert_close(out[run], single, rtol=1e-4, atol=1e-5)
            for name, parameter in network.named_parameters():
                found = parameters[name].grad[run]
                error = (found - parameter.grad).abs().max()
                assert error < 1e-4 * parameter.grad.abs().max(), name
