"""From the one set of coordinates of a readout to the other: `functional.fold` and `unfold`."""

import pytest
import torch
from closed_form import gradients
from derivatives import check_derivatives
from draws import draw, seeded
from kinds import AFFINE, FOLDED, arguments, folded
from torch.testing import assert_close

from gmlib.functional import fold, gm_layer, gm_layer_folded, unfold

DTYPES = [torch.float32, torch.float64]
# K, C, d
SIZES = [(3, 5, 8), (1, 4, 3), (2, 1, 4), (4, 2, 1), (2, 4, 784), (3, 200, 30)]
WAYS = {"fold": (fold, AFFINE), "unfold": (unfold, FOLDED)}
both_ways = pytest.mark.parametrize(("way", "kind"), WAYS.values(), ids=WAYS)


def parameters(kind=AFFINE, **drawn):
    """mu, sigma and the readout."""
    return tuple(arguments(kind, **drawn).values())[1:]


def any_readout(K, C, d, dtype):
    """mu, sigma and a readout in whichever coordinates; sigma from 1e-3 to 1e3, of both signs."""
    sigma = draw(K, d, seed=2).sign() * 10.0 ** draw(K, d, seed=3).clamp(-3.0, 3.0)
    tensors = draw(K, d), sigma, draw(K, C, d, seed=4), draw(K, C, seed=5)
    return tuple(tensor.to(dtype) for tensor in tensors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
class TestRoundTrips:
    def test_from_affine_coordinates(self, sizes, dtype):
        mu, sigma, U, v = any_readout(*sizes, dtype)
        U_again, v_again = unfold(mu, sigma, *fold(mu, sigma, U, v))
        eps, d = torch.finfo(dtype).eps, sizes[2]
        # Four roundings of half an eps each: sigma^2 / K and its product with U, and back K A and
        # its quotient by sigma^2. That of sigma^2 itself is in both.
        assert ((U_again - U).abs() <= 2.01 * eps * U.abs()).all()
        # U mu comes and goes. Its largest summand is rounded at most d times, its sum with v and
        # what is made of that twice more.
        largest = torch.maximum((U * mu.unsqueeze(1)).abs().amax(2), v.abs())
        assert ((v_again - v).abs() <= (d + 2) * eps * largest).all()

    def test_from_folded_coordinates(self, sizes, dtype):
        mu, sigma, A, w = any_readout(*sizes, dtype)
        U, v = unfold(mu, sigma, A, w)
        A_again, w_again = fold(mu, sigma, U, v)
        eps, (K, _, d) = torch.finfo(dtype).eps, sizes
        assert ((A_again - A).abs() <= 2.01 * eps * A.abs()).all()
        # Where a sigma is small, U mu is large, and leaves as many roundings of its own size.
        largest = torch.maximum((U * mu.unsqueeze(1)).abs().amax(2) / K, w.abs())
        assert ((w_again - w).abs() <= (d + 2) * eps * largest).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fold_is_its_definition(sizes, dtype):
    mu, sigma, U, v = any_readout(*sizes, dtype)
    A, w = fold(mu, sigma, U, v)
    expected_A, expected_w = folded(*(tensor.double() for tensor in (mu, sigma, U, v)))
    eps, (K, _, d) = torch.finfo(dtype).eps, sizes
    assert ((A - expected_A).abs() <= 2.0 * eps * A.abs()).all()
    largest = torch.maximum((U * mu.unsqueeze(1)).abs().amax(2), v.abs()) / K
    assert ((w - expected_w).abs() <= (d + 2) * eps * largest).all()


def test_folded_coordinates_are_moments_of_readout_and_direction():
    mu, sigma, U, v = parameters(C=2)
    A, w = fold(mu, sigma, U, v)
    noise = torch.randn(200_000, *mu.shape, generator=seeded(5), dtype=mu.dtype)
    beta = mu + sigma * noise  # (S, K, d)
    readout = torch.einsum("kcd,skd->skc", U, beta) + v
    products = readout.unsqueeze(3) * (beta - mu).unsqueeze(2)
    for samples, moment in ((readout, len(mu) * w), (products, len(mu) * A)):
        error = samples.std(0) / len(samples) ** 0.5
        assert error.max() < 0.05 * moment.abs().max()
        assert ((samples.mean(0) - moment).abs() < 5.0 * error).all()


@both_ways
def test_sign_of_sigma_is_immaterial(way, kind):
    mu, sigma, *readout = parameters(kind)
    assert (sigma < 0.0).any()
    assert (sigma > 0.0).any()
    assert all(map(torch.equal, way(mu, sigma, *readout), way(mu, sigma.abs(), *readout)))


# --- Where sigma is zero -------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-30])  # whose square is zero in float32
def test_zero_sigma_there_and_back(zero):
    affine = arguments(AFFINE, dtype=torch.float32)
    x, mu, sigma, U, v = affine.values()
    sigma[1, 2] = zero
    sigma[0] = zero
    A, w = fold(mu, sigma, U, v)
    assert not A[1, :, 2].any()
    assert not A[0].any()
    U_again, v_again = unfold(mu, sigma, A, w)
    assert not U_again[1, :, 2].any()
    assert not U_again[0].any()
    assert_close(U_again[1, :, [0, 1, 3]], U[1, :, [0, 1, 3]])
    out = gm_layer(x, mu, sigma, U_again, v_again)  # what does not vary has gone from U to v
    assert_close(out, gm_layer(**affine))
    assert_close(out, gm_layer_folded(x, mu, sigma, A, w))


@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-30])
def test_no_affine_readout_varies_with_what_does_not(zero):
    mu, sigma, A, w = parameters(FOLDED, dtype=torch.float32)
    sigma[1, 2] = zero
    A[1, :, 2] = 0.0
    unfold(mu, sigma, A, w)
    A[1, 2, 2] = 1e-30
    message = r"^sigma\[1, 2\] is zero \(or its square is\) and A\[1, :, 2\] is not: no U has"
    with pytest.raises(ValueError, match=message):
        unfold(mu, sigma, A, w)


