"""Tables of the statements, on records made by hand and on those of the project."""

import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gmlib.study import claims
from gmlib.study.plan.studies import STUDIES
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord

ROOT = Path(__file__).parents[3]
PAGES = ["dynamics", "thresholds", "endpoints", "index"]

Make = Callable[..., RunRecord]


@pytest.fixture
def agreeing(record: Make) -> list[RunRecord]:
    """Two seeds an arm that do just what the note says."""
    fall = [55, 30, 20, 15, 12, 11, 10.5, 9.8]
    return [
        *(record("FC", seed, [4, 3.4, 2.0]) for seed in (0, 1)),
        record("BL", 0, [50, *fall[1:], 5.85, 5.85]),
        record("BL", 1, [60, *fall[1:], 5.80, 5.80]),
        record("KUMAR", 0, [9.4, 5, 5.2, 5.2, 5.2, 5.2, 4.9, 4.2, 4.3]),
        record("KUMAR", 1, [9.6, 5, 5.2, 5.2, 5.2, 5.2, 4.9, 4.2, 4.3]),
    ]


def verdicts(found: pd.DataFrame | str) -> dict[str, str]:
    assert not isinstance(found, str)
    return dict(found.verdict.str.replace("\N{NO-BREAK SPACE}", " "))


def test_dynamics_agree(agreeing: list[RunRecord]) -> None:
    found = verdicts(claims.table("dynamics", agreeing))
    worst = found.pop("BL after the first epoch, worst of five seeds")
    assert worst == "cannot be judged"  # of two
    assert set(found.values()) == {"holds"}


def test_dynamics_disagree(record: Make) -> None:
    runs = [
        record("FC", 0, [4, 3, 8]),
        record("FC", 1, [4, 3, 8]),
        record("BL", 0, [20, 10, 7]),
        record("BL", 1, [90.2], losses=[50, *[math.nan] * 20]),
        record("KUMAR", 0, [12, 7, 6]),
        record("KUMAR", 1, [15, 7, 6]),
    ]
    found = verdicts(claims.table("dynamics", runs))
    # Without the one that diverged.
    assert found["BL after the first epoch"] == "does not hold: 30.0 points below"
    assert found["seeds of BL that diverge"] == "does not hold: 1 above"
    assert found["epochs at whose end FC is below both"] == "does not hold"  # at 2 of 20 it is
    assert found["KUMAR after the first epoch"] == "does not hold: 3.5 points above"
    spread = "spread over seeds after the first epoch: KUMAR's against BL's"
    assert found[spread] == "cannot be judged"


def test_thresholds(agreeing: list[RunRecord]) -> None:
    found = claims.table("thresholds", agreeing)
    off = {name: verdict for name, verdict in verdicts(found).items() if verdict != "holds"}
    # 938 steps are the first epoch, and 1876 the second.
    assert off == {
        "KUMAR to 10 %, at epochs' ends": "does not hold: 62 steps below",
        "KUMAR to 10 %, at all evaluations": "does not hold: 62 steps below",
        "KUMAR to 5 %": "does not hold: 4,124 steps below",
    }
    assert found.ours["BL to 10 %"].replace("\N{NO-BREAK SPACE}", " ").startswith("7,504 steps")


def test_thresholds_disagree(record: Make) -> None:
    runs = [record("FC", 0, [4]), record("BL", 0, [9, 4.9]), record("KUMAR", 0, [9, 6])]
    found = verdicts(claims.table("thresholds", runs))
    for arm in ("KUMAR", "BL"):  # all seeds, and none
        assert found[f"seeds of {arm} that reach 5 %"] == "does not hold"
    assert found["seeds of FC that reach 3.5 %"] == "does not hold"
    assert found["KUMAR to 5 %"] == "cannot be judged"


