"""Runs: the same whenever repeated, comparable between arms, and without side effects."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gmlib
from gmlib import GaussianMixtureLayer
from gmlib.study import datasets
from gmlib.study.plan import arms
from gmlib.study.plan.arms import ARMS as BUILT_IN
from gmlib.study.plan.arms import arm_of
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.neurons import NeuronLayer
from gmlib.study.runs import training
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import (
    Progress,
    build_network,
    evaluation_steps,
    train,
    train_together,
)

Configure = Callable[..., RunConfig]

ARMS = (*BUILT_IN, "own_runs:draw")
MIXTURES = tuple(arm for arm in ARMS if arm not in ("FC", "NEURONS"))
NOTHING = 1e-30  # as a learning rate: an update that vanishes beside any float32 parameter


@pytest.fixture
def blobs() -> datasets.Dataset:
    return datasets.load("own_runs:blobs")


class Spied:
    """Networks that were built and the batches they were trained on."""

    def __init__(self) -> None:
        self.networks: list[nn.Module] = []
        self.batches: list[Tensor] = []

    def build(self, config: RunConfig, dataset: datasets.Dataset) -> tuple[nn.Module, Any]:
        network, report = build_network(config, dataset)
        network.register_forward_pre_hook(self.look)
        self.networks.append(network)
        return network, report

    def look(self, _: nn.Module, arguments: tuple[Tensor]) -> None:
        if torch.is_grad_enabled():  # evaluation has gradients off
            self.batches.append(arguments[0].clone())


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    spy = Spied()
    monkeypatch.setattr(training, "build_network", spy.build)
    return spy


def assert_same_run(one: RunRecord, other: RunRecord) -> None:
    np.testing.assert_equal(one.curves, other.curves)  # takes NaN for equal to NaN
    assert one.init_report == other.init_report
    np.testing.assert_equal(one.movement, other.movement)
    assert list(one.movement) == list(other.movement)
    assert_same_arrays(one.snapshots, other.snapshots)


def assert_same_arrays(one: Any, other: Any) -> None:
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name, strict=True)


def values(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in network.named_parameters()}


def sorted_rows(rows: Tensor) -> list[list[float]]:
    return sorted(rows.tolist())


# --- When a run is evaluated ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "steps"),
    [
        (0, 938, [0]),
        (0, 1, [0]),
        (1, 1, [0, 1]),
        (3, 1, [0, 1, 2, 3]),
        (2, 2, [0, 1, 2, 4]),
        (1, 3, [0, 1, 2, 3]),
        (3, 6, [0, 1, 2, 3, 4, 6, 12, 18]),
    ],
)
def test_evaluation_steps(epochs: int, steps_per_epoch: int, steps: list[int]) -> None:
    assert evaluation_steps(epochs, steps_per_epoch) == steps


def test_evaluation_steps_of_the_main_study() -> None:
    first = [0, 1, 2, 3, 4, 6, 8, 11, 15, 22, 31, 43, 61, 85, 120, 169, 239, 336, 473, 666, 938]
    assert evaluation_steps(20, 938) == [*first, *range(2 * 938, 20 * 938 + 1, 938)]


@pytest.mark.parametrize("steps_per_epoch", [*range(1, 40), 469, 938, 1875, 60_000])
def test_evaluation_steps_grow_by_a_factor_of_sqrt_2_at_most(steps_per_epoch: int) -> None:
    steps = evaluation_steps(2, steps_per_epoch)
    assert steps[0] == 0
    assert steps[-2:] == [steps_per_epoch, 2 * steps_per_epoch]
    for before, after in itertools.pairwise(steps[1:-1]):
        assert before < after <= max(before + 1, 1.5 * before + 0.5)
    assert json.loads(json.dumps(steps)) == steps  # plain integers, as a record needs them


def test_curves_are_taken_at_those_steps(tiny: Configure, blobs: datasets.Dataset) -> None:
    config = tiny(epochs=2)
    record = train(config)
    assert tuple(record.curves) == training.CURVES
    assert record.curves["step"] == [0, 1, 2, 3, 4, 6, 12]
    assert all(len(curve) == 7 for curve in record.curves.values())
    network, _ = build_network(config, blobs)
    with torch.no_grad():
        logits = network(blobs.x_test)
    wrong = (logits.argmax(1) != blobs.y_test).sum().item()
    assert record.curves["test_error"][0] == wrong / 48
    loss = cross_entropy(logits, blobs.y_test).item()
    assert record.curves["test_loss"][0] == pytest.approx(loss, rel=1e-5)
    assert record.curves["test_error"][-1] < 0.5 * record.curves["test_error"][0] + 0.05


def test_the_training_loss_is_the_mean_since_the_evaluation_before(
    tiny: Configure, spied: Spied, blobs: datasets.Dataset
) -> None:
    # With a learning rate of nothing each batch's loss can be computed afterwards.
    config = tiny(lr=NOTHING, lr_sigma=NOTHING)
    curve = train(config).curves["train_loss"]
    labels = {tuple(x): y for x, y in zip(blobs.x_train.tolist(), blobs.y_train, strict=True)}
    losses = []
    for batch in list(spied.batches):
        targets = torch.stack([labels[tuple(x)] for x in batch.tolist()])
        losses.append(cross_entropy(spied.networks[0](batch), targets).item())
    assert math.isnan(curve[0])
    expected = [losses[0], losses[1], losses[2], losses[3], (losses[4] + losses[5]) / 2]
    assert curve[1:] == pytest.approx(expected, rel=1e-6)


def test_progress_is_told_at_every_evaluation(tiny: Configure) -> None:
    heard: list[Progress] = []
    curves = train(tiny(epochs=2), heard.append).curves
    assert [progress.step for progress in heard] == curves["step"]
    assert [progress.test_error for progress in heard] == curves["test_error"]
    assert {progress.total_steps for progress in heard} == {12}


def test_no_epochs_record_the_initialization_alone(tiny: Configure) -> None:
    heard: list[Progress] = []
    record = train(tiny(epochs=0, snapshots=True), heard.append)
    assert record.curves["step"] == [0]
    assert record.snapshots["0.mu"].shape == (1, 2, 25)
    assert heard == [Progress(0, 0, record.curves["test_error"][0])]


# --- Which batches -------------------------------------------------------------------------------


def test_arms_of_one_seed_see_the_same_batches(tiny: Configure, spied: Spied) -> None:
    seen = {}
    for arm in ARMS:
        spied.batches.clear()
        train(tiny(arm, epochs=2, num_components=1 if arm == "BL" else 2))
        seen[arm] = list(spied.batches)
    for arm, batches in seen.items():
        assert len(batches) == 12
        assert all(map(torch.equal, batches, seen["KUMAR"])), arm


def test_an_epoch_sees_every_image_once_in_an_order_of_its_own(
    tiny: Configure, spied: Spied, blobs: datasets.Dataset
) -> None:
    train(tiny(epochs=2, batch_size=20))
    assert [len(batch) for batch in spied.batches] == 2 * [20, 20, 20, 20, 16]
    epochs = torch.cat(spied.batches).split(96)
    for epoch in epochs:
        assert sorted_rows(epoch) == sorted_rows(blobs.x_train)
        assert not torch.equal(epoch, blobs.x_train)
    assert not torch.equal(*epochs)


def test_seeds_differ_in_order_parameters_and_calibration(tiny: Configure, spied: Spied) -> None:
    records = [train(tiny("KUMAR", seed, snapshots=True)) for seed in (0, 1)]
    assert not torch.equal(spied.batches[0], spied.batches[6])
    one, other = (record.snapshots for record in records)
    for name in ("0.mu", "0.U", "0.v", "1.mu", "1.U", "1.v"):
        assert not np.array_equal(one[name][0], other[name][0]), name
    assert records[0].init_report != records[1].init_report
    assert records[0].curves["test_loss"] != records[1].curves["test_loss"]


@pytest.mark.parametrize("standardize", ["image", "dataset"])
def test_inputs_are_standardized_as_the_configuration_says(
    tiny: Configure, spied: Spied, standardize: str
) -> None:
    train(tiny(standardize=standardize, batch_size=96))
    expected = datasets.load("own_runs:blobs", standardize).x_train
    assert sorted_rows(spied.batches[0]) == sorted_rows(expected)


# --- Calibration ---------------------------------------------------------------------------------


def calibration_inputs(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the initialization of a run is shown, and what its scale is measured on."""
    seen: list[Tensor] = []

    def spied(function: Callable[..., Any]) -> Callable[..., Any]:
        def spy(network: nn.Module, inputs: Tensor, *rest: Any, **more: Any) -> Any:
            seen.append(inputs)
            return function(network, inputs, *rest, **more)

        return spy

    arm = arm_of(config.arm)
    with monkeypatch.context() as patch:
        patch.setattr(training, "arm_of", lambda _: replace(arm, initialize=spied(arm.initialize)))
        patch.setattr(training, "scale_report", spied(training.scale_report))
        build_network(config, datasets.load(config.dataset, config.standardize))
    assert seen
    assert all(torch.equal(inputs, seen[0]) for inputs in seen)
    return seen[0]


