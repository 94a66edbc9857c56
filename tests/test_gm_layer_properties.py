"""What holds of the layer's formula, and arguments of all shapes."""

import dataclasses
import functools
import math
import re

import pytest
import torch
from closed_form import equals_the_reference, gradients
from kinds import AFFINE, KINDS, ROLES, arguments
from torch.testing import assert_close

from gmlib.functional import gm_layer_monte_carlo


def relu_network(x, mu, U, v):
    """What is left of the layer when the clouds have shrunk to K neurons."""
    readout = torch.einsum("kcd,kd->kc", U, mu) + v
    return torch.relu(x @ mu.T) @ readout / len(mu)


# The estimate takes what the affine layer takes.
SAMPLED = dataclasses.replace(
    AFFINE, function=functools.partial(gm_layer_monte_carlo, num_samples=1)
)
with_sampled = pytest.mark.parametrize(
    "kind", [*KINDS.values(), SAMPLED], ids=[*KINDS, "affine, sampled"]
)


class TestDegenerate:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("zero", [("x",), ("sigma",), ("x", "sigma"), ("mu", "sigma"), ROLES])
    def test_gradients_are_finite(self, kind, zero, dtype):
        drawn = arguments(kind, dtype=dtype)
        for role in zero:
            drawn[kind.names[role]].zero_()
        for name, grad in gradients(kind.function, drawn).items():
            assert grad.isfinite().all(), name

    @pytest.mark.parametrize("zero", ["x", "sigma"])
    def test_large_readouts_keep_gradients_finite(self, kind, zero):
        # 1 / t^2 at an unfloored t would overflow in float32
        drawn = arguments(kind, dtype=torch.float32)
        drawn[zero].zero_()
        for name in kind.readout:
            drawn[name].mul_(1e4)
        for name, grad in gradients(kind.function, drawn).items():
            assert grad.isfinite().all(), name

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_zero_at_zero(self, kind, dtype):
        drawn = arguments(kind, dtype=dtype)
        drawn["x"].zero_()
        floor = math.sqrt(torch.finfo(dtype).tiny)
        assert (kind.function(**drawn).abs() < 10 * floor).all()

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e-12])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_sigma_zero_is_a_relu_network(self, kind, scale, dtype):
        affine = arguments(AFFINE, dtype=dtype)
        affine["sigma"].mul_(scale)
        expected = relu_network(*(affine[name] for name in ("x", "mu", "U", "v")))
        accuracy = 10 * torch.finfo(dtype).eps
        out = kind.function(**kind.own(affine))
        assert_close(out, expected, rtol=accuracy, atol=accuracy)

    def test_sigma_to_zero_tends_to_a_relu_network(self, kind):
        affine = arguments(AFFINE)
        sigma = affine["sigma"]
        expected = relu_network(**{name: affine[name] for name in ("x", "mu", "U", "v")})
        distances = [
            (kind.function(**kind.own(affine | {"sigma": scale * sigma})) - expected)
            .abs()
            .max()
            .item()
            for scale in (1.0, 1e-1, 1e-2, 1e-3)
        ]
        assert distances == sorted(distances, reverse=True)
        assert distances[0] > 0.1
        assert distances[-1] < 1e-5

    @pytest.mark.parametrize("scale", [1e-15, 1e15])
    def test_inputs_of_any_scale_in_float32(self, kind, scale):
        drawn = arguments(kind, dtype=torch.float32)
        expected = kind.function(**drawn)
        drawn["x"].mul_(scale)
        assert_close(kind.function(**drawn) / scale, expected)
        assert all(grad.isfinite().all() for grad in gradients(kind.function, drawn).values())


class TestSymmetries:
    def test_order_of_components_is_immaterial(self, kind):
        drawn = arguments(kind, K=4)
        order = torch.tensor([2, 0, 3, 1])
        permuted = {n: t if n == "x" else t[order] for n, t in drawn.items()}
        assert_close(kind.function(**permuted), kind.function(**drawn), rtol=1e-12, atol=1e-12)
        grads, grads_permuted = gradients(kind.function, drawn), gradients(kind.function, permuted)
        for name in drawn:
            expected = grads[name] if name == "x" else grads[name][order]
            assert_close(grads_permuted[name], expected, rtol=1e-12, atol=1e-12)

    def test_equal_components_act_as_one(self, kind):
        one = arguments(AFFINE, K=1)
        three = {n: t if n == "x" else t.repeat(3, *[1] * (t.ndim - 1)) for n, t in one.items()}
        outputs = (kind.function(**kind.own(affine)) for affine in (three, one))
        assert_close(*outputs, rtol=1e-12, atol=1e-12)

    def test_sign_of_sigma_is_immaterial(self, kind):
        drawn = arguments(kind)
        flipped = drawn | {"sigma": -drawn["sigma"]}
        assert torch.equal(kind.function(**flipped), kind.function(**drawn))
        grads, grads_flipped = gradients(kind.function, drawn), gradients(kind.function, flipped)
        assert torch.equal(grads_flipped.pop("sigma"), -grads.pop("sigma"))
        assert all(torch.equal(grads_flipped[name], grads[name]) for name in grads)

    def test_linear_in_the_readout(self, kind):
        one, two = arguments(kind), arguments(kind, seed=1)
        total = one | {n: 1.7 * one[n] - 0.3 * two[n] for n in kind.readout}
        other = one | {n: two[n] for n in kind.readout}
        expected = 1.7 * kind.function(**one) - 0.3 * kind.function(**other)
        assert_close(kind.function(**total), expected, rtol=1e-12, atol=1e-12)

    def test_positively_homogeneous_in_x(self, kind):
        drawn = arguments(kind)
        out = kind.function(**drawn)
        drawn["x"] = 1.7 * drawn["x"]
        assert_close(kind.function(**drawn), 1.7 * out, rtol=1e-12, atol=1e-12)


