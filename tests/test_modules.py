"""What PyTorch asks of its own modules, and of state dicts, parametrizations and threads.

What the layer computes, and that it copies, pickles and compiles, is in the other files.
"""

import copy
import functools
import gc
import operator
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import multiprocessing, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils import (
    clip_grad_norm_,
    parameters_to_vector,
    parametrize,
    prune,
    vector_to_parameters,
)
from torch.nn.utils.parametrizations import orthogonal, weight_norm
from torch.testing import assert_close

from gmlib import GaussianMixtureLayer, init
from gmlib.functional import gm_layer, relu_moments

PARAMETERS = ("mu", "sigma", "U", "v")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, dtype=torch.float64, seed=1):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def make_layer(d=4, C=3, K=2, *, dtype=torch.float64, seed=0):
    layer = GaussianMixtureLayer(d, C, K, dtype=dtype)
    layer.reset_parameters(generator=seeded(seed))
    return layer


def make_stack(*, dtype=torch.float64):
    return nn.Sequential(make_layer(6, 5, 3, dtype=dtype), make_layer(5, 4, 3, dtype=dtype, seed=1))


def gradients(module, x):
    """Those of a weighting of the outputs, by name of the parameter."""
    parameters = dict(module.named_parameters())
    out = module(x)
    weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view(out.shape)
    return dict(
        zip(parameters, torch.autograd.grad(out, list(parameters.values()), weight), strict=True)
    )


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


# --- Derivatives of every order and mode, in any layout and of any shape --------------------------


def check_derivatives(function, inputs):
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    assert gradcheck(
        function,
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True, check_batched_grad=True)


def arguments(*leading):
    layer = make_layer(2, 2)
    return draw(*leading, 2), layer.mu, layer.sigma, layer.U, layer.v


LAYOUTS = {
    "permuted": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "expanded": lambda t: t[:1].expand_as(t),
}


class TestDerivatives:
    @pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
    def test_in_any_layout(self, layout):
        # of the output too, so that the backward is handed gradients of such strides
        def function(*inputs):
            moved = [layout(tensor) for tensor in inputs]
            assert not any(tensor.is_contiguous() for tensor in moved)
            return layout(gm_layer(*moved))

        check_derivatives(function, arguments(3))

    @pytest.mark.parametrize("leading", [(), (0,), (2, 0), (2, 2)], ids=str)
    def test_for_any_leading_shape(self, leading):
        check_derivatives(gm_layer, arguments(*leading))

    @pytest.mark.parametrize("shape", [(), (0,), (2, 0)], ids=str)
    def test_of_relu_moments_of_one_and_of_none(self, shape):
        m, t = draw(*shape), draw(*shape, seed=2).abs()
        check_derivatives(relu_moments, (m, t))


# --- What every module can do --------------------------------------------------------------------


def test_training_and_evaluation_are_one():
    layer, x = make_layer(), draw(5, 4)
    assert torch.equal(layer.train()(x), layer.eval()(x))


