"""What metrics give on records made by hand."""

import math
from collections.abc import Callable

import pytest

from gmlib.study.claims.results import Result
from gmlib.study.runs.records import RunRecord

Make = Callable[..., RunRecord]
Measure = Callable[..., Result]


def test_errors(record: Make, measure: Measure) -> None:
    runs = [
        record("BL", 1, [9, 3, 5]),
        record("BL", 0, [8, 4]),
        record("BL", 2, [1], losses=[1, *[math.nan] * 20]),
    ]
    expected = {
        "epoch 1": [8, 9],
        "epoch 2": [4, 3],
        "best": [4, 3],
        "final": [4, 5],
        "smoothed": [4, 5],
        "auc": [4.2, 5.1],
    }
    for name, errors in expected.items():
        found = measure("error", runs, measures=[name])
        assert found.values.tolist() == pytest.approx(errors)
    assert measure("best_epoch", runs).values.tolist() == [2, 2]


def test_the_worst_of_five_seeds(record: Make, measure: Measure) -> None:
    errors = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    runs = [record("BL", seed, [error]) for seed, error in enumerate(errors)]
    lost = record("BL", 12, [90], losses=[1, *[math.nan] * 20])
    found = measure("worst_of_five", [lost, *reversed(runs)], measure="epoch 1")
    assert found.values.tolist() == [5, 9]  # by seed; the last two are no group
    assert len(found.interval) == 2
    assert measure("worst_of_five", runs[:4], measure="final").values.empty


def test_runs_that_diverged_are_counted(record: Make, measure: Measure) -> None:
    runs = [record("BL", 0, [9]), record("BL", 1, [9], losses=[1, *[math.nan] * 20])]
    assert measure("trains", runs).values.tolist() == [True, False]
    assert measure("trains", runs, count_diverged=True).values.tolist() == [1]
    # One that diverged has not got there, but is no entry of a mean.
    assert measure("reaches", runs, threshold=5).values.tolist() == [False, False]
    assert measure("steps_to", runs, threshold=10).values.tolist() == [938]


def test_the_scale_at_the_start(record: Make, measure: Measure) -> None:
    runs = [record("BL", 0, [9])]  # of which the layers have 0.5
    assert measure("initial_std", runs, layer=1).values.tolist() == [0.5]
    found = measure("initial_std", runs, layer=-1, relative_to=0.25)
    assert found.values.tolist() == [2.0]
    found = measure("initial_std", runs, layer=-1, relative_to=0.25, inverse=True)
    assert found.values.tolist() == [0.5]


def test_how_long_the_loss_is_above_guessing(record: Make, measure: Measure) -> None:
    slow = record("BL", 0, [50], losses=[50, 2, 50, *[1] * 18])  # falls back once
    fast = record("KUMAR", 0, [50], losses=[2.4, *[1] * 20])
    found = measure("steps_above_guessing", [fast], [slow], compare="lower")
    assert found.values.tolist() == [True]
    found = measure("steps_above_guessing", [slow], [fast], compare="lower")
    assert found.values.tolist() == [False]
    never = record("BL", 0, [50], losses=[1] * 21)
    assert measure("steps_above_guessing", [never]).values.tolist() == [-1]


@pytest.mark.parametrize(("gm_error", "on_it"), [(0.10, True), (0.30, False)])
def test_the_front(gm_error: float, on_it: bool, make_record: Make, measure: Measure) -> None:
    settings = {"num_components": 1, "epochs": 2}
    small = make_record("FC", 0, [0.9, 0.2, 0.2], widths=(10,), **settings)  # the cheapest
    large = make_record("FC", 0, [0.9, 0.15, 0.15], widths=(100, 10), **settings)
    layer = make_record("KUMAR", 0, [0.9, gm_error, gm_error], widths=(10,), **settings)
    found = measure("on_the_front", [small, large], [layer], num_features=784)
    assert found.values.tolist() == [on_it]
