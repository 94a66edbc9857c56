"""Parameters that are shared, computed from others, or frozen."""

import copy
import functools

import pytest
import torch
from derivatives import check_derivatives
from draws import draw, seeded
from kinds import AFFINE, PARAMETERS
from module_checks import assert_all_close, parameter_gradients, snapshot, unchanged
from networks import make_layer, stack
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import orthogonal, weight_norm
from torch.testing import assert_close

from gmlib import init

# --- Sharing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", PARAMETERS)
def test_the_gradient_of_a_shared_parameter_is_the_sum(kind, role):
    name = kind.names[role]
    apart, x = nn.Sequential(make_layer(kind, 4, 4), make_layer(kind, 4, 4, seed=1)), draw(5, 4)
    apart[1].load_state_dict({name: getattr(apart[0], name)}, strict=False)
    tied = copy.deepcopy(apart)
    setattr(tied[1], name, getattr(tied[0], name))
    tied = copy.deepcopy(tied)  # which stays tied
    expected = parameter_gradients(apart, x)
    expected[f"0.{name}"] = expected[f"0.{name}"] + expected.pop(f"1.{name}")
    found = parameter_gradients(tied, x)
    assert found.keys() == expected.keys()
    for key in found:
        assert_close(found[key], expected[key], rtol=1e-13, atol=1e-13)

    # Under either name another tensor takes its place in both.
    value = draw(*getattr(tied[0], name).shape, seed=5)
    out = functional_call(tied, {f"1.{name}": value}, x)
    for layer in apart:
        layer.load_state_dict({name: value}, strict=False)
    assert torch.equal(out, apart(x))


def test_the_gradients_of_a_layer_used_twice_are_the_sum(kind):
    layer, x = make_layer(kind, 4, 4), draw(5, 4)
    twice, apart = nn.Sequential(layer, nn.Tanh(), layer), [copy.deepcopy(layer) for _ in range(2)]
    found = parameter_gradients(twice, x)
    parts = parameter_gradients(nn.Sequential(apart[0], nn.Tanh(), apart[1]), x)
    assert list(found) == [f"0.{name}" for name in kind.parameters]
    for name in kind.parameters:
        expected = parts[f"0.{name}"] + parts[f"2.{name}"]
        assert_close(found[f"0.{name}"], expected, rtol=1e-13, atol=1e-13)


# --- Parametrizations ----------------------------------------------------------------------------


def through(function):
    """A parametrization by a function such as `nn.Softplus()`."""
    return lambda layer, name: parametrize.register_parametrization(layer, name, function)


PARAMETRIZED = {
    "softplus of sigma": ("sigma", through(nn.Softplus())),
    "weight-normed mu": ("mu", weight_norm),
    "weight-normed weights": ("weights", weight_norm),
    "orthogonal weights": ("weights", orthogonal),
    "tanh of offsets": ("offsets", through(nn.Tanh())),
}


@pytest.mark.parametrize(("role", "register"), PARAMETRIZED.values(), ids=PARAMETRIZED)
class TestParametrized:
    def test_derivatives_in_what_it_is_computed_from(self, kind, role, register):
        layer = make_layer(kind, 2, 2)
        register(layer, kind.names[role])
        names, originals = zip(*layer.named_parameters(), strict=True)

        def call(x, *values):
            return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

        inputs = (draw(3, 2), *originals)
        if register is weight_norm:  # of which PyTorch has the first derivatives alone right
            inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
            assert gradcheck(call, inputs, check_batched_grad=True)
        else:
            check_derivatives(call, inputs)

    def test_removed_again(self, kind, role, register):
        layer, x, name = make_layer(kind), draw(5, 4), kind.names[role]
        register(layer, name)
        computed = {name: getattr(layer, name).detach().clone() for name in kind.parameters}
        out = layer(x)
        assert torch.equal(out, kind.function(x, **computed))
        parametrize.remove_parametrizations(layer, name)
        plain = make_layer(kind, seed=3)
        plain.load_state_dict(layer.state_dict())
        assert torch.equal(plain(x), out)


def test_a_parametrized_sigma(kind):
    layer = kind.layer(5, 4, 3)
    nn.utils.parametrize.register_parametrization(layer, "sigma", nn.Softplus())
    x = draw(9, 5, dtype=torch.float32)
    layer(x).sum().backward()
    raw = layer.parametrizations.sigma.original
    assert torch.equal(layer(x), kind.function(x, layer.mu, layer.sigma, *layer.readout))
    assert raw.grad.isfinite().all()
    assert raw.grad.abs().max() > 0


# --- Initializations of all this -----------------------------------------------------------------

SAMPLE = draw(300, 6)
RESCALES = {  # by a factor that the outputs, or a formula, ask for
    "calibrate_": functools.partial(init.calibrate_, data=SAMPLE),
    "kumar_": functools.partial(init.kumar_, data=SAMPLE),
    "lsuv_": functools.partial(init.lsuv_, data=SAMPLE),
    "analytic_": functools.partial(init.analytic_, squared_norm=6.0),
}
INITS = {"baseline_": init.baseline_, "fan_in_": init.fan_in_} | RESCALES
COMPUTED = {
    **{f"computed {role}": (role, through(nn.Softplus())) for role in PARAMETERS},
    # These two leave an attribute that is a tensor, and recompute it at each call.
    "pruned weights": ("weights", functools.partial(prune.random_unstructured, amount=0.5)),
    "weight-normed offsets, as of old": ("offsets", nn.utils.weight_norm),
}
every_init = pytest.mark.parametrize("init_", INITS.values(), ids=INITS)
every_rescaling = pytest.mark.parametrize("init_", RESCALES.values(), ids=RESCALES)


