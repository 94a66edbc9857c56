"""What holds of the layer's formula, and arguments of all shapes."""

import math

import pytest
import torch
from closed_form import equals_the_reference, gradients, reference
from draws import NAMES, arguments
from torch.testing import assert_close

from gmlib.functional import gm_layer, gm_layer_monte_carlo


def relu_network(x, mu, U, v):
    """What is left of the layer when the clouds have shrunk to K neurons."""
    readout = torch.einsum("kcd,kd->kc", U, mu) + v
    return torch.relu(x @ mu.T) @ readout / len(mu)


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

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
    def test_refuses_other_dtypes(self, dtype):
        with pytest.raises(TypeError, match=f"float32 or float64, got {dtype}"):
            gm_layer(**arguments(dtype=dtype))
