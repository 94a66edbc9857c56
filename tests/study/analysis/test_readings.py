"""Readings of the note: shares that diverge, and pairs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from made_runs import MakeRecord, assert_numbers

from gmlib.study import analysis, claims
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import train

Ends = Callable[..., RunRecord]
NAN = math.nan


def test_a_run_cut_after_its_first_epoch_is_a_run_of_one(
    tiny: Callable[..., RunConfig],
) -> None:
    long, short = train(tiny(epochs=3, snapshots=True, gates=True)), train(tiny(epochs=1))
    (cut,) = analysis.first_epochs([long])
    assert cut.config == short.config
    assert cut.init_report == short.init_report
    assert cut.to_json()["curves"] == short.to_json()["curves"]
    assert {} == cut.movement == cut.snapshots == cut.gates
    assert analysis.first_epochs([cut]) == [cut]


def test_supposed_runs_are_compared_with_the_notes_figures(ends: Ends) -> None:
    relu = [ends("BL", seed, *[6.0] * 20, between="relu") for seed in range(2)]
    assert isinstance(claims.table("endpoints", relu), str)  # other settings: no comparison
    table = claims.table("endpoints", analysis.as_the_note(relu))
    assert "6.00" in table.loc["BL, best", "ours"]


def test_readings_stand_below_the_note(ends: Ends) -> None:
    records = {
        "one": [ends("BL", seed, 60.0 + seed, lost=seed > 1) for seed in range(4)],
        "other": [ends("BL", seed, 9.0) for seed in range(5)],
        "lost": [ends("BL", seed, 9.0, lost=True) for seed in range(2)],
    }
    table = analysis.readings_table(records, (55.0, 77.0))
    numbers = analysis.readings_table(records).numbers.set_index("reading")
    assert list(numbers.index) == list(records)
    assert numbers.diverged["one"] == 2
    assert numbers.spared["one"] == pytest.approx(0.5**5)
    assert numbers.spared_low["one"] == pytest.approx((1 - numbers.share_high["one"]) ** 5)
    assert numbers.spared_high["one"] == pytest.approx((1 - numbers.share_low["one"]) ** 5)
    assert table.text.columns.name == "reading"
    rows = table.text.to_dict("index")
    assert rows == {
        "the note": {
            "diverged": "none reported",
            "95 % interval": "–",
            "five of five train": "–",
            "error of the others (%)": "about 55 (up to 77)",
        },
        "one": {
            "diverged": "2 of 4",
            "95 % interval": "7% to 93%",
            "five of five train": "3% (0% to 70%)",
            "error of the others (%)": "60.5 (60.0 to 61.0)",
        },
        "other": {
            "diverged": "0 of 5",
            "95 % interval": "0% to 52%",
            "five of five train": "100% (3% to 100%)",
            "error of the others (%)": "9.0",
        },
        "lost": {
            "diverged": "2 of 2",
            "95 % interval": "16% to 100%",
            "five of five train": "0% (0% to 42%)",
            "error of the others (%)": "–",
        },
    }


def test_pairs_are_those_of_mcnemars_test(make_record: MakeRecord) -> None:
    def runs(seeds: range, lost: set[int]) -> list[RunRecord]:
        return [
            make_record("BL", seed, losses=[1.0, 1.0, NAN if seed in lost else 1.0])
            for seed in seeds
        ]

    table = analysis.divergence_pairs(
        {
            "BL": runs(range(12), {0, 1, 2, 3, 4, 5, 6}),
            "ReLU": runs(range(1, 13), {6, 7, 12}),
            "same": runs(range(12), {0, 1, 2, 3, 4, 5, 6}),
        },
        "BL",
    )
    assert_numbers(
        table,
        # Of six pairs with one that diverged, at most one is of ReLU: 2 (1 + 6) / 2^6.
        {"variant": "ReLU", "pairs": 11, "both": 1, "theirs": 5, "own": 1, "p": 14 / 64},
        {"variant": "same", "pairs": 12, "both": 7, "theirs": 0, "own": 0, "p": NAN},
    )
    assert table.text.to_dict("index") == {
        "ReLU": {"pairs": 11, "both": 1, "only BL": 5, "only this one": 1, "p": "0.22"},
        "same": {"pairs": 12, "both": 7, "only BL": 0, "only this one": 0, "p": "–"},
    }
