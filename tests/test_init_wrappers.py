"""Networks as they come: wrapped, traced, offloaded, quantized. Initialized rightly, or refused."""

import copy
import warnings

import pytest
import torch
from draws import seeded
from init_checks import (
    INITS,
    MEASURING,
    SHOWN,
    TARGET,
    is_refused,
    output_stds,
    sample,
    seeded_init,
)
from module_checks import assert_all_close, unchanged
from torch import nn
from torch.ao import quantization
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    checkpoint_wrapper,
)
from torch.func import functional_call, stack_module_state, vmap
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from gmlib import FoldedGaussianMixtureLayer, GaussianMixtureLayer
from gmlib.init import kumar_, scale_report
from gmlib.layer import MixtureLayer


def make():
    """GM layers of both kinds among others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            GaussianMixtureLayer(8, 7, 3),
            nn.Dropout(),
            FoldedGaussianMixtureLayer(7, 5, 2),
        )


class Runs(nn.Module):
    """Runs a network by a function."""

    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x):
        return self.function(self.network, x)


def replaced(network, index, module):
    network[index] = module
    return network


class Leaves(torch.fx.Tracer):
    """Takes GM layers as they are."""

    def is_leaf_module(self, module, name):
        return isinstance(module, MixtureLayer) or super().is_leaf_module(module, name)


def in_a_graph(network):
    return torch.fx.GraphModule(network, Leaves().trace(network))


def offloaded(module):
    """Has its parameters on the meta device but while it runs, as `accelerate` does it."""
    parameters = dict(module.named_parameters(recurse=False))

    def put(tensors):
        for name, tensor in tensors.items():
            module._parameters[name] = nn.Parameter(tensor)

    def forward(*args):
        put(parameters)
        try:
            return run(*args)
        finally:
            put({name: tensor.to("meta") for name, tensor in parameters.items()})

    run, module.forward = module.forward, forward
    put({name: tensor.to("meta") for name, tensor in parameters.items()})
    return module


def traced(network):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(network.eval(), sample(network[0].in_features))


def scripted(module):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(module)


def frozen(module):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.freeze(torch.jit.script(module.eval()))


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "in a list": lambda network: nn.Sequential(nn.ModuleList([network])[0]),
    "checkpointed": lambda network: Runs(
        network, lambda n, x: checkpoint(n, x, use_reentrant=False)
    ),
    "checkpointed, reentrant": lambda network: Runs(
        network, lambda n, x: checkpoint(n, x, use_reentrant=True)
    ),
    "checkpointed in parts": lambda network: Runs(
        network, lambda n, x: checkpoint_sequential(n, 3, x, use_reentrant=False)
    ),
    "checkpoint_wrapper": checkpoint_wrapper,
    "checkpoint_wrapper, reentrant": lambda network: checkpoint_wrapper(
        network, checkpoint_impl=CheckpointImpl.REENTRANT
    ),
    "checkpoint_wrapper of a layer": lambda network: replaced(
        network, 2, checkpoint_wrapper(network[2])
    ),
    "GraphModule": in_a_graph,
    "with a traced part": lambda network: replaced(network, 0, traced(nn.Sequential(network[0]))),
    "with a scripted part": lambda network: replaced(network, 0, scripted(network[0])),
    "with a scripted BatchNorm": lambda network: replaced(network, 1, scripted(network[1])),
    "with a frozen script": lambda network: replaced(network, 0, frozen(network[0])),
    "offloaded in part": lambda network: replaced(network, 0, offloaded(network[0])),
}


@pytest.mark.parametrize("init_", MEASURING)
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_a_wrapped_network_is_as_the_plain_one(init_, wrap):
    plain, held = make(), make()
    layers = held[2], held[4]
    expected = seeded_init(init_, plain, sample())
    report = seeded_init(init_, wrap(held), sample())
    for layer, other in zip(layers, (plain[2], plain[4]), strict=True):
        assert_all_close(layer.parameters(), other.parameters())
        assert not layer._forward_hooks
    for entry, other in zip(report, expected, strict=True):
        assert (entry.std_before, entry.std_after) == pytest.approx(
            (other.std_before, other.std_after), rel=1e-5
        )


def parts(network):
    """Is run in several places."""
    network = nn.DataParallel(network)
    network.device_ids = [0, 1]
    return network


HELD = {
    "AveragedModel": (
        AveragedModel,
        "the network is held by AveragedModel.*: initialize the network first",
    ),
    "AveragedModel inside": (
        lambda network: nn.Sequential(AveragedModel(network)),
        "the network is held by AveragedModel.*: initialize the network first",
    ),
    "meta": (
        lambda network: network.to("meta"),
        "mu of GM layer '2' is on the meta device, .* offload it afterwards",
    ),
    "offloaded": (
        lambda network: replaced(network, 4, offloaded(network[4])),
        "mu of GM layer '4' is on the meta device, .* offload it afterwards",
    ),
    "traced": (traced, "holds no GM layer: initialize the network first, trace, script or export"),
    "traced, inside": (
        lambda network: nn.Sequential(traced(network)),
        "^Sequential holds no GM layer: initialize the network first, trace, script or export it",
    ),
    "symbolically traced": (
        lambda network: torch.fx.symbolic_trace(network[:2]),
        "holds no GM layer: initialize the network first, trace, script or export it",
    ),
}


@pytest.mark.parametrize("init_", INITS.values(), ids=INITS)
@pytest.mark.parametrize(("wrap", "message"), HELD.values(), ids=HELD)
def test_what_would_be_lost_is_refused(init_, wrap, message):
    network = wrap(make())
    before = torch.get_rng_state()
    values = {k: v.clone() for k, v in network.state_dict().items() if not v.is_meta}
    with pytest.raises(ValueError, match=message):
        init_(network, sample())
    assert all(torch.equal(network.state_dict()[k], v) for k, v in values.items())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("calibration", MEASURING)
def test_what_is_run_in_several_places_is_refused(calibration):
    message = "^DataParallel runs several copies of its network: pass its `module`$"
    is_refused(calibration, parts(make()), sample(), ValueError, message)


def test_an_average_is_measured():
    network = make()
    kumar_(network, sample())
    report = scale_report(AveragedModel(network), sample())
    assert [entry.name for entry in report] == ["module.2", "module.4"]
    assert [entry.std_after for entry in report] == pytest.approx([0.5, 0.5], rel=1e-5)


# --- Quantization --------------------------------------------------------------------------------


class Quantized(nn.Module):
    """A network whose dense part is to be quantized."""

    def __init__(self):
        super().__init__()
        self.quant, self.dense, self.dequant = (
            quantization.QuantStub(),
            nn.Linear(6, 8),
            quantization.DeQuantStub(),
        )
        self.layers = make()[2:]
        self.qconfig, self.layers.qconfig = quantization.get_default_qat_qconfig("fbgemm"), None

    def forward(self, x):
        return self.layers(self.dequant(self.dense(self.quant(x))))


@pytest.mark.parametrize("init_", SHOWN)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestQuantization:
    def test_prepared(self, init_):
        network = quantization.prepare_qat(Quantized())
        before = {name: copy.deepcopy(buffer) for name, buffer in network.named_buffers()}
        report = init_(network, iter(sample().split(64)))
        # the observers have seen nothing, although they look in evaluation mode too
        for name, buffer in network.named_buffers():
            assert torch.equal(buffer, before[name])
        assert [e.std_after for e in report] == pytest.approx([TARGET[init_]] * 2, rel=1e-5)

    def test_converted(self, init_):
        network = quantization.prepare_qat(Quantized())
        network(sample())
        network = quantization.convert(network.eval())
        report = init_(network, sample())
        found = list(output_stds(network, sample()).values())
        assert found == pytest.approx([TARGET[init_]] * 2, rel=1e-5)
        assert [e.std_after for e in report] == pytest.approx(found, rel=1e-6)

    def test_dynamic(self, init_):
        network = quantization.quantize_dynamic(make()[::2], {nn.Linear})
        init_(network, sample())
        found = list(output_stds(network, sample()).values())
        assert found == pytest.approx([TARGET[init_]] * 2, rel=1e-5)


# --- Functional calls ----------------------------------------------------------------------------


@pytest.mark.parametrize("calibration", SHOWN)
def test_parameters_of_somewhere_else_are_refused(calibration):
    other = {name: p.detach().clone() for name, p in make().named_parameters()}
    network = Runs(make(), lambda n, x: functional_call(n, other, (x,)))
    message = r"GM layer 'network\.2' .* not linear in U and v, or the network does not do the same"
    is_refused(calibration, network, sample(), ValueError, message)


@pytest.mark.parametrize("calibration", MEASURING)
def test_layers_in_vmap_are_refused_by_name(calibration):
    network = Runs(make()[2:], lambda n, x: vmap(n)(x.view(20, 10, 8)))
    data = sample(200, 8)
    with unchanged(network), pytest.raises(RuntimeError, match="vmap") as raised:
        calibration(network, data)
    assert raised.value.__notes__ == [
        "The outputs of layer 'network.2' cannot be measured where the network calls it, such as "
        "in vmap; with `forward` it can be run in another way."
    ]
    calibration(network, data, forward=lambda module, batch: module.network(batch))


def test_ensembles_are_initialized_one_by_one_and_stacked_afterwards():
    networks, x = [make()[2:].eval() for _ in range(3)], sample(d=8)
    for seed, network in enumerate(networks):
        kumar_(network, x, generator=seeded(seed))
    parameters, buffers = stack_module_state(networks)
    call = vmap(lambda p, b: functional_call(networks[0], (p, b), (x,)))
    stds = call(parameters, buffers).detach().std(dim=(1, 2), correction=0)
    torch.testing.assert_close(stds, torch.full((3,), 0.5))


# --- Layers that return no tensor, and hooks of others -------------------------------------------


OUTPUTS = {
    "tuple": (nn.GRU(6, 5), TypeError, "layer '0', a GRU, returns a tuple; only tensors can be"),
    "None": (
        Runs(None, lambda n, x: None),
        TypeError,
        "layer '0', a Runs, returns a NoneType; only",
    ),
    "dictionary": (Runs(None, lambda n, x: {"x": x}), TypeError, "a Runs, returns a dict; only"),
    "no values": (Runs(None, lambda n, x: x[:0]), ValueError, "never reached the layers '0'"),
    "sparse": (
        Runs(None, lambda n, x: x.to_sparse()),
        RuntimeError,
        "layer '0' cannot be measured",
    ),
}


@pytest.mark.parametrize(("layer", "error", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_layer_that_returns_no_tensor_is_named(layer, error, message):
    network = nn.Sequential(layer)
    with pytest.raises(error, match=message):
        scale_report(network, sample(), type(layer))
    assert not layer._forward_hooks


@pytest.mark.parametrize("init_", SHOWN)
def test_a_gm_layer_with_more_outputs_is_named(init_):
    class Twice(GaussianMixtureLayer):
        def forward(self, x):
            return super().forward(x), x

    network = nn.Sequential(Twice(6, 5, 3))
    message = "^layer '0', a Twice, returns a tuple; only tensors can be measured$"
    is_refused(init_, network, sample(), TypeError, message)


@pytest.mark.parametrize(
    "output",
    [
        lambda out: 2.0 * out + 1.0,
        lambda out: (out, out),
        lambda out: None,
        lambda out: out.detach().numpy(),
    ],
)
def test_what_is_measured_is_what_the_layer_returns_not_what_hooks_make_of_it(output):
    network = nn.Sequential(GaussianMixtureLayer(6, 5, 3))
    network[0].register_forward_hook(lambda layer, args, out: output(out))
    report = kumar_(network, sample())
    assert report[0].std_after == pytest.approx(0.5, rel=1e-5)
    with torch.no_grad():
        assert network[0].forward(sample()).std(correction=0).item() == pytest.approx(0.5, rel=1e-5)


def test_outputs_of_other_types_are_measured():
    x = sample()
    for output in (x.half(), x.bfloat16(), torch.complex(x, -2.0 * x), (10 * x).int(), x > 0):
        network = nn.Sequential(Runs(None, lambda n, _, output=output: output))
        (entry,) = scale_report(network, x, Runs)
        wide = output.to(torch.complex128 if output.is_complex() else torch.float64)
        assert entry.std_after == wide.std(correction=0).item()