class TestShapes:
    @pytest.mark.parametrize(
        "leading", [(), (1,), (3,), (2, 3), (2, 1, 2), (0,), (2, 0, 3)], ids=str
    )
    def test_any_leading_shape(self, kind, leading):
        equals_the_reference(kind, leading)

    @pytest.mark.parametrize("role", ROLES)
    @pytest.mark.parametrize("layout", ["reversed", "swapped", "strided", "expanded"])
    def test_any_memory_layout(self, kind, role, layout):
        drawn, name = arguments(kind), kind.names[role]
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
        assert_close(kind.function(**drawn), kind.function(**copied), rtol=1e-12, atol=1e-12)
        grads, expected = gradients(kind.function, drawn), gradients(kind.function, copied)
        for key in drawn:
            assert_close(grads[key], expected[key], rtol=1e-12, atol=1e-12, msg=key)

    def test_leading_dimensions_that_no_view_can_join(self, kind):
        drawn = arguments(kind)
        x = arguments(kind, B=6, seed=1)["x"].view(2, 3, 4)
        drawn["x"] = x.transpose(0, 1)
        expected = kind.function(**(drawn | {"x": x})).transpose(0, 1)
        assert_close(kind.function(**drawn), expected, rtol=1e-12, atol=1e-12)

    def test_gradient_of_an_expanded_output(self, kind):
        # sum() hands the backward a gradient of stride zero
        leaves = list(arguments(kind, requires_grad=ROLES).values())
        grads = torch.autograd.grad(kind.function(*leaves).sum(), leaves)
        expected = torch.autograd.grad(kind.reference(*leaves).sum(), leaves)
        for grad, plain in zip(grads, expected, strict=True):
            assert_close(grad, plain, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(
        ("role", "shape", "message"),
        [
            ("x", (5, 3), "x must have shape (..., 4), got (5, 3)"),
            ("x", (), "x must have shape (..., 4), got ()"),
            ("mu", (2, 3), "mu must have shape (2, 4) to fit {weights} of shape (2, 3, 4), got"),
            (
                "sigma",
                (4,),
                "sigma must have shape (2, 4) to fit {weights} of shape (2, 3, 4), got",
            ),
            (
                "weights",
                (3, 4),
                "{weights} must have shape (K, C, d), none of them zero, got (3, 4)",
            ),
            ("weights", (2, 3, 5), "to fit {weights} of shape (2, 3, 5)"),
            ("offsets", (1, 3), "{offsets} must have shape (2, 3) to fit {weights} of shape"),
        ],
    )
    @with_sampled
    def test_refuses_shapes_that_do_not_fit(self, kind, role, shape, message):
        name = kind.names[role]
        drawn = arguments(kind) | {name: torch.zeros(shape, dtype=torch.float64)}
        with pytest.raises(ValueError, match=re.escape(message.format(**kind.names))):
            kind.function(**drawn)

    @pytest.mark.parametrize("role", ROLES)
    def test_refuses_mixed_dtypes(self, kind, role):
        drawn, name = arguments(kind), kind.names[role]
        drawn[name] = drawn[name].float()
        with pytest.raises(TypeError, match=r"torch\.float(32|64) and torch\.float(32|64)"):
            kind.function(**drawn)

    @with_sampled
    @pytest.mark.parametrize("role", ROLES)
    def test_refuses_what_is_no_tensor(self, kind, role):
        name = kind.names[role]
        drawn = {**arguments(kind), name: [1.0]}
        with pytest.raises(TypeError, match=f"^{name} must be a tensor, got list$"):
            kind.function(**drawn)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.complex128, torch.float8_e5m2])
    def test_refuses_other_dtypes(self, kind, dtype):
        with pytest.raises(TypeError, match=f"float32 or float64, got {dtype}"):
            kind.function(**arguments(kind, dtype=dtype))
