"""The closed form at the ends of what numbers can be: against fifty digits, and on anything finite.

A few hundred examples and a few thousand points are tried by default, a hundred thousand and a
million under ``--torture``.
"""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmlib import GaussianMixtureLayer
from gmlib.functional import gm_layer, relu_moments

DTYPES = [torch.float32, torch.float64]
PRECISIONS = {torch.float32: "single", torch.float64: "double"}
SIDES = ("z ≥ −5", "z < −5")


def grid(dtype, count):
    """Means and deviations, the deviations from 1e-30 to 1e30, z from -38 to 38."""
    generator = torch.Generator().manual_seed(0)
    z = 76.0 * torch.rand(count, generator=generator, dtype=torch.float64) - 38.0
    z[: count // 4] /= 16.0
    z[: count // 20] *= 1e-8
    z = torch.cat([z, torch.arange(-38.0, 38.5, 0.5)])
    t = 10.0 ** (60.0 * torch.rand(len(z), generator=generator, dtype=torch.float64) - 30.0)
    return (z * t).to(dtype), t.to(dtype)


def in_ulps(found, exact, dtype, lost):
    """Distance in units of the last place of the exact value, less what may be lost before."""
    _, exponent = mpmath.frexp(exact)
    ulp = mpmath.ldexp(torch.finfo(dtype).eps, exponent - 1)
    return float(max(abs(found - exact) - lost, 0) / ulp)


def worst_errors(dtype, count):
    """Largest errors of F, G and their slopes, in ulp beyond what the rounding of z costs.

    Where F / t, G or phi(z), from which the value comes, or the value itself is below the smallest
    normal number, so much does not count: for z below -13 in single precision, and -37 in double.
    """
    m, t = (tensor.requires_grad_() for tensor in grid(dtype, count))
    F, G = relu_moments(m, t)
    slopes = [*torch.autograd.grad(F.sum(), (m, t), retain_graph=True)]
    slopes += torch.autograd.grad(G.sum(), (m, t))
    names = ("F", "G", "dF/dm", "dF/dt", "dG/dm", "dG/dt")
    worst = {(name, side): 0.0 for name in names for side in SIDES}
    half, tiny = 0.5 * torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    columns = [column.tolist() for column in (m, t, F, G, *slopes)]
    with mpmath.workdps(50):
        for m_i, t_i, *found in zip(*columns, strict=True):
            z = mpmath.mpf(m_i) / t_i
            Phi, phi = mpmath.ncdf(z), mpmath.npdf(z)
            F_i = m_i * Phi + t_i * phi
            # Each with how it changes with the relative size of z, and the unit it is computed in.
            exact = (
                (F_i, abs(m_i) * Phi, t_i),
                (Phi, abs(z) * phi, 1),
                (Phi, abs(z) * phi, 1),
                (phi, z**2 * phi, 1),
                (phi / t_i, z**2 * phi / t_i, 1 / t_i),
                (-z * phi / t_i, abs(z) * abs(1 - z**2) * phi / t_i, max(abs(z), 1) / t_i),
            )
            for name, value, (wanted, by_z, scale) in zip(names, found, exact, strict=True):
                if wanted:
                    small = (unit for unit in (scale, 1) if abs(wanted) < tiny * unit)
                    lost = half * by_z + tiny * sum(small)
                    error = in_ulps(value, wanted, dtype, lost)
                    worst[name, SIDES[z < -5]] = max(worst[name, SIDES[z < -5]], error)
    return worst


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_slopes_to_the_last_digits(dtype, torture, measured):
    count = 1_000_000 if torture else 4_000
    worst = worst_errors(dtype, count)
    for (name, side), error in worst.items():
        measured("ulps", f"{name}, {side}, {PRECISIONS[dtype]}", round(error, 2))
    measured("numbers", f"points against fifty digits, {PRECISIONS[dtype]} precision", count)
    assert max(worst.values()) <= 5.0


# --- Anything finite -----------------------------------------------------------------------------


def finite(dtype, largest=None):
    """Numbers of a dtype, the subnormal ones among them."""
    width = 32 if dtype == torch.float32 else 64
    bounds = {} if largest is None else {"min_value": -largest, "max_value": largest}
    return st.floats(width=width, allow_nan=False, allow_infinity=False, **bounds)


@st.composite
def moments_input(draw):
    dtype = draw(st.sampled_from(DTYPES))
    largest = torch.finfo(dtype).max / 4  # F itself has to be a number
    size = draw(st.integers(1, 4))
    numbers = finite(dtype, largest)
    m = draw(st.lists(numbers, min_size=size, max_size=size))
    t = draw(st.lists(numbers.map(abs), min_size=size, max_size=size))
    return torch.tensor(m, dtype=dtype), torch.tensor(t, dtype=dtype)


@given(moments_input())
def test_moments_of_anything_are_numbers_in_their_range(measured, inputs):
    m, t = (tensor.requires_grad_() for tensor in inputs)
    F, G = relu_moments(m, t)
    assert torch.isfinite(F).all()
    assert (m.clamp_min(0.0) <= F).all()  # and so never negative
    assert ((G >= 0) & (G <= 1)).all()
    (F.sum() + G.sum()).backward()
    assert torch.isfinite(m.grad).all()
    assert torch.isfinite(t.grad).all()
    measured.add("anything", "moments of any numbers: finite, F ≥ relu(m), 0 ≤ G ≤ 1")


@given(moments_input(), st.data())
def test_moments_grow_with_the_mean_and_the_deviation(measured, inputs, data):
    (m, t) = inputs
    index = data.draw(st.integers(0, len(m) - 1))
    eps = torch.finfo(m.dtype).eps
    larger = torch.stack([m[index], m.max()]), torch.stack([t[index], t[index]])
    F, G = relu_moments(*larger)
    assert F[1] >= F[0] * (1 - 4 * eps)
    assert G[1] >= G[0] * (1 - 4 * eps)
    F, _ = relu_moments(torch.stack([m[index], m[index]]), torch.stack([t.min(), t.max()]))
    assert F[1] >= F[0] * (1 - 4 * eps)
    measured.add("anything", "F grows with m and t, and G with m, up to rounding")


@st.composite
def layer_input(draw):
    """Arguments of `gm_layer` of any sizes and strides.

    Beyond 1e4 in single precision, and 1e30 in double, products of four of them can overflow.
    """
    dtype = draw(st.sampled_from(DTYPES))
    K, C, d = (draw(st.integers(1, 4)) for _ in range(3))
    leading = draw(st.lists(st.integers(0, 3), max_size=3))
    numbers = finite(dtype, 1e4 if dtype == torch.float32 else 1e30)

    def tensor(*shape):
        count = math.prod(shape)
        values = draw(st.lists(numbers, min_size=count, max_size=count))
        whole = torch.tensor(values, dtype=dtype).view(shape)
        layout = draw(st.sampled_from(["contiguous", "reversed", "strided"]))
        if layout == "reversed":  # in memory
            return (
                whole.permute(*range(whole.ndim)[::-1])
                .contiguous()
                .permute(*range(whole.ndim)[::-1])
            )
        if layout == "strided":
            return torch.stack([whole, whole], -1)[..., 0]
        return whole

    return tensor(*leading, d), tensor(K, d), tensor(K, d), tensor(K, C, d), tensor(K, C)


@given(layer_input())
def test_a_layer_of_anything_is_finite_and_so_are_its_gradients(measured, arguments):
    arguments = [tensor.detach().requires_grad_() for tensor in arguments]
    output = gm_layer(*arguments)
    x, *_, v = arguments
    assert output.shape == (*x.shape[:-1], v.shape[1])
    assert torch.isfinite(output).all()
    for gradient in torch.autograd.grad(output.sum(), arguments):
        assert torch.isfinite(gradient).all()
    measured.add("anything", "layers of any shape, layout and numbers: finite, with gradients")


@given(layer_input(), st.integers(0, 4), st.integers(0, 2))
def test_a_shape_that_does_not_fit_is_named(measured, arguments, which, axis):
    names = ["x", "mu", "sigma", "U", "v"]
    tensors = list(arguments)
    tensor = tensors[which]
    axis = min(axis, tensor.ndim - 1)
    if which == 0:
        axis = tensor.ndim - 1  # the others may be anything
    tensors[which] = torch.cat([tensor, tensor.narrow(axis, 0, 0), tensor], axis)
    # U fixes the sizes; where it is the one that changed, another no longer fits it.
    named = names[which] if which != 3 else "(mu|sigma|v|x)"
    with pytest.raises(ValueError, match=rf"^{named} must have shape \("):
        gm_layer(*tensors)
    measured.add("anything", "shapes that do not fit: refused by name")


@pytest.mark.parametrize("axis", range(3))
def test_a_layer_of_nothing_is_refused(axis):
    sizes = [2, 3, 4]
    sizes[axis] = 0
    K, C, d = sizes
    shapes = (5, d), (K, d), (K, d), (K, C, d), (K, C)
    with pytest.raises(ValueError, match=r"^U must have shape \(K, C, d\), none of them zero, got"):
        gm_layer(*map(torch.ones, shapes))


@given(
    st.sampled_from(["in_features", "out_features", "num_components"]),
    st.one_of(st.integers(max_value=0), st.floats(), st.booleans(), st.text(max_size=3), st.none()),
)
def test_sizes_that_are_none_are_refused(measured, name, value):
    sizes = {"in_features": 2, "out_features": 2, "num_components": 2, name: value}
    with pytest.raises((ValueError, TypeError), match=name):
        GaussianMixtureLayer(**sizes)
    measured.add("anything", "sizes that are none: refused by name")
