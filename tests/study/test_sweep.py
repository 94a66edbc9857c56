"""Sweeps: train what is missing and nothing else, and lose nothing when something fails."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gmlib.study import data
from gmlib.study import sweep as sweep_module
from gmlib.study.config import RunConfig
from gmlib.study.data import DataError
from gmlib.study.ledger import Ledger, LedgerError
from gmlib.study.sweep import SweepError, sweep
from gmlib.study.training import Progress, RunRecord, train

Configure = Callable[..., RunConfig]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "results")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Configurations that are trained from now on, with one job."""
    configs: list[RunConfig] = []

    def spy(config: RunConfig, on_progress: Callable[[Progress], None] | None) -> RunRecord:
        configs.append(config)
        return train(config, on_progress)

    monkeypatch.setattr(sweep_module, "train", spy)
    return configs


def assert_same_runs(ones: list[RunRecord], others: list[RunRecord]) -> None:
    """Equal but for time and place."""
    assert [record.config for record in ones] == [record.config for record in others]
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_equal(dict(one.curves), dict(other.curves))  # takes NaN as equal to NaN
        assert one.init_report == other.init_report
        assert list(one.snapshots) == list(other.snapshots)
        for name, array in one.snapshots.items():
            np.testing.assert_array_equal(array, other.snapshots[name], strict=True)


# --- What is trained, and what is returned -------------------------------------------------------


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
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("nothing needs the data"))
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

    def interrupted(config: RunConfig, on_progress: object) -> RunRecord:
        started.append(config.seed)
        if config.seed == 2 and len(started) == 3:
            raise KeyboardInterrupt
        return train(config)

    monkeypatch.setattr(sweep_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
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


# --- The progress bar ----------------------------------------------------------------------------


def bars(text: str) -> list[str]:
    """The states of the bar, one after the other."""
    return [state.strip() for state in text.replace("\n", "\r").split("\r") if state.strip()]


def test_the_bar_ends_with_all_runs_done(
    tiny: Configure, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    records = sweep([tiny("FC", 0), tiny("KUMAR", 7, epochs=2)], ledger, jobs=1)
    out, err = capfd.readouterr()
    assert out == ""
    states = bars(err)
    assert states[0].startswith("0/2 runs")
    assert "0/3 epochs [00:00<?]" in states[0]
    assert states[-1].startswith("2/2 runs")
    assert re.search(r"3/3 epochs \[\d\d:\d\d<00:00\], ", states[-1])
    error = 100 * records[1].curves["test_error"][-1]
    assert states[-1].endswith(f"KUMAR seed 7: {error:.2f} % error")


def test_the_bar_tells_how_far_a_run_is(
    tiny: Configure,
    ledger: Ledger,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(config: RunConfig, on_progress: Callable[[Progress], None]) -> RunRecord:
        if config.seed == 1:
            on_progress(Progress(3, 12, 0.4321))
            time.sleep(0.5)
        return train(config, on_progress)

    monkeypatch.setattr(sweep_module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(sweep_module, "train", slow)
    sweep([tiny("FC", 0), tiny("BL", 1, epochs=2)], ledger, jobs=1)
    states = bars(capfd.readouterr().err)
    # One epoch of the first run and a quarter of the second's two.
    pattern = r"^1/2 runs.* 1\.5/3 epochs \[\d\d:\d\d<\d\d:\d\d\], BL seed 1: 43\.21 % error$"
    assert any(re.search(pattern, state) for state in states), states


def test_the_bar_does_not_count_a_failed_run_as_done(
    tiny: Configure, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SweepError):
        sweep([tiny("FC"), tiny("own_runs:failing")], ledger, jobs=1)
    assert bars(capfd.readouterr().err)[-1].startswith("1/2 runs")


def test_runs_without_epochs_count_as_one(
    tiny: Configure, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep([tiny("FC", seed, epochs=0) for seed in (0, 1)], ledger, jobs=1)
    assert re.search(r"^2/2 runs.* 2/2 epochs", bars(capfd.readouterr().err)[-1])


def test_from_a_notebook_the_bar_reaches_the_terminal_too(
    tiny: Configure, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KernelStream(io.StringIO):
        """As ipykernel's: what is written goes to the notebook, and a copy of descriptor 2."""

        _original_stdstream_copy: int

    stream = KernelStream()
    with (tmp_path / "terminal").open("wb") as terminal:
        stream._original_stdstream_copy = terminal.fileno()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            sweep([tiny("FC")], ledger, jobs=1)
        os.fstat(terminal.fileno())  # still open: it belongs to the kernel
    assert bars(stream.getvalue())[-1].startswith("1/1 runs")
    assert bars((tmp_path / "terminal").read_text())[-1].startswith("1/1 runs")
