"""Measurements: looked up where they are recorded, computed where they are not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmlib.study import cli, datasets
from gmlib.study.analysis.closed_form import monte_carlo_errors, sampling_errors
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import measurements
from gmlib.study.runs import verify as verify_module
from gmlib.study.runs.ledger import Ledger, LedgerError, project_root
from gmlib.study.runs.measurements import MEASUREMENTS, Load, Measurement, measure, recompute
from gmlib.study.runs.records import MeasurementRecord
from gmlib.study.runs.training import train
from gmlib.study.runs.verify import choose_measurements, verify_measurement

Configure = Callable[..., RunConfig]
BLOBS = "own_runs:blobs"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "results")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measurements of a test's own are forgotten after it."""
    monkeypatch.setattr(measurements, "MEASUREMENTS", dict(MEASUREMENTS))
    return


CALLS: list[Any] = []


def moments(
    dataset: str, powers: list[int], factor: float = 1.0, *, load: Load = datasets.load
) -> pd.DataFrame:
    """Moments of the test inputs."""
    CALLS.append((dataset, powers, factor))
    x = load(dataset).x_test.double()
    return pd.DataFrame(
        {"power": powers, "moment": [float(factor * (x**p).mean()) for p in powers]}
    )


@pytest.fixture
def own(registry: None) -> Measurement[..., pd.DataFrame]:
    CALLS.clear()
    return measurements.measurement(version=1)(moments)


def recorded(ledger: Ledger) -> Path:
    """The one file of a measurement."""
    (path,) = (ledger.folder / "measurements").iterdir()
    return path


# --- Once ----------------------------------------------------------------------------------------


def test_it_is_computed_once(own: Any, ledger: Ledger) -> None:
    first = measure(ledger, own, BLOBS, [1, 2])
    again = measure(Ledger(ledger.folder), own, BLOBS, [1, 2])
    assert len(CALLS) == 1
    pd.testing.assert_frame_equal(first, again)
    assert recorded(ledger).name.startswith("moments-v1-")
    assert list(ledger) == []  # no run
    assert len(list(ledger.measurements())) == 1


def test_called_as_a_function_it_computes(own: Any, ledger: Ledger) -> None:
    own(BLOBS, [1])
    own(BLOBS, [1])
    assert len(CALLS) == 2
    assert own.__doc__ == moments.__doc__
    assert not ledger.folder.exists()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((BLOBS, [1, 2], 1.0), {}),
        ((BLOBS,), {"powers": [1, 2]}),
        ((), {"powers": (1, 2), "dataset": BLOBS, "factor": 1.0}),
        ((BLOBS, range(1, 3)), {"factor": np.float64(1.0)}),
        ((BLOBS, [np.int64(1), np.int32(2)]), {"load": datasets.load}),
    ],
)
def test_one_value_has_one_name(args: Any, kwargs: Any, own: Any, ledger: Ledger) -> None:
    measure(ledger, own, BLOBS, [1, 2])
    measure(ledger, own, *args, **kwargs)
    assert len(CALLS) == 1


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((BLOBS, [2, 1]), {}), ((BLOBS, [1]), {}), ((BLOBS, [1, 2]), {"factor": 1.5})],
)
def test_other_settings_are_another_value(args: Any, kwargs: Any, own: Any, ledger: Ledger) -> None:
    measure(ledger, own, BLOBS, [1, 2])
    measure(ledger, own, *args, **kwargs)
    assert len(CALLS) == 2
    assert len(list(ledger.measurements())) == 2


def test_an_old_value_does_not_pass_for_a_new_one(own: Any, ledger: Ledger) -> None:
    measure(ledger, own, BLOBS, [1])
    old = recorded(ledger).read_bytes()
    measure(ledger, Measurement(moments, 2), BLOBS, [1])
    assert len(CALLS) == 2
    assert ledger.check() == []  # the old one is no fault
    # Nor if somebody gives it the new one's name.
    new = ledger.path(Measurement(moments, 2).config(BLOBS, [1]))
    new.write_bytes(old)
    with pytest.raises(LedgerError, match=f"^{new} is not a valid record"):
        measure(ledger, Measurement(moments, 2), BLOBS, [1])