def test_calibration_inputs_are_training_images_without_labels(
    tiny: Configure, blobs: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = calibration_inputs(tiny("KUMAR"), monkeypatch)
    assert inputs.shape == (64, 25)
    images = set(map(tuple, blobs.x_train.tolist()))
    assert len(set(map(tuple, inputs.tolist())) & images) == 64
    assert not torch.equal(inputs, blobs.x_train[:64])


def test_arms_of_one_seed_share_their_calibration_inputs(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {arm: calibration_inputs(tiny(arm), monkeypatch) for arm in ARMS}
    # Arms that are not calibrated are measured on the default number, here on all 96.
    uncalibrated = {"FC", "BL", "FAN-IN", "ANALYTIC", "ZERO", "ZERO-LAST"}
    for arm, inputs in shown.items():
        assert len(inputs) == (96 if arm in uncalibrated else 64), arm
        assert torch.equal(inputs[:64], shown["KUMAR"]), arm
    other_seed = calibration_inputs(tiny("KUMAR", 1), monkeypatch)
    assert not torch.equal(shown["KUMAR"], other_seed)


def test_calibration_draws_from_a_generator_of_its_own(
    tiny: Configure, spied: Spied, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = (
        train(tiny(calibration_size=size, snapshots=True)).snapshots for size in (96, 32)
    )
    np.testing.assert_array_equal(large["0.mu"][0], small["0.mu"][0])
    assert not np.array_equal(large["0.U"][0], small["0.U"][0])  # but the scale is another
    assert all(map(torch.equal, spied.batches[:6], spied.batches[6:]))
    shown = calibration_inputs(tiny(calibration_size=16), monkeypatch)
    assert not torch.equal(shown, spied.batches[0])


@pytest.mark.parametrize("arm", ["KUMAR", "BL+CAL"])
@pytest.mark.parametrize("target", [0.5, 3.0])
def test_kumar_reports_the_target(tiny: Configure, target: float, arm: str) -> None:
    report = train(tiny(arm, epochs=0, target_std=target)).init_report
    assert [layer.name for layer in report] == ["0", "1"]
    for layer in report:
        assert layer.std_after == pytest.approx(target, rel=1e-5)
        assert layer.std_before * layer.scale == pytest.approx(target)
        assert layer.std_before != pytest.approx(target, rel=1e-2)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in ("KUMAR", "BL+CAL", "LSUV")])
def test_other_arms_report_what_they_have(
    arm: str, tiny: Configure, blobs: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(arm, epochs=0)
    report = train(config).init_report
    inputs = calibration_inputs(config, monkeypatch)
    network, _ = build_network(config, blobs)
    with torch.no_grad():
        hidden = network[0](inputs)
        final = network(inputs)
    measured = [float(hidden.double().std(correction=0)), float(final.double().std(correction=0))]
    assert [layer.name for layer in report] == (["0", "2"] if arm == "FC" else ["0", "1"])
    assert [layer.std_after for layer in report] == pytest.approx(measured, rel=1e-6)
    assert all((layer.scale, layer.std_before) == (1.0, layer.std_after) for layer in report)


# --- The network ---------------------------------------------------------------------------------


def test_the_dense_reference(tiny: Configure, blobs: datasets.Dataset) -> None:
    network, _ = build_network(tiny("FC", widths=(400, 300, 3)), blobs)
    kinds = [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in network] == kinds
    sizes = [(layer.in_features, layer.out_features) for layer in network[::2]]
    assert sizes == [(25, 400), (400, 300), (300, 3)]
    for layer in network[::2]:
        assert not layer.bias.any()
        std = layer.weight.std().item()  # Kaiming: sqrt(2 / fan_in)
        assert std == pytest.approx(math.sqrt(2 / layer.in_features), rel=0.1)


@pytest.mark.parametrize("arm", MIXTURES)
def test_the_stack_of_gm_layers(arm: str, tiny: Configure, blobs: datasets.Dataset) -> None:
    network, _ = build_network(tiny(arm, widths=(6, 4, 3), num_components=5), blobs)
    assert all(type(layer) is GaussianMixtureLayer for layer in network)
    sizes = [(layer.in_features, layer.out_features, layer.num_components) for layer in network]
    assert sizes == [(25, 6, 5), (6, 4, 5), (4, 3, 5)]


def test_the_stack_of_neurons(tiny: Configure, blobs: datasets.Dataset) -> None:
    network, _ = build_network(tiny("NEURONS", widths=(6, 4, 3), num_neurons=14), blobs)
    assert all(type(layer) is NeuronLayer for layer in network)
    sizes = [(*layer.beta.shape, *layer.omega.shape) for layer in network]
    assert sizes == [(14, 25, 14, 6), (14, 6, 14, 4), (14, 4, 14, 3)]


@pytest.mark.parametrize(
    ("arm", "settings", "sigmas"),
    [
        ("BL", {}, [0.5, 0.5]),
        ("BL", {"gamma": 0.25}, [0.25, 0.25]),
        ("FAN-IN", {}, [math.sqrt(2 / 25), math.sqrt(2 / 6)]),
        ("KUMAR", {}, [math.sqrt(2 / 25), math.sqrt(2 / 6)]),
    ],
)
def test_each_arm_has_its_initialization(
    arm: str,
    settings: dict[str, float],
    sigmas: list[float],
    tiny: Configure,
    blobs: datasets.Dataset,
) -> None:
    network, _ = build_network(tiny(arm, **settings), blobs)
    for layer, sigma in zip(network, sigmas, strict=True):
        torch.testing.assert_close(layer.sigma, torch.full_like(layer.sigma, sigma))


def test_kumar_is_fan_in_with_another_readout(tiny: Configure, blobs: datasets.Dataset) -> None:
    (plain, _), (scaled, report) = (build_network(tiny(arm), blobs) for arm in ("FAN-IN", "KUMAR"))
    for before, after, layer in zip(plain, scaled, report, strict=True):
        assert torch.equal(before.mu, after.mu)
        torch.testing.assert_close(layer.scale * before.U, after.U)
        torch.testing.assert_close(layer.scale * before.v, after.v)


# --- Gradient steps ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "rate"), [("FC", 0.05), ("KUMAR", 0.05), ("BL+CAL", 0.05), ("NEURONS", 0.05 * 40 / 2)]
)
def test_training_is_vanilla_sgd(
    arm: str, rate: float, tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny(arm, epochs=3, batch_size=96, lr=0.05, lr_sigma=0.4, snapshots=True)
    network, _ = build_network(config, blobs)
    found = train(config).snapshots
    for epoch in range(4):
        for name, value in values(network).items():
            # The batches' order differs here, and with it the rounding.
            np.testing.assert_allclose(
                found[name][epoch], value, rtol=1e-4, atol=1e-6, err_msg=f"{name}, {epoch}"
            )
        loss = cross_entropy(network(blobs.x_train), blobs.y_train)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            named = zip(network.named_parameters(), gradients, strict=True)
            for (name, parameter), gradient in named:
                parameter -= (0.4 if name.endswith("sigma") else rate) * gradient


@pytest.mark.parametrize(
    ("rates", "moving"),
    [
        ({"lr": NOTHING, "lr_sigma": 1.0}, {"sigma"}),
        ({"lr": 0.1, "lr_sigma": NOTHING}, {"mu", "U", "v"}),
    ],
)
def test_sigma_has_a_learning_rate_of_its_own(
    rates: dict[str, float], moving: set[str], tiny: Configure
) -> None:
    snapshots = train(tiny("KUMAR", batch_size=96, snapshots=True, **rates)).snapshots
    for name, (before, after) in snapshots.items():
        moved = not np.array_equal(before, after)
        assert moved == (name.split(".")[1] in moving), name


@pytest.mark.parametrize("arm", ["KUMAR", "NEURONS"])
def test_the_first_step_is_measured_where_training_begins(
    arm: str, tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny(arm, batch_size=96, snapshots=True)
    sizes = training.first_step(config, blobs)
    record = train(config)
    assert list(sizes) == list(record.snapshots)
    for name, (before, after) in record.snapshots.items():
        expected = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert sizes[name] == pytest.approx(expected, rel=1e-3), name
        assert sizes[name] == pytest.approx(record.movement[name][1], rel=1e-3), name


def test_the_first_step_of_a_parameter_that_starts_at_zero(
    tiny: Configure, blobs: datasets.Dataset
) -> None:
    sizes = training.first_step(tiny("FC"), blobs)
    assert not math.isfinite(sizes["0.bias"])
    assert math.isfinite(sizes["0.weight"])


def test_divergence_is_recorded(tiny: Configure) -> None:
    record = train(tiny("KUMAR", epochs=2, lr=1e30, snapshots=True))
    assert record.curves["step"] == [0, 1, 2, 3, 4, 6, 12]
    assert math.isfinite(record.curves["test_loss"][0])
    assert all(map(math.isnan, record.curves["test_loss"][2:]))
    assert all(map(math.isnan, record.curves["train_loss"][3:]))
    assert all(0.0 <= error <= 1.0 for error in record.curves["test_error"])
    assert np.isnan(record.snapshots["0.mu"][-1]).any()


# --- Movement ------------------------------------------------------------------------------------


def distances(start: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> dict[str, float]:
    """Distance from the start relative to the norm there, in float64."""
    result = {}
    for name, before in start.items():
        norm = np.linalg.norm(before.astype(np.float64))
        change = np.linalg.norm(now[name].astype(np.float64) - before.astype(np.float64))
        result[name] = change / norm if norm else math.nan
    return result


def assert_moved(found: dict[str, float], expected: dict[str, float]) -> None:
    """Check distances to the five digits that a record keeps."""
    assert list(found) == list(expected)
    for name, distance in expected.items():
        assert found[name] == pytest.approx(distance, rel=6e-5, nan_ok=True), name


def moved_at(record: RunRecord, evaluation: int) -> dict[str, float]:
    return {name: curve[evaluation] for name, curve in record.movement.items()}


@pytest.mark.parametrize("arm", ARMS)
def test_movement_is_taken_at_the_evaluated_steps(arm: str, tiny: Configure, spied: Spied) -> None:
    seen: list[dict[str, np.ndarray]] = []
    record = train(tiny(arm, epochs=2), lambda _: seen.append(values(spied.networks[0])))
    assert record.curves["step"] == [0, 1, 2, 3, 4, 6, 12]
    assert all(len(curve) == 7 for curve in record.movement.values())
    assert len(seen) == 7
    for evaluation, now in enumerate(seen):
        assert_moved(moved_at(record, evaluation), distances(seen[0], now))


@pytest.mark.parametrize("arm", ["FC", "BL", "KUMAR", "NEURONS"])
def test_movement_agrees_with_the_snapshots(arm: str, tiny: Configure) -> None:
    record = train(tiny(arm, epochs=3, snapshots=True))
    assert record.curves["step"] == [0, 1, 2, 3, 4, 6, 12, 18]
    assert list(record.movement) == list(record.snapshots)
    start = {name: found[0] for name, found in record.snapshots.items()}
    for epoch, evaluation in enumerate((0, 5, 6, 7)):
        now = {name: found[epoch] for name, found in record.snapshots.items()}
        assert_moved(moved_at(record, evaluation), distances(start, now))
    for name, curve in record.movement.items():
        if not name.endswith("bias"):
            assert curve[0] == 0.0
            assert all(distance > 0.0 for distance in curve[1:]), name


def test_movement_is_kept_to_five_digits_and_fit_for_json(tiny: Configure) -> None:
    movement = train(tiny("FC", epochs=3)).movement
    found = [distance for curve in movement.values() for distance in curve]
    assert all(type(distance) is float for distance in found)
    finite = [distance for distance in found if not math.isnan(distance)]
    assert all(float(f"{distance:.5g}") == distance for distance in finite)
    assert any(float(f"{distance:.4g}") != distance for distance in finite)
    assert json.loads(json.dumps(movement["0.weight"])) == movement["0.weight"]


def test_what_starts_at_zero_has_no_relative_movement(tiny: Configure) -> None:
    dense = train(tiny("FC")).movement
    assert list(dense) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for name, curve in dense.items():
        assert all(map(math.isnan if name.endswith("bias") else math.isfinite, curve)), name
    zero, last = (train(tiny(arm)).movement for arm in ("ZERO", "ZERO-LAST"))
    for name in ("0.mu", "0.sigma", "1.mu", "1.sigma"):
        assert zero[name] == [0.0] * 6
        assert last[name][:2] == [0.0, 0.0]  # the last readout has to move first
        assert last[name][-1] > 0.0
    for name in ("0.U", "0.v", "1.U", "1.v"):
        assert all(map(math.isnan, zero[name]))
        assert all(map(math.isnan if name[0] == "1" else math.isfinite, last[name])), name


def test_movement_is_a_distance_and_no_length_of_a_path(
    tiny: Configure, spied: Spied, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There and back again: the second step undoes the first.
    steps = itertools.count()
    step = torch.optim.SGD.step

    def there_and_back(optimizer: torch.optim.SGD) -> None:
        if next(steps) % 2 == 0:
            step(optimizer)
        else:
            spied.networks[0].load_state_dict(start)

    config = tiny(epochs=2)
    start = build_network(config, datasets.load(config.dataset))[0].state_dict()
    monkeypatch.setattr(torch.optim.SGD, "step", there_and_back)
    record = train(config)
    for name, curve in record.movement.items():
        by_step = dict(zip(record.curves["step"], curve, strict=True))
        assert by_step[1] > 0.0, name
        assert by_step[2] == by_step[4] == by_step[12] == 0.0, name


def test_the_movement_of_a_run_that_diverges_is_nan(tiny: Configure) -> None:
    for rate in (1e30, 3e38):
        movement = train(tiny("KUMAR", epochs=2, lr=rate)).movement
        for name, curve in movement.items():
            assert curve[0] == 0.0
            assert not any(map(math.isinf, curve)), name
        assert all(map(math.isnan, movement["0.mu"][3:]))


def test_movement_is_measured_with_and_without_snapshots(tiny: Configure) -> None:
    without, with_them = train(tiny()), train(tiny(snapshots=True))
    assert without.movement == with_them.movement


def test_no_epochs_have_no_movement(tiny: Configure) -> None:
    movement = train(tiny(epochs=0)).movement
    assert movement == {f"{i}.{name}": [0.0] for i in (0, 1) for name in ("mu", "sigma", "U", "v")}


def test_a_record_may_lack_movement(tiny: Configure) -> None:
    record = train(tiny(epochs=0))
    bare = RunRecord(record.config, record.curves, record.init_report, 1.0, record.provenance)
    assert bare.movement == {}


@pytest.mark.parametrize("arm", ["FC", "KUMAR", "NEURONS"])
def test_movement_of_runs_trained_together(arm: str, tiny: Configure) -> None:
    configs = [tiny(arm, seed, epochs=2, snapshots=True, **MILD) for seed in (2, 0, 1)]
    records = train_together(configs)
    for config, record in zip(configs, records, strict=True):
        start = {name: found[0] for name, found in record.snapshots.items()}
        for epoch, evaluation in enumerate((0, 5, 6)):
            now = {name: found[epoch] for name, found in record.snapshots.items()}
            assert_moved(moved_at(record, evaluation), distances(start, now))
        single = train(config).movement
        assert list(record.movement) == list(single)
        for name, curve in record.movement.items():
            assert curve == pytest.approx(single[name], rel=2e-4, abs=1e-6, nan_ok=True), name
    moved = [next(iter(record.movement.values())) for record in records]
    assert len({tuple(curve) for curve in moved}) == 3


# --- Snapshots -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["FC", "BL", "KUMAR", "LSUV", "NEURONS"])
def test_snapshots_go_from_the_initialization_to_the_trained_network(
    arm: str, tiny: Configure, spied: Spied, blobs: datasets.Dataset
) -> None:
    config = tiny(arm, epochs=3, snapshots=True)
    start, _ = build_network(config, blobs)
    snapshots = train(config).snapshots
    assert_same_arrays({name: found[0] for name, found in snapshots.items()}, values(start))
    (network,) = spied.networks
    assert_same_arrays({name: found[-1] for name, found in snapshots.items()}, values(network))
    for name, found in snapshots.items():
        assert found.dtype == np.float32
        assert len(found) == 4
        for before, after in itertools.pairwise(found):
            assert not np.array_equal(before, after), name


def test_snapshots_are_taken_at_the_ends_of_epochs(tiny: Configure) -> None:
    long, short = (train(tiny(epochs=epochs, snapshots=True)).snapshots for epochs in (3, 2))
    assert_same_arrays({name: found[:3] for name, found in long.items()}, short)
    shapes = {"mu": (2, 25), "sigma": (2, 25), "U": (2, 6, 25), "v": (2, 6)}
    for name, shape in shapes.items():
        assert short[f"0.{name}"].shape == (3, *shape)


def test_snapshots_are_kept_on_demand_and_change_nothing(tiny: Configure) -> None:
    without, with_them = train(tiny()), train(tiny(snapshots=True))
    assert without.snapshots == {}
    np.testing.assert_equal(without.curves, with_them.curves)


# --- Once more, with the same result -------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_a_run_repeats_bit_for_bit(arm: str, tiny: Configure) -> None:
    config = tiny(arm, epochs=2, snapshots=True)
    first = train(config)
    torch.manual_seed(999)
    random.seed(999)
    np.random.seed(999)  # noqa: NPY002
    assert_same_run(first, train(config))
    assert first.config is config


@pytest.fixture(params=[False, True], ids=["denormals kept", "denormals flushed"])
def state(request: pytest.FixtureRequest) -> Iterator[Callable[[], object]]:
    """Set up an unusual global state; the value reads it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.set_flush_denormal(request.param)

    def flushed() -> bool:
        return bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0) == 0.0)

    def read() -> object:
        return {
            "threads": torch.get_num_threads(),
            "denormals flushed": flushed(),
            "torch's generator": hash(torch.random.get_rng_state().numpy().tobytes()),
            "random's generator": hash(random.getstate()),
            "NumPy's generator": hash(str(np.random.get_state())),  # noqa: NPY002
            "gradients": torch.is_grad_enabled(),
            "type": torch.get_default_dtype(),
        }

    assert flushed() == request.param
    yield read
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("arm", ARMS)
def test_the_global_state_is_as_before(
    arm: str, tiny: Configure, state: Callable[[], object]
) -> None:
    before = state()
    train(tiny(arm))
    assert state() == before


@pytest.mark.parametrize("arm", ["KUMAR", "own_runs:failing"])
def test_the_global_state_is_as_before_after_an_exception(
    arm: str, tiny: Configure, state: Callable[[], object]
) -> None:
    def fail(progress: Progress) -> None:
        if progress.step == 3:
            raise ArithmeticError("no luck at step 3")

    before = state()
    with pytest.raises(ArithmeticError, match="no luck"):
        train(tiny(arm), fail)
    assert state() == before


def test_the_global_state_does_not_matter(tiny: Configure, state: Callable[[], object]) -> None:
    config = tiny("BL", gamma=3.0, epochs=2)  # Phi saturates
    record = train(config)
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
    assert_same_run(record, train(config))


def test_nothing_is_written(
    tiny: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "results"))
    train(tiny(snapshots=True))
    assert os.listdir(tmp_path) == []


# --- An initialization of one's own --------------------------------------------------------------


def test_an_initialization_of_ones_own(
    tiny: Configure, blobs: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = importlib.import_module("own_runs").CALLS
    calls.clear()
    config = tiny("own_runs:spy", 7)
    train(config)
    ((network, inputs, given, drawn, threads, flushed),) = calls
    assert [type(layer) for layer in network] == [GaussianMixtureLayer] * 2
    assert given is config
    assert torch.equal(inputs, calibration_inputs(tiny("KUMAR", 7), monkeypatch))
    assert torch.equal(drawn, torch.randn(5, generator=torch.Generator().manual_seed(7)))
    assert (threads, flushed) == (1, True)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("no_such_module:f", "cannot be imported: No module named 'no_such_module'"),
        ("own_runs.missing:f", "cannot be imported: .*'own_runs' is not a package"),
        ("own_runs:missing", "cannot be imported: .*no attribute 'missing'"),
        ("own_runs:NOT_A_FUNCTION", "must name a function, got 3"),
    ],
)
def test_an_initialization_that_cannot_be_had(arm: str, message: str, tiny: Configure) -> None:
    with pytest.raises(ValueError, match=f"^arm '{re.escape(arm)}' {message}"):
        train(tiny(arm))


# --- Several runs as one -------------------------------------------------------------------------

MILD = {"lr": 0.05, "lr_sigma": 0.1}  # rates at which these arms learn and none diverges


def record_batches(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Where the inputs of every gradient step will be, (runs, batch, features)."""
    batches: list[Tensor] = []
    call = training._Networks.__call__

    def spy(networks: Any, inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # evaluation has gradients off
            batches.append(inputs.clone())
        return call(networks, inputs)

    monkeypatch.setattr(training._Networks, "__call__", spy)
    return batches


@pytest.mark.parametrize(
    ("arm", "settings"),
    [("KUMAR", {}), ("FC", {}), ("BL", {"gamma": 0.4}), ("LSUV", {}), ("NEURONS", {})],
    ids=str,
)
def test_runs_trained_together_agree_with_single_ones(
    arm: str, settings: dict[str, float], tiny: Configure
) -> None:
    # 102 steps. Stacked products add up in another order, and so differ in the last bits of
    # float32, 6e-8; steps of these rates leave that at some 5e-7 of a parameter's largest entry.
    # Any wrong batch, rate or start shows at 1e-2. The tolerance is far from both.
    configs = [tiny(arm, s, epochs=17, snapshots=True, **MILD, **settings) for s in (2, 0, 1)]
    together = train_together(configs)
    for config, record in zip(configs, together, strict=True):
        single = train(config)
        assert record.config is config
        assert record.init_report == single.init_report
        assert record.curves["step"] == single.curves["step"] == [0, 1, 2, 3, 4, *range(6, 103, 6)]
        for name in ("test_loss", "train_loss"):
            np.testing.assert_allclose(record.curves[name], single.curves[name], rtol=2e-5)
        # One image whose two best logits are equal but for rounding may fall to either class.
        np.testing.assert_allclose(
            record.curves["test_error"], single.curves["test_error"], atol=1.01 / 48
        )
        assert list(record.snapshots) == list(single.snapshots)
        for name, found in record.snapshots.items():
            expected = single.snapshots[name]
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            np.testing.assert_array_equal(found[0], expected[0], err_msg=name)
            for one, other in zip(found, expected, strict=True):
                error = np.abs(one - other).max()
                assert error <= 1e-5 * max(np.abs(other).max(), 1e-2), name
            assert not np.allclose(expected[0], expected[-1], rtol=1e-3, atol=1e-3), name
        assert record.curves["test_loss"][-1] < 0.8 * record.curves["test_loss"][0]


def test_runs_trained_together_see_the_batches_of_single_ones(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = record_batches(monkeypatch)
    configs = [tiny("KUMAR", seed, epochs=2, batch_size=20) for seed in (2, 0, 1)]
    train_together(configs)
    together = list(batches)
    sizes = 2 * [20, 20, 20, 20, 16]
    assert [tuple(batch.shape) for batch in together] == [(3, size, 25) for size in sizes]
    for run, config in enumerate(configs):
        batches.clear()
        train(config)
        assert all(torch.equal(b[run], s[0]) for b, s in zip(together, batches, strict=True))


def test_runs_trained_together_are_calibrated_as_single_ones(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    kumar_ = arms.kumar_

    def spy(network: nn.Module, inputs: Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(inputs)
        return kumar_(network, inputs, *rest, **more)

    monkeypatch.setattr(arms, "kumar_", spy)
    configs = [tiny("KUMAR", seed, epochs=0) for seed in (2, 0, 1)]
    train_together(configs)
    for config in configs:
        train(config)
    assert len(seen) == 6
    assert all(map(torch.equal, seen[:3], seen[3:]))


def test_one_run_together_with_none_is_a_single_run(tiny: Configure) -> None:
    for arm in ARMS:
        config = tiny(arm, epochs=2, snapshots=True)
        (record,) = train_together([config])
        assert_same_run(record, train(config))
        assert record.provenance["runs_together"] == 1


def test_runs_trained_together_repeat_bit_for_bit(
    tiny: Configure, state: Callable[[], object]
) -> None:
    configs = [tiny("own_runs:draw", seed, snapshots=True) for seed in range(3)]
    before = state()
    first = train_together(configs)
    assert state() == before
    torch.manual_seed(999)
    for one, other in zip(first, train_together(configs), strict=True):
        assert_same_run(one, other)


def test_snapshots_of_runs_trained_together_are_independent(tiny: Configure) -> None:
    configs = [tiny("KUMAR", seed, snapshots=True) for seed in range(3)]
    records = train_together(configs)
    shapes = {"mu": (2, 25), "sigma": (2, 25), "U": (2, 6, 25), "v": (2, 6)}
    for record in records:
        for name, shape in shapes.items():
            assert record.snapshots[f"0.{name}"].shape == (2, *shape)
            assert record.snapshots[f"0.{name}"].dtype == np.float32
    kept = records[1].snapshots["0.mu"].copy()
    records[0].snapshots["0.mu"][:] = 0.0
    np.testing.assert_array_equal(records[1].snapshots["0.mu"], kept)
    assert all(not record.snapshots for record in train_together([tiny(seed=s) for s in (0, 1)]))


def test_runs_trained_together_say_so(tiny: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 106.0])
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=clock.__next__))
    records = train_together([tiny(seed=seed, epochs=0) for seed in range(3)])
    for record in records:
        assert record.wall_time == pytest.approx(2.0)  # a third of 6 seconds
        assert (record.provenance["runs_together"], record.provenance["device"]) == (3, "cpu")
        assert json.loads(json.dumps(record.provenance)) == record.provenance


def test_progress_of_runs_trained_together_is_told_for_each(tiny: Configure) -> None:
    configs = [tiny(seed=seed, epochs=2) for seed in (4, 2, 3)]
    heard: list[tuple[RunConfig, Progress]] = []
    records = train_together(configs, on_progress=lambda *what: heard.append(what))
    assert [config.seed for config, _ in heard] == 7 * [4, 2, 3]
    for config, record in zip(configs, records, strict=True):
        told = [progress for of, progress in heard if of is config]
        assert [progress.step for progress in told] == record.curves["step"]
        assert [progress.test_error for progress in told] == record.curves["test_error"]
        assert {progress.total_steps for progress in told} == {12}


@pytest.mark.parametrize(
    "settings",
    [
        [{"seed": 0}, {"seed": 1, "lr": 0.2}],
        [{"seed": 0}, {"seed": 1, "arm": "FC"}],
        [{"seed": 0, "arm": "ZERO"}, {"seed": 1, "arm": "ZERO-LAST"}],
        [{"seed": 0, "arm": "NEURONS"}, {"seed": 1, "arm": "NEURONS", "num_neurons": 20}],
        [{"seed": 0}, {"seed": 1, "snapshots": True}],
        [{"seed": 0}, {"seed": 1}, {"seed": 0}],
        [{"seed": 0}, {"seed": 0, "gamma": 0.1}],  # which KUMAR makes no use of
        [],
    ],
    ids=[
        "a rate",
        "an arm",
        "two of one kind",
        "neurons",
        "snapshots",
        "a seed twice",
        "a run twice",
        "none",
    ],
)
def test_runs_that_cannot_be_trained_together(
    settings: list[dict[str, Any]], tiny: Configure
) -> None:
    configs = [tiny(**each) for each in settings]
    named = ", ".join(config.run_id for config in configs) or "none"
    message = "must differ in the seed and in nothing else, got " + re.escape(named)
    with pytest.raises(ValueError, match=f"{message}$"):
        train_together(configs)


def test_runs_that_differ_in_what_they_make_no_use_of(tiny: Configure) -> None:
    configs = [tiny("FC", 0), tiny("FC", 1, gamma=0.1, num_components=5, num_neurons=7)]
    records = train_together(configs)
    assert [record.config for record in records] == configs


def test_a_run_that_diverges_leaves_the_others_alone(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [tiny("KUMAR", seed, epochs=2, snapshots=True) for seed in range(3)]
    expected = train_together(configs)

    def build(config: RunConfig, dataset: datasets.Dataset) -> tuple[nn.Module, Any]:
        network, report = build_network(config, dataset)
        if config.seed == 1:
            with torch.no_grad():
                network[0].U[0, 0, 0] = math.nan
        return network, report

    monkeypatch.setattr(training, "build_network", build)
    records = train_together(configs)
    assert all(map(math.isnan, records[1].curves["test_loss"]))
    assert all(0.0 <= error <= 1.0 for error in records[1].curves["test_error"])
    for run in (0, 2):
        assert_same_run(records[run], expected[run])
        assert np.isfinite(records[run].snapshots["0.U"]).all()


def test_a_failing_initialization_stops_all_of_them(tiny: Configure) -> None:
    with pytest.raises(ArithmeticError, match="no luck with seed 0"):
        train_together([tiny("own_runs:failing", seed) for seed in range(2)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("runs", [1, 3])
def test_runs_on_a_gpu_agree_with_single_ones(runs: int, tiny: Configure) -> None:
    configs = [tiny("KUMAR", seed, epochs=2, snapshots=True, **MILD) for seed in range(runs)]
    for config, record in zip(configs, train_together(configs, "cuda"), strict=True):
        single = train(config)
        assert record.init_report == single.init_report  # initialized on the CPU
        np.testing.assert_allclose(
            record.curves["test_loss"], single.curves["test_loss"], rtol=1e-4
        )
        for name, found in record.snapshots.items():
            np.testing.assert_array_equal(found[0], single.snapshots[name][0], err_msg=name)
            np.testing.assert_allclose(
                found, single.snapshots[name], rtol=1e-3, atol=1e-4, err_msg=name
            )
        device = record.provenance["device"]
        assert device == f"cuda: {torch.cuda.get_device_name()}"
        assert record.provenance["runs_together"] == runs


# --- What does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["FC", "KUMAR"])
def test_every_class_needs_an_output(arm: str, tiny: Configure) -> None:
    message = "the last of widths must be at least the 3 classes of 'own_runs:blobs', got 2"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train(tiny(arm, widths=(6, 2)))
    assert train(tiny(arm, widths=(3,))).curves["step"][-1] == 6
    assert train(tiny(arm, widths=(6, 4))).curves["step"][-1] == 6


def test_a_small_training_set_is_shown_completely(
    tiny: Configure, blobs: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = calibration_inputs(tiny(calibration_size=2048), monkeypatch)
    assert sorted_rows(inputs) == sorted_rows(blobs.x_train)


# --- Where a record comes from -------------------------------------------------------------------


def test_provenance(tiny: Configure, blobs: datasets.Dataset) -> None:
    provenance = train(tiny(epochs=0)).provenance
    assert set(provenance) == {
        *("gmlib", "git_commit", "git_dirty", "torch", "python", "platform", "cpu", "device"),
        *("runs_together", "threads", "data", "utc"),
    }
    assert provenance["gmlib"] == gmlib.__version__
    assert provenance["torch"] == torch.__version__
    assert (provenance["threads"], provenance["device"]) == (1, "cpu")
    assert provenance["data"] == blobs.checksums
    assert provenance["cpu"]
    age = datetime.now(UTC) - datetime.fromisoformat(provenance["utc"])
    assert abs(age.total_seconds()) < 600
    assert json.loads(json.dumps(provenance)) == provenance


# --- The real thing ------------------------------------------------------------------------------


def test_a_short_run_on_mnist() -> None:
    rates = {"lr": 0.1, "lr_sigma": 0.1}
    record = train(RunConfig("KUMAR", 0, widths=(10,), epochs=1, batch_size=3000, **rates))
    assert record.curves["step"] == [0, 1, 2, 3, 4, 5, 7, 10, 14, 20]
    errors = 1e4 * np.array(record.curves["test_error"])
    np.testing.assert_allclose(errors, errors.round(), atol=1e-6)  # of 10,000 test images
    assert errors[0] > 8000  # chance is 9000
    assert errors[-1] < 5000
    assert record.init_report[0].std_after == pytest.approx(0.5, rel=1e-5)
    assert record.provenance["data"] == datasets.DATASETS["mnist"].md5
    assert record.wall_time > 0