def test_endpoints(agreeing: list[RunRecord], record: Make) -> None:
    found = verdicts(claims.table("endpoints", agreeing))
    assert found["BL, best"] == "holds in part: 0.03 points below"  # of 5.85 and 5.80
    assert found["KUMAR, final"] == "does not hold: 0.4 points below"
    assert found["pairs in which KUMAR's best is below BL's"] == "holds"
    assert found["seeds of FC whose final is below all of KUMAR's"] == "holds"
    worse = [record("KUMAR", 0, [9, 8]), record("BL", 0, [9, 7])]
    found = verdicts(claims.table("endpoints", worse))
    assert found["pairs in which KUMAR's final is below BL's"] == "does not hold"


@pytest.fixture
def layer(make_record: Make) -> Make:
    def make(arm: str, error: float, step: float, **settings: Any) -> RunRecord:
        rng = np.random.default_rng(0)
        mu = rng.normal(size=(1, 5, 8)) + step * np.arange(2)[:, None, None] * rng.normal(size=8)
        return make_record(
            arm,
            0,
            [0.9, error],
            steps=[0, 20 * 938],
            snapshots={"0.mu": mu.astype("f4"), "0.sigma": np.ones((2, 5, 8), dtype="f4")},
            **{"epochs": 20, "widths": (10,), "num_components": 5, **settings},
        )

    return make


def test_propagation(layer: Make) -> None:
    found = verdicts(
        claims.table("propagation", [layer("BL", 0.0668, 0.1), layer("KUMAR", 0.07, 1.0)])
    )
    assert found["BL, final error"] == "holds"
    assert found["KUMAR, final error"] == "holds in part: 0.51 points above"  # by less than a tenth
    assert found["BL's final error less KUMAR's"] == "does not hold: 0.51 points below"
    moves = "in the plane drawn, distance from start to end: KUMAR's against BL's"
    assert found[moves] == "holds"
    swapped = claims.table("propagation", [layer("BL", 0.0668, 1.0), layer("KUMAR", 0.07, 0.1)])
    assert verdicts(swapped)[moves] == "does not hold"


@pytest.fixture
def screened(make_record: Make) -> Make:
    def make(
        arm: str, seed: int, errors: Sequence[float], dataset: str = "mnist", **settings: Any
    ) -> RunRecord:
        """Errors in percent at the first epochs' ends, and then the last for the rest of thirty."""
        errors = [90, *errors, *[errors[-1]] * (30 - len(errors))]
        settings = {"epochs": 30, "num_components": 20, "widths": (10,), **settings}
        fractions = [error / 100 for error in errors]
        return make_record(arm, seed, fractions, dataset=dataset, **settings)

    return make


def test_screen(screened: Make) -> None:
    records = [
        screened(arm, seed, [start, 20, 4 + seed / 10 - (arm == "KUMAR")], dataset)
        for dataset in ("mnist", "fashion-mnist")
        for arm, start in {"BL": 60, "KUMAR": 30}.items()
        for seed in range(5, 15)
    ]
    found = claims.table("init_screen", records)
    assert len(found) == 8
    assert set(found.verdict) == {"holds"}
    wins = found[found.note == "10 of 10"]
    assert wins.ours.tolist() == ["10 of 10 pairs"] * 6
    assert wins.seeds.tolist() == ["10"] * 6
    assert found.ours["MNIST: seeds of BL that diverge"] == "0"


def test_screen_disagrees(screened: Make) -> None:
    runs = [
        # KUMAR's best is lower, its last epochs and its mean are not; one pair lost.
        screened("KUMAR", 5, [3, 5]),
        screened("BL", 5, [4, 4]),
        screened("KUMAR", 6, [3, 3]),
        screened("BL", 6, [4, 4]),
        screened("KUMAR", 7, [9]),
        screened("BL", 7, [1], losses=[1, *[math.nan] * 30]),
        screened("KUMAR", 5, [9], "fashion-mnist"),
    ]
    found = verdicts(claims.table("init_screen", runs))
    assert found["MNIST, best: KUMAR lower"] == "holds"
    for name in ("smoothed final", "AUC"):
        assert found[f"MNIST, {name}: KUMAR lower"] == "does not hold"  # 1 of 2
    assert found["MNIST: seeds of BL that diverge"] == "does not hold: 1 above"
    others = [verdict for name, verdict in found.items() if name.startswith("Fashion")]
    assert others == ["not measured"] * 4


