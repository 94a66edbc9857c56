"""Configurations: what is refused and how, and what a run is named after."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmlib.study.plan.arms import ARMS
from gmlib.study.plan.config import RunConfig, run_configs

OWN = "package.module:function"
ALL_SETTINGS = {
    "num_components": 5,
    "lr_sigma": 2.0,
    "gamma": 0.25,
    "target_std": 0.75,
    "calibration_size": 512,
    "num_neurons": 500,
    "coordinates": "folded",
    "between": "relu",
    "rate_factors": {"mu": 0.0},
    "scaled_rates": True,
    "gates": True,
}
MIXTURE = {
    *("num_components", "lr_sigma", "coordinates", "between", "rate_factors", "scaled_rates"),
    "gates",
}
# Younger than the first records: left out of a name at the default.
YOUNGER = (
    *("coordinates", "between", "rate_factors", "scaled_rates", "gates"),
    *("optimizer", "warmup", "held_out"),
)
# Written out once more, so that a change of `plan.arms.ARMS` has to be meant.
SETTINGS_OF_ARM = {
    "FC": set(),
    "BL": {*MIXTURE, "gamma"},
    "FAN-IN": MIXTURE,
    "KUMAR": {*MIXTURE, "target_std", "calibration_size"},
    "BL+CAL": {*MIXTURE, "gamma", "target_std", "calibration_size"},
    "NOISE": {*MIXTURE, "target_std", "calibration_size"},
    "ANALYTIC": {*MIXTURE, "target_std"},
    "LSUV": {*MIXTURE, "calibration_size"},
    "ZERO": MIXTURE,
    "ZERO-LAST": MIXTURE,
    "NEURONS": {"num_components", "num_neurons", "target_std", "calibration_size"},
    OWN: set(ALL_SETTINGS),
}
COMMON_SETTINGS = {
    "arm": "package.other:function",
    "seed": 1,
    "dataset": "fashion-mnist",
    "standardize": "dataset",
    "widths": (100, 20, 10),
    "epochs": 3,
    "batch_size": 32,
    "lr": 0.01,
    "snapshots": True,
    "optimizer": "adam",
    "warmup": 100,
    "held_out": 10_000,
}
AN_ARM = (
    "one of 'FC', 'BL', 'FAN-IN', 'KUMAR', 'BL+CAL', 'NOISE', 'ANALYTIC', 'LSUV', 'ZERO', "
    "'ZERO-LAST', 'NEURONS' or of the form 'package.module:function'"
)
A_DATASET = (
    "one of 'mnist', 'fashion-mnist', 'mnist-14x14', 'mnist-7x7', 'mnist-1d', 'cifar-10' or of "
    "the form 'package.module:function'"
)
A_STANDARDIZATION = "one of 'image', 'dataset', 'pixel', 'range'"
SOME_COORDINATES = (
    "one of 'affine', 'folded', 'centered', 'whitened', 'centered and whitened', 'rank 0', "
    "'rank 1', 'rank 2', 'rank 4'"
)
FROM_0 = "an integer of at least 0"
FROM_1 = "an integer of at least 1"
POSITIVE = "a positive, finite number"
SIZES = "a non-empty sequence of layer sizes"


def config(**settings: Any) -> RunConfig:
    return RunConfig(**{"arm": OWN, "seed": 0, **settings})


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        *(
            ("arm", arm, AN_ARM)
            for arm in ("kumar", "", "module", "module:", ":f", "1a:f", "a:b:c", "a b:f", "a:f()")
        ),
        *(("arm", arm, AN_ARM) for arm in ("BL-CAL", "BL+", "ZERO-FIRST", "neurons", "NEURONS ")),
        ("arm", None, AN_ARM),
        ("arm", ["BL"], AN_ARM),
        ("dataset", "MNIST", A_DATASET),
        ("dataset", "cifar10", A_DATASET),
        ("dataset", None, A_DATASET),
        ("dataset", "../sets:f", A_DATASET),
        ("standardize", "none", A_STANDARDIZATION),
        ("coordinates", "Folded", SOME_COORDINATES),
        ("between", "ReLU", "one of 'none', 'relu'"),
        ("between", None, "one of 'none', 'relu'"),
        ("optimizer", "Adam", "one of 'sgd', 'adam'"),
        *(("warmup", steps, FROM_0) for steps in (-1, 100.0, True, None)),
        *(("held_out", number, FROM_0) for number in (-1, 1e4, False, "10000")),
        ("standardize", OWN, A_STANDARDIZATION),
        ("standardize", True, A_STANDARDIZATION),
        *(("seed", seed, FROM_0) for seed in (-1, 1.0, 0.5, True, "0", None, math.nan)),
        *(("epochs", epochs, FROM_0) for epochs in (-1, 20.0, False, "20", None)),
        *(("num_components", number, FROM_1) for number in (0, -3, 10.0, True, "10")),
        *(("batch_size", size, FROM_1) for size in (0, -64, 64.0, True, None)),
        *(("calibration_size", size, FROM_1) for size in (0, -1, 2048.0, True)),
        *(("num_neurons", number, FROM_1) for number in (0, -1000, 1000.0, True, "1000", None)),
        *(("target_std", std, POSITIVE) for std in (0, -1, math.nan, math.inf, True, "0.5")),
        *(("lr", rate, POSITIVE) for rate in (math.nan, 0.0, -0.1, -math.inf, False, None)),
        *(("lr_sigma", rate, POSITIVE) for rate in (math.nan, 0, -1.0, math.inf, "1")),
        *(("gamma", gamma, POSITIVE) for gamma in (math.nan, 0, -0.5, math.inf, 1j)),
        *(("widths", widths, SIZES) for widths in ((), [], None, 100, "100", {10})),
        ("snapshots", 1, "true or false"),
        ("snapshots", "yes", "true or false"),
        ("gates", None, "true or false"),
        ("scaled_rates", "yes", "true or false"),
    ],
)
def test_a_bad_value_is_named_with_what_came_and_what_is_allowed(
    field: str, value: object, allowed: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must be ") as error:
        config(**{field: value})
    assert str(error.value) == f"{field} must be {allowed}, got {value!r}"


@pytest.mark.parametrize(
    "factors",
    [
        {"mu": -1.0},
        {"mu": math.nan},
        {"U": math.inf},
        {"v": "fast"},
        {"v": None},
        "mu",
        ["mu", "U"],
        [("mu",)],
        3,
        None,
    ],
)
def test_factors_of_rates_are_numbers_from_0_on(factors: object) -> None:
    message = (
        "rate_factors must map names of parameters to finite numbers of at least 0, got "
        f"{factors!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        config(rate_factors=factors)


@pytest.mark.parametrize(
    ("coordinates", "names"),
    [
        ("affine", "'mu', 'sigma', 'U', 'v'"),
        ("folded", "'mu', 'sigma', 'A', 'w'"),
        ("centered", "'mu', 'sigma', 'U', 'w'"),
        ("whitened", "'mu', 'sigma', 'W', 'v'"),
        ("centered and whitened", "'mu', 'sigma', 'W', 'w'"),
        ("rank 0", "'mu', 'sigma', 'P', 'Q', 'w'"),
    ],
)
def test_factors_of_rates_are_for_parameters_that_there_are(coordinates: str, names: str) -> None:
    for name in names.replace("'", "").split(", "):
        config(coordinates=coordinates, rate_factors={name: 2.0})
    message = (
        f"rate_factors must name parameters of layers in {coordinates!r} coordinates, {names}, "
        "got 'B'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        config(coordinates=coordinates, rate_factors={"B": 1.0})


@pytest.mark.parametrize("coordinates", ["affine", "centered"])
def test_rates_are_scaled_in_folded_coordinates_alone(coordinates: str) -> None:
    message = (
        f"scaled_rates must be false but in 'folded' coordinates, got coordinates {coordinates!r}"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        config(coordinates=coordinates, scaled_rates=True)


def test_factors_of_rates_have_one_form() -> None:
    forms = ({"sigma": 1, "mu": 0}, [["sigma", 1.0], ["mu", 0.0]], (("mu", 0.0), ("sigma", 1.0)))
    assert {config(rate_factors=form) for form in forms} == {config(rate_factors=forms[0])}
    assert config(rate_factors=forms[0]).canonical()["rate_factors"] == [
        ["mu", 0.0],
        ["sigma", 1.0],
    ]


@pytest.mark.parametrize("width", [0, -10, 10.0, True, "10", None])
@pytest.mark.parametrize("position", [0, 1])
def test_every_width_is_checked(width: object, position: int) -> None:
    widths: list[object] = [100, 10]
    widths[position] = width
    message = f"every entry of widths must be an integer of at least 1, got {width!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        config(widths=widths)


@pytest.mark.parametrize("arm", [arm for arm in SETTINGS_OF_ARM if arm != "NEURONS"])
def test_the_number_of_neurons_has_to_fit_only_where_there_are_any(arm: str) -> None:
    assert config(arm=arm, num_components=3).num_neurons == 1000
    assert config(arm=arm, num_neurons=7).num_neurons == 7


@pytest.mark.parametrize(
    ("components", "neurons"), [(10, 1001), (10, 995), (10, 5), (3, 1000), (2000, 1000), (7, 8)]
)
def test_every_component_has_equally_many_neurons(components: int, neurons: int) -> None:
    message = f"num_neurons must be a multiple of the {components} components, got {neurons}"
    settings = {"num_components": components, "num_neurons": neurons}
    with pytest.raises(ValueError, match=f"^{message}$"):
        config(arm="NEURONS", **settings)
    with pytest.raises(ValueError, match=f"^{message}$"):
        RunConfig.from_dict({"arm": "NEURONS", "seed": 0, **settings})


@pytest.mark.parametrize(("components", "neurons"), [(1, 1), (1, 7), (10, 10), (5, np.int64(500))])
def test_numbers_of_neurons_that_fit(components: int, neurons: int) -> None:
    run = config(arm="NEURONS", num_components=components, num_neurons=neurons)
    assert (run.num_components, run.num_neurons) == (components, neurons)
    assert type(run.num_neurons) is int


@pytest.mark.parametrize("arm", ["NEURONS", "KUMAR"])
@pytest.mark.parametrize("field", ["num_components", "num_neurons"])
@pytest.mark.parametrize("number", [0, 10.0, "10", None])
def test_numbers_are_checked_before_they_are_divided(arm: str, field: str, number: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be {FROM_1}, got {number!r}$"):
        config(arm=arm, **{field: number})


@pytest.mark.parametrize("field", ["arm", "dataset"])
@pytest.mark.parametrize("path", ["module:function", "a.b.c:f", "_private:_f", "m2:f2"])
def test_import_paths_name_what_is_ones_own(field: str, path: str) -> None:
    assert getattr(config(**{field: path}), field) == path


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"widths": (1,)}, {"num_components": 1}, {"batch_size": 1}, {"lr": 1e-300}],
)
def test_the_smallest_values_are_allowed(settings: dict[str, Any]) -> None:
    assert config(**settings).canonical() == {**config().canonical(), **as_json(settings)}


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().seed = 1  # type: ignore[misc]


# --- The name of a run ---------------------------------------------------------------------------


def test_the_name_is_that_of_the_canonical_settings() -> None:
    # The committed ledger goes by these names: whatever changes them orphans every record.
    kumar = {
        "arm": "KUMAR",
        "seed": 7,
        "dataset": "fashion-mnist",
        "standardize": "image",
        "widths": [100, 10],
        "num_components": 10,
        "epochs": 20,
        "batch_size": 64,
        "lr": 0.1,
        "lr_sigma": 1.0,
        "target_std": 0.5,
        "calibration_size": 2048,
        "snapshots": False,
    }
    run = RunConfig("KUMAR", 7, dataset="fashion-mnist")
    assert run.canonical() == kumar
    digest = hashlib.sha256(json.dumps(kumar, sort_keys=True, separators=(",", ":")).encode())
    assert run.run_id == f"fashion-mnist-kumar-seed7-{digest.hexdigest()[:16]}"


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (RunConfig("FC", 0), "mnist-fc-seed0-0ed6014f3220ba38"),
        (RunConfig("BL", 0), "mnist-bl-seed0-c32dd29f6053284e"),
        (RunConfig("FAN-IN", 0, epochs=0), "mnist-fan-in-seed0-bdcb59e499ff319a"),
        (RunConfig("KUMAR", 0), "mnist-kumar-seed0-e61f7a3624e24d2e"),
        (
            RunConfig("KUMAR", 0, widths=(10,), num_components=5, snapshots=True),
            "mnist-kumar-seed0-5d3135ee44ce134f",
        ),
        (
            RunConfig("BL", 5, "fashion-mnist", widths=(10,), num_components=20, epochs=30),
            "fashion-mnist-bl-seed5-5c9188ffa4554732",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.arm,
)
def test_the_names_of_recorded_runs(run: RunConfig, name: str) -> None:
    assert run.run_id == name
    # Later settings, of other arms, do not matter to them.
    assert dataclasses.replace(run, num_neurons=7).run_id == name


def test_every_committed_record_has_the_name_of_its_configuration() -> None:
    files = sorted((Path(__file__).resolve().parents[3] / "results").glob("*.json"))
    assert len(files) >= 152
    for file in files:
        recorded = json.loads(file.read_text())["config"]
        run = RunConfig.from_dict(recorded)
        assert run.run_id == file.stem
        assert list(run.canonical().items()) == list(recorded.items()), file.name


def test_the_dense_reference_is_named_without_what_only_mixtures_have() -> None:
    assert RunConfig("FC", 0).canonical() == {
        "arm": "FC",
        "seed": 0,
        "dataset": "mnist",
        "standardize": "image",
        "widths": [100, 10],
        "epochs": 20,
        "batch_size": 64,
        "lr": 0.1,
        "snapshots": False,
    }


def test_every_arm_is_tested_below() -> None:
    assert list(ARMS) == [arm for arm in SETTINGS_OF_ARM if arm != OWN]


def test_every_field_is_tested_below() -> None:
    names = {field.name for field in dataclasses.fields(RunConfig)}
    assert names == {*COMMON_SETTINGS, *ALL_SETTINGS}


@pytest.mark.parametrize("arm", SETTINGS_OF_ARM)
@pytest.mark.parametrize(("field", "value"), ALL_SETTINGS.items())
def test_a_setting_counts_where_the_arm_uses_it(arm: str, field: str, value: object) -> None:
    plain = config(arm=arm)
    if field == "scaled_rates":  # in folded coordinates alone
        plain = config(arm=arm, coordinates="folded")
    changed = dataclasses.replace(plain, **{field: value})
    used = field in SETTINGS_OF_ARM[arm]
    assert (field in changed.canonical()) == used
    assert (field in plain.canonical()) == (used and field not in YOUNGER)
    assert (plain.run_id != changed.run_id) == used


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"arm": "KUMAR"}, "KUMAR"),
        ({"arm": "KUMAR", "coordinates": "folded"}, "KUMAR, folded"),
        ({"arm": "FC", "coordinates": "folded"}, "FC"),  # which has none
        ({"arm": "NEURONS", "coordinates": "folded"}, "NEURONS"),
    ],
)
def test_labels_have_the_coordinates_that_are_not_the_notes(
    settings: dict[str, Any], label: str
) -> None:
    assert config(**settings).label == label


@pytest.mark.parametrize("arm", SETTINGS_OF_ARM)
@pytest.mark.parametrize(("field", "value"), COMMON_SETTINGS.items())
def test_the_common_settings_count_for_every_arm(arm: str, field: str, value: object) -> None:
    changed = config(**{"arm": arm, field: value})
    assert config(arm=arm).run_id != changed.run_id
    assert changed.canonical()[field] == as_json({field: value})[field]
    assert (field in config(arm=arm).canonical()) == (field not in YOUNGER)


@pytest.mark.parametrize("field", ["lr", "lr_sigma", "gamma", "target_std"])
@pytest.mark.parametrize("one", [1, 1.0, np.float64(1.0)])
def test_one_is_one(field: str, one: float) -> None:
    run = config(**{field: one})
    assert type(getattr(run, field)) is float
    assert run == config(**{field: 1.0})
    assert run.run_id == config(**{field: 1.0}).run_id


def test_lists_are_as_good_as_tuples() -> None:
    assert config(widths=[30, 10]) == config(widths=(30, 10))
    assert hash(config(widths=[30, 10])) == hash(config(widths=(30, 10)))


@pytest.mark.parametrize(
    "settings",
    [
        {"arm": "KUMAR"},
        {"arm": "FAN-IN", "dataset": "fashion-mnist"},
        {"arm": "BL+CAL", "dataset": "cifar-10"},
        {"arm": "My_Package.Inits:Best", "dataset": "a.b:C_d", "seed": 123456},
    ],
)
def test_names_suit_any_file_system(settings: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z0-9-]+-seed\d+-[0-9a-f]{16}", config(**settings).run_id)


# --- There and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("through", [dict, lambda settings: json.loads(json.dumps(settings))])
@pytest.mark.parametrize("arm", SETTINGS_OF_ARM)
def test_round_trip(arm: str, through: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    run = config(arm=arm, **{name: COMMON_SETTINGS[name] for name in ("widths", "lr", "seed")})
    back = RunConfig.from_dict(through(run.canonical()))
    assert back == run
    assert back.run_id == run.run_id


def test_a_round_trip_gives_unused_settings_their_defaults() -> None:
    run = config(arm="FC", num_components=5, num_neurons=35, epochs=2)
    back = RunConfig.from_dict(run.canonical())
    assert (back.num_components, back.num_neurons, back.epochs) == (10, 1000, 2)
    assert back.run_id == run.run_id


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown settings \['K', 'epoch'\]; known are .*'lr'"):
        RunConfig.from_dict({"arm": "BL", "seed": 0, "epoch": 3, "K": 10})


@pytest.mark.parametrize(
    ("settings", "missing"),
    [({}, "['arm', 'seed']"), ({"arm": "BL"}, "['seed']"), ({"seed": 0, "lr": 1}, "['arm']")],
)
def test_missing_settings_are_named(settings: dict[str, Any], missing: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"settings lack {missing}")):
        RunConfig.from_dict(settings)


def test_settings_from_a_file_are_checked_too() -> None:
    with pytest.raises(ValueError, match="epochs must be an integer of at least 0, got '20'"):
        RunConfig.from_dict({"arm": "BL", "seed": 0, "epochs": "20"})


# --- Many at once --------------------------------------------------------------------------------


def test_every_arm_runs_with_every_seed() -> None:
    configs = run_configs(["KUMAR", "FC"], (3, 1), epochs=2, lr=0.2)
    assert configs == [
        RunConfig(arm, seed, epochs=2, lr=0.2)
        for arm, seed in (("KUMAR", 3), ("KUMAR", 1), ("FC", 3), ("FC", 1))
    ]


def test_an_arm_may_be_given_in_coordinates_of_its_own() -> None:
    labels = ["FC", "KUMAR", "KUMAR, folded", "BL, rank 1", "FAN-IN, centered and whitened"]
    configs = run_configs(labels, [3], epochs=2)
    assert [config.label for config in configs] == labels
    assert configs[2] == RunConfig("KUMAR", 3, epochs=2, coordinates="folded")
    assert run_configs(labels[3:4], [3], coordinates="folded")[0].coordinates == "rank 1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": []}, "arms must be a list of at least one entry, got []"),
        ({"arms": "BL"}, "arms must be a list of at least one entry, got 'BL'"),
        ({"seeds": ()}, "seeds must be a list of at least one entry, got ()"),
        ({"seeds": 5}, "seeds must be a list of at least one entry, got 5"),
        ({"seeds": None}, "seeds must be a list of at least one entry, got None"),
        ({"seeds": [1, 2, 1]}, "seeds must not repeat an entry, got [1, 2, 1]"),
        ({"arms": ["FC", "FC"]}, "arms must not repeat an entry, got ['FC', 'FC']"),
        ({"arms": ["FC", "kumar"]}, f"arm must be {AN_ARM}, got 'kumar'"),
        ({"arms": ["KUMAR, flat"]}, f"coordinates must be {SOME_COORDINATES}, got 'flat'"),
        ({"seeds": [0, -1]}, "seed must be an integer of at least 0, got -1"),
        ({"seeds": ["0"]}, "seed must be an integer of at least 0, got '0'"),
        ({"seeds": [[0]]}, "seed must be an integer of at least 0, got [0]"),
        ({"epochs": 0.5}, "epochs must be an integer of at least 0, got 0.5"),
    ],
)
def test_bad_lists_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run_configs(**{"arms": ["BL"], "seeds": [0], **settings})


def as_json(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
