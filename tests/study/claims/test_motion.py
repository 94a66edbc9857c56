"""What metrics of the motion of components give on paths made by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike

from gmlib.study.claims.results import Result
from gmlib.study.runs.records import RunRecord

Make = Callable[..., RunRecord]
Measure = Callable[..., Result]


@pytest.fixture
def moving(make_record: Make) -> Make:
    """A run whose means lie on given paths of a plane, shape (T, K, 2), of unit variances."""

    def make(arm: str, paths: ArrayLike, sigma: ArrayLike | None = None) -> RunRecord:
        paths = np.asarray(paths, dtype="f4")
        sigma = np.ones_like(paths) if sigma is None else np.asarray(sigma, dtype="f4")
        epochs = len(paths) - 1
        return make_record(
            arm,
            0,
            [0.5] * (epochs + 1),
            snapshots={"0.mu": paths, "0.sigma": sigma},
            widths=(10,),
            num_components=paths.shape[1],
        )

    return make


def test_motion_by_hand(moving: Make, measure: Measure) -> None:
    # One component goes 3 right and then 1 up, the other 4 left and stays.
    run = moving("BL", [[[1, 0], [-1, 0]], [[4, 0], [-5, 0]], [[4, 1], [-5, 0]]])
    far = moving("KUMAR", [[[1, 0], [-1, 0]], [[11, 0], [-11, 0]], [[11, 0], [-11, 0]]])
    later = {"start": 1, "end": -1, "per_epoch": True}
    for space, factor in {"all": 1.0, "plane": 1.0, "relative": math.sqrt(2)}.items():
        found = measure("displacement", [far], [run], compare="means", space=space, per_epoch=True)
        expected = (5.0 / factor, (3.5 + 0.5) / 2 / factor)
        assert found.compared == pytest.approx(expected, rel=1e-6)
        found = measure("displacement", [far], [run], compare="means", space=space, end=1)
        assert found.values[0] == pytest.approx(10 / 3.5)
        found = measure("displacement", [run], compare="means", space=space, end=1, against=later)
        assert found.values[0] == pytest.approx(7.0)
        moved = measure("displacement", [run], space=space)
        assert moved.values.tolist() == pytest.approx([math.sqrt(10) / factor, 4 / factor])
    found = measure("displacement", [far], [run], compare="means", space="plane")
    assert found.values[0] == pytest.approx(20 / (math.sqrt(10) + 4))
    found = measure("radius", [run], compare="lower", epoch=0, against={"epoch": 1})
    assert found.values.tolist() == [True, True]
    assert found.entries == "components"
    found = measure("radius", [far], compare="ratio", epoch=0, against={"epoch": -1})
    assert found.values.tolist() == pytest.approx([1 / 11, 1 / 11])
    # Their directions are 180 degrees less the angle of 1 in 3 apart.
    angle = 180 - math.degrees(math.atan2(1, 3))
    assert measure("apart", [run], degrees=angle - 0.01).values.tolist() == [True]
    assert measure("apart", [run], degrees=angle + 0.01).values.tolist() == [False]


def test_epochs_that_a_run_does_not_have_give_nothing(moving: Make, measure: Measure) -> None:
    run = moving("BL", [[[1, 0], [-1, 0]], [[4, 0], [-5, 0]]])
    later = {"start": 1, "end": -1, "per_epoch": True}
    found = measure("displacement", [run], compare="means", space="all", end=1, against=later)
    assert found.values.empty
    assert measure("displacement", [run], space="all", end=9).values.empty
    found = measure("radius", [run], compare="lower", epoch=0, against={"epoch": 9})
    assert found.values.empty


def test_ellipses_by_hand(moving: Make, measure: Measure) -> None:
    paths = np.broadcast_to([[2.0, 0.0], [-2.0, 0.0]], (3, 2, 2))
    # Circles become ellipses along the first axis; then one of them turns to the second.
    sigma = [[[1, 1], [1, 1]], [[4, 1], [4, 1]], [[4, 1], [1, 9]]]
    run = moving("KUMAR", paths, sigma)
    found = measure("size", [run], compare="ratio", epoch=-1, against={"epoch": 0})
    assert found.values.tolist() == pytest.approx([2.0, 3.0])
    assert measure("rotates", [run], degrees=10).values.tolist() == [False, True]
    twice = moving("BL", paths, 2 * np.ones((3, 2, 2)))
    found = measure("size", [twice], [run], compare="means", epoch=0)
    assert found.values[0] == pytest.approx(2.0)
