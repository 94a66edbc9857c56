"""Compiled networks: what is compiled does not run hooks, and is run as it is written."""

import pytest
import torch
from init_checks import MEASURING, sample, seeded_init
from kinds import NETWORKS
from module_checks import snapshot
from networks import stack
from torch import nn

from gmlib.init import kumar_


def make():
    return stack(NETWORKS["both"], 6, 5, 4)


class Compiles(nn.Module):
    """Runs its layers in a compiled function."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.run = compiled(lambda x: self.network(x))

    def forward(self, x):
        return self.run(x)


def compiled(function):
    return torch.compile(function, backend="eager")


def in_place(module):
    module.compile(backend="eager")
    return module


def with_first(network, change):
    network[0] = change(network[0])
    return network


WAYS = {
    "torch.compile": compiled,
    "torch.compile of a layer": lambda network: with_first(network, compiled),
    "module.compile": in_place,
    "module.compile of a layer": lambda network: with_first(network, in_place),
    "of a function in forward": Compiles,
    "twice": lambda network: compiled(with_first(network, compiled)),
}


@pytest.mark.parametrize("init_", MEASURING)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_compiled_network_is_as_the_plain_one(init_, way, used):
    plain, held = make(), make()
    layers, network = list(held), way(held)
    if used:  # there is compiled code by now
        network(sample())
        network.eval()(sample())
        network.train()
    expected = seeded_init(init_, plain, sample())
    report = seeded_init(init_, network, sample())
    for layer, other in zip(layers, plain, strict=True):
        assert snapshot(layer) == snapshot(other)
        assert not layer._forward_hooks
    assert [entry.std_after for entry in report] == [entry.std_after for entry in expected]


def test_what_was_compiled_is_used_again_and_sees_the_new_parameters():
    calls = []

    def backend(graph, inputs):
        def run(*arguments):
            calls.append("run")
            return graph.forward(*arguments)

        calls.append("compile")
        return run

    network = torch.compile(make(), backend=backend, fullgraph=True)
    network(sample())
    before = calls[:]
    kumar_(network, sample())
    assert calls == before
    out = network(sample())
    assert calls == [*before, "run"]
    torch.testing.assert_close(out, network._orig_mod(sample()))


def test_a_compiled_forward():
    report = kumar_(make(), sample(), forward=compiled(lambda module, x: module(x)))
    assert [entry.std_after for entry in report] == pytest.approx([0.5, 0.5], rel=1e-5)


@pytest.mark.parametrize("stance", ["default", "eager_on_recompile", "force_eager"])
def test_the_stance_of_the_compiler_is_put_back(stance):
    with torch.compiler.set_stance(stance):
        before = torch._dynamo.eval_frame._stance
        kumar_(compiled(make()), sample())
        assert torch._dynamo.eval_frame._stance == before
