"""What the layer costs: memory, and large products."""

import subprocess
import sys

import pytest
import torch
from closed_form import equals_the_reference
from draws import weight_like
from kinds import AFFINE, PARAMETERS, ROLES, arguments
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from gmlib import functional

# What 10,000 inputs of the study's network take above the parameters and the inputs themselves.
PEAK_OF_AN_EVALUATION = """
import torch
from gmlib import functional
from gmlib.layer import {layer}

functional._BLOCK = {block}


def status(field):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


torch.manual_seed(0)
network = torch.nn.Sequential({layer}(784, 100, 10), {layer}(100, 10, 10))
images = torch.randn(10_000, 784)
with torch.no_grad():
    network(images[:200])  # libraries allot what they need at their first call
    before = status("VmRSS")
    assert network(images).isfinite().all()
print(status("VmHWM") - before)
"""


def peak_of_an_evaluation(kind, block):
    code = PEAK_OF_AN_EVALUATION.format(layer=kind.layer.__name__, block=block)
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class TestBlocks:
    """A large batch goes through in blocks, so that intermediate results stay small."""

    @pytest.fixture(params=["several", "one row each", "as shipped"])
    def drawn(self, kind, request, monkeypatch):
        if request.param == "as shipped":
            drawn = arguments(kind, B=1, d=2, C=2**16, K=4)
            rows = functional._BLOCK // drawn[kind.names["offsets"]].numel()
            drawn["x"] = arguments(kind, B=2 * rows + 3, d=2, seed=1)["x"]
            assert rows > 1
        else:
            drawn = arguments(kind, B=11, C=3, K=2)
            rows = 4 if request.param == "several" else 1
            block = 6 * rows + 1 if rows > 1 else 1
            monkeypatch.setattr(functional, "_BLOCK", block)
        self.rows = rows
        return drawn

    def test_equals_its_pieces_bit_for_bit(self, kind, drawn):
        pieces = [kind.function(**(drawn | {"x": x})) for x in drawn["x"].split(self.rows)]
        assert len(pieces) > 2
        assert torch.equal(kind.function(**drawn), torch.cat(pieces))

        out_grad = weight_like(kind.function(**drawn))
        leaves = {name: tensor.requires_grad_() for name, tensor in drawn.items()}
        grads = torch.autograd.grad(kind.function(**leaves), list(leaves.values()), out_grad)
        parts = [
            torch.autograd.grad(
                kind.function(**(leaves | {"x": x})), [x, *list(leaves.values())[1:]], g
            )
            for x, g in zip(drawn["x"].split(self.rows), out_grad.split(self.rows), strict=True)
        ]
        assert torch.equal(grads[0], torch.cat([part[0] for part in parts]))
        # The order in which autograd adds the others up is its own.
        for grad, *summands in zip(grads[1:], *(part[1:] for part in parts), strict=True):
            assert_close(grad, sum(summands), rtol=1e-12, atol=1e-12)

    def test_equals_its_rows(self, kind, drawn):
        # Products of other shapes add up in another order.
        rows = [kind.function(**(drawn | {"x": x})) for x in drawn["x"]]
        assert_close(kind.function(**drawn), torch.stack(rows), rtol=1e-12, atol=1e-12)
        assert_close(kind.function(**drawn), kind.reference(**drawn), rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("leading", [(0,), (2, 0, 3), (11,), (3, 5), (2, 1, 7)], ids=str)
    def test_any_leading_shape(self, kind, leading, monkeypatch):
        monkeypatch.setattr(functional, "_BLOCK", 4 * 6)
        equals_the_reference(kind, leading)

    def test_gradcheck(self, kind, monkeypatch):
        monkeypatch.setattr(functional, "_BLOCK", 2 * 4)  # of 5 rows: 2, 2 and 1
        inputs = tuple(arguments(kind, B=5, d=2, C=2, requires_grad=ROLES).values())
        assert gradcheck(kind.function, inputs, check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(kind.function, inputs, check_fwd_over_rev=True)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_an_evaluation_takes_little_memory(self, kind):
        in_blocks = peak_of_an_evaluation(kind, "functional._BLOCK")
        at_once = peak_of_an_evaluation(kind, 2**62)
        assert in_blocks <= 100e6
        # Y and Y G of all inputs at once are 10 x 100 x 10,000 floats each.
        assert at_once - in_blocks > 50e6


class TestCost:
    """Floating-point operations of the matrix products, in units of one B x (K C) x d product."""

    @pytest.mark.parametrize(
        ("wanted", "affine", "folded"),
        [
            ((), 0, 0),
            (("mu",), 0, 0),
            # In affine coordinates sigma also enters by U (sigma^2 x), in folded ones by the
            # deviations of the pre-activations alone, of which no output has its own.
            (("sigma",), 1, 0),
            (("weights",), 1, 1),
            (("offsets",), 0, 0),
            (PARAMETERS, 1, 1),
            (("x",), 1, 1),
            (ROLES, 2, 2),
        ],
        ids=lambda value: ",".join(value) or "none" if isinstance(value, tuple) else None,
    )
    def test_large_products(self, kind, wanted, affine, folded):
        B, d, C, K = shape = (64, 48, 64, 3)
        drawn = arguments(kind, *shape, requires_grad=wanted)
        with FlopCounterMode(display=False) as forward:
            total = kind.function(**drawn).sum()
        with FlopCounterMode(display=False) as backward:
            if wanted:
                total.backward()
        product = 2 * B * K * C * d
        assert forward.get_total_flops() / product == pytest.approx(1, abs=0.2)
        products = affine if kind is AFFINE else folded
        assert backward.get_total_flops() / product == pytest.approx(products, abs=0.2)
