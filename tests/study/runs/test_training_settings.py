"""Settings of a run that the note does not have: what each changes, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.nn.functional import cross_entropy
from training_checks import values

from gmlib.functional import gm_layer_folded
from gmlib.study import datasets
from gmlib.study.analysis.budgets import num_parameters
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.coordinates import COORDINATES, RANKS
from gmlib.study.runs.gates import OPEN, SHUT, gates
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import (
    build_network,
    generator_of,
    hold_out,
    train,
    train_together,
)
from gmlib.study.runs.verify import verify

Configure = Callable[..., RunConfig]


# --- Coordinates between -------------------------------------------------------------------------


@pytest.mark.parametrize("coordinates", [c for c in COORDINATES if not c.startswith("rank")])
@pytest.mark.parametrize("arm", ["BL", "KUMAR", "LSUV"])
def test_all_coordinates_start_from_one_function(
    arm: str, coordinates: str, tiny: Configure, blobs: datasets.Dataset
) -> None:
    affine, _ = build_network(tiny(arm), blobs)
    other, report = build_network(tiny(arm, coordinates=coordinates), blobs)
    assert all(type(layer) is COORDINATES[coordinates] for layer in other)
    torch.testing.assert_close(other(blobs.x_test), affine(blobs.x_test), rtol=1e-4, atol=1e-5)
    if arm == "KUMAR":
        assert [layer.std_after for layer in report] == pytest.approx([0.5, 0.5], rel=1e-4)


@pytest.mark.parametrize(
    ("coordinates", "readout"),
    [
        ("centered", lambda p, s: (p["U"], p["U"] @ p["mu"] + p["v"])),
        ("whitened", lambda p, s: (p["U"] * s, p["v"])),
        ("centered and whitened", lambda p, s: (p["U"] * s, p["U"] @ p["mu"] + p["v"])),
    ],
)
def test_the_readouts_are_what_their_coordinates_say(
    coordinates: str,
    readout: Callable[..., tuple[np.ndarray, np.ndarray]],
    tiny: Configure,
    blobs: datasets.Dataset,
) -> None:
    # Component by component: with omega the readout of a neuron beta, U beta + v is written as
    # U (beta - mu) + w, W (beta / sigma) + v, or W (beta - mu) / sigma + w.
    affine, _ = build_network(tiny("BL"), blobs)
    other, _ = build_network(tiny("BL", coordinates=coordinates), blobs)
    for one, two in zip(affine, other, strict=True):
        own, found = values(one), [t.detach().numpy() for t in two.readout]
        for k in range(one.num_components):
            component = {name: value[k] for name, value in own.items()}
            for expected, got in zip(readout(component, own["sigma"][k]), found, strict=True):
                np.testing.assert_allclose(got[k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("arm", ["FAN-IN", "KUMAR"])
def test_a_layer_of_a_rank_is_a_folded_one(
    arm: str, rank: int, tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny(arm, coordinates=f"rank {rank}", num_components=3)
    network, report = build_network(config, blobs)
    x = blobs.x_test
    for layer, scale in zip(network, report, strict=True):
        assert layer.rank == rank
        sigma = layer.sigma.expand(-1, layer.in_features)
        expected = gm_layer_folded(x, layer.mu, sigma, layer.P @ layer.Q, layer.w)
        x = layer(x)
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)
        assert scale.std_after == (pytest.approx(0.5, rel=1e-4) if arm == "KUMAR" else ANY)
    assert sum(p.numel() for p in network.parameters()) == num_parameters(
        config, blobs.num_features
    )


def test_one_sigma_moves_by_the_mean_of_what_each_would(
    tiny: Configure, blobs: datasets.Dataset
) -> None:
    network, _ = build_network(tiny("FAN-IN", coordinates="rank 1", widths=(3,)), blobs)
    (layer,) = network
    cross_entropy(layer(blobs.x_test), blobs.y_test).backward()
    sigma = layer.sigma.detach().expand(-1, layer.in_features).clone().requires_grad_()
    logits = gm_layer_folded(blobs.x_test, layer.mu, sigma, layer.P @ layer.Q, layer.w)
    cross_entropy(logits, blobs.y_test).backward()
    torch.testing.assert_close(layer.sigma.grad, sigma.grad.mean(1, keepdim=True))


# --- ReLUs between, rates, optimizers ------------------------------------------------------------


def test_a_relu_between_the_layers(tiny: Configure, blobs: datasets.Dataset) -> None:
    plain, _ = build_network(tiny("BL"), blobs)
    between, report = build_network(tiny("BL", between="relu"), blobs)
    assert [type(module) for module in between] == [type(plain[0]), nn.ReLU, type(plain[1])]
    expected = plain[1](plain[0](blobs.x_test).relu())
    torch.testing.assert_close(between(blobs.x_test), expected, rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in report] == ["0", "2"]
    one, _ = build_network(tiny("BL", between="relu", widths=(3,)), blobs)
    assert len(one) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_a_step_has_the_rates_of_the_settings(
    optimizer: str, warmup: int, tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny(
        "KUMAR",
        epochs=2,
        batch_size=32,
        lr=0.01,
        lr_sigma=0.02,
        coordinates="folded",
        optimizer=optimizer,
        warmup=warmup,
        rate_factors={"mu": 0.0, "A": 3.0, "sigma": 0.5},
        snapshots=True,
    )
    network, _ = build_network(config, blobs)
    rates = {"mu": 0.0, "sigma": 0.01, "A": 0.03, "w": 0.01}
    named = dict(network.named_parameters())
    groups = [{"params": [p], "lr": rates[name.partition(".")[2]]} for name, p in named.items()]
    plain = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](groups)
    order = generator_of(config.seed, "order")
    step = 0
    for _ in range(config.epochs):
        for batch in torch.randperm(len(blobs.x_train), generator=order).split(32):
            step += 1
            for group, name in zip(plain.param_groups, named, strict=True):
                group["lr"] = rates[name.partition(".")[2]] * min(step / (warmup or 1), 1.0)
            plain.zero_grad()
            cross_entropy(network(blobs.x_train[batch]), blobs.y_train[batch]).backward()
            plain.step()
    assert step > 4  # so that the warm-up ends within
    record = train(config)
    assert record.movement["0.mu"][-1] == record.movement["1.mu"][-1] == 0.0
    for name, parameter in named.items():
        np.testing.assert_allclose(
            record.snapshots[name][-1], parameter.detach().numpy(), rtol=1e-4, atol=1e-6
        )


# --- Training images held out --------------------------------------------------------------------


def test_images_are_held_out_once_for_all(blobs: datasets.Dataset) -> None:
    number = len(blobs.x_train)
    split = hold_out(blobs, 20)
    assert (len(split.x_train), len(split.x_test)) == (number - 20, 20)
    joined = torch.cat([split.x_train, split.x_test])
    labels = torch.cat([split.y_train, split.y_test])
    assert sorted(zip(joined.tolist(), labels.tolist(), strict=True)) == sorted(
        zip(blobs.x_train.tolist(), blobs.y_train.tolist(), strict=True)
    )
    assert torch.equal(hold_out(blobs, 20).x_test, split.x_test)
    assert torch.equal(hold_out(blobs, 10).x_test, split.x_test[:10])
    with pytest.raises(ValueError, match=f"below the {number} training images of .*, got {number}"):
        hold_out(blobs, number)


def test_a_run_never_sees_the_test_images_if_others_are_held_out(
    tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny("KUMAR", held_out=20, epochs=2)
    spoiled = dataclasses.replace(blobs, x_test=torch.full_like(blobs.x_test, torch.nan))
    record = train(config, dataset=spoiled)
    assert record.curves == train(config).curves
    assert np.isfinite(record.curves["test_loss"]).all()
    assert {round(20 * error, 9) % 1 for error in record.curves["test_error"]} == {0.0}
    # And trains on none of those held out.
    split = hold_out(blobs, 20)
    again = train(dataclasses.replace(config, held_out=0), dataset=split)
    assert again.curves == record.curves


# --- Gates ---------------------------------------------------------------------------------------


def test_gates_are_probabilities_that_a_neuron_fires() -> None:
    x, mu = torch.randn(50, 6).double(), torch.randn(3, 6).double()
    sigma = torch.rand(3, 6).double() + 0.1
    found = gates(x, mu, sigma)
    m, t = x @ mu.T, (x.square() @ sigma.square().T).sqrt()
    np.testing.assert_allclose(found, norm.cdf(m / t), rtol=1e-9)
    neurons = mu + sigma * torch.randn(20_000, 3, 6).double()
    fired = ((neurons.movedim(0, 1) @ x.T) > 0).double().mean(1)
    torch.testing.assert_close(found.T, fired, atol=0.02, rtol=0.0)


@pytest.mark.parametrize("coordinates", ["affine", "folded"])
@pytest.mark.parametrize("between", ["none", "relu"])
def test_a_run_records_its_gates(
    coordinates: str, between: str, tiny: Configure, blobs: datasets.Dataset
) -> None:
    settings = {"coordinates": coordinates, "between": between, "epochs": 2, "snapshots": True}
    record = train(tiny("BL", gates=True, **settings))
    without = train(tiny("BL", **settings))
    assert without.gates == {}
    assert (without.curves, without.movement) == (record.curves, record.movement)
    layers = ["0", "1" if between == "none" else "2"]
    assert list(record.gates) == [f"{n}.{state}" for n in layers for state in ("shut", "open")]
    config = record.config
    assert {np.shape(rows) for rows in record.gates.values()} == {
        (len(record.curves["step"]), config.num_components)
    }
    # The last ones, from the last parameters.
    network, _ = build_network(config, blobs)
    network.load_state_dict({n: torch.from_numpy(v[-1]) for n, v in record.snapshots.items()})
    hidden = network[0](blobs.x_test)
    inputs = [blobs.x_test, hidden.relu() if between == "relu" else hidden]
    for name, x in zip(layers, inputs, strict=True):
        layer = network[int(name)]
        G = gates(x, layer.mu, layer.sigma)
        for state, share in (("shut", G < SHUT), ("open", G > OPEN)):
            expected = share.double().mean(0).tolist()
            assert record.gates[f"{name}.{state}"][-1] == pytest.approx(expected, abs=1e-5)


def test_a_dense_network_has_no_gates(tiny: Configure) -> None:
    record = train(tiny("FC", gates=True))
    assert record.gates == {}
    assert record.config.run_id == tiny("FC").run_id


def test_gates_come_back_from_the_ledger_and_are_verified(tiny: Configure, tmp_path) -> None:
    record = train(tiny("BL", gates=True))
    Ledger(tmp_path).put(record)
    kept = Ledger(tmp_path).get(record.config)
    assert kept is not None
    assert kept.gates == record.gates
    assert verify(kept, exact=True).holds
    moved = {name: [[1.0 - e for e in row] for row in rows] for name, rows in kept.gates.items()}
    verdict = verify(dataclasses.replace(kept, gates=moved))
    assert not verdict.holds
    assert verdict.differs.startswith("gate ")


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: rows[:-1],
        lambda rows: [[*rows[0], 0.5], *rows[1:]],
        lambda rows: [[-0.1, *rows[0][1:]], *rows[1:]],
        lambda rows: [[1.5, *rows[0][1:]], *rows[1:]],
        lambda rows: [["0.5", *rows[0][1:]], *rows[1:]],
        lambda rows: [[True, *rows[0][1:]], *rows[1:]],
    ],
)
def test_gates_that_cannot_be_are_refused(
    damage: Callable[[list[list[float]]], object], tiny: Configure
) -> None:
    content = json.loads(json.dumps(train(tiny("BL", gates=True)).to_json()))
    content["gates"]["0.shut"] = damage(content["gates"]["0.shut"])
    with pytest.raises(ValueError, match=r"gates|curves differ in length"):
        RunRecord.from_json(content, {})


def test_runs_trained_together_have_the_settings_too(tiny: Configure) -> None:
    configs = [
        tiny(
            "KUMAR",
            seed,
            lr=0.003,
            lr_sigma=0.003,
            optimizer="adam",
            warmup=5,
            between="relu",
            gates=True,
            held_out=20,
            rate_factors={"v": 0.0},
        )
        for seed in (0, 1, 2)
    ]
    for one, config in zip(train_together(configs), configs, strict=True):
        alone = train(config)
        np.testing.assert_allclose(
            one.curves["test_loss"], alone.curves["test_loss"], rtol=1e-3, atol=1e-4
        )
        assert one.movement["0.v"][-1] == 0.0
        assert list(one.gates) == list(alone.gates)
        for name, rows in alone.gates.items():
            np.testing.assert_allclose(one.gates[name], rows, atol=0.101)