def is_refused(init_, network, error, message):
    with unchanged(network), pytest.raises(error, match=message):
        init_(network)


def stds(network):
    """Of the outputs of each layer, as the next one gets them."""
    found, x = [], SAMPLE
    for layer in network:
        x = layer(x)
        found.append(x.std(correction=0).item())
    return found


class TestComputed:
    """What is written to a parametrized parameter is lost without a word, so nothing is written."""

    @every_init
    @pytest.mark.parametrize(("role", "register"), COMPUTED.values(), ids=COMPUTED)
    @pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
    def test_is_refused_by_name(self, kind, init_, role, register):
        network, name = stack(kind, 6, 5, 4, dtype=torch.float64), kind.names[role]
        register(network[1], name)
        if init_ is INITS["calibrate_"] and name in ("mu", "sigma"):
            init_(network)  # writes to neither
            assert stds(network) == pytest.approx([0.5, 0.5], rel=1e-12)
        else:
            sentence = (
                f"^{name} of GM layer '1' is computed from other tensors and cannot be written to: "
                "initialize first, parametrize or prune afterwards$"
            )
            is_refused(init_, network, ValueError, sentence)

    @pytest.mark.parametrize(("role", "register"), [("weights", weight_norm), ("mu", weight_norm)])
    def test_after_the_initialization_is_the_way(self, kind, role, register):
        network = stack(kind, 6, 5, 4, dtype=torch.float64)
        init.kumar_(network, SAMPLE)
        register(network[1], kind.names[role])
        before = snapshot(network)
        report = init.scale_report(network, SAMPLE)  # which looks and writes nothing
        assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-12)
        assert snapshot(network) == before


class TestShared:
    """A readout in two places would be rescaled for each, and be right for neither."""

    @staticmethod
    def share(network, one, other):
        *path, name = one.split(".")
        setattr(network.get_submodule(".".join(path)), name, network.get_parameter(other))

    @every_rescaling
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("0.{weights}", "1.{weights}"),
            ("0.{offsets}", "1.{offsets}"),
            ("0.{offsets}", "1.mu"),
            ("0.{offsets}", "2.weight"),
        ],
    )
    def test_readout_is_refused_by_both_names(self, kind, init_, one, other):
        one, other = (name.format(**kind.names) for name in (one, other))
        network = nn.Sequential(
            make_layer(kind, 6, 6, 6), make_layer(kind, 6, 6, 6), nn.Linear(6, 6).double()
        )
        self.share(network, other, one)
        is_refused(init_, network, ValueError, f"^'{one}' and '{other}' are one tensor")

    @every_rescaling
    def test_readout_within_a_layer_too(self, kind, init_):
        network = nn.Sequential(make_layer(kind, 6, 6, 3))
        offsets = f"0.{kind.names['offsets']}"
        self.share(network, offsets, "0.mu")
        is_refused(init_, network, ValueError, f"^'0.mu' and '{offsets}' are one tensor")

    @pytest.mark.parametrize("name", ["mu", "sigma"])
    @pytest.mark.parametrize("init_", [RESCALES["calibrate_"], RESCALES["kumar_"]])
    def test_gaussians_are_calibrated(self, kind, init_, name):
        network = nn.Sequential(make_layer(kind, 6, 6, 3), make_layer(kind, 6, 6, 3, seed=1))
        self.share(network, f"1.{name}", f"0.{name}")
        init_(network)
        assert network[0].get_parameter(name) is network[1].get_parameter(name)
        assert stds(network) == pytest.approx([0.5, 0.5], rel=1e-12)


@every_init
@pytest.mark.parametrize("frozen", PARAMETERS)
def test_frozen_parameters_are_initialized_too(kind, init_, frozen):
    frozen = kind.names[frozen]
    # As by torch.nn.init: to freeze is to keep from training, often a random draw.
    network, free = (
        stack(kind, 6, 5, 4, dtype=torch.float64),
        stack(kind, 6, 5, 4, dtype=torch.float64),
    )
    network[1].get_parameter(frozen).requires_grad_(False)
    for each in (network, free):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            init_(each)
    assert snapshot(network) == snapshot(free)
    held = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert held == [f"1.{frozen}"]


@pytest.mark.parametrize("init_", [RESCALES[name] for name in ("calibrate_", "kumar_", "lsuv_")])
@pytest.mark.parametrize("role", PARAMETERS)
def test_a_half_converted_layer_is_refused_by_name(kind, init_, role):
    network, name = stack(kind, 6, 5, 4, dtype=torch.float64), kind.names[role]
    setattr(network[1], name, nn.Parameter(network[1].get_parameter(name).detach().float()))
    is_refused(init_, network, TypeError, f"x and {name} must share a dtype")


@pytest.mark.parametrize("role", PARAMETERS)
def test_a_half_converted_layer_is_drawn_like_any_other(kind, role):
    layers = make_layer(kind), make_layer(AFFINE)
    for layer, name in zip(layers, (kind.names[role], AFFINE.names[role]), strict=True):
        setattr(layer, name, nn.Parameter(layer.get_parameter(name).detach().float()))
        init.baseline_(layer, generator=seeded(1))
        layer.double()
    found, affine = (tuple(layer.parameters()) for layer in layers)
    expected = (*affine[:2], *kind.coordinates(*affine))
    assert_all_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_in_half_precision_is_drawn_too(kind, dtype):
    # for use under autocast, which converts it
    layer = make_layer(kind, dtype=torch.float32)
    layer.to(dtype).reset_parameters(generator=seeded())
    assert {p.dtype for p in layer.parameters()} == {dtype}
    with torch.autocast("cpu", dtype):
        out = layer(draw(5, 4, dtype=dtype))
    assert out.dtype == torch.float32
    assert out.isfinite().all()
