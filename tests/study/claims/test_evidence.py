"""Which runs a statement is judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gmlib.study.claims import evidence
from gmlib.study.claims.claim import Claim
from gmlib.study.claims.evidence import Evidence, is_about, num_seeds
from gmlib.study.plan.config import RunConfig, run_configs
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord

Make = Callable[..., RunRecord]

TWO = {"epochs": 2}
STUDIES = {
    "main study": run_configs(["BL", "KUMAR"], [0, 1], **TWO),
    "divergence": run_configs(["BL", "KUMAR"], [1, 7], epochs=1),
    "recorded": run_configs(["KUMAR"], [0, 5], gates=True, **TWO),
    "propagation": run_configs(["KUMAR"], [6], snapshots=True, **TWO),
    "ablation": run_configs(["KUMAR"], [2], target_std=0.1, **TWO),
    "folded": run_configs(["KUMAR"], [0, 3], coordinates="folded", **TWO),
    "folded, recorded": run_configs(["KUMAR"], [4], coordinates="folded", gates=True, **TWO),
    "budget": [RunConfig("KUMAR", 0, widths=widths, **TWO) for widths in ((10,), (100, 10))],
}


@pytest.fixture
def ledger(make_record: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """All runs of `STUDIES`, and some of none. Errors tell seeds, and losses the files."""
    monkeypatch.setattr(evidence, "STUDIES", STUDIES)
    monkeypatch.setattr(evidence, "_committed", evidence._committed.__wrapped__)
    own = Ledger(tmp_path / "ledger")
    stray = run_configs(["KUMAR"], [9], **TWO)
    for config in [*(c for runs in STUDIES.values() for c in runs), *stray]:
        own.put(run(make_record, config))
    return own


def run(make_record: Make, config: RunConfig) -> RunRecord:
    errors = [0.9, 0.5 - config.seed / 100, 0.25][: config.epochs + 1]
    snapshots = {"0.mu": np.zeros((3, 2, 4), dtype="f4"), "0.sigma": np.ones((3, 2, 4), dtype="f4")}
    record = make_record(errors=errors, snapshots=snapshots if config.snapshots else None)
    return replace(record, config=config)


def claim(study: str = "main study", metric: str = "error", **other: Any) -> Claim:
    return Claim("id", "s", "1", "quote", "q", metric=metric, study=study, **other)


def seeds(runs: list[RunRecord]) -> list[int]:
    return sorted(record.config.seed for record in runs)


def test_all_committed_runs_of_the_settings_count(ledger: Ledger) -> None:
    baseline, kumar = Evidence(ledger=ledger).runs(claim(arms=("BL", "KUMAR")))
    assert (seeds(baseline), seeds(kumar)) == ([0, 1], [0, 1, 5, 6])  # one run a seed
    assert {record.config for record in kumar} == set(run_configs(["KUMAR"], [0, 1, 5, 6], **TWO))


def test_over_the_first_epochs_runs_of_any_length_count(ledger: Ledger) -> None:
    (kumar,) = Evidence(ledger=ledger).runs(claim(arms=("KUMAR",), epochs=1))
    assert seeds(kumar) == [0, 1, 5, 6, 7]
    for record in kumar:
        assert record.config.epochs == 1
        assert record.curves["step"] == [0, 10]
        assert record.curves["test_error"] == [0.9, 0.5 - record.config.seed / 100]
    (kumar,) = Evidence(ledger=ledger).runs(claim("divergence", arms=("KUMAR",), epochs=1))
    assert seeds(kumar) == [0, 1, 5, 6, 7]
    (kumar,) = Evidence(ledger=ledger).runs(claim("divergence", arms=("KUMAR",)))
    assert seeds(kumar) == [1, 7]
    (start,) = Evidence(ledger=ledger).runs(claim(arms=("KUMAR",), epochs=0))
    assert [record.curves["step"] for record in start] == [[0]] * 5


def test_components_are_those_of_runs_with_snapshots(ledger: Ledger) -> None:
    (kumar,) = Evidence(ledger=ledger).runs(claim("propagation", "radius", arms=("KUMAR",)))
    assert seeds(kumar) == [6]
    (kumar,) = Evidence(ledger=ledger).runs(claim("propagation", arms=("KUMAR",)))
    assert seeds(kumar) == [0, 1, 5, 6]


def test_in_other_coordinates_runs_in_these_count(ledger: Ledger, make_record: Make) -> None:
    folded = Evidence(ledger=ledger, coordinates="folded")
    (kumar,) = folded.runs(claim(arms=("KUMAR",)))
    assert seeds(kumar) == [0, 3, 4]
    assert {record.config.coordinates for record in kumar} == {"folded"}
    (start,) = folded.runs(claim("divergence", arms=("KUMAR",), epochs=1))
    assert seeds(start) == [0, 3, 4]
    assert folded.runs(claim(arms=("BL",))) == [[]]
    assert folded.runs(claim("ablation", arms=("KUMAR",))) == [[]]


def test_a_dense_network_is_the_same_in_all_coordinates(make_record: Make) -> None:
    dense = make_record("FC", 0, epochs=20)
    found = Evidence([dense], coordinates="folded").runs(claim(arms=("FC",), epochs=20))
    assert [seeds(own) for own in found] == [[0]]


def test_all_networks_of_a_study_are_needed(ledger: Ledger) -> None:
    (kumar,) = Evidence(ledger=ledger).runs(claim("budget", arms=("KUMAR",)))
    assert {record.config.widths for record in kumar} == {(10,), (100, 10)}
    assert Evidence(ledger=ledger, coordinates="folded").runs(claim("budget", arms=("KUMAR",))) == [
        []
    ]


def test_given_runs_count_and_come_first(ledger: Ledger, make_record: Make) -> None:
    given = [run(make_record, RunConfig("KUMAR", seed, **TWO)) for seed in (1, 9)]
    other = run(make_record, RunConfig("KUMAR", 3, gamma=0.1, target_std=2.0, **TWO))
    (kumar,) = Evidence([*given, other], ledger).runs(claim(arms=("KUMAR",)))
    assert seeds(kumar) == [0, 1, 5, 6, 9]
    assert [record.config.seed for record in kumar[:2]] == [1, 9]
    (kumar,) = Evidence(given).runs(claim(arms=("KUMAR",)))
    assert seeds(kumar) == [1, 9]


def test_what_is_missing_is_of_the_statements_own_study(ledger: Ledger) -> None:
    both = claim(arms=("BL", "KUMAR"))
    assert Evidence(ledger=ledger).missing(both) == ""
    ledger.path(RunConfig("KUMAR", 5, gates=True, **TWO)).unlink()
    assert Evidence(ledger=ledger).missing(both) == ""
    ledger.path(RunConfig("BL", 0, **TWO)).unlink()
    assert Evidence(ledger=ledger).missing(both) == "1 of 4 records missing"
    assert Evidence(ledger=ledger).missing(claim(arms=("KUMAR",))) == ""
    assert Evidence(ledger=ledger).missing(claim("", "takes_no_labels")) == ""


def test_what_a_statement_is_about(ledger: Ledger) -> None:
    main, first = claim(arms=("KUMAR",)), claim(arms=("KUMAR",), epochs=1)
    for settings, whole, start in [
        (TWO, True, True),
        ({"epochs": 2, "gates": True}, True, True),
        ({"epochs": 1}, False, True),
        ({"epochs": 0}, False, False),
        ({"epochs": 2, "lr": 0.2}, False, False),
    ]:
        config = RunConfig("LSUV", 99, **settings)  # whatever the arm
        assert (is_about(main, config), is_about(first, config)) == (whole, start)


def test_the_number_of_seeds(make_record: Make) -> None:
    def of(arm: str, number: int, **settings: Any) -> list[RunRecord]:
        return [make_record(arm, seed, **settings) for seed in range(number)]

    assert num_seeds(["BL", "KUMAR"], [of("BL", 3), of("KUMAR", 3)]) == "3"
    assert num_seeds(["BL", "KUMAR"], [of("BL", 2), of("KUMAR", 3)]) == "BL 2, KUMAR 3"
    assert num_seeds(["BL"], [[*of("BL", 2), *of("BL", 4, num_components=3)]]) == "2 to 4"
