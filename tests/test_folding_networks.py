"""Networks in other coordinates: `gmlib.fold` and `gmlib.unfold`."""

import copy
import functools
import pickle

import pytest
import torch
from draws import draw
from kinds import AFFINE, FOLDED, PARAMETERS, classes
from module_checks import assert_all_close, modes, outcome, snapshot, unchanged
from networks import make_layer, make_network, mixed, stack
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.testing import assert_close

import gmlib

# Each with the kind of layer that it converts, and that it makes.
WAYS = {"fold": (gmlib.fold, AFFINE, FOLDED), "unfold": (gmlib.unfold, FOLDED, AFFINE)}
both_ways = pytest.mark.parametrize(("way", "kind", "other"), WAYS.values(), ids=WAYS)
DIGITS = {torch.float32: 1e-5, torch.float64: 1e-12}


def renamed(names, kind, other):
    """Names of parameters, as they are of the other kind."""
    new = dict(zip(kind.readout, other.readout, strict=True))
    parts = (name.rpartition(".") for name in names)
    return [f"{head}{dot}{new.get(name, name)}" for head, dot, name in parts]


class Nested(nn.Module):
    """Layers within modules within modules; one is used twice, under two names."""

    def __init__(self, kinds):
        super().__init__()
        layers = classes(kinds)
        self.first = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), next(layers)(5, 4, 3))
        self.inner = nn.ModuleDict({"list": nn.ModuleList([next(layers)(4, 4, 2), nn.Tanh()])})
        self.alias = self.inner["list"][0]
        self.last = next(layers)(4, 2, 3)

    def forward(self, x):
        x = self.first(x)
        for module in self.inner["list"]:
            x = module(x)
        return self.last(self.alias(x))


# --- What comes out ------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("dtype", DIGITS)
class TestConverted:
    def test_a_layer(self, way, kind, other, dtype):
        layer, x = make_layer(kind, dtype=dtype), draw(5, 4, dtype=dtype)
        converted = way(layer)
        assert type(converted) is other.layer
        assert list(converted.state_dict()) == list(other.parameters)
        assert {p.dtype for p in converted.parameters()} == {dtype}
        assert repr(converted) == repr(make_layer(other))
        assert torch.equal(converted.mu, layer.mu)
        assert torch.equal(converted.sigma, layer.sigma)
        assert_close(converted(x), layer(x), rtol=DIGITS[dtype], atol=DIGITS[dtype])
        # It has nothing of the layer that it was.
        parameters = {name: getattr(converted, name) for name in other.parameters}
        assert torch.equal(converted(x), other.function(x, **parameters))
        assert not any(hasattr(converted, name) for name in kind.readout)

    def test_a_network(self, way, kind, other, dtype):
        network, x = Nested(kind).to(dtype).eval(), draw(9, 6, dtype=dtype)
        converted = way(network)
        (out, grad_x, *_), (expected, expected_grad_x, *_) = (
            outcome(module, x) for module in (converted, network)
        )
        assert_close(out, expected, rtol=DIGITS[dtype], atol=DIGITS[dtype])
        assert_close(grad_x, expected_grad_x, rtol=10 * DIGITS[dtype], atol=10 * DIGITS[dtype])
        names = renamed(network.state_dict(), kind, other)
        assert list(converted.state_dict()) == names
        types = [type(module) for module in network.modules()]
        expected_types = [other.layer if each is kind.layer else each for each in types]
        assert [type(module) for module in converted.modules()] == expected_types

    def test_there_and_back(self, way, kind, other, dtype):
        back = gmlib.unfold if way is gmlib.fold else gmlib.fold
        network, x = make_network(kind, dtype), draw(9, 6, dtype=dtype)
        again = back(way(network))
        assert list(again.state_dict()) == list(network.state_dict())
        assert_close(again(x), network(x), rtol=DIGITS[dtype], atol=DIGITS[dtype])
        assert_all_close(
            again.parameters(), network.parameters(), rtol=DIGITS[dtype], atol=DIGITS[dtype]
        )


