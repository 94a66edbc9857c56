"""What tensors a layer takes: any view of dense numbers; the rest is refused by name, untouched."""

import pytest
import torch
from draws import draw
from kinds import AFFINE, ROLES, arguments
from module_checks import assert_all_close, outcome
from networks import make_layer
from torch._subclasses import FakeTensorMode
from torch.masked import masked_tensor
from torch.testing import assert_close

from gmlib.functional import fold, gm_layer_monte_carlo, relu_moments, unfold

ALLOWED = "float16, bfloat16, float32 or float64"
SPARSE = {
    "sparse_coo": torch.Tensor.to_sparse_coo,
    "sparse_csr": torch.Tensor.to_sparse_csr,
    "sparse_csc": torch.Tensor.to_sparse_csc,
    "sparse_bsr": lambda t: t.to_sparse_bsr((1, 1)),
    "sparse_bsc": lambda t: t.to_sparse_bsc((1, 1)),
    "_mkldnn": torch.Tensor.to_mkldnn,
}
OTHER_DTYPES = {
    "int64": torch.Tensor.long,
    "int8": lambda t: t.to(torch.int8),
    "bool": torch.Tensor.bool,
    "complex64": torch.Tensor.cfloat,
    "float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "qint8": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}
NESTED = {
    "strided": lambda t: torch.nested.nested_tensor([t, t[:1]]),
    "jagged": lambda t: torch.nested.nested_tensor([t, t[:1]], layout=torch.jagged),
}


def refused(kind, role, convert, error, message):
    """By its name, in the layer's function and where it is a parameter of a module."""
    name = kind.names[role]
    drawn = arguments(kind, dtype=torch.float32)
    drawn[name] = convert(drawn[name])
    message = message.format(name=name)
    with pytest.raises(error, match=f"^{message}"):
        kind.function(**drawn)
    if role == "x":
        for bias in (False, True):
            with pytest.raises(error, match=f"^{message}"):
                kind.layer(4, 3, 2, bias=bias)(drawn[name])


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")
@pytest.mark.parametrize(("layout", "convert"), SPARSE.items(), ids=SPARSE)
@pytest.mark.parametrize("role", ROLES)
def test_sparse_tensors_are_refused_by_their_layout(kind, role, layout, convert):
    message = rf"{{name}} must be dense, got the layout torch\.{layout}: to_dense\(\) converts it"
    refused(kind, role, convert, TypeError, message)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(("dtype", "convert"), OTHER_DTYPES.items(), ids=OTHER_DTYPES)
def test_other_dtypes_are_refused(kind, dtype, convert):
    refused(kind, "x", convert, TypeError, f"{{name}} must be {ALLOWED}, got torch.{dtype}")
    message = f"x and {{name}} must share a dtype, got torch.float32 and torch.{dtype}"
    refused(kind, "sigma", convert, TypeError, message)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("convert", NESTED.values(), ids=NESTED)
def test_nested_tensors_are_refused(kind, convert):
    refused(kind, "x", convert, TypeError, "{name} must be a plain tensor, got a nested one")


@pytest.mark.filterwarnings("ignore:.*MaskedTensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("role", ROLES)
def test_masked_tensors_are_refused(kind, role):
    def convert(tensor):
        return masked_tensor(tensor, tensor > 0.0)

    refused(kind, role, convert, TypeError, "{name} must be a plain tensor, got a MaskedTensor")


@pytest.mark.parametrize("role", ROLES)
def test_tensors_elsewhere_are_refused(kind, role):
    refused(kind, role, lambda t: t.to("meta"), ValueError, "x and [a-zA-Z]+ must be on one device")


@pytest.mark.parametrize("convert", [SPARSE["sparse_coo"], OTHER_DTYPES["int64"]])
def test_the_other_functions_refuse_them_too(convert):
    x, *parameters = arguments(AFFINE, dtype=torch.float32).values()
    m, t = x.unbind(1)[:2]
    for function, tensors in [
        (relu_moments, (m, t)),
        (fold, parameters),
        (unfold, parameters),
        (lambda *given: gm_layer_monte_carlo(*given, num_samples=2), (x, *parameters)),
    ]:
        with pytest.raises(TypeError, match="must be"):
            function(convert(tensors[0]), *tensors[1:])
        with pytest.raises(TypeError, match=r"must (be|share)"):
            function(*tensors[:-1], convert(tensors[-1]))


# --- What is taken -------------------------------------------------------------------------------

VIEWS = {
    "negative": lambda x: torch.complex(x, -x).conj().imag,
    "real part": lambda x: torch.complex(x, draw(5, 4)).real,
    "reversed": lambda x: x.flip(0).flip(0),
    "every other": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "expanded": lambda x: x[:1].expand(5, 4),
    "transposed": lambda x: x.T.contiguous().T,
    "windows that overlap": lambda x: x.flatten().as_strided((5, 4), (2, 1)),
    "with an offset": lambda x: torch.cat([x, x])[5:],
    "a diagonal": lambda x: torch.diag_embed(x).diagonal(dim1=-2, dim2=-1),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_of_any_kind(kind, view):
    layer, x = make_layer(kind), draw(5, 4)
    assert_close(
        layer(view(x)), layer(view(x).resolve_neg().clone(memory_format=torch.contiguous_format))
    )
    found = outcome(lambda x: layer(view(x)), x, layer.parameters())
    expected = outcome(lambda x: layer(view(x).resolve_neg().contiguous()), x, layer.parameters())
    assert_all_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_negative_view_is_one():
    assert VIEWS["negative"](draw(5, 4)).is_neg()


class Tagged(torch.Tensor):
    """A subclass that adds nothing, as data sets hand them out."""


def test_subclasses_stay_what_they_are(kind):
    layer, x = make_layer(kind), draw(5, 4)
    out = layer(x.as_subclass(Tagged))
    assert type(out) is Tagged
    assert torch.equal(out.as_subclass(torch.Tensor), layer(x))
    expected = outcome(layer, x)
    x = x.as_subclass(Tagged).requires_grad_()
    weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=x.dtype).view_as(out)
    grads = torch.autograd.grad(layer(x), [x, *layer.parameters()], weight)
    assert_all_close([g.as_subclass(torch.Tensor) for g in grads], expected[1:])


def test_a_subclass_or_a_mode_may_take_its_place(kind):
    layer, x, seen = make_layer(kind), draw(5, 4), []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Mode():
        assert torch.equal(layer(x), layer(x))
    assert seen.count(kind.function) == 2


def test_fake_tensors(kind):
    with FakeTensorMode():
        layer = kind.layer(4, 3, 2)
        x = torch.randn(5, 4, requires_grad=True)
        out = layer(x)
        out.sum().backward()
        assert out.shape == (5, 3)
        assert x.grad.shape == (5, 4)
