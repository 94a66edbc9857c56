"""What PyTorch asks of its own modules, and of threads and processes.

What the layer computes, and that it copies, pickles and compiles, is in the other files.
"""

import copy
import gc
import operator
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from draws import draw
from kinds import PARAMETERS
from module_checks import outcome, parameter_gradients, same, snapshot
from networks import make_layer, make_network, stack
from torch import multiprocessing, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters
from torch.testing import assert_close

from gmlib import init


def test_training_and_evaluation_are_one(kind):
    layer, x = make_layer(kind), draw(5, 4)
    assert torch.equal(layer.train()(x), layer.eval()(x))


def test_memory_formats(kind):
    layer, x = make_layer(kind), draw(2, 3, 5, 4)
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    assert not x.is_contiguous()
    assert_close(layer(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("frozen", PARAMETERS)
def test_a_frozen_parameter_stays_while_the_others_train(kind, frozen):
    layer, x, frozen = make_layer(kind), draw(8, 4), kind.names[frozen]
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
    after = snapshot(layer)
    assert {name for name in after if after[name] == before[name]} == {frozen}


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_add_up_until_they_are_zeroed(kind, set_to_none):
    layer, x = make_layer(kind), draw(5, 4)
    expected = parameter_gradients(layer, x)
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


def test_gradients_are_clipped_in_place(kind):
    layer = make_layer(kind)
    layer(draw(5, 4)).sum().backward()
    before = parameters_to_vector([p.grad for p in layer.parameters()])
    norm = clip_grad_norm_(layer.parameters(), 0.1, error_if_nonfinite=True)
    after = parameters_to_vector([p.grad for p in layer.parameters()])
    assert norm.item() == pytest.approx(before.norm().item(), rel=1e-12)
    assert norm > 0.2
    assert_close(after, 0.1 / norm * before, rtol=1e-4, atol=0)  # 1e-6 goes to the divisor


def test_parameters_as_one_vector(kind):
    layer, twin, x = make_layer(kind), make_layer(kind, seed=1), draw(5, 4)
    vector = parameters_to_vector(layer.parameters())
    assert vector.shape == (2 * (2 * 4 + 3 * 4 + 3),)
    vector_to_parameters(vector, twin.parameters())
    assert torch.equal(twin(x), layer(x))


def test_copied_hooks_see_the_gradients(kind):
    network, x = stack(kind, 6, 5, 4, dtype=torch.float64), draw(5, 6).requires_grad_()
    seen = []
    network[1].register_full_backward_hook(lambda *grads: seen.append(grads))
    network[1].register_forward_hook(lambda layer, args, out: 2.0 * out)
    twin = copy.deepcopy(network)
    nn.init.zeros_(network[1].readout[0])  # of no concern to the copy
    hidden = twin[0](x)
    out = twin[1](hidden)
    weight = draw(*out.shape)
    expected = torch.autograd.grad(
        kind.function(hidden, *twin[1].parameters()), hidden, 2.0 * weight
    )
    out.backward(weight)
    ((layer, (grad_in,), (grad_out,)),) = seen
    assert layer is twin[1]
    assert torch.equal(grad_in, expected[0])
    assert torch.equal(grad_out, weight)


@pytest.mark.parametrize(
    "context", [torch.autograd.graph.save_on_cpu, torch.autograd.detect_anomaly]
)
def test_under_hooks_on_what_is_saved(kind, context):
    network, x = stack(kind, 6, 5, 4, dtype=torch.float64), draw(5, 6)
    expected = parameter_gradients(network, x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection has been enabled")
        with context():
            assert same(parameter_gradients(network, x), expected)


def test_the_graph_goes_with_the_outputs(kind):
    layer, x = make_layer(kind), draw(5, 4)
    gone = weakref.ref(x)
    gc.disable()  # which would break a cycle, but not before memory has run out
    try:
        for out in (layer(x), layer(x).sum()):
            torch.autograd.grad(out.sum(), layer.readout[0], create_graph=True)
        del x, out
        assert gone() is None
    finally:
        gc.enable()


def test_activation_checkpointing(kind):
    network = make_network(kind)

    def checkpointed(x):
        return torch.utils.checkpoint.checkpoint(network, x, use_reentrant=False)

    x = draw(9, 6)
    expected = outcome(network, x)
    for one, other in zip(outcome(checkpointed, x, network.parameters()), expected, strict=True):
        assert torch.equal(one, other)


# --- Conversion by swapping ----------------------------------------------------------------------


@pytest.fixture
def _swapping():
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


@pytest.mark.usefixtures("_swapping")
def test_swapped_parameters_are_the_old_objects(kind):
    layer, x = make_layer(kind, dtype=torch.float32), draw(5, 4)
    before = list(layer.parameters())
    # Swapping fails on what a graph holds; this one has gone, and its gradients are converted too.
    layer(x.float()).sum().backward()
    layer.double()
    assert all(map(operator.is_, layer.parameters(), before))
    assert {p.dtype for p in before} == {p.grad.dtype for p in before} == {torch.float64}
    layer.zero_grad()
    assert torch.equal(layer(x), kind.function(x, *before))

    stored = make_layer(kind, seed=3)
    layer.load_state_dict(stored.state_dict())
    assert all(map(operator.is_, layer.parameters(), before))
    assert torch.equal(layer(x), stored(x))


# --- Threads and processes -----------------------------------------------------------------------


def test_threads_that_share_a_module_do_not_meet(kind):
    network, x = stack(kind, 6, 5, 4), draw(7, 6, dtype=torch.float32)

    def plain():
        return parameter_gradients(network, x)

    def without_gradients():
        with torch.no_grad():
            return {"out": network(x)}

    def under_autocast():
        with torch.autocast("cpu", torch.bfloat16):
            return parameter_gradients(network, x)

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


def test_another_process_writes_to_shared_parameters(kind):
    layer = make_layer(kind).share_memory()
    before = snapshot(layer)
    process = multiprocessing.get_context("spawn").Process(
        target=init.baseline_, args=(layer, 0.25)
    )
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0
    assert (layer.sigma == 0.25).all()
    after = snapshot(layer)
    assert not any(after[name] == before[name] for name in kind.parameters)
