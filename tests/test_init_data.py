"""What calibrations take for data: batches of any kind, in any division, and never a label."""

import collections
import dataclasses
import itertools

import pytest
import torch
from draws import seeded
from init_checks import DRAWN, MEASURING, is_refused, sample, seeded_init
from kinds import NETWORKS, classes
from module_checks import assert_all_close, snapshot
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset

from gmlib.init import kumar_, scale_report

Pair = collections.namedtuple("Pair", "inputs labels")
LABELS = torch.arange(200)


def network_of(dtype=torch.float32):
    """GM layers of both kinds, with others between them."""
    layers = classes(NETWORKS["both"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            next(layers)(6, 7, 3),
            nn.LayerNorm(7),
            nn.Dropout(),
            next(layers)(7, 5, 2),
            next(layers)(5, 3, 1),
        )
    return network.to(dtype)


def initialized(network, init_, data, **more):
    """What an initialization, or a look, made of a network, and its report."""
    report = seeded_init(init_, network, data, **more)
    return network, [dataclasses.astuple(entry) for entry in report]


class Untouchable:
    """A label that fails the test when anything is done with it."""

    def __getattribute__(self, name):
        raise AssertionError(f"a label was asked for {name}")


ONE_BATCH = {
    "list of one": lambda x: [x],
    "tuple of one": lambda x: (x,),
    "what a loader of inputs yields": lambda x: next(iter(DataLoader(TensorDataset(x), 200))),
    "list of one pair": lambda x: [(x, Untouchable())],
    "list of one list": lambda x: [[x, Untouchable()]],
    "list of a named tuple": lambda x: [Pair(x, Untouchable())],
    "beside empty ones": lambda x: iter([x[:0], x, x[:0]]),
    "DataLoader": lambda x: DataLoader(TensorDataset(x, LABELS), batch_size=200),
}
SEVERAL = {
    "iterator": lambda x: iter(x.split(64)),
    "generator": lambda x: (batch for batch in x.split(64)),
    "some one by one": lambda x: iter(x.split([1] * 5 + [195])),
    "of any size": lambda x: iter(x.split([1, 100, 0, 99])),
    "iterator of lists": lambda x: iter([[batch] for batch in x.split(64)]),
    "iterator of pairs": lambda x: iter([(batch, Untouchable()) for batch in x.split(64)]),
    "DataLoader": lambda x: DataLoader(x, batch_size=64),
    "DataLoader of lists": lambda x: DataLoader(TensorDataset(x), batch_size=64),
    "DataLoader of pairs": lambda x: DataLoader(TensorDataset(x, LABELS), batch_size=64),
    "part of a DataLoader": lambda x: itertools.islice(DataLoader(x, batch_size=100), 2),
}


@pytest.mark.parametrize("init_", MEASURING)
class TestDivision:
    @pytest.mark.parametrize("data", ONE_BATCH.values(), ids=ONE_BATCH)
    def test_one_batch_in_whatever_is_that_batch(self, init_, data):
        one, report = initialized(network_of(), init_, data(sample()))
        other, expected = initialized(network_of(), init_, sample())
        assert snapshot(one) == snapshot(other)
        assert report == expected

    @pytest.mark.parametrize("data", SEVERAL.values(), ids=SEVERAL)
    @pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
    def test_batches_are_measured_together(self, init_, data, dtype, rel):
        # far apart, so that an average of their deviations would be another
        x = sample(dtype=dtype) + torch.linspace(-5.0, 5.0, 200, dtype=dtype).unsqueeze(1)
        one, report = initialized(network_of(dtype), init_, data(x))
        other, expected = initialized(network_of(dtype), init_, x)
        assert_all_close(one.parameters(), other.parameters(), rtol=rel, atol=rel)
        for found, wanted in zip(report, expected, strict=True):
            assert found[0] == wanted[0]
            assert found[1:] == pytest.approx(wanted[1:], rel=rel)

    def test_no_more_than_a_batch_goes_through_at_once(self, init_):
        network, sizes = network_of(), []
        network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
        init_(network, (batch for batch in sample().split(64)))
        # all of them for each of the three layers, and once more
        assert sizes == [64, 64, 64, 8] * (1 if init_ is scale_report else 4)

    def test_an_iterable_is_asked_once(self, init_):
        asked = []

        class Once:
            def __iter__(self):
                asked.append("once")
                return iter(sample().split(64))

        init_(network_of(), Once())
        assert asked == ["once"]

    def test_other_labels_change_nothing(self, init_):
        shuffled = LABELS[torch.randperm(200, generator=seeded())]
        (one, first), (two, second) = (
            initialized(network_of(), init_, DataLoader(TensorDataset(sample(), y), 64))
            for y in (LABELS, shuffled)
        )
        assert snapshot(one) == snapshot(two)
        assert first == second


x, y = sample(), sample(seed=8)  # labels of the shape of inputs, as in language models
AMBIGUOUS = {
    "inputs and labels": [x, LABELS],
    "inputs and labels of their shape": [x, 100 * x],
    "tuple of them": (x, 100 * x),
    "named tuple of them": Pair(x, 100 * x),
    "what a loader yields": next(iter(DataLoader(TensorDataset(x, y), 200))),
    "two inputs and two labels": [[x, x], [y, y]],
    "inputs and boxes": [x, {"boxes": y}],
    "three": [x, y, LABELS],
    "batches": list(x.split(64)),
    "tuple of batches": x.split(64),
    "pairs": list(DataLoader(TensorDataset(x, y), 64)),
}


class TestLabels:
    @pytest.mark.parametrize("calibration", MEASURING)
    @pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
    @pytest.mark.parametrize("how", [{}, {"forward": lambda module, batch: module(batch[0])}])
    def test_a_list_may_be_a_batch_and_is_refused(self, calibration, data, how):
        message = (
            rf"^data is a (list|tuple|Pair) of {len(data)} items, which may be one batch, of "
            r"inputs and labels, or several: pass \[data\] for one batch, iter\(data\) for several$"
        )
        is_refused(calibration, network_of(), data, ValueError, message, **how)

    @pytest.mark.parametrize("init_", MEASURING)
    def test_the_ways_that_the_refusal_names(self, init_):
        wrapped, _ = initialized(network_of(), init_, [[x, 100 * x]])
        plain, _ = initialized(network_of(), init_, x)
        assert snapshot(wrapped) == snapshot(plain)
        batches, _ = initialized(network_of(), init_, iter([x, 100 * x]))
        joined, _ = initialized(network_of(), init_, torch.cat([x, 100 * x]))
        assert_all_close(batches.parameters(), joined.parameters(), rtol=1e-5, atol=1e-5)


# --- Batches that are not a tensor of inputs -----------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = network_of()

    def forward(self, left, *, right):
        return self.layers(left + right)


@dataclasses.dataclass
class Example:
    left: torch.Tensor
    right: torch.Tensor


def call(module, batch):
    return module(**batch)


halves = {"left": 0.25 * x, "right": 0.75 * x}
OTHER_BATCHES = {
    "a dictionary": (halves, call),
    "dictionaries": (iter([halves]), call),
    "a user dictionary": (collections.UserDict(halves), call),
    "a loader of dictionaries": (
        DataLoader([{k: v[i] for k, v in halves.items()} for i in range(200)], 200),
        call,
    ),
    "pairs": ([tuple(halves.values())], lambda module, b: module(b[0], right=b[1])),
    "nested pairs": (
        [[tuple(halves.values()), y]],
        lambda module, b: module(b[0][0], right=b[0][1]),
    ),
    "objects": ([Example(**halves)], lambda module, b: module(b.left, right=b.right)),
    "one tensor": (x, lambda module, b: module(0.25 * b, right=0.75 * b)),
    "a packed sequence": (
        [pack_sequence([x, x])],
        lambda module, b: module(0.25 * pad_packed_sequence(b)[0], right=0.75 * x.unsqueeze(1)),
    ),
    "in another method": (
        [halves],
        lambda module, b: module.layers(b["left"] + b["right"]),
    ),
}


class TestForward:
    @pytest.mark.parametrize("init_", MEASURING)
    @pytest.mark.parametrize("name", OTHER_BATCHES)
    def test_runs_the_network_on_what_it_likes(self, init_, name):
        batches, forward = OTHER_BATCHES[name]
        batches = iter([halves]) if name == "dictionaries" else batches  # for this test alone
        network, report = initialized(TwoInputs(), init_, batches, forward=forward)
        plain, expected = initialized(network_of(), init_, x)
        assert_all_close(network.parameters(), plain.parameters(), rtol=1e-5, atol=1e-5)
        assert [found[1:] for found in report] == [
            pytest.approx(wanted[1:], rel=1e-5) for wanted in expected
        ]

    def test_several_batches_of_it(self):
        batches = [
            dict(zip(halves, parts, strict=True))
            for parts in zip(*(v.split(64) for v in halves.values()), strict=True)
        ]
        network, _ = initialized(TwoInputs(), kumar_, iter(batches), forward=call)
        plain, _ = initialized(network_of(), kumar_, x)
        assert_all_close(network.parameters(), plain.parameters(), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("calibration", MEASURING)
    @pytest.mark.parametrize(
        ("data", "got"),
        [
            (halves, "dict"),
            ([halves], "dict"),
            ([(halves, y)], "dict"),
            ([((x, x), y)], "tuple"),
            ([Example(x, x)], "Example"),
            ([pack_sequence([x, x])], "PackedSequence"),
            ([(pack_sequence([x, x]), y)], "PackedSequence"),
            (["text"], "str"),
            ([("text", y)], "str"),
        ],
    )
    def test_is_what_other_batches_need(self, calibration, data, got):
        message = (
            r"^each batch of data must be a tensor, or a tuple or list that begins with one, got "
            rf"{got}; `forward` runs a network on all else, such as forward=lambda module, batch: "
            r"module\(\*\*batch\) on dictionaries$"
        )
        is_refused(calibration, network_of(), data, TypeError, message)

    @pytest.mark.parametrize("calibration", MEASURING)
    @pytest.mark.parametrize("forward", ["forward", 1, x])
    def test_has_to_be_a_function(self, calibration, forward):
        message = (
            f"^forward must be a function of a module and a batch, got {type(forward).__name__}$"
        )
        is_refused(calibration, network_of(), x, TypeError, message, forward=forward)

    @pytest.mark.parametrize("calibration", MEASURING)
    def test_that_raises(self, calibration):
        is_refused(
            calibration,
            network_of(),
            [halves],
            KeyError,
            "middle",
            forward=lambda m, b: m(b["middle"]),
        )

    @pytest.mark.parametrize("calibration", MEASURING)
    def test_that_runs_nothing(self, calibration):
        message = "never reached the layers '0', '3', '4'"
        is_refused(calibration, network_of(), x, ValueError, message, forward=lambda m, b: None)


# --- Tokens --------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A network of tokens, whose padding is masked."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.layers = network_of()

    def forward(self, ids, mask=None):
        out = self.layers(self.embedding(ids))
        return out if mask is None else out * mask.unsqueeze(-1)


def tokens(*shape):
    return torch.randint(11, shape, generator=seeded(5))


@pytest.mark.parametrize("init_", MEASURING)
@pytest.mark.parametrize(
    "data",
    [
        lambda: tokens(40, 9),
        lambda: DataLoader(TensorDataset(tokens(40, 9), tokens(40, 9)), batch_size=8),
        lambda: iter([tokens(8, length) for length in (3, 9, 1)]),  # each as long as its longest
        lambda: [(tokens(40, 9).int(), Untouchable())],
    ],
    ids=["tensor", "loader of tokens and next tokens", "of several lengths", "int32"],
)
def test_tokens(init_, data):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tokens()
    embedding = network.embedding.weight.detach().clone()
    report = init_(network, data())
    assert [entry.name for entry in report] == ["layers.0", "layers.3", "layers.4"]
    assert torch.equal(network.embedding.weight, embedding)
    if init_ is not scale_report:
        again = scale_report(network, data())
        assert [e.std_after for e in again] == [e.std_after for e in report]


# --- Whose the data are --------------------------------------------------------------------------


class Careless(nn.Module):
    """Writes to its inputs, and would differentiate in them."""

    def __init__(self):
        super().__init__()
        self.layers = network_of()

    def forward(self, x):
        x.requires_grad_()
        with torch.no_grad():
            x.mul_(2.0)
        return self.layers(x)


@pytest.mark.parametrize("init_", MEASURING)
@pytest.mark.parametrize(
    ("data", "more"),
    [
        (lambda x: x, {}),
        (lambda x: iter([x, x]), {}),
        (lambda x: [{"x": (x, "name")}], {"forward": lambda module, b: module(b["x"][0])}),
    ],
    ids=["tensor", "batches", "dictionary"],
)
def test_inputs_are_left_alone_by_the_network_too(init_, data, more):
    x = sample()
    before = x.clone()
    _, report = initialized(Careless(), init_, data(x), **more)
    assert torch.equal(x, before)
    assert (x.requires_grad, x.grad) == (False, None)
    _, expected = initialized(network_of(), init_, 2.0 * x)
    assert [found[1:] for found in report] == [
        pytest.approx(wanted[1:], rel=1e-5) for wanted in expected
    ]


def test_data_follow_the_network_to_its_device():
    # The one device that is everywhere; what gets there has no numbers.
    network = network_of().to("meta")
    with pytest.raises(ValueError, match=r"^the outputs of layer '0' are on the meta device"):
        scale_report(network, sample())


def test_data_stay_where_they_are_if_the_network_is_in_several_places():
    network = TwoInputs()
    network.elsewhere = nn.Linear(2, 2, device="meta")
    report = kumar_(network, x, forward=lambda module, batch: module.layers(batch))
    assert [entry.std_after for entry in report] == pytest.approx([0.5] * 3, rel=1e-5)


@pytest.mark.parametrize("init_", DRAWN)
def test_inputs_that_require_a_gradient(init_):
    inputs = sample()
    before = inputs.clone()
    init_(network_of(), inputs.requires_grad_())
    assert torch.equal(inputs, before)
    assert inputs.requires_grad
    assert inputs.grad is None
