"""The note's statements, held against records made by hand."""

import math

import numpy as np
import pytest

from gmlib.study import note

EPOCH = 938


@pytest.fixture
def record(make_record):
    def make(arm, seed, errors, **settings):
        """Errors in percent: at the start and at the ends of the epochs."""
        fractions = [0.9, *(error / 100 for error in errors)]
        steps = [EPOCH * epoch for epoch in range(len(fractions))]
        return make_record(arm, seed, fractions, steps=steps, epochs=len(errors), **settings)

    return make


@pytest.fixture
def agreeing(record):
    """Two seeds an arm that do just what the note says, on ten epochs."""
    fall = [55, 30, 20, 15, 12, 11, 10.5, 9.8]
    return [
        *(record("FC", seed, [4, 3.4, *[2.0] * 8]) for seed in (0, 1)),
        record("BL", 0, [50, *fall[1:], 5.85, 5.85]),
        record("BL", 1, [60, *fall[1:], 5.80, 5.90]),
        record("KUMAR", 0, [9.4, 7, 5, 5.2, 5.2, 5.2, 5, 4.9, 4.2, 4.3]),
        record("KUMAR", 1, [9.6, 7, 5, 5.2, 5.2, 5.2, 5, 4.9, 4.2, 4.3]),
    ]


def verdicts(table):
    return dict(table.verdict)


def test_dynamics_agree(agreeing):
    found = verdicts(note.dynamics(agreeing))
    assert found.pop("BL after the first epoch, worst seed") == "15.0 % below"
    assert set(found.values()) == {"agrees"}


def test_dynamics_disagree(record):
    runs = [
        record("FC", 0, [4, 3, 8]),
        record("FC", 1, [4, 3, 8]),
        record("BL", 0, [20, 10, 7]),
        record("BL", 1, [90.2] * 3, losses=[50, math.nan, math.nan, math.nan]),
        record("KUMAR", 0, [12, 7, 6]),
        record("KUMAR", 1, [15, 7, 6]),
    ]
    found = verdicts(note.dynamics(runs))
    assert found["BL after the first epoch"] == "30.0 % below"  # without the seed that diverged
    assert found["seeds of BL that diverge"] == "1 above"
    assert found["FC is below both at every epoch"] == "disagrees"
    assert found["KUMAR after the first epoch"] == "3.5 % above"
    assert found["KUMAR's first epoch spreads less over seeds than BL's"] == "cannot be judged"


def test_thresholds(agreeing):
    table = note.thresholds(agreeing)
    assert set(table.verdict) == {"agrees"} or verdicts(table)["KUMAR to 10 %"] == "62 steps below"
    assert table.ours["BL to 10 %"] == "7,504 steps (7,504 to 7,504)"


def test_endpoints(agreeing, record):
    found = verdicts(note.endpoints(agreeing))
    assert found["BL, best"] == "within the spread"  # the mean of 5.85 and 5.80
    assert found["KUMAR, final"] == "0.4 % below"
    assert found["KUMAR best below BL's in every pair"] == "agrees"
    assert found["every FC final below every KUMAR final"] == "agrees"
    worse = [record("KUMAR", 0, [9, 8]), record("BL", 0, [9, 7])]
    assert verdicts(note.endpoints(worse))["KUMAR final below BL's in every pair"] == "disagrees"


def test_propagation(make_record):
    rng = np.random.default_rng(0)

    def run(arm, error, step, size):
        start = rng.normal(size=(1, 5, 8))
        mu = np.concatenate([start, start + step])
        sigma = np.stack([np.full((5, 8), size), np.full((5, 8), 2 * size)])
        return make_record(
            arm, 0, [0.9, error], steps=[0, EPOCH], epochs=1,
            snapshots={"0.mu": mu.astype("f4"), "0.sigma": sigma.astype("f4")},
        )  # fmt: skip

    found = verdicts(note.propagation([run("BL", 0.0668, 1.0, 10.0), run("KUMAR", 0.07, 0.5, 1.0)]))
    assert found["BL, final error"] == "agrees"
    assert found["KUMAR, final error"] == "0.51 % above"
    assert found["KUMAR's clouds move farther for their size, first epoch"] == "agrees"
    assert found["KUMAR's clouds move farther in distance, all epochs"] == "disagrees"
    assert found["KUMAR's clouds grow"] == "agrees"


@pytest.mark.parametrize("table", [note.dynamics, note.thresholds, note.endpoints, note.headlines])
def test_what_was_not_run_cannot_be_judged(table, record):
    found = table([record("FC", 0, [4.0])]).verdict
    assert (found == "cannot be judged").sum() >= len(found) - 3
