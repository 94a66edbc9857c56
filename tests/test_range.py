"""How large and how small numbers may be, and what comes out beyond."""

import pytest
import torch
from closed_form import gradients
from kinds import AFFINE, arguments, folded

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# By dtype: a power of two whose square has all digits, the bounds that the docstring gives for the
# deviations of pre-activations, what is beyond, and what deviations count as below.
EXACT = {torch.float32: 2.0**45, torch.float64: 2.0**450}
LARGEST = {torch.float32: 1e18, torch.float64: 1e153}
BEYOND = {torch.float32: 1e20, torch.float64: 1e156}
FLOOR = {torch.float32: 1.1e-19, torch.float64: 1.5e-154}
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
either_way = pytest.mark.parametrize("sign", [-1, 1], ids=["small", "large"])


def deviations(drawn):
    return (drawn["x"].double().square() @ drawn["sigma"].double().square().T).sqrt()


def results(kind, drawn):
    return {"out": kind.function(**drawn), **gradients(kind.function, drawn)}


@every_dtype
@either_way
def test_inputs_times_a_power_of_two_give_the_same_digits(kind, dtype, sign):
    # So an input that is out of range can be scaled, and nothing is lost.
    c = EXACT[dtype] ** sign
    drawn = arguments(kind, dtype=dtype)
    expected, found = results(kind, drawn), results(kind, drawn | {"x": c * drawn["x"]})
    for name, value in expected.items():
        assert torch.equal(found[name], value if name == "x" else c * value), name


@every_dtype
@either_way
def test_readouts_times_a_power_of_two_too(kind, dtype, sign):
    c = EXACT[dtype] ** sign
    drawn = arguments(kind, dtype=dtype)
    expected = results(kind, drawn)
    found = results(kind, drawn | {name: c * drawn[name] for name in kind.readout})
    for name, value in expected.items():
        assert torch.equal(found[name], value if name in kind.readout else c * value), name


def to_the_bound(drawn, dtype, sign):
    """The factor that takes deviations to either bound."""
    t = deviations(drawn)
    return LARGEST[dtype] / t.max() if sign > 0 else 1.0 / (LARGEST[dtype] * t.min())


def assert_accurate(found, exact):
    for name, value in exact.items():
        assert found[name].isfinite().all(), name
        # relative to the largest entry: single entries may cancel
        assert (found[name].double() - value).abs().max() <= 2e-6 * value.abs().max(), name


@every_dtype
@either_way
def test_inputs_up_to_the_bounds_have_accurate_results(kind, dtype, sign):
    drawn = arguments(kind, dtype=dtype)
    c = to_the_bound(drawn, dtype, sign)
    found = results(kind, drawn | {"x": (c * drawn["x"].double()).to(dtype)})
    exact = results(kind, {name: tensor.double() for name, tensor in drawn.items()})
    assert_accurate(
        found, {name: value * (1.0 if name == "x" else c) for name, value in exact.items()}
    )


@either_way
@pytest.mark.parametrize("scaled", [("sigma",), ("mu", "sigma")], ids=", ".join)
def test_components_too(kind, sign, scaled):
    drawn = arguments(kind, dtype=torch.float32)
    c = to_the_bound(drawn, torch.float32, sign).item()
    drawn |= {name: c * drawn[name] for name in scaled}
    exact = results(kind, {name: tensor.double() for name, tensor in drawn.items()})
    assert_accurate(results(kind, drawn), exact)


@every_dtype
@pytest.mark.parametrize("scaled", ["x", "sigma"])
def test_beyond_them_no_output_is_finite_and_wrong(kind, dtype, scaled):
    drawn = arguments(kind, dtype=dtype)
    drawn[scaled] *= BEYOND[dtype]
    assert not kind.function(**drawn).isfinite().any()


@every_dtype
@pytest.mark.parametrize("scale", [1e-3, 1e-6, 0.0])
def test_below_them_the_error_is_that_of_a_deviation_at_the_floor(kind, dtype, scale):
    affine = arguments(AFFINE, dtype=dtype)
    drawn = kind.own(affine)
    _, w = folded(*(affine[name] for name in ("mu", "sigma", "U", "v")))
    expected = scale * FLOOR[dtype] * kind.function(**drawn)
    found = kind.function(**(drawn | {"x": scale * FLOOR[dtype] * drawn["x"]}))
    assert ((found - expected).abs() <= FLOOR[dtype] * w.abs().sum(0)).all()