def test_memory_formats():
    layer, x = make_layer(), draw(2, 3, 5, 4)
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    assert not x.is_contiguous()
    assert_close(layer(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("frozen", PARAMETERS)
def test_a_frozen_parameter_stays_while_the_others_train(frozen):
    layer, x = make_layer(), draw(8, 4)
    target = draw(8, 3, seed=2)
    getattr(layer, frozen).requires_grad_(False)
    before = snapshot(layer)
    # The optimizer is given all of them, as scripts do: one with no gradient is passed over.
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.5, weight_decay=1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    after = layer.state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} == {frozen}


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_add_up_until_they_are_zeroed(set_to_none):
    layer, x = make_layer(), draw(5, 4)
    expected = gradients(layer, x)
    # Gradients that shared memory with each other or with what is saved would be added to twice.
    for times in (1, 2, 3):
        total = layer(x)
        total.backward(torch.linspace(-1.0, 2.0, total.numel(), dtype=x.dtype).view_as(total))
        for name, parameter in layer.named_parameters():
            assert_close(parameter.grad, times * expected[name], rtol=1e-14, atol=0)
    layer.zero_grad(set_to_none=set_to_none)
    for parameter in layer.parameters():
        if set_to_none:
            assert parameter.grad is None
        else:
            assert not parameter.grad.any()


def test_gradients_are_clipped_in_place():
    layer = make_layer()
    layer(draw(5, 4)).sum().backward()
    before = parameters_to_vector([p.grad for p in layer.parameters()])
    norm = clip_grad_norm_(layer.parameters(), 0.1, error_if_nonfinite=True)
    after = parameters_to_vector([p.grad for p in layer.parameters()])
    assert norm.item() == pytest.approx(before.norm().item(), rel=1e-12)
    assert norm > 0.2
    assert_close(after, 0.1 / norm * before, rtol=1e-4, atol=0)  # 1e-6 goes to the divisor


def test_parameters_as_one_vector():
    layer, twin, x = make_layer(), make_layer(seed=1), draw(5, 4)
    vector = parameters_to_vector(layer.parameters())
    assert vector.shape == (2 * (2 * 4 + 3 * 4 + 3),)
    vector_to_parameters(vector, twin.parameters())
    assert torch.equal(twin(x), layer(x))


def test_copied_hooks_see_the_gradients():
    network, x = make_stack(), draw(5, 6).requires_grad_()
    seen = []
    network[1].register_full_backward_hook(lambda *grads: seen.append(grads))
    network[1].register_forward_hook(lambda layer, args, out: 2.0 * out)
    twin = copy.deepcopy(network)
    nn.init.zeros_(network[1].U)  # of no concern to the copy
    hidden = twin[0](x)
    out = twin[1](hidden)
    weight = draw(*out.shape)
    expected = torch.autograd.grad(gm_layer(hidden, *twin[1].parameters()), hidden, 2.0 * weight)
    out.backward(weight)
    ((layer, (grad_in,), (grad_out,)),) = seen
    assert layer is twin[1]
    assert torch.equal(grad_in, expected[0])
    assert torch.equal(grad_out, weight)


@pytest.mark.parametrize(
    "context", [torch.autograd.graph.save_on_cpu, torch.autograd.detect_anomaly]
)
def test_under_hooks_on_what_is_saved(context):
    network, x = make_stack(), draw(5, 6)
    expected = gradients(network, x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection has been enabled")
        with context():
            assert same(gradients(network, x), expected)


def test_the_graph_goes_with_the_outputs():
    layer, x = make_layer(), draw(5, 4)
    gone = weakref.ref(x)
    gc.disable()  # which would break a cycle, but not before memory has run out
    try:
        for out in (layer(x), layer(x).sum()):
            torch.autograd.grad(out.sum(), layer.U, create_graph=True)
        del x, out
        assert gone() is None
    finally:
        gc.enable()


# --- Conversion by swapping ----------------------------------------------------------------------


@pytest.fixture
def _swapping():
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


@pytest.mark.usefixtures("_swapping")
def test_swapped_parameters_are_the_old_objects():
    layer, x = make_layer(dtype=torch.float32), draw(5, 4)
    before = list(layer.parameters())
    # Swapping fails on what a graph holds; this one has gone, and its gradients are converted too.
    layer(x.float()).sum().backward()
    layer.double()
    assert all(map(operator.is_, layer.parameters(), before))
    assert {p.dtype for p in before} == {p.grad.dtype for p in before} == {torch.float64}
    layer.zero_grad()
    assert torch.equal(layer(x), gm_layer(x, *before))

    stored = make_layer(seed=3)
    layer.load_state_dict(stored.state_dict())
    assert all(map(operator.is_, layer.parameters(), before))
    assert torch.equal(layer(x), stored(x))


# --- Sharing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_gradient_of_a_shared_parameter_is_the_sum(name):
    apart, x = nn.Sequential(make_layer(4, 4), make_layer(4, 4, seed=1)), draw(5, 4)
    apart[1].load_state_dict({name: getattr(apart[0], name)}, strict=False)
    tied = copy.deepcopy(apart)
    setattr(tied[1], name, getattr(tied[0], name))
    tied = copy.deepcopy(tied)  # which stays tied
    expected = gradients(apart, x)
    expected[f"0.{name}"] = expected[f"0.{name}"] + expected.pop(f"1.{name}")
    found = gradients(tied, x)
    assert found.keys() == expected.keys()
    for key in found:
        assert_close(found[key], expected[key], rtol=1e-13, atol=1e-13)

    # Under either name another tensor takes its place in both.
    value = draw(*getattr(tied[0], name).shape, seed=5)
    out = functional_call(tied, {f"1.{name}": value}, x)
    for layer in apart:
        layer.load_state_dict({name: value}, strict=False)
    assert torch.equal(out, apart(x))


def test_the_gradients_of_a_layer_used_twice_are_the_sum():
    layer, x = make_layer(4, 4), draw(5, 4)
    twice, apart = nn.Sequential(layer, nn.Tanh(), layer), [copy.deepcopy(layer) for _ in range(2)]
    found = gradients(twice, x)
    parts = gradients(nn.Sequential(apart[0], nn.Tanh(), apart[1]), x)
    assert list(found) == [f"0.{name}" for name in PARAMETERS]
    for name in PARAMETERS:
        expected = parts[f"0.{name}"] + parts[f"2.{name}"]
        assert_close(found[f"0.{name}"], expected, rtol=1e-13, atol=1e-13)


# --- Parametrizations ----------------------------------------------------------------------------


def through(function):
    """A parametrization by a function such as `nn.Softplus()`."""
    return lambda layer, name: parametrize.register_parametrization(layer, name, function)


PARAMETRIZED = {
    "softplus of sigma": ("sigma", through(nn.Softplus())),
    "weight-normed mu": ("mu", weight_norm),
    "weight-normed U": ("U", weight_norm),
    "orthogonal U": ("U", orthogonal),
    "tanh of v": ("v", through(nn.Tanh())),
}


@pytest.mark.parametrize(("name", "register"), PARAMETRIZED.values(), ids=PARAMETRIZED)
class TestParametrized:
    def test_derivatives_in_what_it_is_computed_from(self, name, register):
        layer = make_layer(2, 2)
        register(layer, name)
        names, originals = zip(*layer.named_parameters(), strict=True)

        def call(x, *values):
            return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

        inputs = (draw(3, 2), *originals)
        if register is weight_norm:  # of which PyTorch has the first derivatives alone right
            inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
            assert gradcheck(call, inputs, check_batched_grad=True)
        else:
            check_derivatives(call, inputs)

    def test_removed_again(self, name, register):
        layer, x = make_layer(), draw(5, 4)
        register(layer, name)
        computed = {name: getattr(layer, name).detach().clone() for name in PARAMETERS}
        out = layer(x)
        assert torch.equal(out, gm_layer(x, **computed))
        parametrize.remove_parametrizations(layer, name)
        plain = make_layer(seed=3)
        plain.load_state_dict(layer.state_dict())
        assert torch.equal(plain(x), out)


# --- Threads and processes -----------------------------------------------------------------------


def test_threads_that_share_a_module_do_not_meet():
    network, x = make_stack(dtype=torch.float32), draw(7, 6, dtype=torch.float32)

    def plain():
        return gradients(network, x)

    def without_gradients():
        with torch.no_grad():
            return {"out": network(x)}

    def under_autocast():
        with torch.autocast("cpu", torch.bfloat16):
            return gradients(network, x)

    def transformed():  # not by functional_call, which swaps the parameters for every thread
        return {"x": torch.func.grad(lambda x: network(x).square().sum())(x)}

    # Each takes other branches, by what the thread is in: autocast, a transform, no_grad.
    tasks = [plain, without_gradients, under_autocast, transformed]
    expected = [task() for task in tasks]
    barrier = threading.Barrier(8)

    def work(first):
        barrier.wait(timeout=60)
        order = [(first + step) % len(tasks) for step in range(10 * len(tasks))]
        return all(same(tasks[index](), expected[index]) for index in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_another_process_writes_to_shared_parameters():
    layer = make_layer().share_memory()
    before = snapshot(layer)
    process = multiprocessing.get_context("spawn").Process(
        target=init.baseline_, args=(layer, 0.25)
    )
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0
    assert (layer.sigma == 0.25).all()
    assert not any(torch.equal(layer.state_dict()[name], before[name]) for name in PARAMETERS)


# --- State dicts ---------------------------------------------------------------------------------

# Numbers that float32 holds exactly.
STORED = {
    "mu": [[0.25, -0.5], [-1.5, 0.125]],
    "sigma": [[0.75, -0.5], [1.25, 2.0]],
    "U": [[[1.5, -0.25], [0.5, 1.0], [0.0, -2.0]], [[-0.75, 0.375], [2.0, -1.0], [0.25, 0.625]]],
    "v": [[0.125, -1.0, 0.5], [1.75, 0.25, -0.375]],
}
INPUTS = [[0.5, -1.25], [2.0, 0.75], [-1.0, 0.0]]
# The sums in the docstring of `gmlib.functional`, in 40 digits of mpmath and no code of this
# package; the first and the last but one also by integrating over beta itself.
OUTPUTS = [
    [0.950158086700112739, -0.355342660604304377, 0.125322652593351038],
    [0.909368642842204849, -0.361066261689152601, 0.540857082162756699],
    [2.71610135662238795, -3.82280591630950262, -0.557295037038840821],
]


def stored(dtype=torch.float64, prefix=""):
    return {f"{prefix}{name}": torch.tensor(value, dtype=dtype) for name, value in STORED.items()}


class TestStored:
    """What was saved once must mean the same for ever."""

    @pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
    @pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 6), (torch.float64, 14)])
    def test_has_the_outputs_that_it_had(self, dtype, digits, assign):
        network = nn.Sequential(nn.Flatten(), GaussianMixtureLayer(2, 3, 2, dtype=dtype))
        network.load_state_dict(stored(dtype, prefix="1."), assign=assign)
        out = network(torch.tensor(INPUTS, dtype=dtype))
        expected = torch.tensor(OUTPUTS, dtype=torch.float64)
        assert_close(out.double(), expected, rtol=10.0**-digits, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_in_another_dtype_is_converted(self, dtype):
        layer = make_layer(2, dtype=torch.float32)
        before = list(layer.parameters())
        wide = {name: value / 3.0 for name, value in stored().items()}
        layer.load_state_dict({name: value.to(dtype) for name, value in wide.items()})
        for name, parameter in layer.named_parameters():
            assert torch.equal(parameter, wide[name].to(dtype).float())
        assert all(map(operator.is_, layer.parameters(), before))

    def test_assigned_keeps_its_dtype_and_what_is_frozen(self):
        layer = make_layer(2, dtype=torch.float32)
        layer.sigma.requires_grad_(False)
        values = stored()
        layer.load_state_dict(values, assign=True)
        for name, parameter in layer.named_parameters():
            assert isinstance(parameter, nn.Parameter)
            assert parameter.data_ptr() == values[name].data_ptr()
            assert parameter.requires_grad == (name != "sigma")
        assert set(gradients(layer.requires_grad_(), draw(5, 2))) == set(PARAMETERS)

    @pytest.mark.parametrize("name", PARAMETERS)
    def test_assigned_in_part_is_named_when_it_does_not_fit(self, name):
        layer = make_layer(2, dtype=torch.float32)
        layer.load_state_dict({name: stored()[name]}, strict=False, assign=True)
        with pytest.raises(TypeError, match=rf"x and {name} must share a dtype, .*\.float64$"):
            layer(draw(5, 2, dtype=torch.float32))

    @pytest.mark.parametrize(
        ("change", "messages"),
        [
            ({"sigma": None}, ['Missing key(s) in state_dict: "sigma".']),
            ({"bias": torch.ones(3)}, ['Unexpected key(s) in state_dict: "bias".']),
            # as other code might call it
            ({"sigma": None, "std": torch.ones(2, 2)}, ['"sigma"', '"std"']),
            ({"U": torch.ones(2, 2, 3)}, ["U", "[2, 2, 3]", "[2, 3, 2]"]),
            ({"v": torch.ones(3)}, ["v", "[3]", "[2, 3]"]),
            (
                {"mu": torch.ones(5, 2), "U": torch.ones(5, 3, 2)},
                ["mu", "[5, 2]", "[2, 2]", "U", "[5, 3, 2]", "[2, 3, 2]"],
            ),
        ],
        ids=["missing", "unexpected", "renamed", "transposed", "no component", "another K"],
    )
    @pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
    def test_that_does_not_fit_is_refused_by_name_and_shape(self, change, messages, assign):
        values = {name: v for name, v in (stored() | change).items() if v is not None}
        with pytest.raises(RuntimeError) as raised:
            make_layer(2).load_state_dict(values, assign=assign)
        remaining = str(raised.value).partition("GaussianMixtureLayer:")[2]
        for message in messages:
            assert message in remaining
            remaining = remaining.partition(message)[2]

    def test_with_other_keys_is_loaded_as_far_as_it_goes(self):
        layer, before = make_layer(2), make_layer(2)
        values = stored() | {"bias": torch.ones(3)}
        del values["sigma"]
        report = layer.load_state_dict(values, strict=False)
        assert (report.missing_keys, report.unexpected_keys) == (["sigma"], ["bias"])
        assert same(layer.state_dict(), stored() | {"sigma": before.sigma})


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
    **{f"computed {name}": (name, through(nn.Softplus())) for name in PARAMETERS},
    # These two leave an attribute that is a tensor, and recompute it at each call.
    "pruned U": ("U", functools.partial(prune.random_unstructured, amount=0.5)),
    "weight-normed v, as of old": ("v", nn.utils.weight_norm),
}
every_init = pytest.mark.parametrize("init_", INITS.values(), ids=INITS)
every_rescaling = pytest.mark.parametrize("init_", RESCALES.values(), ids=RESCALES)


