"""What networks are trained and calibrated on: the same for all arms of a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from training_checks import ARMS, Spied, calibration_inputs, sorted_rows

from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.training import build_network, train

Configure = Callable[..., RunConfig]


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


def test_a_small_training_set_is_shown_completely(
    tiny: Configure, blobs: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = calibration_inputs(tiny(calibration_size=2048), monkeypatch)
    assert sorted_rows(inputs) == sorted_rows(blobs.x_train)
