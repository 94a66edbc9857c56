"""Derivatives of every order and mode, in any layout and of any shape."""

import pytest
import torch
from derivatives import both_batches, check_derivatives, energy, moment_energy, tangents_like
from draws import draw, moments
from kinds import ROLES, small_arguments
from module_checks import assert_all_close
from networks import make_network
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.functional import hvp
from torch.testing import assert_close

from gmlib.functional import relu_moments

SOME_INPUTS = [ROLES, ("mu", "offsets"), ("x",), ("sigma", "weights"), ("x", "sigma")]
some_inputs = pytest.mark.parametrize("wanted", SOME_INPUTS, ids=",".join)


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

    @pytest.mark.parametrize("role", [*ROLES, "all"])
    @both_batches
    def test_forward_over_reverse(self, kind, B, C, role):
        inputs = small_arguments(kind, B, C)
        tangents = [
            tangent if role in (of, "all") else None
            for of, tangent in zip(ROLES, tangents_like(inputs), strict=True)
        ]
        self.check(energy(kind), inputs, tangents)

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

    def test_forward_over_reverse_where_mu_is_zero(self, kind):
        x, mu, *rest = small_arguments(kind)
        inputs = (x, torch.zeros_like(mu), *rest)
        self.check(energy(kind), inputs, tangents_like(inputs))

    @pytest.mark.parametrize("role", ROLES)
    @both_batches
    def test_reverse_over_forward(self, kind, B, C, role):
        inputs = small_arguments(kind, B, C)
        index = ROLES.index(role)
        leaf = inputs[index].detach().requires_grad_()
        (direction,) = tangents_like((leaf,))

        def function(tensor):
            return energy(kind)(*inputs[:index], tensor, *inputs[index + 1 :])

        with forward_ad.dual_level():
            slope = forward_ad.unpack_dual(function(forward_ad.make_dual(leaf, direction))).tangent
        (found,) = torch.autograd.grad(slope, leaf)
        _, expected = hvp(function, inputs[index], direction)
        assert_close(found, expected, rtol=1e-10, atol=1e-12)

    def test_of_a_network(self, kind):
        network = make_network(kind)
        x = draw(3, 6)

        def function(x):
            return network(x).square().sum()

        self.check(function, (x,), tangents_like((x,)))


class TestGradcheck:
    @some_inputs
    @both_batches
    def test_layer(self, kind, B, C, wanted):
        assert gradcheck(
            kind.function,
            small_arguments(kind, B, C, requires_grad=wanted),
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
        )

    @some_inputs
    @both_batches
    def test_layer_twice(self, kind, B, C, wanted):
        inputs = small_arguments(kind, B, C, requires_grad=wanted)
        assert gradgradcheck(
            kind.function, inputs, check_fwd_over_rev=True, check_batched_grad=True
        )

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


LAYOUTS = {
    "permuted": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "expanded": lambda t: t[:1].expand_as(t),
}


class TestDerivatives:
    @pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
    def test_in_any_layout(self, kind, layout):
        # of the output too, so that the backward is handed gradients of such strides
        def function(*inputs):
            moved = [layout(tensor) for tensor in inputs]
            assert not any(tensor.is_contiguous() for tensor in moved)
            return layout(kind.function(*moved))

        check_derivatives(function, small_arguments(kind))

    @pytest.mark.parametrize("leading", [(), (0,), (2, 0), (2, 2)], ids=str)
    def test_for_any_leading_shape(self, kind, leading):
        _, *parameters = small_arguments(kind)
        check_derivatives(kind.function, (draw(*leading, 2), *parameters))

    @pytest.mark.parametrize("shape", [(), (0,), (2, 0)], ids=str)
    def test_of_relu_moments_of_one_and_of_none(self, shape):
        m, t = draw(*shape), draw(*shape, seed=2).abs()
        check_derivatives(relu_moments, (m, t))