@pytest.mark.parametrize("settings", [{"dataset": "own:images"}, {"epochs": 29}, {"widths": (9,)}])
def test_other_screens_are_not_held_against_the_note(
    settings: dict[str, Any], screened: Make
) -> None:
    records = [screened("KUMAR", 5, [4]), screened("BL", 5, [4], **settings)]
    assert claims.table("init_screen", records) == "The note has no numbers for these settings."


@pytest.mark.parametrize("page", PAGES)
def test_what_was_not_run_is_not_measured(page: str, record: Make) -> None:
    found = claims.table(page, [record("FC", 0, [4.0])]).verdict
    assert (found == "not measured").sum() >= len(found) - 1
    assert (claims.table(page, []).verdict == "not measured").all()


@pytest.mark.parametrize(
    "settings",
    [
        *({"dataset": "fashion-mnist"}, {"num_components": 3}, {"widths": (50, 10)}),
        *({"gamma": 0.1}, {"standardize": "dataset"}, {"batch_size": 32}),
    ],
)
@pytest.mark.parametrize("page", PAGES)
def test_other_settings_are_not_held_against_the_note(
    page: str, settings: dict[str, Any], make_record: Make
) -> None:
    record = make_record("BL", epochs=20, **settings)
    assert claims.table(page, [record]) == "The note has no numbers for these settings."


def test_settings_that_an_arm_does_not_use_do_not_count(record: Make) -> None:
    assert not isinstance(claims.table("dynamics", [record("FC", 0, [4], gamma=0.1)]), str)


def test_the_index_shows_some_of_what_the_chapters_show(agreeing: list[RunRecord]) -> None:
    chosen = claims.table("index", agreeing)
    chapters = [claims.table(page, agreeing) for page in PAGES[:3]]
    assert len(chosen) == 10
    for quantity, row in chosen.iterrows():
        (found,) = [own.loc[quantity] for own in chapters if quantity in own.index]
        assert found.equals(row)


# --- The records of the project ------------------------------------------------------------------


@pytest.fixture(scope="module")
def reviewed() -> pd.DataFrame:
    return claims.review()


def test_a_verdict_on_every_statement(reviewed: pd.DataFrame) -> None:
    assert reviewed.index.tolist() == [claim.id for claim in claims.load()]
    assert set(reviewed.verdict) <= set(claims.VERDICTS)
    rest_on_runs = [claim.id for claim in claims.load() if claim.arms]
    assert set(reviewed.index[reviewed.seeds != ""]) == set(rest_on_runs)
    unjudged = reviewed.verdict == "cannot be judged"
    assert (reviewed.remark[unjudged] != "").all()
    text = claims.summary(reviewed)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    assert numbers[0] == sum(numbers[1:]) == len(reviewed)
    assert claims.by_section(reviewed).to_numpy().sum() == len(reviewed)


def test_the_chapters_show_the_same_verdicts(reviewed: pd.DataFrame) -> None:
    records = [Ledger().get(config) for config in STUDIES["main study"]]
    for page in PAGES:  # on which it does not matter which of the records the page has
        table = claims.table(page, records, Ledger())
        pd.testing.assert_frame_equal(table, claims.table(page, records[:1], Ledger()))
        for quantity, row in table.iterrows():
            name = quantity.replace(" %", "\N{NO-BREAK SPACE}%")
            same = reviewed[(reviewed.quantity == name) & (reviewed.note == row.note)]
            assert same.measured.tolist() == [row.ours]
            assert same.seeds.tolist() == [row.seeds]
            assert row.verdict.startswith(same.verdict.tolist()[0])