def test_zero_sigma_keeps_gradients_finite():
    mu, sigma, A, w = parameters(FOLDED)
    sigma[1, 2] = 0.0
    A[1, :, 2] = 0.0
    drawn = {"mu": mu, "sigma": sigma, "A": A, "w": w}

    def both(**drawn):
        return torch.cat([tensor.flatten() for tensor in unfold(**drawn)])

    for name, grad in gradients(both, drawn).items():
        assert grad.isfinite().all(), name


# --- Derivatives ---------------------------------------------------------------------------------


@both_ways
def test_derivatives(way, kind):
    check_derivatives(way, parameters(kind, d=2, C=2))


def test_the_layers_are_one_function():
    affine = arguments(AFFINE)
    x, mu, sigma, U, v = affine.values()
    out = gm_layer(**affine)
    assert_close(gm_layer_folded(x, mu, sigma, *fold(mu, sigma, U, v)), out, rtol=1e-13, atol=1e-13)

    def through_folded(x, mu, sigma, U, v):
        return gm_layer_folded(x, mu, sigma, *fold(mu, sigma, U, v))

    found, expected = gradients(through_folded, affine), gradients(gm_layer, affine)
    for name in affine:  # by the chain rule: mu and sigma are in A and w too
        assert_close(found[name], expected[name], rtol=1e-12, atol=1e-12, msg=name)


def test_the_layers_are_one_function_the_other_way():
    own = arguments(FOLDED)

    def through_affine(x, mu, sigma, A, w):
        return gm_layer(x, mu, sigma, *unfold(mu, sigma, A, w))

    assert_close(through_affine(**own), gm_layer_folded(**own), rtol=1e-13, atol=1e-13)
    found, expected = gradients(through_affine, own), gradients(gm_layer_folded, own)
    for name in own:
        assert_close(found[name], expected[name], rtol=1e-11, atol=1e-11, msg=name)


# --- What is refused -----------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    ("role", "shape", "message"),
    [
        ("mu", (2, 3), "mu must have shape"),
        ("sigma", (4,), "sigma must have shape"),
        ("weights", (3, 4), "{weights} must have shape"),
        ("weights", (2, 0, 4), "{weights} must have shape"),
        ("weights", (2, 3, 5), "to fit {weights} of shape"),
        ("offsets", (1, 3), "{offsets} must have shape"),
    ],
)
def test_refuses_shapes_that_do_not_fit(way, kind, role, shape, message):
    drawn = dict(zip(kind.parameters, parameters(kind), strict=True))
    drawn[kind.names[role]] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message.format(**kind.names)):
        way(**drawn)


@both_ways
@pytest.mark.parametrize("role", ["mu", "sigma", "weights", "offsets"])
class TestRefuses:
    @staticmethod
    def call(way, kind, role, change):
        name = kind.names[role]
        drawn = dict(zip(kind.parameters, parameters(kind), strict=True))
        way(**(drawn | {name: change(drawn[name])}))

    def test_mixed_dtypes(self, way, kind, role):
        with pytest.raises(TypeError, match=r"must share a dtype, got torch\.float(32|64) and"):
            self.call(way, kind, role, torch.Tensor.float)

    def test_mixed_devices(self, way, kind, role):
        with pytest.raises(ValueError, match=r"must be on one device, got (meta|cpu) and"):
            self.call(way, kind, role, lambda tensor: tensor.to("meta"))

    def test_what_is_no_tensor(self, way, kind, role):
        with pytest.raises(TypeError, match=f"^{kind.names[role]} must be a tensor, got list$"):
            self.call(way, kind, role, torch.Tensor.tolist)


@both_ways
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex128, torch.float8_e5m2])
def test_refuses_other_dtypes(way, kind, dtype):
    with pytest.raises(TypeError, match=f"mu must be .*float32 or float64, got {dtype}"):
        way(*parameters(kind, dtype=dtype))


@both_ways
def test_of_what_holds_no_numbers(way, kind):
    tensors = [tensor.to("meta") for tensor in parameters(kind)]
    readout = way(*tensors)
    assert [tensor.shape for tensor in readout] == [tensor.shape for tensor in tensors[2:]]
    assert all(tensor.is_meta for tensor in readout)
