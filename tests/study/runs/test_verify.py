"""Records held against runs: true ones pass, and those altered by hand do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmlib.study import cli, datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import verify as verify_module
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import train
from gmlib.study.runs.verify import choose, nudged, spread, verify

Configure = Callable[..., RunConfig]


def altered(record: RunRecord, curve: str, index: int, by: float) -> RunRecord:
    """The record with one number changed, as its digest would have it after `Ledger.put`."""
    values = list(record.curves[curve])
    values[index] += by
    return replace(record, curves={**record.curves, curve: values})


@pytest.mark.parametrize("arm", ["FC", "BL", "KUMAR", "NEURONS"])
@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_true_record_holds_bit_for_bit(arm: str, epochs: int, tiny: Configure) -> None:
    record = train(tiny(arm, epochs=3))
    verdict = verify(record, epochs, exact=True)
    assert verdict.holds
    assert not verdict.differs
    assert (
        str(verdict) == f"holds: {record.config.run_id}, {min(epochs, 3)} of 3 epochs, bit for bit"
    )


@pytest.mark.parametrize("arm", ["FC", "BL", "KUMAR"])
def test_how_far_rounding_carries(arm: str, tiny: Configure, torture: bool, measured: Any) -> None:
    config = RunConfig(arm=arm, seed=0) if torture else tiny(arm, epochs=5)
    record = train(config)
    band = spread(record)["test_error"]
    assert (np.diff(band) >= 0).all()
    assert np.isfinite(band).all()
    per_epoch = record.curves["step"][-1] / config.epochs
    for epoch in (1, 5, config.epochs):
        at = record.curves["step"].index(epoch * per_epoch)
        name = f"{arm}, after {epoch} epoch{'s' * (epoch > 1)}"
        measured("chaos", name, f"{100 * band[at]:.2f} points")


def test_snapshots_are_not_needed(tiny: Configure) -> None:
    assert not verify(train(tiny(snapshots=True))).differs


@pytest.mark.parametrize("curve", ["test_error", "test_loss", "train_loss"])
def test_the_last_digit_counts_where_equality_is_asked_for(curve: str, tiny: Configure) -> None:
    record = altered(train(tiny()), curve, 3, 1e-15)
    verdict = verify(record, exact=True)
    assert verdict.differs == curve
    assert not verdict.holds
    assert str(verdict).startswith("DOES NOT HOLD")


@pytest.mark.parametrize(
    ("curve", "by"), [("test_error", -0.25), ("test_loss", -0.3), ("train_loss", 0.3)]
)
def test_an_altered_curve_is_outside_the_band(curve: str, by: float, tiny: Configure) -> None:
    record = altered(train(tiny(epochs=2)), curve, -1, by)
    assert not verify(record, 1).differs  # the first epoch is as it was
    verdict = verify(record, 2)
    assert not verdict.holds
    assert verdict.differs == curve
    assert verdict.share > 1


def test_an_altered_movement_is_outside_the_band(tiny: Configure) -> None:
    record = train(tiny())
    movement = {name: list(values) for name, values in record.movement.items()}
    movement["0.mu"][-1] *= 1.1
    verdict = verify(replace(record, movement=movement))
    assert not verdict.holds
    assert verdict.differs == "movement of 0.mu"
    assert not verify(replace(record, movement={})).differs  # of records from before it was kept


def test_rounding_is_inside_the_band(tiny: Configure) -> None:
    config = tiny("KUMAR", epochs=3)
    dataset = datasets.load(config.dataset, config.standardize)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        moved = replace(dataset, x_train=nudged(dataset.x_train, generator))
        record = train(config, dataset=moved)
        assert not np.array_equal(record.curves["test_loss"], train(config).curves["test_loss"])
        verdict = verify(record, 3)
        assert verdict.holds
        assert verdict.differs


def test_steps_have_to_be_the_same(tiny: Configure) -> None:
    record = train(tiny())
    steps = [step + 1 for step in record.curves["step"]]
    assert not verify(replace(record, curves={**record.curves, "step": steps})).holds


def test_a_number_that_is_none_does_not_hold(tiny: Configure) -> None:
    assert not verify(altered(train(tiny()), "test_error", 2, np.nan)).holds


def test_the_spread_grows_and_counts_divergence(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = train(tiny(epochs=2))
    others = [altered(record, "test_error", 1, 0.5), altered(record, "test_error", -2, 0.125)]
    monkeypatch.setattr(verify_module, "train", lambda *_, **__: others.pop())
    one_image = 1 / 48
    widest = spread(record, repeats=2)
    count = len(widest["step"])
    assert widest["test_error"] == pytest.approx([one_image] + [0.5] * (count - 1))
    losses = 1e-3 * np.abs(record.curves["test_loss"])
    assert widest["test_loss"] == pytest.approx(np.maximum.accumulate(losses))

    lost = altered(record, "test_loss", -1, np.inf)
    monkeypatch.setattr(verify_module, "train", lambda *_, **__: lost)
    widest = spread(record, repeats=1)
    assert widest["test_error"] == pytest.approx([one_image] * (count - 1) + [np.inf])


def test_where_rounding_decides_on_divergence_anything_holds(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = altered(train(tiny()), "test_error", -1, 0.5)
    ours = train(tiny())
    lost = altered(ours, "test_loss", -1, np.nan)
    answers = [lost, lost, lost, ours]
    monkeypatch.setattr(verify_module, "train", lambda *_, **__: answers.pop())
    assert verify(record).holds


def test_nudges_are_of_one_unit_in_the_last_place() -> None:
    values = torch.randn(1000)
    moved = nudged(values, torch.Generator().manual_seed(0))
    up, down = (torch.nextafter(values, torch.full_like(values, end)) for end in (9.0, -9.0))
    assert ((moved == values) | (moved == up) | (moved == down)).all()
    for found in (moved == values, moved == up, moved == down):
        assert 250 < found.sum() < 420


# --- Which records -------------------------------------------------------------------------------


@pytest.fixture
def ledger(tiny: Configure, tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "results")
    for arm, seed in [("FC", 0), ("FC", 1), ("BL", 0), ("KUMAR", 0), ("KUMAR", 1), ("KUMAR", 2)]:
        ledger.put(train(tiny(arm, seed)))
    return ledger


def names(records: list[RunRecord]) -> list[tuple[str, int]]:
    return [(record.config.arm, record.config.seed) for record in records]


def test_a_choice_is_random_and_without_repetition(ledger: Ledger) -> None:
    choices = {tuple(names(choose(ledger, 3, seed=seed))) for seed in range(20)}
    assert len(choices) > 10
    assert all(len(set(choice)) == 3 for choice in choices)
    assert names(choose(ledger, 3, seed=5)) == names(choose(ledger, 3, seed=5))
    assert sorted(names(choose(ledger, 99))) == sorted(names(list(ledger)))


def test_arms_take_turns(ledger: Ledger) -> None:
    arms = [arm for arm, _ in names(choose(ledger, 5, ["FC", "KUMAR"]))]
    assert arms == ["FC", "KUMAR", "FC", "KUMAR", "KUMAR"]
    with pytest.raises(LedgerError, match=r"no run of arm 'LSUV', only of BL, FC, KUMAR"):
        choose(ledger, 1, ["LSUV"])


# --- The command ---------------------------------------------------------------------------------


def gmlib(ledger: Ledger, *arguments: Any) -> int:
    return cli.main([*map(str, arguments), "--ledger", str(ledger.folder)])


def test_the_command_says_which_runs_hold(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gmlib(ledger, "verify", "--runs", 4, "--arm", "BL", "--arm", "FC") == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3  # there are no more
    assert all(line.startswith("holds: ") and "bit for bit" in line for line in out)


def test_the_command_catches_a_record_altered_by_hand(
    ledger: Ledger, tiny: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny("KUMAR", 7)
    ledger.put(altered(train(config), "test_error", -1, -0.2))
    assert gmlib(ledger, "ledger", "check") == 0  # its digest fits
    capsys.readouterr()
    assert gmlib(ledger, "verify", "--runs", 99) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "DOES NOT HOLD" in line] == [
        line for line in lines if config.run_id in line
    ]


@pytest.mark.parametrize("count", ["0", "-1", "two", "1.5", ""])
def test_counts_are_positive(
    count: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gmlib(ledger, "verify", "--runs", count)
    assert f"must be an integer of at least 1, got {count!r}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("ledger", "check"), ("ledger", "repair"), ("verify",)])
def test_a_ledger_that_is_not_there(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--ledger", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"gmlib: there is no ledger {tmp_path / 'none'}\n"
    assert not (tmp_path / "none").exists()