@both_ways
class TestKeeps:
    def test_the_original(self, way, kind, other):
        network = mixed(kind)
        parameters = list(network.parameters())
        with unchanged(network):
            way(network)
        assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
        assert all(type(layer) is not other.layer for layer in network.modules())

    def test_nothing_shared_with_the_original(self, way, kind, other):
        network = mixed(kind)
        before = snapshot(network)
        converted = way(network)
        with torch.no_grad():
            for tensor in (*converted.parameters(), *converted.buffers()):
                tensor.fill_(7)
        assert snapshot(network) == before

    def test_other_modules_as_they_are(self, way, kind, other):
        network = mixed(kind)
        before, after = (snapshot(module) for module in (network, way(network)))
        common = [name for name in before if name.rpartition(".")[2] not in kind.readout]
        assert len(common) == len(before) - 6
        assert {name: after[name] for name in common} == {name: before[name] for name in common}

    def test_modes(self, way, kind, other):
        network = mixed(kind)
        network[4].eval()
        converted = way(network)
        assert modes(converted) == modes(network)
        assert len(set(modes(converted))) == 2

    @pytest.mark.parametrize("frozen", PARAMETERS)
    def test_what_is_frozen(self, way, kind, other, frozen):
        network = stack(kind, 6, 5, 4)
        network[1].get_parameter(kind.names[frozen]).requires_grad_(False)
        converted = way(network)
        held = [name for name, p in converted.named_parameters() if not p.requires_grad]
        assert held == [f"1.{other.names[frozen]}"]
        assert all(p.is_leaf and p.grad is None for p in converted.parameters())
        assert not hasattr(converted[1], kind.names["weights"])

    def test_where_the_caller_computes_no_gradients(self, way, kind, other):
        with torch.no_grad():
            converted = way(stack(kind, 6, 5, 4))
        assert all(p.requires_grad for p in converted.parameters())

    def test_buffers(self, way, kind, other):
        layer = make_layer(kind)
        layer.register_buffer("steps", torch.tensor(3))
        weights, offsets = kind.readout
        for name, persistent in ((weights, True), (offsets, False)):
            value = getattr(layer, name).detach()
            delattr(layer, name)
            layer.register_buffer(name, value, persistent=persistent)
        converted = way(layer)
        weights, offsets = other.readout
        assert {name for name, _ in converted.named_parameters()} == {"mu", "sigma"}
        assert {name for name, _ in converted.named_buffers()} == {"steps", weights, offsets}
        assert set(converted.state_dict()) == {"mu", "sigma", "steps", weights}
        assert converted.steps == 3

    def test_the_device_where_it_holds_no_numbers(self, way, kind, other):
        converted = way(make_network(kind, torch.float32).to("meta"))
        assert all(p.is_meta for p in converted.parameters())
        assert converted(torch.empty(9, 6, device="meta")).shape == (9, 2)
        converted = converted.to_empty(device="cpu")
        gmlib.init.fan_in_(converted)
        assert type(converted[1]) is other.layer

    def test_hooks(self, way, kind, other):
        network, seen = stack(kind, 6, 5, 4, dtype=torch.float64), []
        network[1].register_forward_pre_hook(lambda layer, args: seen.append(("pre", layer)))
        network[1].register_forward_hook(lambda layer, args, out: 2.0 * out)
        network[1].register_full_backward_hook(lambda layer, *_: seen.append(("back", layer)))
        converted, x = way(network), draw(5, 6)
        outcomes = [outcome(module, x)[:2] for module in (network, converted)]
        assert_all_close(*outcomes, rtol=1e-12, atol=1e-12)
        assert [name for name, _ in seen] == ["pre", "back"] * 2
        assert [layer for _, layer in seen] == [network[1]] * 2 + [converted[1]] * 2

    def test_a_layer_used_twice(self, way, kind, other):
        layer = make_layer(kind, 4, 4)
        network = nn.Sequential(layer, nn.Tanh(), layer)
        converted, x = way(network), draw(5, 4)
        assert converted[0] is converted[2]
        assert [name for name, _ in converted.named_parameters()] == [
            f"0.{name}" for name in other.parameters
        ]
        assert_close(converted(x), network(x), rtol=1e-12, atol=1e-12)
        nested = way(Nested(kind))
        assert nested.alias is nested.inner["list"][0]

    @pytest.mark.parametrize("name", ["mu", "sigma"])
    def test_what_is_tied(self, way, kind, other, name):
        network = nn.Sequential(make_layer(kind, 4, 4), make_layer(kind, 4, 4, seed=1))
        setattr(network[1], name, getattr(network[0], name))
        converted, x = way(network), draw(5, 4)
        assert getattr(converted[0], name) is getattr(converted[1], name)
        assert getattr(converted[0], name) is not getattr(network[0], name)
        assert_close(converted(x), network(x), rtol=1e-12, atol=1e-12)

    def test_layers_that_are_of_the_other_kind_already(self, way, kind, other):
        network, x = mixed([kind, other]).double().eval(), draw(5, 6)
        converted = way(network)
        assert [type(converted[i]) for i in (2, 4, 8)] == [other.layer] * 3
        assert snapshot(converted[4]) == snapshot(network[4])
        assert converted[4] is not network[4]
        assert_close(converted(x), network(x), rtol=1e-12, atol=1e-12)

    def test_networks_of_the_other_kind_altogether(self, way, kind, other):
        network = mixed(other)
        converted = way(network)
        assert snapshot(converted) == snapshot(network)
        assert converted is not network

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_its_being_copied(self, way, kind, other, duplicate):
        converted, x = way(make_network(kind)), draw(5, 6)
        twin = duplicate(converted)
        assert snapshot(twin) == snapshot(converted)
        assert type(twin[1]) is other.layer
        assert torch.equal(twin(x), converted(x))

    def test_its_being_stored(self, way, kind, other, tmp_path):
        converted, x = way(make_network(kind)), draw(5, 6)
        torch.save(converted.state_dict(), tmp_path / "converted.pt")
        stored = torch.load(tmp_path / "converted.pt", weights_only=True)
        fresh = make_network(other, seed=1)
        fresh.load_state_dict(stored)
        assert torch.equal(fresh(x), converted(x))
        with pytest.raises(RuntimeError, match=f"Missing key.*{kind.names['weights']}"):
            make_network(kind).load_state_dict(stored)

    def test_its_being_trainable(self, way, kind, other):
        converted = way(stack(kind, 6, 5, 4))
        x, target = draw(20, 6, dtype=torch.float32), draw(20, 4, dtype=torch.float32, seed=2)
        before = snapshot(converted)
        optimizer = torch.optim.Adam(converted.parameters(), lr=0.01)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(converted(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]
        assert all(value != before[name] for name, value in snapshot(converted).items())


# --- What is refused -----------------------------------------------------------------------------


def is_refused(way, network, error, message):
    with unchanged(network), pytest.raises(error, match=message):
        way(network)


COMPUTED = {
    "parametrized": lambda layer, name: parametrize.register_parametrization(
        layer, name, nn.Softplus()
    ),
    "pruned": functools.partial(prune.random_unstructured, amount=0.5),
}


@both_ways
class TestRefuses:
    @pytest.mark.parametrize("role", PARAMETERS)
    @pytest.mark.parametrize("register", COMPUTED.values(), ids=COMPUTED)
    def test_computed_parameters(self, way, kind, other, role, register):
        network, name = stack(kind, 6, 5, 4), kind.names[role]
        register(network[1], name)
        is_refused(way, network, ValueError, f"^{name} of GM layer '1' is computed from other ")

    def test_shared_readouts(self, way, kind, other):
        network = nn.Sequential(make_layer(kind, 6, 6, 6), make_layer(kind, 6, 6, 6))
        weights, offsets = kind.readout
        for one, two in [(weights, weights), (offsets, offsets), (offsets, "mu")]:
            tied = copy.deepcopy(network)
            setattr(tied[1], two, getattr(tied[0], one))
            is_refused(way, tied, ValueError, f"^'0.{one}' and '1.{two}' are one tensor")

    def test_subclasses(self, way, kind, other):
        class Special(kind.layer):
            pass

        network = nn.Sequential(make_layer(kind, 6, 5), Special(5, 4, 2))
        message = f"^GM layer '1' is a Special; only {kind.layer.__name__} itself is converted"
        is_refused(way, network, TypeError, message)

    def test_subclasses_of_the_other_kind(self, way, kind, other):
        class Special(other.layer):
            pass

        network = nn.Sequential(make_layer(kind, 6, 5), Special(5, 4, 2))
        is_refused(way, network, TypeError, "^GM layer '1' is a Special; ")

    def test_networks_without_a_layer(self, way, kind, other):
        is_refused(way, nn.Sequential(nn.Linear(6, 5)), ValueError, "Sequential holds no GM layer")

    @pytest.mark.parametrize("nothing", [None, [], draw])
    def test_what_is_no_network(self, way, kind, other, nothing):
        with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got "):
            way(nothing)

    @pytest.mark.parametrize("role", PARAMETERS)
    def test_half_converted_layers(self, way, kind, other, role):
        network, name = stack(kind, 6, 5, 4), kind.names[role]
        setattr(network[1], name, nn.Parameter(network[1].get_parameter(name).detach().double()))
        is_refused(way, network, TypeError, r"^GM layer '1': .* must share a dtype, got torch\.f")


def test_what_no_affine_readout_computes_is_refused():
    network = stack(FOLDED, 6, 5, 4)
    with torch.no_grad():
        network[1].sigma[2, 3] = 0.0
    is_refused(gmlib.unfold, network, ValueError, r"^GM layer '1': sigma\[2, 3\] is zero \(or its")