def test_a_name_is_given_once(own: Any) -> None:
    with pytest.raises(ValueError, match="there is a measurement 'moments' already"):
        measurements.measurement(version=2)(moments)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, b"1", [[object()]]])
def test_arguments_that_no_record_can_hold(value: Any, own: Any, ledger: Ledger) -> None:
    with pytest.raises(TypeError, match=r"powers must be a number, a string, .*, got"):
        measure(ledger, own, BLOBS, value)
    assert not ledger.folder.exists()


def test_what_fails_is_not_recorded(own: Any, ledger: Ledger) -> None:
    with pytest.raises(datasets.DataError):
        measure(ledger, own, "no_such_module:images", [1])
    assert not ledger.folder.exists()


def test_provenance(own: Any, ledger: Ledger) -> None:
    measure(ledger, own, BLOBS, [1])
    (record,) = ledger.measurements()
    assert record.provenance["data"] == {BLOBS: datasets.load(BLOBS).checksums}
    assert record.provenance["device"] == "cpu"
    assert {"gmlib", "git_commit", "torch", "cpu", "utc"} <= set(record.provenance)
    assert 0 <= record.wall_time < 60


# --- Values --------------------------------------------------------------------------------------

FLOATS = st.one_of(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, min_side=1)),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, min_side=1)),
)
TABLES = st.integers(0, 4).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "number": hnp.arrays(np.float64, n),
            "single": hnp.arrays(np.float32, n),
            "count": hnp.arrays(np.int64, n),
            "flag": hnp.arrays(np.bool_, n),
            "name": st.lists(st.text(max_size=5), min_size=n, max_size=n),
        }
    ).map(pd.DataFrame)
)


def same(one: Any, other: Any) -> None:
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True, check_dtype=len(one) > 0)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, strict=True)
    else:
        assert (type(one), one) == (type(other), other)


@given(value=st.one_of(FLOATS, TABLES, st.dictionaries(st.text(max_size=3), FLOATS, max_size=2)))
def test_what_goes_in_comes_out(value: Any) -> None:
    config = measurements.MeasurementConfig("any", 1, {})
    record = MeasurementRecord(config, value, 0.0, {})
    through = json.loads(json.dumps(record.to_json(), allow_nan=False))
    same(value, MeasurementRecord.from_json(through).value)


@pytest.mark.parametrize("value", [3, 2.5, "words", {"a": 1, "b": {"c": np.zeros(2)}}])
def test_plain_values(value: Any) -> None:
    record = MeasurementRecord(measurements.MeasurementConfig("any", 1, {}), value, 0.0, {})
    same(value, MeasurementRecord.from_json(json.loads(json.dumps(record.to_json()))).value)


@pytest.mark.parametrize(
    "value",
    [None, [1.0], (1,), 1j, np.zeros(2, complex), np.zeros(1, object), {"a": None}],
)
def test_values_that_no_record_can_hold(value: Any) -> None:
    record = MeasurementRecord(measurements.MeasurementConfig("any", 1, {}), value, 0.0, {})
    with pytest.raises(TypeError, match="a measurement's"):
        record.to_json()


# --- Whole, and never edited ---------------------------------------------------------------------

