"""The layer under autocast."""

import pytest
import torch
from derivatives import tangents_like
from draws import draw
from module_checks import assert_all_close
from networks import make_network
from torch.func import jvp


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
class TestAutocast:
    @pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
    @pytest.mark.parametrize("batch", [2, 9])
    def test_changes_no_bit_of_a_float32_result(self, kind, low, batch, inside):
        layer = make_network(kind, torch.float32)[1]
        x = draw(batch, 5, dtype=torch.float32).requires_grad_()
        leaves = [x, *layer.parameters()]
        expected = layer(x)
        expected_grads = torch.autograd.grad(expected.square().sum(), leaves)
        with torch.autocast("cpu", low):
            out = layer(x)
            loss = out.square().sum()
            if inside:
                grads = torch.autograd.grad(loss, leaves)
        if not inside:
            grads = torch.autograd.grad(loss, leaves)
        assert out.dtype == torch.float32
        assert torch.equal(out, expected)
        assert all(map(torch.equal, grads, expected_grads))
        assert {g.dtype for g in grads} == {torch.float32}

    @pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
    def test_between_layers_that_it_casts(self, kind, low, inside):
        network = make_network(kind, torch.float32)
        x = draw(9, 6, dtype=torch.float32)
        seen = []
        network[1].register_forward_hook(lambda _, args, out: seen.append((*args, out)))
        with torch.autocast("cpu", low):
            out = network(x)
            if inside:
                out.float().square().sum().backward()
        if not inside:
            out.float().square().sum().backward()
        ((given, returned),) = seen
        assert (given.dtype, returned.dtype, out.dtype) == (low, torch.float32, low)
        assert torch.equal(returned, network[1](given.float()))
        assert {p.grad.dtype for p in network.parameters()} == {torch.float32}
        found = [p.grad.clone() for p in network.parameters()]
        network.zero_grad()
        network(x).square().sum().backward()
        for grad_, p in zip(found, network.parameters(), strict=True):
            assert (grad_ - p.grad).norm() < 0.05 * p.grad.norm()

    def test_leaves_float64_alone(self, kind, low):
        layer = make_network(kind)[1]
        x = draw(9, 5)
        with torch.autocast("cpu", low):
            assert torch.equal(layer(x), layer(x.clone()))
            assert layer(x).dtype == torch.float64
        for other in (x.float(), x.to(low)):
            message = f"^x and mu must share a dtype, got {other.dtype} and torch.float64: [^,]*$"
            with torch.autocast("cpu", low), pytest.raises(TypeError, match=message):
                layer(other)

    def test_is_needed_for_other_inputs(self, kind, low):
        layer = make_network(kind, torch.float32)[1]
        message = (
            f"^x and mu must share a dtype, got {low} and torch.float32: .* and torch.autocast"
        )
        with pytest.raises(TypeError, match=message):
            layer(draw(9, 5, dtype=low))

    def test_second_derivatives(self, kind, low):
        layer = make_network(kind, torch.float32)[1]
        x = draw(9, 5, dtype=torch.float32).requires_grad_()
        leaves = [x, layer.mu, layer.sigma, layer.readout[0]]
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        expected = torch.autograd.grad(slope.square().sum(), leaves)
        with torch.autocast("cpu", low):
            (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        found = torch.autograd.grad(slope.square().sum(), leaves)
        # In the low precision they would be off by 1e-3. Summands may come in another order.
        assert_all_close(found, expected, rtol=1e-5, atol=1e-5)

    def test_forward_mode(self, kind, low):
        layer = make_network(kind, torch.float32)[1]
        x = draw(9, 5, dtype=torch.float32)
        expected = jvp(layer, (x,), tangents_like((x,)))
        with torch.autocast("cpu", low):
            found = jvp(layer, (x,), tangents_like((x,)))
        assert all(map(torch.equal, found, expected))
