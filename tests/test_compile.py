"""The layer compiled and exported."""

import shutil

import pytest
import torch
from draws import draw, moments
from module_checks import assert_all_close, outcome
from networks import make_network
from torch.func import grad
from torch.testing import assert_close

from gmlib.functional import relu_moments

every_backend = pytest.mark.parametrize("backend", ["eager", "aot_eager"])


class TestCompile:
    @pytest.fixture(autouse=True)
    def _fresh(self):
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    @every_backend
    def test_equals_eager_for_any_batch(self, kind, backend):
        network = make_network(kind)
        compiled = torch.compile(network, fullgraph=True, backend=backend)
        for batch in (9, 20):  # the second size has it compiled anew, for any
            x = draw(batch, 6)
            assert_all_close(outcome(compiled, x), outcome(network, x), rtol=1e-10, atol=1e-12)
        with torch.compiler.set_stance("fail_on_recompile"):
            for batch in (3, 50):  # fewer than either layer is wide, and more
                x = draw(batch, 6)
                assert_all_close(outcome(compiled, x), outcome(network, x), rtol=1e-10, atol=1e-12)

    @every_backend
    @pytest.mark.parametrize("leading", [(), (1,), (2, 3), (0,)], ids=str)
    def test_without_gradients_for_any_leading_shape(self, kind, backend, leading):
        layer = make_network(kind)[1]
        x = draw(*leading, 5)
        with torch.no_grad():
            out = torch.compile(layer, fullgraph=True, backend=backend)(x)
            assert_close(out, layer(x), rtol=1e-12, atol=1e-12)

    @pytest.mark.skipif(
        not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler"
    )
    def test_to_machine_code(self, kind):
        # One graph only: a C++ compiler takes its time.
        layer = make_network(kind, torch.float32)[1]
        compiled = torch.compile(layer, fullgraph=True, dynamic=True)
        for batch in (9, 3):
            x = draw(batch, 5, dtype=torch.float32)
            for found, expected in zip(outcome(compiled, x), outcome(layer, x), strict=True):
                # relative to the largest entry: single entries may cancel
                assert (found - expected).abs().max() < 1e-5 * expected.abs().max()

    @every_backend
    def test_under_autocast(self, kind, backend):
        # GM layers last: a layer in bfloat16 behind them would turn rounding into steps.
        network = make_network(kind, torch.float32)[:5]
        compiled = torch.compile(network, fullgraph=True, backend=backend)
        x = draw(9, 6, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            (out, *grads), (expected, *expected_grads) = (
                outcome(module, x, network[4].parameters()) for module in (compiled, network)
            )
        assert out.dtype == torch.float32
        assert_close(out, expected, rtol=1e-5, atol=1e-5)
        for grad_, expected_grad in zip(grads[1:], expected_grads[1:], strict=True):
            assert grad_.dtype == torch.float32
            assert (grad_ - expected_grad).abs().max() < 1e-5 * expected_grad.abs().max()

    @every_backend
    def test_the_backward_under_autocast_is_in_float32(self, kind, backend):
        layer = make_network(kind, torch.float32)[4]
        compiled = torch.compile(layer, fullgraph=True, backend=backend)
        x = draw(9, 4, dtype=torch.float32)
        expected = outcome(layer, x)
        with torch.autocast("cpu", torch.bfloat16):
            assert_all_close(outcome(compiled, x), expected, rtol=1e-4, atol=1e-5)

    @every_backend
    def test_relu_moments(self, backend):
        def both(function):
            m, t = moments(requires_grad=("m", "t"))
            F, G = function(m, t)
            return F, G, *torch.autograd.grad((F * F + G).sum(), (m, t))

        compiled = torch.compile(relu_moments, fullgraph=True, backend=backend)
        assert_all_close(both(compiled), both(relu_moments), rtol=1e-12, atol=1e-14)

    def test_with_a_gradient_inside(self, kind):
        network = make_network(kind)
        x = draw(4, 6)
        slope = grad(lambda x: network(x).square().sum())
        compiled = torch.compile(slope, fullgraph=True, backend="eager")
        assert_close(compiled(x), slope(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_export_for_any_batch(kind, strict):
    network = make_network(kind)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        network, (draw(9, 6),), dynamic_shapes=({0: batch},), strict=strict
    )
    exported = program.module()
    for size in (1, 3, 9, 50):
        x = draw(size, 6, seed=size)
        assert_close(exported(x), network(x), rtol=1e-12, atol=1e-12)


def test_export_to_onnx(kind):
    pytest.importorskip("onnxscript", reason="torch.onnx needs onnxscript, which is not installed")
    evaluation = pytest.importorskip("onnx.reference", reason="needs onnx, to run what it wrote")
    network = make_network(kind, torch.float32)
    program = torch.onnx.export(
        network,
        (draw(9, 6, dtype=torch.float32),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    exported = evaluation.ReferenceEvaluator(program.model_proto)
    (name,) = exported.input_names
    for size in (1, 3, 9, 50):
        x = draw(size, 6, dtype=torch.float32, seed=size)
        (out,) = exported.run(None, {name: x.numpy()})
        assert_close(torch.from_numpy(out), network(x).detach(), rtol=1e-5, atol=1e-6)
