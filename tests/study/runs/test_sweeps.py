"""Sweeps: train what is missing and nothing else, and lose nothing when something fails."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from sweeping import assert_same_runs

from gmlib.study import datasets
from gmlib.study.datasets import DataError
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import places
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import SweepError, sweep, sweep_by
from gmlib.study.runs.training import train

Configure = Callable[..., RunConfig]


def test_only_what_is_missing_is_trained(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    configs = [tiny("KUMAR", 0), tiny("FC", 0), tiny("BL", 1)]
    ledger.put(train(configs[1]))
    sweep(configs, ledger, jobs=1)
    assert trained == [configs[0], configs[2]]
    assert all(config in ledger for config in configs)


def test_records_come_in_the_order_of_the_configurations(tiny: Configure, ledger: Ledger) -> None:
    configs = [tiny(arm, seed) for seed in (2, 0) for arm in ("KUMAR", "FC", "BL")]
    ledger.put(train(configs[3]))
    records = sweep(iter(configs), ledger, jobs=1)
    assert [record.config.run_id for record in records] == [config.run_id for config in configs]


def test_a_run_that_is_named_twice_is_one_run(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    # FC has no components: these are three names of one run, and one run counts once in a mean.
    configs = [tiny("FC", num_components=2), tiny("BL"), tiny("FC", num_components=5), tiny("FC")]
    records = sweep(configs, ledger, jobs=1)
    assert len(trained) == len(list(ledger)) == 2
    assert [record.config.arm for record in records] == ["FC", "BL"]


def test_groups_keep_their_names_and_may_share_runs(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    bl, kumar, fc = tiny("BL", 0), tiny("KUMAR", 0), tiny("FC", 0)
    groups = {2: [kumar, bl], "one": [bl], "none": [], 4.0: [fc, kumar]}
    records = sweep_by(groups, ledger, jobs=1)
    assert {name: [r.config for r in own] for name, own in records.items()} == groups
    assert list(records) == list(groups)
    assert trained == [kumar, bl, fc]  # each once


def test_no_runs_are_no_trouble(
    ledger: Ledger, trained: list[RunConfig], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep([], ledger) == []
    assert capfd.readouterr() == ("", "")


def test_a_second_sweep_trains_nothing(
    tiny: Configure,
    ledger: Ledger,
    trained: list[RunConfig],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = [tiny("KUMAR", 0, snapshots=True), tiny("FC", 1)]
    first = sweep(configs, ledger, jobs=1)
    trained.clear()
    capfd.readouterr()
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("nothing needs the data"))
    second = sweep(configs, ledger)
    assert trained == []
    assert capfd.readouterr() == ("", "")
    for one, other in zip(first, second, strict=True):
        assert one.config.run_id == other.config.run_id
        np.testing.assert_equal(dict(one.curves), dict(other.curves))
        assert one.provenance == other.provenance
    np.testing.assert_array_equal(first[0].snapshots["0.mu"], second[0].snapshots["0.mu"])


def test_the_default_ledger_is_the_projects(
    tiny: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "mine"))
    sweep([tiny("FC")], jobs=1)
    assert tiny("FC") in Ledger(tmp_path / "mine")


@pytest.mark.parametrize("jobs", [0, -1, 1.0, 0.5, True, "2", [1]])
def test_bad_numbers_of_jobs_are_refused(
    jobs: object, tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    message = f"jobs must be an integer of at least 1, or None, got {jobs!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sweep([tiny()], ledger, jobs=jobs)  # type: ignore[arg-type]
    assert trained == []


def test_a_damaged_record_stops_a_sweep_before_it_trains(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    ledger.put(train(tiny("FC"))).write_text("{}")
    with pytest.raises(LedgerError, match=re.escape(str(ledger.path(tiny("FC"))))):
        sweep([tiny("BL"), tiny("FC")], ledger, jobs=1)
    assert trained == []


def test_missing_data_stop_a_sweep_before_it_trains(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    with pytest.raises(DataError, match="'own_runs:no_such_data' cannot be imported"):
        sweep([tiny("FC"), tiny("BL", dataset="own_runs:no_such_data")], ledger, jobs=1)
    assert trained == []


# --- Processes -----------------------------------------------------------------------------------


def test_records_do_not_depend_on_the_number_of_jobs(
    tiny: Configure, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arms = ("KUMAR", "BL", "FC", "own_runs:draw")
    configs = [tiny(arm, seed, snapshots=seed == 1) for arm in arms for seed in (0, 1)]
    alone = sweep(configs, Ledger(tmp_path / "one"), jobs=1)
    together = sweep(configs, Ledger(tmp_path / "two"), jobs=2)
    assert_same_runs(alone, together)
    assert_same_runs(list(Ledger(tmp_path / "one")), list(Ledger(tmp_path / "two")))
    assert "8/8 runs" in capfd.readouterr().err.split("\r")[-1]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("own_runs:failing", "no luck with seed 3"),
        ("own_runs:picky", "misfortune number 3"),  # an exception that stands no transport
        ("own_runs:missing", "arm 'own_runs:missing' cannot be imported"),
    ],
)
def test_a_failing_run_is_reported_and_the_others_are_recorded(
    arm: str, reason: str, jobs: int, tiny: Configure, ledger: Ledger
) -> None:
    bad, good = tiny(arm, 3), [tiny("FC", 0), tiny("KUMAR", 0)]
    message = rf"^1 of 3 runs failed, the others are recorded: {bad.run_id}: .*{reason}"
    with pytest.raises(SweepError, match=message):
        sweep([good[0], bad, good[1]], ledger, jobs=jobs)
    assert all(config in ledger for config in good)
    assert bad not in ledger


def test_every_failing_run_is_named(tiny: Configure, ledger: Ledger) -> None:
    configs = [tiny("own_runs:failing", seed) for seed in (0, 1)]
    with pytest.raises(SweepError, match="2 of 2 runs failed") as error:
        sweep(configs, ledger, jobs=1)
    for config in configs:
        assert f"{config.run_id}: " in str(error.value)
        assert f"no luck with seed {config.seed}" in str(error.value)
    assert re.search(r'own_runs\.py", line \d+, in failing', str(error.value.__cause__))


def test_what_was_finished_before_an_interruption_stays(
    tiny: Configure, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [tiny("FC", seed) for seed in range(4)]
    started: list[int] = []

    def interrupted(config: RunConfig, on_evaluation: object) -> RunRecord:
        started.append(config.seed)
        if config.seed == 2 and len(started) == 3:
            raise KeyboardInterrupt
        return train(config)

    monkeypatch.setattr(places, "train", interrupted)
    message = f"2 of 4 runs are recorded in {ledger.folder}; the same call goes on with the other 2"
    with pytest.raises(KeyboardInterrupt, match=f"^{re.escape(message)}$"):
        sweep(configs, ledger, jobs=1)
    assert [config in ledger for config in configs] == [True, True, False, False]
    records = sweep(configs, ledger, jobs=1)
    assert started == [0, 1, 2, 2, 3]
    assert len(records) == 4


def test_nothing_but_the_ledger_is_left(
    tiny: Configure, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards = tmp_path / "boards"
    boards.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(boards))
    monkeypatch.chdir(tmp_path)
    sweep([tiny("FC")], ledger, jobs=1)
    with pytest.raises(SweepError):
        sweep([tiny("own_runs:failing")], ledger, jobs=1)
    assert os.listdir(boards) == []
    assert sorted(os.listdir(tmp_path)) == ["boards", "results"]


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_runs_do_not_share_a_process(
    backend: str, tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    configs = [tiny("FC", seed) for seed in (0, 1)]
    with joblib.parallel_config(backend):
        with pytest.raises(ValueError, match="does not give each run a process"):
            sweep(configs, ledger, jobs=2)
        assert trained == []
        assert len(sweep(configs, ledger, jobs=1)) == 2


def test_joblib_may_say_how_many_processes(
    tiny: Configure, ledger: Ledger, trained: list[RunConfig]
) -> None:
    configs = [tiny("FC", seed) for seed in (0, 1)]
    with joblib.parallel_config(n_jobs=1):
        sweep(configs, ledger)
    assert trained == configs  # in this process
