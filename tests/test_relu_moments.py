"""The moments of a rectified Gaussian, and their slopes."""

import math

import mpmath
import pytest
import torch
from closed_form import integrate_over_positive
from draws import moments
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from gmlib import _moments
from gmlib.functional import relu_moments


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
                [mpmath.mpf(c) for c in coefficients] for coefficients in _moments._TAIL[dtype]
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
        m, t = moments(requires_grad=("m", "t"))  # broadcast: (3, 6) and (3, 1)
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
            (torch.ones(2).cfloat(), torch.ones(2).cfloat()),
        ],
        ids=["mixed", "int", "complex"],
    )
    def test_refuses_other_dtypes(self, m, t):
        with pytest.raises(TypeError, match=str(t.dtype)):
            relu_moments(m, t)

    @pytest.mark.parametrize("name", ["m", "t"])
    def test_refuses_what_is_no_tensor(self, name):
        with pytest.raises(TypeError, match=f"^{name} must be a tensor, got float$"):
            relu_moments(**{"m": torch.tensor(1.0), "t": torch.tensor(1.0), name: 1.0})
