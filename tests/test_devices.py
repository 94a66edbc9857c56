"""The layer on other devices: meta and CUDA."""

import copy

import pytest
import torch
from draws import draw, seeded
from module_checks import outcome
from networks import make_network
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from gmlib import init
from gmlib.functional import relu_moments

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class TestMeta:
    @pytest.mark.parametrize("leading", [(), (0,), (3,), (9,), (2, 3)], ids=str)
    def test_shapes(self, kind, leading):
        with torch.device("meta"):
            layer = kind.layer(5, 4, 3)
            x = torch.empty(*leading, 5, requires_grad=True)
        out = layer(x)
        out.sum().backward()
        assert (out.device.type, out.shape) == ("meta", (*leading, 4))
        for tensor in (x, *layer.parameters()):
            assert (tensor.grad.device.type, tensor.grad.shape) == ("meta", tensor.shape)

    def test_of_relu_moments(self):
        F, G = relu_moments(torch.empty(3, 1, device="meta"), torch.empty(2, device="meta"))
        assert F.shape == G.shape == (3, 2)

    def test_a_network_made_real(self, kind):
        network = make_network(kind, torch.float32).to("meta")
        assert network(torch.empty(9, 6, device="meta")).shape == (9, 2)
        network.to_empty(device="cpu")
        for layer in network:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        report = init.kumar_(network, draw(64, 6, dtype=torch.float32))
        assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-4)


@CUDA
class TestCUDA:
    @pytest.mark.parametrize("batch", [3, 9])
    @pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
    def test_equals_the_cpu(self, kind, dtype, accuracy, batch):
        network = make_network(kind, dtype)
        twin = copy.deepcopy(network).to("cuda")
        x = draw(batch, 6, dtype=dtype)
        expected, found = outcome(network, x), outcome(twin, x.to("cuda"))
        for one, other in zip(found, expected, strict=True):
            assert one.device.type == "cuda"
            # relative to the largest entry: single entries may cancel
            assert (one.cpu() - other).abs().max() < accuracy * other.abs().max()

    def test_large_layer_equals_the_cpu(self, kind):
        layer = kind.layer(784, 100, 10)
        layer.reset_parameters(0.05, generator=seeded())
        x = draw(3000, 784, dtype=torch.float32)  # several blocks
        expected = outcome(layer.double(), x.double())
        found = outcome(layer.float().to("cuda"), x.to("cuda"))
        for one, other in zip(found, expected, strict=True):
            assert (one.cpu() - other).abs().max() < 1e-4 * other.abs().max()

    def test_calibration(self, kind):
        network = make_network(kind, torch.float32)
        twin = copy.deepcopy(network).to("cuda")
        x = draw(256, 6, dtype=torch.float32)
        expected, found = init.calibrate_(network, x), init.calibrate_(twin, x.to("cuda"))
        for one, other in zip(found, expected, strict=True):
            assert one.name == other.name
            assert one.std_before == pytest.approx(other.std_before, rel=1e-4)
            assert one.scale == pytest.approx(other.scale, rel=1e-4)
            assert one.std_after == pytest.approx(0.5, rel=1e-5)
        random = torch.get_rng_state(), torch.cuda.get_rng_state()
        report = init.kumar_(twin, x, generator=torch.Generator("cuda").manual_seed(0))
        assert all(map(torch.equal, (torch.get_rng_state(), torch.cuda.get_rng_state()), random))
        assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-5)

    @pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
    def test_autocast(self, kind, low):
        layer = make_network(kind, torch.float32)[1].to("cuda")
        x = draw(9, 5, dtype=torch.float32).to("cuda")
        expected = outcome(layer, x)
        with torch.autocast("cuda", low):
            found = outcome(layer, x)
            assert layer(x.to(low)).dtype == torch.float32
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)

    def test_over_stacked_networks(self, kind):
        networks = [make_network(kind, torch.float32, seed).to("cuda") for seed in range(3)]
        parameters, _ = stack_module_state(networks)
        x = draw(3, 9, 6, dtype=torch.float32).to("cuda")
        out = vmap(lambda p, x: functional_call(networks[0], p, (x,)))(parameters, x)
        out.square().sum().backward()
        for run, network in enumerate(networks):
            single = network(x[run])
            single.square().sum().backward()
            assert_close(out[run], single, rtol=1e-4, atol=1e-5)
            for name, parameter in network.named_parameters():
                found = parameters[name].grad[run]
                error = (found - parameter.grad).abs().max()
                assert error < 1e-4 * parameter.grad.abs().max(), name
