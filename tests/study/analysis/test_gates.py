"""Fates of clouds: from shares of images that are laid out by hand, and from a run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy
from gated_runs import gated
from made_runs import assert_numbers, rows, spread

from gmlib.study import analysis
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import train

Ends = Callable[..., RunRecord]

# By evaluation, at the steps 0, 1, 3, 10 and 20, the last two of which are ends of epochs. The
# first cloud never dies, the second does in the first epoch and stays dead, the third dies and
# comes back, the fourth is dead at the start and again at the end.
FATES = [
    [0.00, 0.10, 0.20, 0.95],
    [0.10, 0.94, 0.20, 0.30],
    [0.20, 0.95, 0.96, 0.40],
    [0.30, 0.99, 0.95, 0.50],
    [0.94, 1.00, 0.94, 0.96],
]


@pytest.fixture
def two_epochs(ends: Ends) -> Ends:
    """A run of two epochs with given errors (%) at their ends."""

    def make(arm: str, seed: int, first: float = 50.0, last: float = 6.0, **settings: Any) -> Any:
        return ends(arm, seed, first, last, **settings)

    return make


# --- Tidy tables ---------------------------------------------------------------------------------


def test_gates_are_those_of_a_run(tiny: Callable[..., RunConfig]) -> None:
    record = train(tiny("BL", seed=3, gates=True, epochs=2))
    table = analysis.gates_table([record])
    assert list(table) == ["arm", "seed", "layer", "cloud", "step", "epoch", "shut", "open"]
    steps = record.curves["step"]
    assert len(table) == 2 * 2 * len(steps)  # layers, clouds, evaluations
    for layer, cloud in itertools.product((1, 2), (1, 2)):
        own = table[(table.layer == layer) & (table.cloud == cloud)]
        assert own.step.tolist() == steps
        assert own.epoch.tolist() == pytest.approx([step / 6 for step in steps])
        for way in ("shut", "open"):
            expected = [row[cloud - 1] for row in record.gates[f"{layer - 1}.{way}"]]
            assert own[way].tolist() == expected
    assert set(table.arm) == {"BL"}
    assert set(table.seed) == {3}


def test_runs_that_diverged_or_have_no_gates_are_left_out(two_epochs: Ends) -> None:
    lost = gated(two_epochs("BL", 0, lost=True), FATES)
    without = two_epochs("BL", 1)
    kept = gated(two_epochs("BL", 2), FATES)
    assert set(analysis.gates_table([lost, without, kept]).seed) == {2}
    empty = analysis.gates_table([lost, without])
    assert empty.empty
    assert list(empty) == list(analysis.gates_table([kept]))


def test_fates(two_epochs: Ends) -> None:
    open_at_the_end = np.zeros((5, 4))
    open_at_the_end[-1] = [0.95, 0.0, 0.0, 0.94]
    open_at_the_end[0, 1] = 1.0
    record = gated(two_epochs("BL", 7), FATES, is_open=[open_at_the_end])
    clouds = analysis.fates(analysis.gates_table([record]))
    assert list(clouds) == [
        *("arm", "seed", "layer", "cloud", "first_epoch", "end", "died", "linear")
    ]
    assert rows(clouds.drop(columns=["arm", "seed", "layer", "died"])) == [
        (1, False, False, True),
        (2, True, True, False),
        (3, True, False, False),
        (4, False, True, False),
    ]
    np.testing.assert_array_equal(clouds.died, [math.nan, 3, 3, 0])


def test_fates_at_another_threshold(two_epochs: Ends) -> None:
    clouds = analysis.fates(analysis.gates_table([gated(two_epochs("BL", 7), FATES)]), 0.99)
    np.testing.assert_array_equal(clouds.died, [math.nan, 10, math.nan, math.nan])
    assert clouds.end.tolist() == [False, True, False, False]


def test_live_clouds_are_those_that_are_not_dead(two_epochs: Ends) -> None:
    gates = analysis.gates_table([gated(two_epochs("BL", 7), FATES, [[0.0, 1.0]] * 5)])
    live = analysis.live_table(gates)
    assert list(live) == ["arm", "seed", "layer", "step", "epoch", "live"]
    assert live[live.layer == 1].live.tolist() == [3, 4, 2, 2, 2]
    assert live[live.layer == 2].live.tolist() == [1] * 5
    assert analysis.live_table(gates, 0.99).live.tolist() == [4, 4, 4, 3, 3] + [1] * 5
    assert live.step.tolist() == [0, 1, 3, 10, 20] * 2


def test_the_first_epoch_of_a_run_without_epochs_is_its_start(make_record: Ends) -> None:
    record = gated(make_record("BL", 0, [0.9], [0]), [[1.0, 0.0]])
    clouds = analysis.fates(analysis.gates_table([record]))
    assert clouds.first_epoch.tolist() == clouds.end.tolist() == [True, False]


# --- Counts --------------------------------------------------------------------------------------


def test_deaths_table(two_epochs: Ends) -> None:
    alive = np.zeros((5, 4)).tolist()
    runs = {
        "cold": [
            gated(two_epochs("BL", 0), FATES, alive),
            gated(two_epochs("BL", 1), [[0, 0, 0, 1.0]] * 5, alive),
            gated(two_epochs("BL", 2, lost=True), FATES, alive),
        ],
        "warm": [gated(two_epochs("BL", 0, warmup=3), alive)],
    }
    table = analysis.deaths_table(runs)

    def row(variant: str, layer: int, seeds: int, **numbers: Any) -> dict[str, Any]:
        never = {"died": 0, "came_back": 0, **spread("step")}
        zero = {
            name: value
            for column in ("most", "first_epoch", "end", "linear")
            for name, value in spread(column, 0.0).items()
        }
        own = {"variant": variant, "layer": layer, "seeds": seeds, "diverged": 0}
        return {**own, **never, **zero, **numbers}

    assert_numbers(
        table,
        row(
            *("cold", 1, 3),
            diverged=1,
            died=4,
            came_back=1,
            **spread("step", 1.5, 0, 3),
            **spread("most", 1.5, 1, 2),
            **spread("first_epoch", 1.5, 1, 2),
            **spread("end", 1.5, 1, 2),
        ),
        row("cold", 2, 3, diverged=1),
        row("warm", 1, 1),
    )
    assert table.text.loc[("cold", 1)].to_dict() == {
        "diverged": "1 of 3",
        "dead, at most": "1.5 (1 to 2)",
        "dead, epoch 1": "1.5 (1 to 2)",
        "dead, end": "1.5 (1 to 2)",
        "step of death": "2 (0 to 3)",
        "came back": "1 of 4",
        "linear, end": "0.0",
    }
    assert table.text.loc[("warm", 1), "step of death"] == "–"


def test_deaths_where_all_seeds_diverged(two_epochs: Ends) -> None:
    lost = gated(two_epochs("BL", 0, lost=True), FATES)
    assert analysis.deaths_table({"BL": [lost]}).text.empty
    both = {"BL": [lost], "KUMAR": [gated(two_epochs("KUMAR", 0), FATES)]}
    assert analysis.deaths_table(both).numbers.variant.tolist() == ["KUMAR"]


def test_blackouts(two_epochs: Ends) -> None:
    dark, light = [1.0, 1.0], [1.0, 0.0]
    runs = {
        "BL": [
            gated(two_epochs("BL", 0, 60, 50), [light, dark, dark, light, dark]),
            gated(two_epochs("BL", 1, 60, 55), [light, light, dark, dark, dark]),
            gated(two_epochs("BL", 2, lost=True), [dark] * 5),
        ],
        "KUMAR": [gated(two_epochs("KUMAR", 0, 50, 6), [light] * 5, [light] * 5)],
    }
    table = analysis.blackouts_table(runs, 55.0).text
    assert list(table.index) == [("BL", 1), ("KUMAR", 1), ("KUMAR", 2)]
    assert table.loc[("BL", 1)].to_dict() == {
        "runs": "2 of 2",
        "from step": "2 (1 to 3)",
        "until step": "10",  # of the run in which they came back
        "error of 55 % by step": "1",
    }
    assert table.loc[("KUMAR", 2)].tolist() == ["0 of 1", "–", "–", "1"]


def test_deaths_by_threshold(two_epochs: Ends) -> None:
    table = analysis.deaths_thresholds({"BL": [gated(two_epochs("BL", 0), FATES)]}, [0.9, 0.99])
    assert rows(table.numbers[["threshold", "first_epoch", "end"]]) == [(0.9, 2, 4), (0.99, 1, 1)]
    assert table.text.loc[("BL", 1)].to_dict() == {
        "epoch 1, 90 %": "2.0",
        "end, 90 %": "4.0",
        "epoch 1, 99 %": "1.0",
        "end, 99 %": "1.0",
    }


def test_clouds_table(two_epochs: Ends) -> None:
    runs = [gated(two_epochs(arm, 0), FATES) for arm in ("BL", "KUMAR")]
    table = analysis.clouds_table(runs).text
    assert list(table.index) == [(arm, time) for arm in ("BL", "KUMAR") for time in ("0", "1", "2")]
    assert list(table) == [f"cloud {cloud}" for cloud in (1, 2, 3, 4)]
    assert table.loc[("KUMAR", "1")].tolist() == ["30 %", "99 %", "95 %", "50 %"]


# --- Beside the error ----------------------------------------------------------------------------


def test_dead_clouds_of_all_layers_beside_the_error(two_epochs: Ends) -> None:
    runs = {
        "BL": [
            gated(two_epochs("BL", 0, 50, 6), FATES, FATES),
            gated(two_epochs("BL", 1, lost=True), FATES, FATES),
        ],
        "KUMAR": [gated(two_epochs("KUMAR", 1, 10, 4), FATES)],
    }
    counts = analysis.dead_and_error(runs)
    assert list(counts) == ["arm", "seed", "first_epoch", "end", "smoothed"]
    assert rows(counts) == [("BL", 0, 4, 4, 28.0), ("KUMAR", 1, 2, 2, 7.0)]


def test_correlations_by_variant(two_epochs: Ends) -> None:
    def run(arm: str, seed: int, dead: int, **settings: Any) -> RunRecord:
        shares = [[float(cloud < dead) for cloud in range(6)]] * 5
        return gated(two_epochs(arm, seed, 50, 4 + seed, **settings), shares)

    runs = {
        "BL": [run("BL", seed, dead) for seed, dead in enumerate([1, 2, 0, 4, 6])],
        "KUMAR": [run("KUMAR", seed, 0) for seed in range(3)],
    }
    runs["BL"].append(run("BL", 9, 0, lost=True))
    numbers = analysis.error_correlations(runs).numbers.set_index("variant")
    expected = analysis.spearman([1, 2, 0, 4, 6], range(5))
    for name in ("first_epoch", "end"):
        columns = [f"{name}_{part}" for part in ("rho", "low", "high", "p")]
        assert numbers.loc["BL", columns].tolist() == pytest.approx(expected)
        assert numbers.loc["KUMAR", columns].isna().all()  # all equal
    assert numbers.runs.to_dict() == {"BL": 5, "KUMAR": 3}
    assert numbers.diverged.to_dict() == {"BL": 1, "KUMAR": 0}


@pytest.mark.parametrize("seed", range(3))
def test_spearman_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 4, 6), rng.normal(size=6)
    rho, low, high, p = analysis.spearman(x, y)
    assert rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert -1 < low < rho < high < 1
    shuffled = [
        scipy.stats.spearmanr(x, own).statistic for own in itertools.permutations(y.tolist())
    ]
    tails = [np.mean(sign * (np.array(shuffled) - rho) >= -1e-9) for sign in (1, -1)]
    assert p == pytest.approx(min(1.0, 2 * min(tails)))


def test_the_interval_of_spearman_covers() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=(60, 20))
    truth = 6 / np.pi * np.arcsin(0.25)
    ends = np.array([analysis.spearman(*own.T)[1:3] for own in pairs])
    assert 0.85 < np.mean((ends[:, 0] < truth) & (truth < ends[:, 1])) <= 1.0


@pytest.mark.parametrize("pairs", [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3])])
def test_no_correlation_of_nothing(pairs: Any) -> None:
    assert np.isnan(analysis.spearman(*pairs)).all()


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_full_or_tiny_correlation_has_no_interval(n: int) -> None:
    rho, low, high, p = analysis.spearman(range(n), range(n))
    assert rho == pytest.approx(1.0)
    assert np.isnan([low, high]).all()
    assert p == pytest.approx(2 / math.factorial(n))


# --- Warm-up -------------------------------------------------------------------------------------


def test_lag_table(two_epochs: Ends) -> None:
    runs = {
        "BL": [two_epochs("BL", 0, 50, 10), two_epochs("BL", 1, 60, 8)],
        "warm": [two_epochs("BL", 0, 30, 10, warmup=9), two_epochs("BL", 1, lost=True, warmup=9)],
        "KUMAR": [two_epochs("KUMAR", seed, 10, 4) for seed in (0, 1)],
    }
    table = analysis.lag_table(runs, ["BL", "KUMAR"])
    text = table.text
    assert text.diverged.tolist() == ["0 of 2", "1 of 2", "0 of 2"]
    assert text["epoch 1"].tolist() == ["55.0 (50.0 to 60.0)", "30.0", "10.0"]
    assert text.smoothed.tolist() == ["32.00 (30.00 to 34.00)", "20.00", "7.00"]
    assert text["smoothed, less BL's"].tolist() == ["–", "-10.00, 1", "-25.00 [-50.41, +0.41], 2"]
    assert text["smoothed, less KUMAR's"].tolist()[1:] == ["+13.00, 1", "–"]
    assert table.numbers.less_1.tolist()[:2] == [25.0, 13.0]
