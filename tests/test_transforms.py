"""The layer under PyTorch's function transforms: vmap, jvp, jacobians, hessians."""

import copy
import functools
import warnings

import pytest
import torch
from derivatives import both_batches, energy, moment_energy, tangents_like
from draws import draw, moments
from kinds import ROLES, small_arguments
from module_checks import assert_all_close, outcome
from networks import make_layer, make_network
from torch.autograd import forward_ad
from torch.autograd.functional import hessian as classic_hessian
from torch.func import (
    functional_call,
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)
from torch.testing import assert_close
from torch.utils import checkpoint

from gmlib.functional import relu_moments

close = functools.partial(assert_all_close, rtol=1e-10, atol=1e-12)
EVERYTHING = tuple(range(5))


class TestVmap:
    def test_over_inputs(self, kind):
        network = make_network(kind)
        x = draw(5, 6)
        assert_close(vmap(network)(x), network(x), rtol=1e-12, atol=1e-12)
        x = draw(5, 3, 6)
        assert_close(vmap(network, in_dims=1, out_dims=1)(x), network(x), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("batch", [3, 9])
    @pytest.mark.parametrize("shared", [True, False], ids=["one batch", "a batch each"])
    def test_over_stacked_networks(self, kind, shared, batch):
        networks = [make_network(kind, seed=seed) for seed in range(3)]
        parameters, buffers = stack_module_state(networks)
        base = copy.deepcopy(networks[0]).to("meta")

        def call(parameters, x):
            return functional_call(base, (parameters, buffers), (x,))

        if shared:
            x = draw(batch, 6)
            out, each = vmap(call, (0, None))(parameters, x), [x] * 3
        else:
            each = draw(3, batch, 6)
            out = vmap(call)(parameters, each)
        singles = [outcome(network, x) for network, x in zip(networks, each, strict=True)]
        assert_all_close(out, [single[0] for single in singles], rtol=1e-10, atol=1e-12)

        weight = torch.linspace(-1.0, 2.0, out[0].numel(), dtype=out.dtype).view(out[0].shape)
        grads = torch.autograd.grad(out, list(parameters.values()), weight.expand_as(out))
        for run, (_, _, *expected) in enumerate(singles):
            assert_all_close([g[run] for g in grads], expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("inside", [True, False], ids=["vmap(grad)", "grad(vmap)"])
    def test_over_stacked_networks_without_a_loop(self, kind, inside):
        networks = [make_network(kind, seed=seed) for seed in range(3)]
        parameters, _ = stack_module_state(networks)
        x = draw(3, 9, 6)

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
    def test_grad(self, kind, B, C):
        inputs = small_arguments(kind, B, C, requires_grad=ROLES)
        expected = torch.autograd.grad(energy(kind)(*inputs), inputs)
        assert_all_close(grad(energy(kind), argnums=tuple(range(5)))(*inputs), expected)

    def test_gradients_by_example(self, kind):
        network = make_network(kind)
        parameters = dict(network.named_parameters())
        x, y = draw(5, 6), draw(5, 2, seed=2)

        def loss(parameters, x, y):
            return (functional_call(network, parameters, (x,)) - y).square().sum()

        by_example = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
        for i in range(5):
            single = torch.autograd.grad(loss(parameters, x[i], y[i]), list(parameters.values()))
            assert_all_close(
                [by_example[name][i] for name in parameters], single, rtol=1e-10, atol=1e-12
            )

    @both_batches
    def test_jacobians(self, kind, B, C):
        inputs = small_arguments(kind, B, C)
        everything = tuple(range(5))
        reverse = jacrev(kind.function, argnums=everything)(*inputs)
        forward = jacfwd(kind.function, argnums=everything)(*inputs)
        classic = torch.autograd.functional.jacobian(kind.function, inputs)
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

    @pytest.mark.parametrize("role", [*ROLES, "all"])
    @both_batches
    def test_jvp_equals_finite_differences(self, kind, B, C, role):
        inputs = small_arguments(kind, B, C)
        directions = [
            tangent if role in (of, "all") else torch.zeros_like(tangent)
            for of, tangent in zip(ROLES, tangents_like(inputs), strict=True)
        ]

        def along(step):
            moved = [x + step * dx for x, dx in zip(inputs, directions, strict=True)]
            return kind.function(*moved)

        out, tangent = jvp(kind.function, inputs, tuple(directions))
        h = 1e-4
        # The fourth-order rule: its error is of order h^4 and that of rounding / h.
        slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        assert torch.equal(out, kind.function(*inputs))
        assert_close(tangent, slope, rtol=1e-9, atol=1e-9)

    def test_jvp_of_a_network_equals_its_vjp(self, kind):
        network = make_network(kind)
        x = draw(4, 6)
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

    def test_vmap_of_jvp(self, kind):
        network = make_network(kind)
        x = draw(4, 6)
        (dx,) = tangents_like((x,))
        rows = vmap(lambda x, dx: jvp(network, (x,), (dx,)))(x, dx)
        assert_all_close(rows, jvp(network, (x,), (dx,)), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("gradients", [True, False], ids=["grad on", "no_grad"])
    @both_batches
    def test_hessian(self, kind, B, C, gradients):
        inputs = small_arguments(kind, B, C)
        expected = classic_hessian(energy(kind), inputs)
        everything = tuple(range(5))

        def reverse_over_forward(function, argnums):
            return jacrev(jacfwd(function, argnums), argnums)

        def reverse_over_reverse(function, argnums):
            return jacrev(jacrev(function, argnums), argnums)

        with torch.set_grad_enabled(gradients):
            for method in (hessian, reverse_over_forward, reverse_over_reverse):
                found = method(energy(kind), everything)(*inputs)
                for row, expected_row in zip(found, expected, strict=True):
                    assert_all_close(row, expected_row, rtol=1e-10, atol=1e-12)

    def test_hessian_of_relu_moments(self):
        found = hessian(moment_energy, (0, 1))(*moments())
        for row, expected in zip(found, classic_hessian(moment_energy, moments()), strict=True):
            assert_all_close(row, expected, rtol=1e-10, atol=1e-12)


class TestOtherTransforms:
    """The rest of what PyTorch documents."""

    def test_grad_and_value(self, kind):
        inputs = small_arguments(kind)
        grads, value = grad_and_value(energy(kind), EVERYTHING)(*inputs)
        assert_close(value, energy(kind)(*inputs))
        close(grads, grad(energy(kind), EVERYTHING)(*inputs))

    def test_vjp(self, kind):
        inputs = small_arguments(kind)
        out, pull = vjp(kind.function, *inputs)
        (weight,) = tangents_like((out,))
        leaves = [tensor.requires_grad_() for tensor in inputs]
        close(pull(weight), torch.autograd.grad(kind.function(*leaves), leaves, weight))

    @pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
    def test_linearize(self, kind):
        inputs = small_arguments(kind)
        out, push = linearize(kind.function, *inputs)
        for seed in (1, 2, 1):
            tangents = tangents_like(inputs, seed)
            close((out, push(*tangents)), jvp(kind.function, inputs, tangents))
        slope = grad(energy(kind))
        close(linearize(slope, *inputs)[1](*tangents)[None], jvp(slope, inputs, tangents)[1][None])

    @pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])
    def test_functionalize(self, kind, remove):
        network, x = make_network(kind), draw(9, 6)
        assert_close(functionalize(network, remove=remove)(x), network(x))
        slope = grad(lambda x: network(x).square().sum())
        assert_close(functionalize(slope, remove=remove)(x), slope(x))

    @pytest.mark.parametrize("chunk_size", [1, 2, 7])
    @pytest.mark.parametrize("randomness", ["error", "same", "different"])
    def test_vmap_in_chunks(self, kind, chunk_size, randomness):
        network, x = make_network(kind), draw(5, 3, 6)
        out = vmap(network, chunk_size=chunk_size, randomness=randomness)(x)
        close([out], [network(x)])

    @pytest.mark.parametrize("chunk_size", [None, 2])
    def test_jacrev_in_chunks(self, kind, chunk_size):
        inputs = small_arguments(kind)
        found = jacrev(kind.function, EVERYTHING, chunk_size=chunk_size)(*inputs)
        close(found, jacfwd(kind.function, EVERYTHING)(*inputs))

    def test_vmap_within_vmap_and_over_any_dimension(self, kind):
        network, x = make_network(kind), draw(5, 3, 6)
        close([vmap(vmap(network))(x)], [network(x)])
        close([vmap(network, in_dims=2, out_dims=-1)(x.movedim(0, 2))], [network(x).movedim(0, -1)])
        each = vmap(lambda given: {"out": network(given["x"])}, in_dims=({"x": 1},))({"x": x})
        close([each["out"]], [network(x).movedim(1, 0)])

    @pytest.mark.parametrize("role", EVERYTHING)
    def test_vmap_over_one_argument(self, kind, role):
        inputs = small_arguments(kind)
        stacked = torch.stack([inputs[role], 2.0 * inputs[role]])
        given = [stacked if index == role else tensor for index, tensor in enumerate(inputs)]
        dims = tuple(0 if index == role else None for index in EVERYTHING)
        found = vmap(kind.function, dims)(*given)
        for one, tensor in zip(found, stacked, strict=True):
            close([one], [kind.function(*inputs[:role], tensor, *inputs[role + 1 :])])


class TestAutogradFunctional:
    """`torch.autograd.functional`, which is older."""

    def test_products(self, kind):
        function, inputs = energy(kind), small_arguments(kind)
        vectors = tangents_like(inputs)
        whole = hessian(function, EVERYTHING)(*inputs)
        expected = [
            sum(
                (block.flatten(row.ndim) @ v.flatten()).view_as(row)
                for block, v in zip(blocks, vectors, strict=True)
            )
            for row, blocks in zip(inputs, whole, strict=True)
        ]
        close(torch.autograd.functional.hvp(function, inputs, vectors)[1], expected)
        close(torch.autograd.functional.vhp(function, inputs, vectors)[1], expected)
        tangent = jvp(function, inputs, vectors)[1]
        close([torch.autograd.functional.jvp(function, inputs, vectors)[1]], [tangent])
        close(
            torch.autograd.functional.vjp(function, inputs)[1], grad(function, EVERYTHING)(*inputs)
        )

    @pytest.mark.parametrize(
        "options",
        [
            {"vectorize": True},
            {"vectorize": True, "strategy": "forward-mode"},
            {"create_graph": True},
        ],
        ids=str,
    )
    def test_jacobian(self, kind, options):
        inputs = small_arguments(kind)
        found = torch.autograd.functional.jacobian(kind.function, inputs, **options)
        close(found, jacrev(kind.function, EVERYTHING)(*inputs))

    @pytest.mark.parametrize(
        "options",
        [{"vectorize": True}, {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}],
        ids=str,
    )
    def test_hessian(self, kind, options):
        inputs = small_arguments(kind)
        found = torch.autograd.functional.hessian(energy(kind), inputs, **options)
        for row, expected in zip(found, hessian(energy(kind), EVERYTHING)(*inputs), strict=True):
            close(row, expected)


class TestModules:
    def test_dual_parameters(self, kind):
        layer, x = make_layer(kind), draw(5, 4)
        names, primals = zip(*layer.named_parameters(), strict=True)
        tangents = tangents_like(primals)
        expected = jvp(
            lambda *p: functional_call(layer, dict(zip(names, p, strict=True)), (x,)),
            primals,
            tangents,
        )
        with forward_ad.dual_level():
            for name, primal, tangent in zip(names, primals, tangents, strict=True):
                delattr(layer, name)
                setattr(layer, name, forward_ad.make_dual(primal.detach(), tangent))
            found = forward_ad.unpack_dual(layer(x))
            close((found.primal, found.tangent), expected)

    @pytest.mark.parametrize("use_reentrant", [False, True])
    def test_checkpoints(self, kind, use_reentrant):
        network, x = make_network(kind), draw(9, 6)

        def checkpointed(x):
            return checkpoint.checkpoint(network, x, use_reentrant=use_reentrant)

        def sequential(x):
            return checkpoint.checkpoint_sequential(network, 3, x, use_reentrant=use_reentrant)

        expected = outcome(network, x)
        for function in (checkpointed, sequential):
            if use_reentrant:  # which works by `backward` alone
                network.zero_grad()
                x = x.detach().requires_grad_()
                out = function(x)
                weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view(out.shape)
                out.backward(weight)
                found = (out, x.grad, *(p.grad for p in network.parameters()))
            else:
                found = outcome(function, x, network.parameters())
            assert all(map(torch.equal, found, expected))

    def test_saved_tensors_through_hooks(self, kind):
        network, x = make_network(kind), draw(9, 6)
        expected = outcome(network, x)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), torch.from_numpy):
            found = outcome(network, x)
        assert all(map(torch.equal, found, expected))
