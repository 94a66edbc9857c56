"""An initialization is done in full or not at all, and leaves no state of the process altered."""

import contextlib
import linecache
import os
import random
import signal
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from draws import seeded
from init_checks import INITS, MEASURING, sample
from kinds import NETWORKS, classes
from module_checks import modes, num_hooks, snapshot
from networks import Raises
from torch import nn

import gmlib
from gmlib.init import scale_report

NUMPY = np.random.mtrand._rand  # the global source of old, which `np.random.seed` seeds
ALL = INITS | {"scale_report": scale_report}


class Restless(nn.Module):
    """Draws from every source, and leaves autograd on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        torch.set_grad_enabled(True)
        return torch.randn_like(x) + random.gauss(0.0, 1.0) * x + NUMPY.standard_normal()


def make():
    layers = classes(NETWORKS["both"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Linear(6, 6),
            nn.BatchNorm1d(6),
            Restless(),
            next(layers)(6, 5, 3),
            nn.Dropout(),
            next(layers)(5, 4, 2),
            next(layers)(4, 3, 1),
        )
    network[4].eval()
    return network


def loader():
    """Data that draw, too."""
    for _ in range(2):
        x = sample(20)
        yield x + torch.randn_like(x) + random.random() + NUMPY.standard_normal()


# --- States of the process -----------------------------------------------------------------------


def is_flushed():
    return (torch.tensor(1e-310, dtype=torch.float64) * 1.0).item() == 0.0


@contextlib.contextmanager
def put(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


def as_bytes(state):
    return repr(state) if isinstance(state, tuple | dict) else state.numpy().tobytes()


# By name: how to look at it, and states other than the default to try it in.
STATES = {
    "random numbers of torch": (lambda: as_bytes(torch.get_rng_state()), []),
    "of Python": (lambda: as_bytes(random.getstate()), []),
    "of NumPy": (lambda: as_bytes(NUMPY.get_state()), []),
    "default dtype": (
        torch.get_default_dtype,
        [lambda: put(torch.set_default_dtype, torch.float64, torch.float32)],
    ),
    "default device": (
        torch.get_default_device,
        [lambda: torch.device("cpu")],
    ),
    "grad mode": (torch.is_grad_enabled, [torch.no_grad, torch.enable_grad]),
    "inference mode": (torch.is_inference_mode_enabled, [torch.inference_mode]),
    "anomaly mode": (torch.is_anomaly_enabled, [torch.autograd.detect_anomaly]),
    "autocast": (
        lambda: (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        [lambda: torch.autocast("cpu", torch.bfloat16)],
    ),
    "autocast's cache": (
        torch.is_autocast_cache_enabled,
        [lambda: torch.autocast("cpu", torch.bfloat16, cache_enabled=False)],
    ),
    "threads": (
        torch.get_num_threads,
        [lambda: put(torch.set_num_threads, 2, torch.get_num_threads())],
    ),
    "threads between operators": (torch.get_num_interop_threads, []),
    "denormals": (is_flushed, [lambda: put(torch.set_flush_denormal, True, False)]),
    "deterministic algorithms": (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        [lambda: put(torch.use_deterministic_algorithms, True, False)],
    ),
    "precision of products": (
        torch.get_float32_matmul_precision,
        [lambda: put(torch.set_float32_matmul_precision, "medium", "highest")],
    ),
    "printing": (lambda: repr(torch.tensor([1 / 3])), []),
    "hooks of all modules": (
        lambda: [
            dict(hooks)
            for name, hooks in vars(nn.modules.module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        ],
        [lambda: a_global_hook()],
    ),
    "filters of warnings": (lambda: warnings.filters[:], [warnings.catch_warnings]),
    "environment": (lambda: dict(os.environ), []),
    "working directory": (os.getcwd, []),
    "handlers of signals": (
        lambda: [signal.getsignal(number) for number in signal.valid_signals()],
        [],
    ),
    "tracing": (lambda: (sys.gettrace(), sys.getprofile()), []),
    "attributes of the package": (lambda: sorted(vars(gmlib.init)), []),
}
SETTINGS = {
    "as it comes": contextlib.nullcontext,
    **{
        f"{name} {index}": setting
        for name, (_, settings) in STATES.items()
        for index, setting in enumerate(settings)
    },
}


@contextlib.contextmanager
def a_global_hook():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        handle.remove()


def look():
    return {name: get() for name, (get, _) in STATES.items()}


@pytest.fixture
def unaltered():
    """The random states of the tests that follow."""
    states = torch.get_rng_state(), random.getstate(), NUMPY.get_state()
    yield
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    NUMPY.set_state(states[2])


@pytest.mark.parametrize("init_", ALL.values(), ids=ALL)
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("refused", [False, True], ids=["done", "refused"])
@pytest.mark.filterwarnings("ignore:Anomaly Detection:UserWarning")
@pytest.mark.usefixtures("unaltered")
def test_no_state_is_altered(init_, setting, refused):
    network = make()
    if refused:
        network = nn.Sequential(network, Raises(KeyboardInterrupt("stop")))
        network[0][6].readout[1].data.fill_(torch.nan)
    draws = {} if init_ in (scale_report, INITS["calibrate_"]) else {"generator": seeded(3)}
    with setting():
        before = look()
        try:
            init_(network, loader(), **draws)
        except KeyboardInterrupt:
            assert refused
        assert look() == before


# --- In full or not at all -----------------------------------------------------------------------


def interrupted_at(step, call):
    """Run it, and interrupt it at a line of the package's initializations; whether it came there.

    What puts things back is not interrupted, nor is the end of a `with`, which would not come.
    """
    folder = Path(gmlib.__file__).parent
    files = {
        str(folder / f"{name}.py") for name in ("init", "_batches", "_networks", "_scale", "layer")
    }
    steps = 0

    def trace(frame, event, argument):
        nonlocal steps
        if frame.f_code.co_filename not in files:
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not line.lstrip().startswith("with "):
            steps += 1
            if steps == step:
                raise KeyboardInterrupt
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(outer)
    return False


@pytest.mark.parametrize("init_", ALL.values(), ids=ALL)
@pytest.mark.usefixtures("unaltered")
def test_interrupted_anywhere_it_is_as_it_was(init_, torture):
    network, source = make(), seeded(3)
    draws = {} if init_ in (scale_report, INITS["calibrate_"]) else {"generator": source}
    before = snapshot(network), modes(network), num_hooks(network), look()
    drawn = source.get_state()
    parameters = list(network.parameters())
    step = 1
    while interrupted_at(step, lambda: init_(network, iter(sample(40).split(20)), **draws)):
        assert (snapshot(network), modes(network), num_hooks(network), look()) == before
        assert torch.equal(source.get_state(), drawn)
        step += 1 if torture else 17
    assert step > 100
    assert all(map(lambda p, q: p is q, network.parameters(), parameters))
    assert (snapshot(network) == before[0]) == (init_ is scale_report)


@pytest.mark.parametrize("init_", INITS.values(), ids=INITS)
def test_what_fails_at_the_last_layer_leaves_the_first(init_):
    network = make()
    with torch.inference_mode():  # what is made in it can be written to in it alone
        network[6] = type(network[6])(4, 3, 1)
    before, state = snapshot(network), torch.get_rng_state()
    with pytest.raises(RuntimeError, match=r"[Ii]nference tensor"):
        init_(network, sample())
    assert snapshot(network) == before
    assert torch.equal(torch.get_rng_state(), state)


# --- Other devices -------------------------------------------------------------------------------


def an_accelerator(**functions):
    """A stand-in, whose state is a list of numbers."""
    state = {"now": [1, 2, 3]}

    def get():
        return list(state["now"])

    def put(value):
        state["now"] = list(value)

    module = types.SimpleNamespace(is_available=lambda: True, state=state)
    for name, function in functions.items():
        setattr(module, name, {"get": get, "put": put}.get(function, function))
    return module


@pytest.mark.parametrize("calibration", MEASURING)
@pytest.mark.parametrize(
    "functions",
    [
        {
            "is_initialized": lambda: True,
            "get_rng_state_all": "get",
            "set_rng_state_all": "put",
        },
        {"get_rng_state": "get", "set_rng_state": "put"},
    ],
    ids=["like CUDA", "like MPS"],
)
def test_random_states_of_an_accelerator_are_put_back(calibration, functions, monkeypatch):
    device = an_accelerator(**functions)
    layers = make()[3:]
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)

    class Draws(nn.Module):
        def forward(self, x):
            device.state["now"].append(len(device.state["now"]))
            return len(device.state["now"]) * x

    network = nn.Sequential(Draws(), *layers)
    report = calibration(network, iter(sample().split(100)))
    assert device.state["now"] == [1, 2, 3]
    assert len(report) == 3  # each pass drew the same

    network = nn.Sequential(Draws(), *layers, Raises(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        calibration(network, sample())
    assert device.state["now"] == [1, 2, 3]


def test_an_accelerator_that_is_not_in_use_is_not_started(monkeypatch):
    def start(*_):
        raise AssertionError("it was started")

    device = an_accelerator(
        is_initialized=lambda: False, get_rng_state_all=start, set_rng_state_all=start
    )
    network = make()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    for init_ in ALL.values():
        init_(network, sample())
