"""One seed, one function: the initializations give both kinds of layer the same."""

import pytest
import torch
from draws import draw, seeded
from init_checks import sample
from kinds import KINDS, NETWORKS
from module_checks import snapshot
from networks import mixed, stack

from gmlib import fold, init


def calibrated(network, data, **source):
    """`calibrate_`, which draws nothing, on what another has drawn."""
    init.fan_in_(network, **source)
    return init.calibrate_(network, data, 0.7)


INITS = {
    "baseline_": lambda network, data, **source: init.baseline_(network, 0.3, **source),
    "fan_in_": lambda network, data, **source: init.fan_in_(network, **source),
    "kumar_": lambda network, data, **source: init.kumar_(network, data, 0.7, **source),
    "lsuv_": lambda network, data, **source: init.lsuv_(network, data, **source),
    "analytic_": lambda network, data, **source: init.analytic_(network, 6.0, **source),
    "calibrate_": calibrated,
}
every_init = pytest.mark.parametrize("init_", INITS.values(), ids=INITS)
# How far outputs are apart behind four layers, as a part of the largest: of their roundings, the
# sums of some ten terms in each, half an eps apiece.
ACCURACY = {torch.float32: 2e-6, torch.float64: 6e-15}
both_dtypes = pytest.mark.parametrize("dtype", ACCURACY)
NETWORK = {
    "a stack": lambda kinds: stack(kinds, 6, 9, 7, 5, 4),
    "among other layers": mixed,
}


def assert_one_function(networks, x):
    with torch.no_grad():
        expected, *others = [network.eval()(x) for network in networks]
    assert expected.abs().max() > 0
    for out in others:
        assert (out - expected).abs().max() <= ACCURACY[x.dtype] * expected.abs().max()


def assert_one_report(reports, dtype):
    expected, *others = reports
    for report in others:
        for entry, other in zip(report, expected, strict=True):
            assert entry.name == other.name
            for field in ("std_before", "scale", "std_after"):
                found, value = getattr(entry, field), getattr(other, field)
                assert found == pytest.approx(value, rel=ACCURACY[dtype])


@every_init
@both_dtypes
@pytest.mark.parametrize("make", NETWORK.values(), ids=NETWORK)
def test_one_generator(init_, dtype, make):
    networks = [make(kinds).to(dtype) for kinds in NETWORKS.values()]
    data, generators = sample(dtype=dtype), [seeded(3) for _ in networks]
    reports = [
        init_(network, data, generator=generator)
        for network, generator in zip(networks, generators, strict=True)
    ]
    assert_one_function(networks, data)
    states = [generator.get_state() for generator in generators]
    assert all(torch.equal(state, states[0]) for state in states)
    assert not torch.equal(states[0], seeded(3).get_state())
    if reports[0] is not None:
        assert_one_report(reports, dtype)


@every_init
def test_one_global_seed(init_):
    networks, states = [mixed(kinds) for kinds in NETWORKS.values()], []
    for network in networks:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            init_(network, sample())
            states.append(torch.get_rng_state())
    assert_one_function(networks, sample())
    assert all(torch.equal(state, states[0]) for state in states)


@both_dtypes
def test_one_seed_of_new_layers(dtype):
    layers, states = [], []
    for kind in KINDS.values():
        with torch.random.fork_rng():
            torch.manual_seed(3)
            layers.append(kind.layer(6, 5, 4, dtype=dtype))
            states.append(torch.get_rng_state())
    assert_one_function(layers, draw(50, 6, dtype=dtype))
    assert torch.equal(*states)


@every_init
@both_dtypes
@pytest.mark.parametrize("name", ["mu", "sigma"])
def test_one_function_of_layers_that_share(init_, dtype, name):
    networks = []
    for kinds in NETWORKS.values():
        network = stack(kinds, 6, 6, 6, dtype=dtype)
        setattr(network[1], name, getattr(network[0], name))  # drawn twice, and the last one counts
        init_(network, sample(dtype=dtype), generator=seeded(3))
        networks.append(network)
    assert_one_function(networks, draw(50, 6, dtype=dtype))


@every_init
@both_dtypes
def test_to_fold_is_as_good_as_to_initialize_what_is_folded(init_, dtype):
    affine, folded = (stack(kind, 6, 9, 7, 5, dtype=dtype) for kind in KINDS.values())
    data = sample(dtype=dtype)
    for network in (affine, folded):
        init_(network, data, generator=seeded(3))
    converted = fold(affine)
    assert snapshot(converted).keys() == snapshot(folded).keys()
    for one, other in zip(converted.parameters(), folded.parameters(), strict=True):
        assert (one - other).abs().max() <= ACCURACY[dtype] * other.abs().max()