DAMAGE: dict[str, Callable[[str], str]] = {
    "a value": lambda text: text.replace('"values": [', '"values": [0.5, ', 1),
    "a setting": lambda text: text.replace('"factor": 1.0', '"factor": 2.0'),
    "the version": lambda text: text.replace('"version": 1', '"version": 2'),
    "the processor": lambda text: text.replace('"cpu": "', '"cpu": "Better '),
    "the digest": lambda text: text.replace('"digest": "', '"digest": "0'),
    "half of it": lambda text: text[: len(text) // 2],
    "nothing left": lambda text: "",
    "a run's key": lambda text: text.replace("measurement_id", "run_id"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_was_altered_is_refused_by_name_and_set_aside(
    damage: Callable[[str], str], own: Any, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    value = measure(ledger, own, BLOBS, [1])
    path = recorded(ledger)
    sound = path.read_text()
    path.write_text(damage(sound))
    assert path.read_text() != sound
    with pytest.raises(LedgerError, match=f"^{path} is not a valid record"):
        measure(ledger, own, BLOBS, [1])
    folder = ["--ledger", str(ledger.folder)]
    assert cli.main(["ledger", "check", *folder]) == 1
    assert f"{path} is not a valid record" in capsys.readouterr().out
    assert cli.main(["ledger", "repair", *folder]) == 0
    assert (path.parent / "set-aside" / path.name).read_text() == damage(sound)
    pd.testing.assert_frame_equal(measure(ledger, own, BLOBS, [1]), value)
    assert cli.main(["ledger", "check", *folder]) == 0
    assert "0 runs, 1 measurements, 0 faults" in capsys.readouterr().out.splitlines()[-1]


def test_a_newer_form_is_left_alone(own: Any, ledger: Ledger) -> None:
    measure(ledger, own, BLOBS, [1])
    path = recorded(ledger)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    (fault,) = ledger.check()
    assert "update gmlib" in str(fault)
    assert ledger.repair() == []


# --- Made again ----------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny: Configure, ledger: Ledger) -> Any:
    record = train(tiny("KUMAR", widths=[3], snapshots=True))
    ledger.put(record)
    return record


def test_of_runs_with_snapshots(trained: Any, ledger: Ledger, tiny: Configure) -> None:
    first = measure(ledger, sampling_errors, trained, -1, [4], 2)
    (record,) = ledger.measurements()
    np.testing.assert_array_equal(recompute(record, ledger).value, first)
    assert verify_measurement(record, ledger, exact=True).holds
    # Trained elsewhere, the run has other digits, and other errors.
    snapshots = {name: 1.001 * values for name, values in trained.snapshots.items()}
    measure(ledger, sampling_errors, replace(trained, snapshots=snapshots), -1, [4], 2)
    assert len(list(ledger.measurements())) == 2
    ledger.path(trained.config).unlink()
    with pytest.raises(LedgerError, match=f"no run {trained.config.run_id} with the snapshots"):
        recompute(record, ledger)


def test_what_this_version_does_not_measure(own: Any, ledger: Ledger) -> None:
    measure(ledger, own, BLOBS, [1])
    (record,) = ledger.measurements()
    assert choose_measurements(ledger, 5) == []
    newer = replace(record, config=replace(record.config, version=2))
    with pytest.raises(LedgerError, match="does not measure moments, version 2"):
        recompute(newer, ledger)


def altered(record: MeasurementRecord, change: Callable[[Any], Any]) -> MeasurementRecord:
    return replace(record, value=change(record.value))


def test_a_false_value_does_not_hold(tiny: Configure, ledger: Ledger) -> None:
    config = tiny("KUMAR", widths=(3,), epochs=0)
    measure(ledger, monte_carlo_errors, config, [10, 20], 2)
    (record,) = ledger.measurements()
    assert str(verify_measurement(record, ledger)).endswith(", bit for bit")
    near = altered(record, lambda value: value * (1 + 1e-6))
    assert verify_measurement(near, ledger).holds
    verdict = verify_measurement(near, ledger, exact=True)
    assert not verdict.holds
    for false in (
        altered(record, lambda value: value * 1.05),
        altered(record, lambda value: value[:1]),
        altered(record, lambda value: {"errors": value}),
        altered(record, lambda value: np.where(value == value.max(), np.nan, value)),
    ):
        verdict = verify_measurement(false, ledger)
        assert not verdict.holds
        assert str(verdict).startswith("DOES NOT HOLD: monte-carlo-errors-v1-")


def test_the_command_makes_measurements_again(
    tiny: Configure, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny("KUMAR", widths=(3,), epochs=0)
    measure(ledger, monte_carlo_errors, config, [10, 20], 2)
    command = ["verify", "--measurements", "2", "--ledger", str(ledger.folder)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith("holds: monte-carlo-errors-v1-")
    (record,) = ledger.measurements()
    recorded(ledger).unlink()
    ledger.put(altered(record, lambda value: 2 * value))
    assert cli.main(["ledger", "check", "--ledger", str(ledger.folder)]) == 0  # its digest fits
    assert cli.main(command) == 1


def test_words_and_counts_are_equal_or_not(
    own: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "recompute", lambda record, *_: truth)
    value = pd.DataFrame({"name": ["a"], "count": [1000]})
    config = measurements.MeasurementConfig("any", 1, {})
    truth = MeasurementRecord(config, value, 0.0, {})
    for column, entry in (("name", "b"), ("count", 1001)):
        false = replace(truth, value=value.assign(**{column: [entry]}))
        assert verify_measurement(false, ledger).differs == column


# --- A change of what is measured ----------------------------------------------------------------


def small(tiny: Configure) -> dict[str, tuple[Any, ...]]:
    """Arguments of each measurement that take no time and no data."""
    layer = tiny("KUMAR", widths=(3,), epochs=0)
    both = [tiny("BL", widths=(3,), epochs=1), tiny("KUMAR", widths=(3,), epochs=1)]
    run = train(tiny("KUMAR", widths=[3], snapshots=True))
    return {
        "monte_carlo_errors": (layer, [10, 20], 2),
        "sampling_errors": (run, -1, [4], 2),
        "point_mass_errors": (layer, [0.1, 1.0], 2),
        "early_steps": (tiny("BL"), 3),
        "effective_rates": ([tiny("KUMAR"), tiny("BL", coordinates="folded")],),
        "first_moves": ([tiny("FAN-IN"), tiny("KUMAR", coordinates="folded")], 0.01),
        "output_changes": ([tiny("KUMAR", coordinates="folded")], [1, 3]),
        "first_outputs": (both,),
        "calibration_invariance": ([0, 1], {"dataset": BLOBS, "widths": (4, 3)}),
        "first_steps": (both,),
        "stack_report": (BLOBS, [4, 3], 2, 0),
        "num_features": (BLOBS,),
        "first_layer_scales": ([BLOBS], [5], [2], [None, 0.5]),
        "stack_scales": (BLOBS, [4, 3], 2, [None, 0.5], 5),
        "mean_displacement": (run,),
    }


# One number of each measurement's values. If one has changed on purpose, give the measurement a new
# version: its old values are in people's ledgers, under the old one.
FINGERPRINTS = {
    ("calibration_invariance", 1): 4.46352,
    ("early_steps", 1): 4.14292,
    ("effective_rates", 1): 1.077572,
    ("first_layer_scales", 1): 40.0394,
    ("first_moves", 1): 0.002247019,
    ("first_outputs", 1): 2.80235,
    ("first_steps", 1): 0.533955,
    ("mean_displacement", 2): 0.822822,
    ("monte_carlo_errors", 1): 0.208352,
    ("num_features", 1): 25,
    ("output_changes", 1): 1.716963,
    ("point_mass_errors", 1): 0.0982191,
    ("sampling_errors", 1): 0.384154,
    ("stack_report", 1): 0.890244,
    ("stack_scales", 1): 1.79074,
}


def fingerprint(value: Any) -> float:
    numbers = [
        own.astype(float).ravel()
        for own in verify_module._values(
            MeasurementRecord(measurements.MeasurementConfig("any", 1, {}), value, 0.0, {})
        ).values()
        if own.dtype.kind in "fi"
    ]
    flat = np.concatenate(numbers)
    return float(np.mean(np.abs(flat) * (1 + np.arange(len(flat)) / len(flat))))


@pytest.mark.parametrize("name", sorted(MEASUREMENTS))
def test_a_changed_measurement_has_a_new_version(name: str, tiny: Configure) -> None:
    what = MEASUREMENTS[name]
    args = small(tiny)[name]
    kwargs = args[-1] if isinstance(args[-1], dict) else {}
    found = fingerprint(what(*args[: len(args) - bool(kwargs)], **kwargs))
    assert FINGERPRINTS[name, what.version] == pytest.approx(found, rel=1e-4)


def test_the_books_measurements_are_committed() -> None:
    """Of each that there is, made at a commit, of this version; none that nothing asks for."""
    root = project_root()
    assert root is not None
    records = list(Ledger(root / "results").measurements())
    assert {(record.config.name, record.config.version) for record in records} == {
        (what.name, what.version) for what in MEASUREMENTS.values()
    }
    for record in records:
        assert record.provenance["git_dirty"] is False
        assert math.isfinite(record.wall_time)
