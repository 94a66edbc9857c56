"""Learning rates: tables of errors, and which rate is best."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from gmlib.study import analysis, datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import build_network, train

Ends = Callable[..., RunRecord]


@pytest.fixture
def records(ends: Ends) -> dict[str, list[RunRecord]]:
    """Two variants at three rates with two seeds; of one, a seed diverged at the highest."""
    errors = {0.1: (8.0, 6.0), 0.2: (4.0, 6.0), 0.4: (1.0, 2.0)}
    return {
        "one": [
            ends("KUMAR", seed, error, error, lost=lr == 0.4 and seed == 1, lr=lr)
            for lr, own in errors.items()
            for seed, error in enumerate(own)
        ],
        "other": [
            ends("FC", seed, 2 * error, error, lr=lr)
            for lr, own in errors.items()
            for seed, error in enumerate(own)
        ],
    }


def test_errors_are_one_row_a_run(records: dict[str, list[RunRecord]]) -> None:
    errors = analysis.rate_errors(records)
    assert list(errors) == ["variant", "lr", "seed", "error", "diverged"]
    assert errors.variant.tolist() == ["one"] * 6 + ["other"] * 6
    assert errors.error.tolist() == pytest.approx([8, 6, 4, 6, 1, 2, 12, 9, 6, 9, 1.5, 3])
    assert errors.diverged.tolist() == [*[False] * 5, True, *[False] * 6]
    final = analysis.rate_errors(records, "final")
    assert final.error.tolist() == pytest.approx([8, 6, 4, 6, 1, 2] * 2)


def test_a_rate_at_which_a_seed_diverges_is_not_the_best(
    records: dict[str, list[RunRecord]],
) -> None:
    best = analysis.best_rates(analysis.rate_errors(records))
    assert best.to_dict("records") == [
        {"variant": "one", "lr": 0.2, "error": pytest.approx(5.0), "at_edge": False},
        {"variant": "other", "lr": 0.4, "error": pytest.approx(2.25), "at_edge": True},
    ]


def test_there_may_be_no_rate_at_all(ends: Ends) -> None:
    errors = analysis.rate_errors({"lost": [ends("BL", 0, 90.0, 90.0, lost=True)]})
    (best,) = analysis.best_rates(errors).to_dict("records")
    assert math.isnan(best["lr"])
    assert math.isnan(best["error"])
    assert analysis.best_rates_table(errors).text.to_dict("index") == {"lost": {"0.1": "lost"}}


def test_the_table_marks_the_best_and_counts_the_lost(
    records: dict[str, list[RunRecord]],
) -> None:
    text = analysis.best_rates_table(analysis.rate_errors(records)).text
    assert text.to_dict("index") == {
        "one": {"0.1": "7.00", "0.2": "5.00 *", "0.4": "1.00 (1 lost)"},
        "other": {"0.1": "10.50", "0.2": "7.50", "0.4": "2.25 *"},
    }


# --- How far outputs move ------------------------------------------------------------------------


def test_changes_of_outputs_are_those_of_training(
    tiny: Callable[..., RunConfig], blobs: datasets.Dataset
) -> None:
    settings = {"coordinates": "folded", "between": "relu", "epochs": 2, "lr": 0.02, "seed": 3}
    config = tiny("KUMAR", **settings, snapshots=True)
    steps_per_epoch = len(blobs.x_train) // config.batch_size
    steps = [1, steps_per_epoch, 2 * steps_per_epoch]
    changes = analysis.output_changes([config], steps)
    assert list(changes) == ["components", "scaled", "seed", "layer", "step", "moved"]
    assert changes.step.tolist() == [step for step in steps for _ in (1, 2)]
    assert changes.layer.tolist() == [1, 2] * 3
    assert set(changes.components) == {config.num_components}
    assert set(changes.seed) == {3}
    network, _ = build_network(config, blobs)

    def outputs() -> list[torch.Tensor]:
        with torch.no_grad():
            return [network[0](blobs.x_test), network(blobs.x_test)]

    start = outputs()
    record = train(config)
    for epoch in (1, 2):
        values = {n: torch.from_numpy(v[epoch]) for n, v in record.snapshots.items()}
        network.load_state_dict(values)
        expected = [
            (now - then).square().mean().sqrt().item()
            for now, then in zip(outputs(), start, strict=True)
        ]
        found = changes[changes.step == epoch * steps_per_epoch].moved.tolist()
        assert found == pytest.approx(expected, rel=1e-4)


def test_scaled_rates_are_told_apart(tiny: Callable[..., RunConfig]) -> None:
    configs = [
        tiny("KUMAR", coordinates="folded", num_components=K, scaled_rates=scaled)
        for K in (2, 40)
        for scaled in (False, True)
    ]
    changes = analysis.output_changes(configs, [1])
    first = changes[changes.layer == 1].set_index(["components", "scaled"]).moved
    assert first[40, False] > 2 * first[40, True]
    assert first[2, False] < first[2, True]
