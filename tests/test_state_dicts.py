"""State dicts: what was saved, and what does not fit."""

import operator

import pytest
import torch
from draws import draw
from kinds import PARAMETERS
from module_checks import parameter_gradients, same
from networks import make_layer
from torch import nn
from torch.testing import assert_close

# One function in both coordinates, by numbers that float32 holds exactly.
STORED = {
    "mu": [[0.25, -0.5], [-1.5, 0.125]],
    "sigma": [[0.75, -0.5], [1.25, 2.0]],
    "U": [[[1.5, -0.25], [0.5, 1.0], [0.0, -2.0]], [[-0.75, 0.375], [2.0, -1.0], [0.25, 0.625]]],
    "v": [[0.125, -1.0, 0.5], [1.75, 0.25, -0.375]],
    "A": [
        [[0.421875, -0.03125], [0.140625, 0.125], [0.0, -0.25]],
        [[-0.5859375, 0.75], [1.5625, -2.0], [0.1953125, 1.25]],
    ],
    "w": [[0.3125, -0.6875, 0.75], [1.4609375, -1.4375, -0.3359375]],
}
INPUTS = [[0.5, -1.25], [2.0, 0.75], [-1.0, 0.0]]
# The sums in the docstring of `gmlib.functional`, in 40 digits of mpmath and no code of this
# package; the first and the last but one also by integrating over beta itself.
OUTPUTS = [
    [0.950158086700112739, -0.355342660604304377, 0.125322652593351038],
    [0.909368642842204849, -0.361066261689152601, 0.540857082162756699],
    [2.71610135662238795, -3.82280591630950262, -0.557295037038840821],
]


def stored(kind, dtype=torch.float64, prefix=""):
    return {f"{prefix}{name}": torch.tensor(STORED[name], dtype=dtype) for name in kind.parameters}


class TestStored:
    """What was saved once must mean the same for ever."""

    @pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
    @pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 6), (torch.float64, 14)])
    def test_has_the_outputs_that_it_had(self, kind, dtype, digits, assign):
        network = nn.Sequential(nn.Flatten(), kind.layer(2, 3, 2, dtype=dtype))
        network.load_state_dict(stored(kind, dtype, prefix="1."), assign=assign)
        out = network(torch.tensor(INPUTS, dtype=dtype))
        expected = torch.tensor(OUTPUTS, dtype=torch.float64)
        assert_close(out.double(), expected, rtol=10.0**-digits, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_in_another_dtype_is_converted(self, kind, dtype):
        layer = make_layer(kind, 2, dtype=torch.float32)
        before = list(layer.parameters())
        wide = {name: value / 3.0 for name, value in stored(kind).items()}
        layer.load_state_dict({name: value.to(dtype) for name, value in wide.items()})
        for name, parameter in layer.named_parameters():
            assert torch.equal(parameter, wide[name].to(dtype).float())
        assert all(map(operator.is_, layer.parameters(), before))

    def test_assigned_keeps_its_dtype_and_what_is_frozen(self, kind):
        layer = make_layer(kind, 2, dtype=torch.float32)
        layer.sigma.requires_grad_(False)
        values = stored(kind)
        layer.load_state_dict(values, assign=True)
        for name, parameter in layer.named_parameters():
            assert isinstance(parameter, nn.Parameter)
            assert parameter.data_ptr() == values[name].data_ptr()
            assert parameter.requires_grad == (name != "sigma")
        assert set(parameter_gradients(layer.requires_grad_(), draw(5, 2))) == set(kind.parameters)

    @pytest.mark.parametrize("role", PARAMETERS)
    def test_assigned_in_part_is_named_when_it_does_not_fit(self, kind, role):
        name = kind.names[role]
        layer = make_layer(kind, 2, dtype=torch.float32)
        layer.load_state_dict({name: stored(kind)[name]}, strict=False, assign=True)
        with pytest.raises(TypeError, match=rf"x and {name} must share a dtype, .*\.float64: "):
            layer(draw(5, 2, dtype=torch.float32))

    @pytest.mark.parametrize(
        ("change", "messages"),  # by roles, where there are any
        [
            ({"sigma": None}, ['Missing key(s) in state_dict: "sigma".']),
            ({"bias": torch.ones(3)}, ['Unexpected key(s) in state_dict: "bias".']),
            # as other code might call it
            ({"sigma": None, "std": torch.ones(2, 2)}, ['"sigma"', '"std"']),
            ({"weights": torch.ones(2, 2, 3)}, ["weights", "[2, 2, 3]", "[2, 3, 2]"]),
            ({"offsets": torch.ones(3)}, ["offsets", "[3]", "[2, 3]"]),
            (
                {"mu": torch.ones(5, 2), "weights": torch.ones(5, 3, 2)},
                ["mu", "[5, 2]", "[2, 2]", "weights", "[5, 3, 2]", "[2, 3, 2]"],
            ),
        ],
        ids=["missing", "unexpected", "renamed", "transposed", "no component", "another K"],
    )
    @pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
    def test_that_does_not_fit_is_refused_by_name_and_shape(self, kind, change, messages, assign):
        change = {kind.names.get(role, role): value for role, value in change.items()}
        values = {name: v for name, v in (stored(kind) | change).items() if v is not None}
        with pytest.raises(RuntimeError) as raised:
            make_layer(kind, 2).load_state_dict(values, assign=assign)
        remaining = str(raised.value).partition(f"{kind.layer.__name__}:")[2]
        for message in messages:
            message = kind.names.get(message, message)
            assert message in remaining
            remaining = remaining.partition(message)[2]

    def test_with_other_keys_is_loaded_as_far_as_it_goes(self, kind):
        layer, before = make_layer(kind, 2), make_layer(kind, 2)
        values = stored(kind) | {"bias": torch.ones(3)}
        del values["sigma"]
        report = layer.load_state_dict(values, strict=False)
        assert (report.missing_keys, report.unexpected_keys) == (["sigma"], ["bias"])
        assert same(layer.state_dict(), stored(kind) | {"sigma": before.sigma})
