"""How far parameters move in training, and snapshots of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from record_checks import assert_same_arrays
from training_checks import ARMS, MILD, Spied, values

from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import build_network, train, train_together

Configure = Callable[..., RunConfig]


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
    record = train(tiny(arm, epochs=2), lambda: seen.append(values(spied.networks[0])))
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