def is_refused(init_, network, error, message):
    before, state = snapshot(network), torch.get_rng_state()
    with pytest.raises(error, match=message):
        init_(network)
    assert same(network.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)


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
    @pytest.mark.parametrize(("name", "register"), COMPUTED.values(), ids=COMPUTED)
    @pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
    def test_is_refused_by_name(self, init_, name, register):
        network = make_stack()
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

    @pytest.mark.parametrize(("name", "register"), [("U", weight_norm), ("mu", weight_norm)])
    def test_after_the_initialization_is_the_way(self, name, register):
        network = make_stack()
        init.kumar_(network, SAMPLE)
        register(network[1], name)
        before = snapshot(network)
        report = init.scale_report(network, SAMPLE)  # which looks and writes nothing
        assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-12)
        assert same(network.state_dict(), before)


class TestShared:
    """A readout in two places would be rescaled for each, and be right for neither."""

    @staticmethod
    def share(network, one, other):
        *path, name = one.split(".")
        setattr(network.get_submodule(".".join(path)), name, network.get_parameter(other))

    @every_rescaling
    @pytest.mark.parametrize(
        ("one", "other"), [("0.U", "1.U"), ("0.v", "1.v"), ("0.v", "1.mu"), ("0.v", "2.weight")]
    )
    def test_readout_is_refused_by_both_names(self, init_, one, other):
        network = nn.Sequential(make_layer(6, 6, 6), make_layer(6, 6, 6), nn.Linear(6, 6).double())
        self.share(network, other, one)
        is_refused(init_, network, ValueError, f"^'{one}' and '{other}' are one tensor")

    @every_rescaling
    def test_readout_within_a_layer_too(self, init_):
        network = nn.Sequential(make_layer(6, 6, 3))
        self.share(network, "0.v", "0.mu")
        is_refused(init_, network, ValueError, "^'0.mu' and '0.v' are one tensor")

    @pytest.mark.parametrize("name", ["mu", "sigma"])
    @pytest.mark.parametrize("init_", [RESCALES["calibrate_"], RESCALES["kumar_"]])
    def test_gaussians_are_calibrated(self, init_, name):
        network = nn.Sequential(make_layer(6, 6, 3), make_layer(6, 6, 3, seed=1))
        self.share(network, f"1.{name}", f"0.{name}")
        init_(network)
        assert network[0].get_parameter(name) is network[1].get_parameter(name)
        assert stds(network) == pytest.approx([0.5, 0.5], rel=1e-12)


@every_init
@pytest.mark.parametrize("frozen", PARAMETERS)
def test_frozen_parameters_are_initialized_too(init_, frozen):
    # As by torch.nn.init: to freeze is to keep from training, often a random draw.
    network, free = make_stack(), make_stack()
    network[1].get_parameter(frozen).requires_grad_(False)
    for stack in (network, free):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            init_(stack)
    assert same(network.state_dict(), free.state_dict())
    held = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert held == [f"1.{frozen}"]


@pytest.mark.parametrize("init_", [RESCALES[name] for name in ("calibrate_", "kumar_", "lsuv_")])
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_half_converted_layer_is_refused_by_name(init_, name):
    network = make_stack()
    setattr(network[1], name, nn.Parameter(network[1].get_parameter(name).detach().float()))
    is_refused(init_, network, TypeError, f"x and {name} must share a dtype")
