"""The layer under tools that record what a network does: torch.fx, torch.jit, and modes."""

import io
import pickle
import warnings

import pytest
import torch
from draws import draw, moments
from kinds import AFFINE, arguments
from module_checks import assert_all_close, outcome
from networks import make_network
from torch import nn
from torch.testing import assert_close

from gmlib import functional


def network_with_bias(kind):
    network = make_network(kind)
    network[4] = kind.layer(4, 7, 2, bias=True, dtype=torch.float64)
    return network


class TestFX:
    def test_a_layer_is_one_call(self, kind):
        network, x = network_with_bias(kind), draw(9, 6)
        traced = torch.fx.symbolic_trace(network)
        calls = [node.target for node in traced.graph.nodes if node.op == "call_function"]
        assert calls == [kind.function, kind.function]
        for one, other in zip(outcome(traced, x), outcome(network, x), strict=True):
            assert torch.equal(one, other)
        again = pickle.loads(pickle.dumps(traced))
        assert torch.equal(again(x), network(x))

    def test_functions_are_calls_too(self):
        def computed(m, t, mu, sigma, U, v):
            A, w = functional.fold(mu, sigma, U, v)
            moments = functional.relu_moments(m, t)
            return moments[0], functional.unfold(mu, sigma, A, w)[1]

        _, *parameters = arguments(AFFINE).values()
        traced = torch.fx.symbolic_trace(computed)
        assert_all_close(traced(*moments(), *parameters), computed(*moments(), *parameters))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_network_around_it_is_quantized(self, kind):
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_fx

        network = make_network(kind, torch.float32).eval()
        x = draw(9, 6, dtype=torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepared = prepare_fx(network, get_default_qconfig_mapping(), (x,))
        assert torch.equal(prepared(x), network(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is (deprecated|not supported):DeprecationWarning")
class TestJIT:
    def test_a_trace_can_be_saved_and_takes_any_batch(self, kind):
        network = network_with_bias(kind)
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("error", torch.jit.TracerWarning)
            torch.jit.save(torch.jit.trace(network, draw(9, 6)), file)
        file.seek(0)
        traced = torch.jit.load(file)
        for batch in (1, 3, 9, 50):  # fewer than a layer is wide, and more
            x = draw(batch, 6, seed=batch)
            assert_close(traced(x), network(x), rtol=1e-10, atol=1e-10)
        assert_all_close(outcome(traced, x), outcome(network, x), rtol=1e-8, atol=1e-10)
        x = draw(2, 3, 6)
        assert_close(torch.jit.trace(network, draw(4, 5, 6))(x), network(x), rtol=1e-10, atol=1e-10)

    def test_of_relu_moments(self):
        m, t = moments()
        traced = torch.jit.trace(functional.relu_moments, (m, t))
        # It takes numbers for one that differ by 1e-8 alone, as some of its constants do.
        assert_all_close(traced(m, t), functional.relu_moments(m, t), rtol=1e-11, atol=0)
        torch.jit.save(traced, io.BytesIO())

    @pytest.mark.parametrize("wrap", [lambda layer: layer, nn.Sequential], ids=["layer", "network"])
    def test_a_script_is_refused(self, kind, wrap):
        name = kind.layer.__name__
        with pytest.raises(TypeError, match=f"^a {name} cannot be scripted: torch.jit.trace, "):
            torch.jit.script(wrap(kind.layer(4, 3, 2)))
