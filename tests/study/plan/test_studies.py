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


def test_a_budget_of_labels_keeps_the_rates_of_each_size() -> None:
    stacks = studies.budget(["KUMAR, folded", "KUMAR, rank 1"], [5, 10, 11], [0], [2], [0])[1:]
    found = [(c.label, c.num_components, c.scaled_rates) for c in stacks]
    assert found == [
        *(("KUMAR, folded", K, K > 10) for K in (5, 10, 11)),
        *(("KUMAR, rank 1", K, False) for K in (5, 10, 11)),
    ]


def test_networks_of_every_rank_span_the_parameters_of_dense_ones() -> None:
    for label, numbers in studies.COMPONENTS.items():
        for units, (least, most) in ((0, (1e4, 3e5)), (100, (1e5, 3e5))):
            configs = studies.budget([label], numbers, [units], [2], [0])[1:]
            sizes = [num_parameters(config, 784) for config in configs]
            assert sizes == sorted(sizes)
            assert sizes[0] < (5000 if "rank" in label else least)
            assert sizes[-1] > most


# --- Rates that suit any K -----------------------------------------------------------------------


def test_steady_runs_are_the_same_runs_but_for_many_folded_components() -> None:
    labels = ["FC", "KUMAR", "KUMAR, folded", "KUMAR, rank 0"]
    for K in (1, 10):
        plain = run_configs(labels, [3, 7], num_components=K, epochs=2)
        assert studies.steady(labels, [3, 7], num_components=K, epochs=2) == plain
    many = studies.steady(labels, [3], num_components=20)
    assert [config.label for config in many if config.scaled_rates] == ["KUMAR, folded"]
    dense = studies.steady(["FC"], [3], num_components=20, coordinates="folded")
    assert [config.run_id for config in dense] == [RunConfig("FC", 3).run_id]


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
    labels = ["KUMAR", "KUMAR, folded"]
    runs = studies.beside_wide([2], 50, labels, widths=(7, 3))
    assert list(runs) == ["FC", "FC, wide", *labels]
    assert [runs[label][0].label for label in labels] == labels


def test_the_wide_network_has_as_many_parameters() -> None:
    sizes = [
        num_parameters(config, 40)
        for config in STUDIES["mnist-1d, standardized by image"]
        if config.arm == "KUMAR" or config.widths[0] == studies.WIDE
    ]
    assert max(sizes) / min(sizes) < 1.01


# --- Gates ---------------------------------------------------------------------------------------


def test_runs_that_record_their_gates() -> None:
    runs = studies.gates(["BL+CAL", "KUMAR"], [4, 2], epochs=3, widths=[3])
    assert runs == {
        name: [RunConfig(arm, seed, epochs=3, widths=(3,), gates=True) for seed in (4, 2)]
        for name, arm in {"BL, calibrated": "BL+CAL", "KUMAR": "KUMAR"}.items()
    }


def test_bad_arms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^arms must be a list of at least one entry, got \[\]"):
        studies.gates([], [0])


def test_warm_ups_stand_between_bl_and_kumar() -> None:
    runs = studies.warmups([10, 2000], [4, 2], epochs=3)
    assert list(runs) == ["BL", "BL, 10 steps", "BL, 2,000 steps", "KUMAR"]
    for (name, configs), warmup in zip(runs.items(), (0, 10, 2000, 0), strict=True):
        arm = name.partition(",")[0]
        assert configs == [
            RunConfig(arm, seed, epochs=3, warmup=warmup, gates=True) for seed in (4, 2)
        ]


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
    labels = ["KUMAR", "KUMAR, folded"]
    (configs,) = studies.depths([2], [4], labels).values()
    assert [config.label for config in configs] == labels


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


# --- Neurons -------------------------------------------------------------------------------------


def test_gm_layers_stand_beside_networks_of_neurons() -> None:
    runs = studies.neurons([10, 1000], [3], num_components=5)
    assert list(runs) == ["10 neurons", "1,000 neurons", "KUMAR"]
    assert runs["1,000 neurons"] == [
        RunConfig("NEURONS", 3, num_neurons=1000, num_components=5),
    ]
    labels = ["KUMAR", "KUMAR, folded"]
    runs = studies.neurons([10], [3], labels, num_components=5)
    assert list(runs) == ["10 neurons", *labels]
    assert [runs[label][0].label for label in labels] == labels


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
    assert len(ids("gates")) == len(ids("gates, single layer")) == 40
    assert len(ids("warm-up") - ids("gates")) == 10
    assert len(ids("folded")) == 15
    assert len(ids("gates, folded")) == 30
    assert len(ids("coordinates")) == 70
    assert ids("gates, folded") < ids("coordinates")
    assert len(ids("causes")) == 50
    assert len(ids("predictions")) == 42
    assert not ids("folded") & ids("gates, folded")
    assert len(ids("depth")) == 36
    assert len(ids("main study, fashion-mnist")) == 15
    one_d = [ids(f"mnist-1d, standardized by {by}") for by in ("image", "dataset")]
    assert [len(own) for own in one_d] == [20, 20]
    assert not one_d[0] & one_d[1]
