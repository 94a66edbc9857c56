"""The examples in the docstrings of the package: every public name has one, and they run."""

import doctest
import inspect

import pytest
import torch
from torch import nn

from gmlib import functional, init, layer, optim

MODULES = [functional, init, layer, optim]
FINDER = doctest.DocTestFinder(recurse=False)
PUBLIC = [(module, name) for module in MODULES for name in module.__all__]


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=[name for _, name in PUBLIC])
def test_the_example_runs(module, name):
    torch.manual_seed(0)
    names = {**vars(module), "torch": torch, "nn": nn}
    (example,) = FINDER.find(getattr(module, name), name, module, names)
    assert example.examples
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0


@pytest.mark.parametrize(
    "public",
    [getattr(*own) for own in PUBLIC if inspect.isfunction(getattr(*own))],
    ids=lambda public: public.__name__,
)
def test_every_argument_is_described(public):
    described = inspect.getdoc(public)
    for parameter in inspect.signature(public).parameters:
        assert f"{parameter}:" in described or f"{parameter}," in described
