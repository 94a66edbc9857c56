"""Runs in folded coordinates: the start of the affine ones, and steps of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from gmlib import FoldedGaussianMixtureLayer
from gmlib.study import analysis, datasets, figures
from gmlib.study.plan.arms import ARMS
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.families import MIXTURE
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.training import build_network, generator_of, train, train_together
from gmlib.study.runs.verify import verify

Configure = Callable[..., RunConfig]
MIXTURES = [name for name, arm in ARMS.items() if arm.family is MIXTURE]
NAMES = [f"{layer}.{name}" for layer in (0, 1) for name in ("mu", "sigma", "A", "w")]


@pytest.mark.parametrize("arm", [*MIXTURES, "own_runs:draw"])
def test_a_run_starts_where_the_affine_one_does(
    arm: str, tiny: Configure, blobs: datasets.Dataset
) -> None:
    (affine, report), (folded, other) = (
        build_network(tiny(arm, coordinates=name), blobs) for name in ("affine", "folded")
    )
    assert all(type(layer) is FoldedGaussianMixtureLayer for layer in folded)
    if arm in MIXTURES:  # one's own draws parameters, whatever they are
        expected = affine(blobs.x_test)
        size = expected.abs().max().clamp_min(1e-30)
        assert (folded(blobs.x_test) - expected).abs().max() <= 1e-5 * size
        for one, two in zip(report, other, strict=True):
            assert dataclasses.astuple(two)[1:] == pytest.approx(
                dataclasses.astuple(one)[1:], rel=1e-4
            )


def test_training_is_vanilla_sgd_on_the_folded_readout(
    tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny("KUMAR", epochs=2, batch_size=32, lr=0.05, lr_sigma=0.4)
    config = dataclasses.replace(config, coordinates="folded", snapshots=True)
    record = train(config)
    network, _ = build_network(config, blobs)
    order = generator_of(config.seed, "order")
    for _ in range(config.epochs):
        for batch in torch.randperm(len(blobs.x_train), generator=order).split(32):
            loss = cross_entropy(network(blobs.x_train[batch]), blobs.y_train[batch])
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, parameter in network.named_parameters():
                    rate = 0.4 if name.endswith("sigma") else 0.05
                    parameter -= rate * parameter.grad
    assert list(record.snapshots) == list(record.movement) == NAMES
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(
            record.snapshots[name][-1], parameter.detach().numpy(), rtol=1e-4, atol=1e-6
        )


def test_the_readout_moves_where_the_affine_one_stays(tiny: Configure) -> None:
    settings = {"widths": (3,), "epochs": 3}
    folded = train(tiny("FAN-IN", coordinates="folded", **settings))
    affine = train(tiny("FAN-IN", **settings))
    assert folded.movement["0.A"][-1] > 5 * affine.movement["0.U"][-1]


def test_a_run_repeats_bit_for_bit_and_is_verified(tiny: Configure, tmp_path) -> None:
    config = tiny("KUMAR", coordinates="folded", snapshots=True)
    record = train(config)
    Ledger(tmp_path).put(record)
    kept = Ledger(tmp_path).get(config)
    assert kept is not None
    assert kept.config.run_id == config.run_id
    again = train(config)
    for name, values in again.snapshots.items():
        assert np.array_equal(values, kept.snapshots[name])
    assert verify(kept, exact=True).holds


def test_runs_trained_together_agree_with_single_ones(tiny: Configure) -> None:
    configs = [tiny("KUMAR", seed, coordinates="folded", lr=0.05) for seed in (0, 1, 2)]
    for one, config in zip(train_together(configs), configs, strict=True):
        alone = train(config)
        for name in ("test_loss", "train_loss"):
            np.testing.assert_allclose(one.curves[name], alone.curves[name], rtol=1e-4)
        assert list(one.movement) == NAMES


def test_tables_and_figures_tell_coordinates_apart(tiny: Configure) -> None:
    records = [train(tiny("KUMAR", coordinates=name)) for name in ("affine", "folded")]
    assert list(analysis.runs_table(records).arm) == ["KUMAR", "KUMAR, folded"]
    assert figures.arm_color("KUMAR, folded") == figures.arm_color("KUMAR")
    axes = figures.dynamics(analysis.curves_table(records)).axes[0]
    lines = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert lines["KUMAR (1 seed)"] == "-"
    assert lines["KUMAR, folded (1 seed)"] == "--"
    shown = {
        line.get_label()
        for line in figures.movement(analysis.movement_table(records)).axes[3].lines
    }
    assert {"weights U", "offsets v", "covariances A", "means w"} <= shown


def test_the_first_layer_is_one_function(tiny: Configure) -> None:
    configs = [tiny("KUMAR", coordinates=name, epochs=0) for name in ("affine", "folded")]
    outputs = analysis.first_outputs(configs)
    assert list(outputs) == ["KUMAR", "KUMAR, folded"]
    np.testing.assert_allclose(*outputs.values(), rtol=1e-4, atol=1e-5)
