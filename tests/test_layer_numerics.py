"""Whole layers against fifty digits, and stacks of them in single precision against double."""

import copy
import itertools

import mpmath
import pytest
import torch
from draws import seeded
from init_checks import sample
from kinds import AFFINE, arguments
from networks import stack
from torch import nn

from gmlib.init import kumar_

# --- One layer -----------------------------------------------------------------------------------

# B, d, C, K
SIZES = [(6, 5, 3, 2), (4, 1, 2, 3), (3, 40, 2, 1)]


def tail(affine):
    """Neurons that seldom are active."""
    affine["x"] = affine["x"].abs()
    affine["mu"] = -2.0 * affine["sigma"].abs()


def narrow(affine):
    """Clouds that are next to points."""
    affine["sigma"] = 1e-4 * affine["sigma"]


def cancelling(affine):
    """Means of pre-activations and of readouts that are small differences."""
    affine["x"] = torch.ones_like(affine["x"])
    for name in ("mu", "U"):
        affine[name][..., 0] -= 0.999 * affine[name].sum(-1)
    affine["v"] = -0.999 * torch.einsum("kcd,kd->kc", affine["U"], affine["mu"])


CASES = {
    "any": lambda affine: None,
    "tail": tail,
    "narrow": narrow,
    "cancelling": cancelling,
    "tiny": lambda affine: affine["x"].mul_(1e-12),
    "huge": lambda affine: affine["x"].mul_(1e12),
}


def exact(kind, lost, x, mu, sigma, weights, offsets):
    """An output of a layer, and the unit of its error, from numbers by component.

    That is the sum of the absolute values of all products, each times the slope by which they go
    into the output. A density below `lost` counts as that much.
    """
    h = unit = mpmath.mpf(0)
    for mu_k, sigma_k, A, w in zip(mu, sigma, weights, offsets, strict=True):
        w_terms = [w]
        if kind is AFFINE:
            w_terms += products(A, mu_k)
            A = products(A, products(sigma_k, sigma_k))
        m_terms, Y_terms, t_terms = (products(each, x) for each in (mu_k, A, sigma_k))
        m, Y, w = map(mpmath.fsum, (m_terms, Y_terms, w_terms))
        t = mpmath.norm(t_terms)
        z = m / t
        G, phi = mpmath.ncdf(z), mpmath.npdf(z)
        F = m * G + t * phi
        h += w * F + Y * G
        phi = max(phi, lost)
        m_size, Y_size, w_size = (
            mpmath.fsum(terms, absolute=True) for terms in (m_terms, Y_terms, w_terms)
        )
        unit += w_size * (F + G * m_size + phi * t) + Y_size * (G + phi * (m_size / t + abs(z)))
    return (h / len(mu), unit / len(mu)) if kind is AFFINE else (h, unit)


def products(one, other):
    return [a * b for a, b in zip(one, other, strict=True)]


def numbers(tensor):
    """The tensor's as mpmath has them, in nested lists."""
    return [numbers(part) for part in tensor] if tensor.ndim else mpmath.mpf(tensor.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_layer_against_fifty_digits(kind, sizes, case, dtype, torture):
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    for seed in range(300 if torture else 10):
        affine = arguments(AFFINE, *sizes, seed=seed)
        case(affine)
        drawn = [tensor.to(dtype) for tensor in kind.own(affine).values()]
        out = kind.function(*drawn)
        with mpmath.workdps(50):
            x, mu, sigma, weights, offsets = map(numbers, drawn)
            for b, c in itertools.product(range(out.shape[0]), range(out.shape[1])):
                readout = [A[c] for A in weights], [w[c] for w in offsets]
                h, unit = exact(kind, tiny / eps, x[b], mu, sigma, *readout)
                # F and G are right to four units in their last place; what else is rounded on the
                # way seldom adds up. Two units are the most that has been seen.
                assert abs(out[b, c].item() - h) <= 4.0 * eps * unit, (seed, b, c)


# --- A stack in training -------------------------------------------------------------------------


def test_single_precision_keeps_up_with_double_in_training(kinds, torture):
    def start(kinds, seed):
        network = stack(kinds, 6, 9, 4, dtype=torch.float64)
        kumar_(network, inputs, generator=seeded(seed))
        return network

    inputs = sample(256, dtype=torch.float64)
    double = start(kinds, seed=0)
    target = start(AFFINE, seed=1)(inputs).detach()
    single = copy.deepcopy(double).float()
    runs = [
        (network, x, y, torch.optim.SGD(network.parameters(), lr=0.1))
        for network, x, y in [(double, inputs, target), (single, inputs.float(), target.float())]
    ]
    order, stops, losses = seeded(), [0, 100, 300, *([1_000, 10_000] if torture else [])], []
    for step in range(stops[-1] + 1):
        if step in stops:
            with torch.no_grad():
                outputs, rounded = double(inputs), single(inputs.float())
            losses.append(nn.functional.mse_loss(outputs, target).item())
            # Some ten roundings of the largest outputs, at the end as at the beginning: what
            # training does to those of the parameters is to take them back.
            assert (rounded - outputs).abs().max() < 1e-5 * outputs.std(), step
        batch = torch.randint(len(inputs), (32,), generator=order)
        for network, x, y, optimizer in runs:
            optimizer.zero_grad()
            nn.functional.mse_loss(network(x[batch]), y[batch]).backward()
            optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
