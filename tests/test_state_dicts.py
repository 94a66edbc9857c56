"""State dicts: what was saved, and what does not fit."""

import operator

import pytest
import torch
from draws import PARAMETERS, draw
from module_checks import parameter_gradients, same
from networks import make_layer
from torch import nn
from torch.testing import assert_close

from gmlib import GaussianMixtureLayer

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
        assert set(parameter_gradients(layer.requires_grad_(), draw(5, 2))) == set(PARAMETERS)

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
