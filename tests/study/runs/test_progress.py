"""The progress bar."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeping import bars

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import SweepError, sweep

Configure = Callable[..., RunConfig]


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


def test_the_bar_moves_when_a_run_ends(
    tiny: Configure, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    first, _ = sweep([tiny("FC", 0), tiny("BL", 1, epochs=2)], ledger, jobs=1)
    states = bars(capfd.readouterr().err)
    error = 100 * first.curves["test_error"][-1]
    # One epoch of three is done.
    pattern = rf"^1/2 runs.* 1/3 epochs \[\d\d:\d\d<\d\d:\d\d\], FC seed 0: {error:.2f} % error$"
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