def test_the_statements_in_folded_coordinates(reviewed: pd.DataFrame) -> None:
    folded = claims.folded()
    assert folded.index.tolist() == [c.id for c in claims.load() if c.depends_on_coordinates]
    judged = folded[folded.verdict.isin(claims.VERDICTS[:3])]
    assert {"kumar-end", "fc-best-below", "easier-to-train"} <= set(judged.index)
    assert "tight-budget" not in judged.index  # one of its many networks was run
    told = [int(number) for number in re.findall(r"\d+", claims.folded_summary(reviewed, folded))]
    assert told[:3] == [len(reviewed), len(folded), len(judged)]
    assert told[3] + told[4] == len(judged)
    assert told[5] == len(folded) - len(judged)
    changed = claims.changed(reviewed, folded).numbers
    assert len(changed) == 2 * told[4] > 0
    for name, rows in changed.groupby("id"):
        assert rows.coordinates.tolist() == ["affine", "folded"]
        assert rows.measured.tolist() == [reviewed.measured[name], folded.measured[name]]
        assert rows.seeds.tolist() == [reviewed.seeds[name], folded.seeds[name]]
        assert rows.verdict.tolist() == [reviewed.verdict[name], folded.verdict[name]]
        assert rows.verdict.nunique() == 2


def test_verdicts_that_are_missing_on_a_side_have_not_changed() -> None:
    verdicts = ["holds", "holds", "holds", "not measured", "cannot be judged"]
    names = list("abcde")
    reviewed = pd.DataFrame({"verdict": [*verdicts, "holds"]}, [*names, "f"])
    others = ["holds", "does not hold", "not measured", "holds", "holds"]
    folded = pd.DataFrame({"verdict": others}, names)
    for frame in (reviewed, folded):
        frame[["quantity", "note", "measured", "interval", "seeds"]] = "–"
    assert claims.changed(reviewed, folded).numbers.id.tolist() == ["b", "b"]
    assert claims.folded_summary(reviewed, folded) == (
        "Of the 6 statements, 5 are about the training of GM layers. For 2 of these there are "
        "folded runs to judge them on: the verdict is the same for 1 and another for 1. Not run "
        "folded, or on too few seeds: 3."
    )


def test_details_name_what_has_no_quantity_by_its_words(reviewed: pd.DataFrame) -> None:
    (line,) = claims.details(reviewed.loc[["solves"]], "holds", "cannot be judged").splitlines()
    row = reviewed.loc["solves"]
    assert line == f"- **“{row.quote}”.** The note: {row.note}. {row.comment}"
    both = claims.details(reviewed, "holds", "does not hold").splitlines()
    assert len(both) == reviewed.verdict.isin(["holds", "does not hold"]).sum()


def test_every_section_is_a_table_with_links_that_lead_somewhere(reviewed: pd.DataFrame) -> None:
    for section in reviewed.section.unique():
        header, rule, *rows = claims.statements(reviewed, section).splitlines()
        assert len(rows) == (reviewed.section == section).sum()
        assert {line.replace("\\|", "").count("|") for line in (header, rule, *rows)} == {5}
        for row in rows:
            (name,) = re.findall(r"\]\((\w+\.ipynb)\)", row)
            assert (ROOT / "notebooks" / name).exists()


def test_a_deleted_record_leaves_the_statements_that_need_it_unmeasured(
    reviewed: pd.DataFrame, tmp_path: Path
) -> None:
    study = "main study"
    ledger = shutil.copytree(Ledger().folder, tmp_path / "ledger")
    lost = next(config for config in reversed(STUDIES[study]) if config in Ledger(ledger))
    Ledger(ledger).path(lost).unlink()
    found = claims.review(ledger)
    needed = {
        claim.id
        for claim in claims.load()
        if lost.arm in claim.arms and lost in STUDIES[claim.study]
    }
    assert needed
    assert (found.verdict[list(needed)] == "not measured").all()
    assert found.remark[list(needed)].str.contains("missing").all()
    others = [name for name in reviewed.index if name not in needed]
    assert found.verdict[others].equals(reviewed.verdict[others])  # if of fewer seeds
    assert not Ledger(ledger).path(lost).exists()  # nothing was trained


def test_an_empty_ledger_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "none"))
    found = claims.review()
    needed = [claim.id for claim in claims.load() if claim.study]
    assert (found.verdict[needed] == "not measured").all()
    assert "are not measured" in claims.summary(found)
    for section in found.section.unique():
        assert "| the note says |" in claims.statements(found, section)
    assert claims.details(found, "does not hold") == "None."
    assert claims.changed(found, claims.folded()).text.empty
    assert not (tmp_path / "none").exists()
