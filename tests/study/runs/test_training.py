"""A run: when it is evaluated, its gradient steps, its provenance, what does not fit."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from training_checks import NOTHING, Spied, values

import gmlib
from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import training
from gmlib.study.runs.training import build_network, evaluation_steps, train

Configure = Callable[..., RunConfig]


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


def test_every_evaluation_is_told(tiny: Configure) -> None:
    calls = itertools.count()
    curves = train(tiny(epochs=2), lambda: next(calls)).curves
    assert next(calls) == len(curves["step"])


def test_no_epochs_record_the_initialization_alone(tiny: Configure) -> None:
    calls = itertools.count()
    record = train(tiny(epochs=0, snapshots=True), lambda: next(calls))
    assert record.curves["step"] == [0]
    assert record.snapshots["0.mu"].shape == (1, 2, 25)
    assert next(calls) == 1


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


# --- What does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["FC", "KUMAR"])
def test_every_class_needs_an_output(arm: str, tiny: Configure) -> None:
    message = "the last of widths must be at least the 3 classes of 'own_runs:blobs', got 2"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train(tiny(arm, widths=(6, 2)))
    assert train(tiny(arm, widths=(3,))).curves["step"][-1] == 6
    assert train(tiny(arm, widths=(6, 4))).curves["step"][-1] == 6


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
    assert record.provenance["data"] == datasets.DATASETS["mnist"].origin.md5
    assert record.wall_time > 0
