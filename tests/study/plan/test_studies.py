"""Which runs a study consists of."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from gmlib.study.analysis.budgets import num_parameters
from gmlib.study.plan import studies
from gmlib.study.plan.arms import ARMS
from gmlib.study.plan.config import RunConfig, run_configs
from gmlib.study.plan.studies import STUDIES

# --- The budget ----------------------------------------------------------------------------------


def test_the_budget_is_every_arm_at_every_size() -> None:
    configs = studies.budget(["BL", "KUMAR"], [1, 5], [0, 7], [0, 4], [8, 9], outputs=3, epochs=2)
    found = {(c.arm, c.widths, c.num_components, c.seed) for c in configs}
    stacks = {
        (arm, widths, K, seed)
        for arm in ("BL", "KUMAR")
        for widths in ((3,), (7, 3))
        for K in (1, 5)
        for seed in (8, 9)
    }
    dense = {("FC", widths, 10, seed) for widths in ((3,), (4, 3)) for seed in (8, 9)}
    assert found == stacks | dense
    assert len(configs) == len(found)
    assert {config.epochs for config in configs} == {2}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"arms": []}, "arms must be a list of at least one entry, got []"),
        ({"arms": ["KUMAR", "cats"]}, "arm must be one of"),
        ({"components": 5}, "components must be a list of at least one entry, got 5"),
        ({"components": [1, 0]}, "num_components must be an integer of at least 1, got 0"),
        ({"hidden": []}, "hidden must be a list of at least one entry"),
        ({"hidden": [-1]}, "every entry of widths must be an integer of at least 1, got -1"),
        ({"dense_hidden": None}, "dense_hidden must be a list of at least one entry, got None"),
        ({"seeds": [1, 1]}, "seeds must not repeat an entry"),
        ({"outputs": 0}, "every entry of widths must be an integer of at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused_by_name(values: dict[str, Any], sentence: str) -> None:
    good = {"arms": ["BL"], "components": [1], "hidden": [0], "dense_hidden": [2], "seeds": [0]}
    with pytest.raises(ValueError, match="^" + sentence.replace("[", r"\[")):
        studies.budget(**{**good, **values})


# --- The ablation and the settings ---------------------------------------------------------------


def test_every_variant_is_another_run() -> None:
    variants = studies.ablation([3, 7], epochs=2, widths=[5, 3], dataset="fashion-mnist")
    assert list(variants) == [
        *("BL", "BL, calibrated", "fan-in", "KUMAR", "KUMAR on noise", "analytic", "LSUV"),
        "zero readout, last layer",
    ]
    configs = [config for runs in variants.values() for config in runs]
    assert len({config.run_id for config in configs}) == len(configs) == 2 * len(variants)
    for label, runs in variants.items():
        assert [config.seed for config in runs] == [3, 7], label
        assert len({config.arm for config in runs}) == 1, label
    common = {(c.epochs, c.widths, c.dataset, c.target_std, c.gamma) for c in configs}
    assert common == {(2, (5, 3), "fashion-mnist", 0.5, 0.5)}


def test_the_two_by_two_is_part_of_the_ablation() -> None:
    settings = {"epochs": 2, "widths": [5, 3]}
    corners, variants = studies.two_by_two([3, 7], **settings), studies.ablation([3, 7], **settings)
    assert list(corners) == ["BL", "BL, calibrated", "fan-in", "KUMAR"]
    assert corners == {name: variants[name] for name in corners}


def test_the_labels_of_the_ablation_are_those_of_their_arms() -> None:
    variants = studies.ablation([0])
    arms = {config.arm for (config,) in variants.values()}
    assert arms == set(ARMS) - {"FC", "NEURONS", "ZERO"}
    assert [variants[name][0].arm for name in ("BL", "KUMAR")] == ["BL", "KUMAR"]
    assert variants["BL, calibrated"][0].arm == "BL+CAL"
    assert variants["KUMAR on noise"][0].arm == "NOISE"
    assert variants["zero readout, last layer"][0].arm == "ZERO-LAST"


@pytest.mark.parametrize(
    ("name", "values"),
    [("target_std", (0.05, 1, 2.0)), ("calibration_size", [64, 256]), ("num_components", [1, 5])],
)
def test_a_dial_turns_one_setting(name: str, values: Any) -> None:
    runs = studies.dial(name, values, [4, 2], epochs=3, widths=[3])
    assert list(runs) == list(values)
    for value, configs in runs.items():
        assert configs == [
            RunConfig("KUMAR", seed, epochs=3, widths=(3,), **{name: value}) for seed in (4, 2)
        ]
    ids = {config.run_id for configs in runs.values() for config in configs}
    assert len(ids) == 2 * len(values)


def test_a_dial_turns_what_the_settings_say_otherwise() -> None:
    runs = studies.dial("target_std", [2.0], [0], target_std=0.1, epochs=1)
    assert runs == {2.0: [RunConfig("KUMAR", 0, target_std=2.0, epochs=1)]}


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("target_std", [], "target_std must be given a list of at least one value, got []"),
        ("target_std", 0.5, "target_std must be given a list of at least one value, got 0.5"),
        ("target_std", [0.5, -1], "target_std must be a positive, finite number, got -1"),
        ("calibration_size", [64, 0], "calibration_size must be an integer of at least 1, got 0"),
    ],
)
def test_bad_values_of_a_setting_are_refused_by_name(name: str, values: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        studies.dial(name, values, [0])


@pytest.mark.parametrize("study", [studies.ablation, partial(studies.dial, "target_std", [0.5])])
def test_bad_seeds_are_refused(study: Any) -> None:
    with pytest.raises(ValueError, match=r"^seeds must be a list of at least one entry, got \[\]"):
        study([])
    with pytest.raises(ValueError, match=r"^seeds must not repeat an entry"):
        study([1, 1])


# --- A wide dense network ------------------------------------------------------------------------


def test_a_wide_dense_network_stands_beside_the_notes_arms() -> None:
    runs = studies.beside_wide([2, 3], 50, widths=(7, 3), epochs=1)
    assert {name: {(c.arm, c.widths) for c in own} for name, own in runs.items()} == {
        "FC": {("FC", (7, 3))},
        "FC, wide": {("FC", (50, 3))},
        "BL": {("BL", (7, 3))},
        "KUMAR": {("KUMAR", (7, 3))},
    }
    assert {config.seed for own in runs.values() for config in own} == {2, 3}


def test_the_wide_network_has_as_many_parameters() -> None:
    sizes = [
        num_parameters(config, 40)
        for config in STUDIES["mnist-1d, standardized by image"]
        if config.arm == "KUMAR" or config.widths[0] == studies.WIDE
    ]
    assert max(sizes) / min(sizes) < 1.01


# --- Depth ---------------------------------------------------------------------------------------


def test_depth_is_the_number_of_layers() -> None:
    stacks = studies.depths([1, 3], [4, 5], hidden=7, outputs=3, epochs=2)
    assert {depth: {config.widths for config in runs} for depth, runs in stacks.items()} == {
        1: {(3,)},
        3: {(7, 7, 3)},
    }
    for runs in stacks.values():
        assert [(c.arm, c.seed, c.epochs) for c in runs] == [
            (arm, seed, 2) for arm in ("BL", "KUMAR") for seed in (4, 5)
        ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"numbers": []}, "depths must be a list of at least one entry, got []"),
        ({"numbers": 3}, "depths must be a list of at least one entry, got 3"),
        ({"numbers": [1, 0]}, "every depth must be an integer of at least 1, got 0"),
        ({"numbers": [2.0]}, "every depth must be an integer of at least 1, got 2.0"),
        ({"numbers": [2], "hidden": 0}, "every entry of widths must be an integer"),
        ({"numbers": [2], "seeds": []}, "seeds must be a list of at least one entry, got []"),
    ],
)
def test_bad_depths_are_refused_by_name(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        studies.depths(**{"seeds": [0], **values})


# --- Readings of the note ------------------------------------------------------------------------


def test_readings_differ_in_one_setting() -> None:
    runs = studies.readings([3, 7], epochs=2, gamma=0.1)
    assert list(runs) == list(studies.READINGS)
    for name, configs in runs.items():
        own = {"gamma": 0.1, **studies.READINGS[name]}
        assert configs == [RunConfig("BL", seed, epochs=2, **own) for seed in (3, 7)]
    assert len({config.run_id for own in runs.values() for config in own}) == 2 * len(runs)


def test_a_relu_is_between_all_layers_but_those_that_have_one() -> None:
    runs = studies.with_relu([4], epochs=2)
    assert {name: (c.arm, c.between, c.coordinates) for name, (c,) in runs.items()} == {
        "FC": ("FC", "none", "affine"),
        "BL, ReLU between": ("BL", "relu", "affine"),
        "KUMAR, ReLU between": ("KUMAR", "relu", "affine"),
        "KUMAR, ReLU between, folded": ("KUMAR", "relu", "folded"),
    }
    assert {config.epochs for own in runs.values() for config in own} == {2}


# --- The committed runs --------------------------------------------------------------------------


def ids(study: str) -> set[str]:
    return {config.run_id for config in STUDIES[study]}


@pytest.mark.parametrize("study", STUDIES)
def test_no_study_holds_a_run_twice(study: str) -> None:
    assert len(ids(study)) == len(STUDIES[study]) > 0


def test_studies_share_the_runs_that_they_have_in_common() -> None:
    five = list(range(5))
    baseline, kumar = ({c.run_id for c in run_configs([arm], five)} for arm in ("BL", "KUMAR"))
    dense = {config.run_id for config in run_configs(["FC"], five)}
    assert ids("main study") == dense | baseline | kumar
    assert ids("ablation") & ids("main study") == baseline | kumar
    for study in ("target std", "calibration size"):
        assert ids(study) & ids("main study") == kumar
        assert ids(study) & ids("ablation") == kumar
    assert ids("target std") & ids("calibration size") == kumar
    three = {config.run_id for config in run_configs(["FC", "BL", "KUMAR"], five[:3])}
    assert ids("budget") & ids("main study") == three
    stacks = three - dense
    assert ids("depth") & ids("main study") == stacks
    assert len(ids("depth") & ids("budget") - stacks) == 6  # of one layer


def test_the_settings_that_are_tried_include_the_default() -> None:
    assert RunConfig.target_std in studies.TARGETS
    assert RunConfig.calibration_size in studies.CALIBRATION_SIZES
    sizes = {name: len(STUDIES[name]) for name in ("target std", "calibration size", "ablation")}
    assert sizes == {"target std": 35, "calibration size": 20, "ablation": 40}


def test_the_numbers_of_runs() -> None:
    assert len(ids("budget")) == 153
    assert len(ids("divergence")) == 80
    assert len(ids("screen, mnist") | ids("screen, fashion-mnist")) == 40
    assert len(ids("main study")) == len(ids("initialization")) == 15
    assert len(ids("propagation")) == 2
    assert len(ids("depth")) == 36
    assert len(ids("readings")) == 90
    assert len(ids("ReLU between")) == 60
    assert len(ids("main study, fashion-mnist")) == 15
    one_d = [ids(f"mnist-1d, standardized by {by}") for by in ("image", "dataset")]
    assert [len(own) for own in one_d] == [20, 20]
    assert not one_d[0] & one_d[1]


def test_variants_of_causes_differ_in_what_may_move() -> None:
    variants = studies.causes([3], num_components=5, epochs=1)
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
        "affine": ("affine", {}),
        "centered": ("centered", {}),
        "centered and whitened": ("centered and whitened", {}),
        "whitened": ("whitened", {}),
        "folded, A frozen": ("folded", {"A": 0.0}),
        "folded, without 1/K": ("folded", {"A": 1 / 25, "w": 1 / 25}),
        "folded, clouds frozen": ("folded", {"mu": 0.0, "sigma": 0.0}),
        "folded, w at 1/30": ("folded", {"w": 1 / 30}),
        "folded": ("folded", {}),
    }


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 10.0), ("adam", 1.0)])
def test_a_grid_of_rates_moves_that_of_sigma_along(optimizer: str, factor: float) -> None:
    configs = studies.rate_grid(["FC", "KUMAR"], [0.01, 0.1], [0, 1], optimizer=optimizer)
    assert [(c.lr, c.arm, c.seed) for c in configs] == [
        (lr, arm, seed) for lr in (0.01, 0.1) for arm in ("FC", "KUMAR") for seed in (0, 1)
    ]
    assert {(c.lr, c.lr_sigma) for c in configs} == {(0.01, factor * 0.01), (0.1, factor * 0.1)}
    with pytest.raises(ValueError, match=r"^rates must be a list of at least one entry, got \[\]$"):
        studies.rate_grid(["FC"], [], [0])


def test_sizes_vary_one_thing_at_a_time() -> None:
    runs = studies.sizes([0.1, 0.2], [0], epochs=3, held_out=10_000)
    plain = studies.rate_grid(
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
    for name, configs in studies.predicted([0, 1], epochs=2).items():
        assert [config.seed for config in configs] == [0, 1]
        if name not in studies.PREDICTED:
            continue
        (config, _) = configs
        fast, why, _ = studies.PREDICTED[name]
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
    configs = studies.both_coordinates([0, 1], epochs=2)
    assert [config.label for config in configs[::2]] == [
        *("FC", "BL", "FAN-IN", "KUMAR"),
        *("BL, folded", "FAN-IN, folded", "KUMAR, folded"),
    ]
    assert {(config.seed, config.epochs) for config in configs} == {(0, 2), (1, 2)}


def test_grids_of_rates_are_for_the_dense_network_and_every_start() -> None:
    grids = studies.rate_grids([0.1, 0.2], [0, 1], ["KUMAR"], held_out=100)
    assert list(grids) == ["FC", "KUMAR", "KUMAR, folded"]
    for label, configs in grids.items():
        assert {config.label for config in configs} == {label}
        assert [(c.lr, c.lr_sigma, c.seed, c.held_out) for c in configs] == [
            (lr, 10 * lr, seed, 100) for lr in (0.1, 0.2) for seed in (0, 1)
        ]


def test_tuned_runs_are_those_of_the_grid_at_one_rate_on_all_images() -> None:
    best = {"sgd": {"FC": 0.2, "KUMAR, folded": 0.1}, "adam": {"KUMAR": 0.001}}
    runs = studies.tuned(best, [0, 1], epochs=2)
    assert list(runs) == ["FC, sgd", "KUMAR, folded, sgd", "KUMAR, adam"]
    (folded, _), (adam, _) = runs["KUMAR, folded, sgd"], runs["KUMAR, adam"]
    assert folded == RunConfig("KUMAR", 0, coordinates="folded", epochs=2)
    assert (adam.optimizer, adam.lr, adam.lr_sigma) == ("adam", 0.001, 0.001)
    assert {config.held_out for configs in runs.values() for config in configs} == {0}
