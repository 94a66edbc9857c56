"""The closed form at the ends of what numbers can be: against fifty digits, and on anything finite.

A few hundred examples and a few thousand points are tried by default, a hundred thousand and a
million under ``--torture``.
"""

import math

import mpmath
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kinds import FOLDED

from gmlib.functional import gm_layer_folded, relu_moments

DTYPES = [torch.float32, torch.float64]
PRECISIONS = {torch.float32: "single", torch.float64: "double"}


def grid(dtype, count, seed=0):
    """Means and deviations, the deviations from 1e-30 to 1e30, z from -38 to 38."""
    generator = torch.Generator().manual_seed(seed)
    z = 76.0 * torch.rand(count, generator=generator, dtype=torch.float64) - 38.0
    z[: count // 2] /= 7.6  # half of them where the errors are
    z[: count // 20] *= 1e-8
    z = torch.cat([z, torch.arange(-38.0, 38.5, 0.5)])
    t = 10.0 ** (60.0 * torch.rand(len(z), generator=generator, dtype=torch.float64) - 30.0)
    return (z * t).to(dtype), t.to(dtype)


def values_and_slopes(z, t, F, G, phi):
    """F, G and their slopes in m and t."""
    return F, G, G, phi, phi / t, -z * phi / t


def by_mpmath(m, t):
    """To fifty digits, each as the sum of two numbers, (6, 2, n)."""
    exact = []
    with mpmath.workdps(50):
        for m_i, t_i in zip(m.tolist(), t.tolist(), strict=True):
            z = mpmath.mpf(m_i) / t_i
            G, phi = mpmath.ncdf(z), mpmath.npdf(z)
            values = values_and_slopes(z, t_i, m_i * G + t_i * phi, G, phi)
            exact.append([(float(value), float(value - float(value))) for value in values])
    return torch.tensor(exact, dtype=torch.float64).permute(1, 2, 0)


def by_double(m, t):
    """The same by `relu_moments` in double precision, a thousand times as fast."""
    m, t = m.double(), t.double()
    z = m / t
    phi = torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
    values = torch.stack(values_and_slopes(z, t, *relu_moments(m, t), phi))
    return torch.stack([values, torch.zeros_like(values)], 1)


def errors_in_ulp(m, t, exact):
    """By name, the errors of F, G and their slopes beyond what the rounding of z costs.

    Where F / t, G or phi(z), from which the value comes, or the value itself is below the smallest
    normal number, so much does not count: for z below -13 in single precision, and -37 in double.
    """
    eps, tiny = torch.finfo(m.dtype).eps, torch.finfo(m.dtype).tiny
    F, G = relu_moments(m.requires_grad_(), t.requires_grad_())
    slopes = [torch.autograd.grad(each.sum(), (m, t), retain_graph=True) for each in (F, G)]
    found = [F, G, *slopes[0], *slopes[1]]
    m, t = m.detach().double(), t.detach().double()
    z, one = m / t, torch.ones_like(t)
    _, Phi, _, phi, *_ = exact[:, 0]
    # How each changes with the relative size of z, and the unit that it is computed in.
    changes = {
        "F": (m.abs() * Phi, t),
        "G": (z.abs() * phi, one),
        "dF/dm": (z.abs() * phi, one),
        "dF/dt": (z.square() * phi, one),
        "dG/dm": (z.square() * phi / t, 1.0 / t),
        "dG/dt": (z.abs() * (1.0 - z.square()).abs() * phi / t, z.abs().clamp_min(1.0) / t),
    }
    errors = {}
    for value, (high, low), (name, (by_z, unit)) in zip(found, exact, changes.items(), strict=True):
        size = high.abs()
        lost = 0.5 * eps * by_z + tiny * (unit * (size < tiny * unit) + (size < tiny))
        error = ((value.double() - high) - low).abs() - lost
        ulp = torch.ldexp(eps * one, torch.frexp(high).exponent - 1)
        errors[name] = (error / ulp.clamp_min(5e-324)).clamp_min(0.0)  # NaN stays
    return errors


def largest(errors, m, t):
    """By name and side."""
    near = m / t >= -5.0
    return {
        f"{name}, {side}": error[inside].max().item()
        for name, error in errors.items()
        for side, inside in {"z ≥ −5": near, "z < −5": ~near}.items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_slopes_to_the_last_digits(dtype, torture, measured):
    count = 1_000_000 if torture else 4_000
    m, t = grid(dtype, count)
    worst = largest(errors_in_ulp(m, t, by_mpmath(m, t)), m, t)
    for place, error in worst.items():
        measured("ulps", f"{place}, {PRECISIONS[dtype]}", round(error, 2))
    measured("numbers", f"points against fifty digits, {PRECISIONS[dtype]} precision", count)
    assert all(error <= 5.0 for error in worst.values()), worst


def test_single_precision_at_many_points(torture, measured):
    rounds, count = 100 if torture else 1, 1_000_000
    worst, beyond = {}, 0
    for seed in range(rounds):
        m, t = grid(torch.float32, count, seed)
        errors = errors_in_ulp(m, t, by_double(m, t))
        for place, error in largest(errors, m, t).items():
            assert error <= 8.0, (seed, place)
            worst[place] = max(error, worst.get(place, 0.0))
        beyond += torch.maximum(errors["F"], errors["G"]).gt(4.0).sum().item()
    for place, error in worst.items():
        measured("ulps", f"{place}, single against double", round(error, 2))
    measured("numbers", "points against double precision, single precision", rounds * count)
    measured("numbers", "of these, F or G off by more than 4 ulp", beyond)


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
    """Arguments of a layer of any sizes and strides.

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


def test_at_the_floor_of_t_a_long_readout_does_not_reach_sigma():
    # A slope of 1.8e308 in sigma, times a sigma of zero; found by the test below.
    x, mu, A = 1.46e12, 3.34e-202, 1.0
    values = [[x, 0.0, 0.0]], [[mu, 0.0, 0.0]], [[0.0] * 3], [[[A, 0.0, 0.0]]], [[0.0]]
    arguments = [torch.tensor(own, dtype=torch.float64, requires_grad=True) for own in values]
    output = gm_layer_folded(*arguments)
    gradients = torch.autograd.grad(output.sum(), arguments)
    assert gradients[2].tolist() == [[0.0] * 3]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@given(layer_input())
def test_a_layer_of_anything_is_finite_and_so_are_its_gradients(kind, measured, arguments):
    if kind is FOLDED:
        # There the slope in sigma is of order A x / t^2: a number only where t is not too small,
        # or below the floor. In affine coordinates A has a sigma in it for each t.
        x, _, sigma, *_ = arguments
        variance = x.square() @ sigma.square().T
        least, tiny = (
            {torch.float32: 1e-10, torch.float64: 1e-90}[x.dtype],
            torch.finfo(x.dtype).tiny,
        )
        assume(((variance < tiny) | (variance > least**2)).all())
    arguments = [tensor.detach().requires_grad_() for tensor in arguments]
    output = kind.function(*arguments)
    x, *_, offsets = arguments
    assert output.shape == (*x.shape[:-1], offsets.shape[1])
    assert torch.isfinite(output).all()
    for gradient in torch.autograd.grad(output.sum(), arguments):
        assert torch.isfinite(gradient).all()
    measured.add("anything", "layers of any shape, layout and numbers: finite, with gradients")


@given(layer_input(), st.integers(0, 4), st.integers(0, 2))
def test_a_shape_that_does_not_fit_is_named(kind, measured, arguments, which, axis):
    names = list(kind.names.values())
    tensors = list(arguments)
    tensor = tensors[which]
    axis = min(axis, tensor.ndim - 1)
    if which == 0:
        axis = tensor.ndim - 1  # the others may be anything
    tensors[which] = torch.cat([tensor, tensor.narrow(axis, 0, 0), tensor], axis)
    # The weights fix the sizes; where they are what changed, another no longer fits them.
    named = names[which] if which != 3 else f"(mu|sigma|{names[4]}|x)"
    with pytest.raises(ValueError, match=rf"^{named} must have shape \("):
        kind.function(*tensors)
    measured.add("anything", "shapes that do not fit: refused by name")


@pytest.mark.parametrize("axis", range(3))
def test_a_layer_of_nothing_is_refused(kind, axis):
    sizes = [2, 3, 4]
    sizes[axis] = 0
    K, C, d = sizes
    shapes = (5, d), (K, d), (K, d), (K, C, d), (K, C)
    message = rf"^{kind.names['weights']} must have shape \(K, C, d\), none of them zero, got"
    with pytest.raises(ValueError, match=message):
        kind.function(*map(torch.ones, shapes))


@given(
    st.sampled_from(["in_features", "out_features", "num_components"]),
    st.one_of(st.integers(max_value=0), st.floats(), st.booleans(), st.text(max_size=3), st.none()),
)
def test_sizes_that_are_none_are_refused(kind, measured, name, value):
    sizes = {"in_features": 2, "out_features": 2, "num_components": 2, name: value}
    with pytest.raises((ValueError, TypeError), match=name):
        kind.layer(**sizes)
    measured.add("anything", "sizes that are none: refused by name")
