"""Function transforms and torch.compile together."""

import functools

import pytest
import torch
from draws import draw
from module_checks import assert_all_close
from networks import make_layer
from torch.func import functional_call, grad, hessian, vmap

close = functools.partial(assert_all_close, rtol=1e-10, atol=1e-12)


def parameters_of(layer):
    return {name: parameter.detach() for name, parameter in layer.named_parameters()}


def over_examples(layer):
    """Gradients in the parameters by example."""

    def loss(parameters, x):
        return functional_call(layer, parameters, (x,)).square().sum()

    return lambda x: list(vmap(grad(loss), (None, 0))(parameters_of(layer), x).values())


COMPILED = {
    "vmap": lambda layer: lambda x: [vmap(layer)(x)],
    "vmap of grad": over_examples,
    "hessian": lambda layer: lambda x: [hessian(lambda x: layer(x).square().sum())(x)],
}


@pytest.fixture
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh")
class TestCompiled:
    @pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
    def test_a_transform(self, kind, make):
        function, x = make(make_layer(kind)), draw(5, 4)
        close(torch.compile(function, fullgraph=True, backend="eager")(x), function(x))

    def test_a_layer_that_is_transformed(self, kind):
        layer, x = make_layer(kind), draw(5, 4)
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        close([vmap(compiled)(x)], [layer(x)])

    def test_an_ensemble(self, kind):
        layers = [make_layer(kind, seed=seed) for seed in range(3)]
        parameters, _ = torch.func.stack_module_state(layers)
        x = draw(3, 5, 4)

        def call(parameters, x):
            return functional_call(layers[0], parameters, (x,))

        compiled = torch.compile(vmap(call), fullgraph=True, backend="eager")
        out = compiled(parameters, x)
        close(out, [layer(each) for layer, each in zip(layers, x, strict=True)])
        grads = torch.autograd.grad(out.square().sum(), list(parameters.values()))
        expected = torch.autograd.grad(
            vmap(call)(parameters, x).square().sum(), list(parameters.values())
        )
        close(grads, expected)
