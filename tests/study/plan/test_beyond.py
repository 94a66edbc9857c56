"""Which runs the studies beyond the note consist of."""

from __future__ import annotations

import pytest

from gmlib.study.plan import beyond
from gmlib.study.plan.config import RunConfig


def test_variants_of_causes_differ_in_what_may_move() -> None:
    variants = beyond.causes([3], num_components=5, epochs=1)
    assert all(
        (config.arm, config.seed, config.num_components, config.epochs) == ("KUMAR", 3, 5, 1)
        for configs in variants.values()
        for config in configs
    )
    found = {
        name: (config.coordinates, dict(config.rate_factors))
        for name, (config,) in variants.items()
    }
    assert found == {
        "whitened": ("whitened", {}),
        "centered and whitened": ("centered and whitened", {}),
        "centered": ("centered", {}),
        "folded, A frozen": ("folded", {"A": 0.0}),
        "folded, without 1/K": ("folded", {"A": 1 / 25, "w": 1 / 25}),
        "folded, w at 1/30": ("folded", {"w": 1 / 30}),
        "folded, μ frozen": ("folded", {"mu": 0.0}),
        "folded, σ frozen": ("folded", {"sigma": 0.0}),
        "folded, clouds frozen": ("folded", {"mu": 0.0, "sigma": 0.0}),
        "folded, clouds frozen, A and w at 3/10": (
            "folded",
            {"mu": 0.0, "sigma": 0.0, "A": 0.3, "w": 0.3},
        ),
    }


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 10.0), ("adam", 1.0)])
def test_a_grid_of_rates_moves_that_of_sigma_along(optimizer: str, factor: float) -> None:
    configs = beyond.rate_grid(["FC", "KUMAR"], [0.01, 0.1], [0, 1], optimizer=optimizer)
    assert [(c.lr, c.arm, c.seed) for c in configs] == [
        (lr, arm, seed) for lr in (0.01, 0.1) for arm in ("FC", "KUMAR") for seed in (0, 1)
    ]
    assert {(c.lr, c.lr_sigma) for c in configs} == {(0.01, factor * 0.01), (0.1, factor * 0.1)}
    with pytest.raises(ValueError, match=r"^rates must be a list of at least one entry, got \[\]$"):
        beyond.rate_grid(["FC"], [], [0])


def test_sizes_vary_one_thing_at_a_time() -> None:
    runs = beyond.sizes([0.1, 0.2], [0], epochs=3, held_out=10_000)
    plain = beyond.rate_grid(
        ["KUMAR"], [0.1, 0.2], [0], coordinates="folded", epochs=3, held_out=10_000
    )
    usual = {"components": "K = 10", "inputs": "d = 784", "hidden units": "100", "layers": "2"}
    assert list(runs) == list(usual)
    for kind, name in usual.items():
        assert runs[kind][name] == plain
        assert sum(configs == plain for configs in runs[kind].values()) == 1
    assert [c[0].num_components for c in runs["components"].values()] == [1, 2, 5, 10, 20, 40, 80]
    assert [len(c[0].widths) for c in runs["layers"].values()] == [1, 2, 3, 4, 5, 6]


def test_predictions_agree_with_the_rates_that_they_name() -> None:
    for name, configs in beyond.predicted([0, 1], epochs=2).items():
        assert [config.seed for config in configs] == [0, 1]
        if name not in beyond.PREDICTED:
            continue
        (config, _) = configs
        fast, why, _ = beyond.PREDICTED[name]
        assert config.epochs == 2
        factors = dict(config.rate_factors)
        sigma4 = (2 / 784) ** 2
        rate = {
            "folded": factors.get("A", 1.0),
            "centered": factors.get("U", 1.0) * sigma4 / 100,
            "centered and whitened": factors.get("W", 1.0) * sigma4**0.5 / 100,
            "affine": factors.get("U", 1.0) * sigma4 / 100,
        }[config.coordinates]
        assert (rate > 0.1 and "diverges" not in why) == fast, name


def test_three_starts_are_run_in_both_coordinates_beside_a_dense_network() -> None:
    runs = beyond.both_coordinates([0, 1], epochs=2)
    assert list(runs) == [
        *("FC", "BL", "FAN-IN", "KUMAR"),
        *("BL, folded", "FAN-IN, folded", "KUMAR, folded"),
    ]
    for label, configs in runs.items():
        assert [(c.label, c.seed, c.epochs) for c in configs] == [(label, 0, 2), (label, 1, 2)]


def test_grids_of_rates_are_for_the_dense_network_and_every_start() -> None:
    grids = beyond.rate_grids([0.1, 0.2], [0, 1], ["KUMAR"], held_out=100)
    assert list(grids) == ["FC", "KUMAR", "KUMAR, folded"]
    for label, configs in grids.items():
        assert {config.label for config in configs} == {label}
        assert [(c.lr, c.lr_sigma, c.seed, c.held_out) for c in configs] == [
            (lr, 10 * lr, seed, 100) for lr in (0.1, 0.2) for seed in (0, 1)
        ]


def test_tuned_runs_are_those_of_the_grid_at_one_rate_on_all_images() -> None:
    best = {"sgd": {"FC": 0.2, "KUMAR, folded": 0.1}, "adam": {"KUMAR": 0.001}}
    runs = beyond.tuned(best, [0, 1], epochs=2)
    assert list(runs) == ["FC, sgd", "KUMAR, folded, sgd", "KUMAR, adam"]
    (folded, _), (adam, _) = runs["KUMAR, folded, sgd"], runs["KUMAR, adam"]
    assert folded == RunConfig("KUMAR", 0, coordinates="folded", epochs=2)
    assert (adam.optimizer, adam.lr, adam.lr_sigma) == ("adam", 0.001, 0.001)
    assert {config.held_out for configs in runs.values() for config in configs} == {0}
