"""The scale of outputs at initialization, against draws, inputs and a recursion of the tests'."""

from __future__ import annotations

import itertools
import math
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmlib import GaussianMixtureLayer
from gmlib.init import output_std
from gmlib.study import datasets
from gmlib.study.analysis import scale

BLOBS = "own_runs:blobs"  # 48 test images of 5 x 5 pixels
SIX, FOUR, OBLONG = "squares:six", "squares:four", "squares:oblong"
COLUMNS = ["dataset", "d", "K", "gamma", "init", "draws", "predicted", "measured", "low", "high"]


@pytest.fixture(autouse=True)
def _squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of 300 test images: of 6 x 6 and of 4 x 4 pixels, and of 2 x 3."""

    def images(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
        def load() -> tuple[Tensor, ...]:
            x = 3.0 + 2.0 * torch.randn(310, *shape, generator=torch.Generator().manual_seed(1))
            y = torch.arange(310) % 2
            return x[:10], y[:10], x[10:], y[10:]

        return load

    module = types.ModuleType("squares")
    module.six, module.four, module.oblong = images(6, 6), images(4, 4), images(2, 3)
    monkeypatch.setitem(sys.modules, "squares", module)


def by_hand(images: Tensor, side: int) -> Tensor:
    """Means over blocks, pixel by pixel, each image then of mean 0 and mean square 1."""
    whole = math.isqrt(images.shape[1])
    block = whole // side
    small = np.empty((len(images), side, side))
    pixels = images.double().numpy().reshape(-1, whole, whole)
    for i, j in itertools.product(range(side), range(side)):
        part = pixels[:, i * block : (i + 1) * block, j * block : (j + 1) * block]
        small[:, i, j] = part.mean(axis=(1, 2))
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= np.sqrt((small**2).mean(axis=(1, 2), keepdims=True))
    return torch.from_numpy(small.reshape(len(images), side**2)).float()


def drawn_stds(
    inputs: Tensor, widths: Sequence[int], K: int, gamma: float | None, seed: int
) -> list[float]:
    """Standard deviation of each layer's outputs, of one stack that is drawn from a seed."""
    generator, stds = torch.Generator().manual_seed(seed), []
    for width in widths:
        d = inputs.shape[1]
        layer = GaussianMixtureLayer(d, width, K)
        layer.reset_parameters(math.sqrt(2 / d) if gamma is None else gamma, generator=generator)
        inputs = layer(inputs).detach()
        values = inputs.double().numpy()
        stds.append(float(np.sqrt(np.mean((values - values.mean()) ** 2))))
    return stds


# --- Images of other sizes -----------------------------------------------------------------------


def test_an_image_of_fewer_pixels_by_hand() -> None:
    image = [[0, 2, 5, -1], [1, 1, 3, 1], [3, 3, 7, 6], [4, 2, 5, 6]]
    # Means over blocks 1, 2, 3, 6, of which the mean is 3 and the variance 14 / 4.
    expected = torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / math.sqrt(3.5)
    resized = scale._resized(torch.tensor(image, dtype=torch.float32).view(1, 16), 2)
    torch.testing.assert_close(resized, expected)


@pytest.mark.parametrize("side", [2, 3, 6])
def test_images_keep_their_length_at_every_size(side: int) -> None:
    images = datasets.load(SIX).x_test
    resized = scale._resized(images, side)
    assert resized.shape == (300, side**2)
    assert resized.dtype == torch.float32
    torch.testing.assert_close(resized, by_hand(images, side), rtol=1e-5, atol=1e-6)
    squared_norm = resized.double().square().sum(1)
    torch.testing.assert_close(
        squared_norm, torch.full_like(squared_norm, side**2), rtol=1e-6, atol=0
    )
    assert resized.double().mean(1).abs().max() < 1e-6


def test_images_of_the_size_that_they_have_are_as_they_were() -> None:
    images = datasets.load(SIX).x_test
    torch.testing.assert_close(scale._resized(images, 6), images, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("dataset", "side", "got"),
    [
        (SIX, 4, "4 for 36 features"),
        (SIX, 12, "12 for 36 features"),
        (SIX, 1, "1 for 36 features"),  # one pixel, which is its own mean
        (SIX, 0, "0 for 36 features"),
        (SIX, -3, "-3 for 36 features"),
        (BLOBS, 2, "2 for 25 features"),
        (OBLONG, 2, "2 for 6 features"),
    ],
)
def test_sides_that_do_not_divide_are_refused(dataset: str, side: int, got: str) -> None:
    with pytest.raises(ValueError, match=f"^sides must be at least 2 and divide .* got {got}$"):
        scale.first_layer_scales([dataset], [side], [2], [0.5])


# --- One layer -----------------------------------------------------------------------------------


def test_the_fan_in_scale() -> None:
    assert scale.fan_in_scale(50) == 0.2


def test_a_row_a_setting_with_the_predicted_std(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_drawn_stds", lambda *_: np.ones((1, 1)))
    gammas = [None, 0.25, 2]
    table = scale.first_layer_scales([SIX, FOUR], [2], [3, 500], gammas)
    table = pd.concat([table, scale.first_layer_scales([SIX], [6, 3], [1], [0.5])])
    assert list(table) == COLUMNS
    settings = [
        *((name, 4, K, gamma) for name in (SIX, FOUR) for K in (3, 500) for gamma in gammas),
        *((SIX, d, 1, 0.5) for d in (36, 9)),
    ]
    found = table[["dataset", "d", "K", "gamma", "init"]].itertuples(index=False, name=None)
    assert list(found) == [
        (name, d, K, *((math.sqrt(2 / d), "fan-in") if gamma is None else (gamma, f"{gamma:g}")))
        for name, d, K, gamma in settings
    ]
    for row in table.itertuples():
        assert row.predicted == output_std(row.gamma, row.d, row.K, float(row.d))


def test_more_draws_of_few_components(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, list[int]] = {}

    def spy(gamma: Any, widths: Any, K: int, seeds: Any, inputs: Tensor) -> NDArray[np.float64]:
        drawn[K] = list(seeds)
        assert list(widths) == [9, 10]
        assert inputs.shape == (256, 9)  # of 300
        return np.ones((len(seeds), 1))

    monkeypatch.setattr(scale, "_drawn_stds", spy)
    counts = {1: 400, 3: 133, 30: 13, 40: 10, 41: 10, 1000: 10}
    table = scale.first_layer_scales([SIX], [3], list(counts), [0.5], seed=7)
    assert dict(zip(table.K, table.draws, strict=True)) == counts
    assert drawn == {K: list(range(7, 7 + count)) for K, count in counts.items()}


@pytest.mark.parametrize(("dataset", "side"), [(SIX, 3), (SIX, 6), (BLOBS, 5)])
@pytest.mark.parametrize("gamma", [None, 0.5])
def test_measured_is_the_root_mean_square_over_draws(
    dataset: str, side: int, gamma: float | None
) -> None:
    (row,) = scale.first_layer_scales([dataset], [side], [20], [gamma], seed=3).to_dict("records")
    inputs = by_hand(datasets.load(dataset).x_test[:256], side)
    stds = [drawn_stds(inputs, [10], 20, gamma, 3 + draw)[0] for draw in range(20)]
    found = (row["measured"], row["low"], row["high"])
    mean_square = sum(std**2 for std in stds) / 20
    assert found == pytest.approx((math.sqrt(mean_square), min(stds), max(stds)), rel=1e-5)
    assert row["low"] < row["measured"] < row["high"]


def test_prediction_and_measurement_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of many outputs, because the std is taken about their mean over images and outputs, which
    # with few of them takes a part of the variance with it.
    monkeypatch.setattr(scale, "_NUM_OUTPUTS", 60)
    table = scale.first_layer_scales([SIX], [2, 6], [10], [None, 0.1, 2.0])
    assert table.predicted.max() > 500 * table.predicted.min()
    assert scale.worst_disagreement(table) < 0.04


# --- Through depth -------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [None, 0.5, 0.1])
def test_a_prediction_passes_its_mean_square_on(
    gamma: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "_drawn_stds", lambda *_: np.ones((2, 3)))
    table = scale.stack_scales(SIX, [8, 5, 3], 4, [gamma], draws=2)
    c = 1 / 3 + math.sqrt(3) / (2 * math.pi)
    q, expected = 36.0, []
    for d, width in ((36, 8), (8, 5), (5, 3)):
        g2 = 2 / d if gamma is None else gamma**2
        variance = q * g2**2 / 4 * (c * (1 + (d + 2) * g2) + g2)
        expected.append(math.sqrt(variance))
        q = width * variance
    assert table.predicted.tolist() == pytest.approx(expected, rel=1e-12)
    assert table.layer.tolist() == [1, 2, 3]


def test_stacks_are_measured_layer_by_layer() -> None:
    table = scale.stack_scales(FOUR, [7, 3], 2, [None, 0.5], draws=4, seed=11)
    assert list(table) == ["init", "layer", "predicted", "measured", "low", "high"]
    keys = table[["init", "layer"]].itertuples(index=False, name=None)
    assert list(keys) == [("fan-in", 1), ("fan-in", 2), ("0.5", 1), ("0.5", 2)]
    inputs = datasets.load(FOUR).x_test[:256]
    for gamma, init in ((None, "fan-in"), (0.5, "0.5")):
        stds = np.array([drawn_stds(inputs, [7, 3], 2, gamma, 11 + draw) for draw in range(4)])
        rows = table[table.init == init]
        np.testing.assert_allclose(rows.measured, np.sqrt((stds**2).mean(axis=0)), rtol=1e-5)
        np.testing.assert_allclose(rows.low, stds.min(axis=0), rtol=1e-5)
        np.testing.assert_allclose(rows.high, stds.max(axis=0), rtol=1e-5)


def test_the_first_layer_of_a_stack_is_a_first_layer() -> None:
    stack = scale.stack_scales(SIX, [10, 4], 40, [0.5], draws=10)
    layer = scale.first_layer_scales([SIX], [6], [40], [0.5])
    for column in ("predicted", "measured", "low", "high"):
        assert stack[column][0] == pytest.approx(layer[column][0], rel=1e-6)


def test_prediction_and_measurement_meet_at_every_depth() -> None:
    table = scale.stack_scales(SIX, [60, 60, 60], 10, [None, 0.5], draws=40)
    last = table[table.layer == 3].set_index("init").predicted
    assert last["0.5"] > 2000 * last["fan-in"]
    assert scale.worst_disagreement(table) < 0.06


# --- Both ----------------------------------------------------------------------------------------


def first_layer(seed: int = 0) -> pd.DataFrame:
    return scale.first_layer_scales([SIX], [3], [50], [None], seed)


def stack(seed: int = 0) -> pd.DataFrame:
    return scale.stack_scales(SIX, [4, 3], 5, [None], 3, seed)


@pytest.mark.parametrize("table", [first_layer, stack])
def test_a_seed_decides_and_nothing_global_is_touched(
    table: Callable[[int], pd.DataFrame],
) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = table(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    with torch.random.fork_rng():
        torch.manual_seed(99)
        pd.testing.assert_frame_equal(table(0), first, check_exact=True)
    other = table(1)
    assert (other.measured != first.measured).all()
    assert (other.predicted == first.predicted).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_single_draw_is_its_own_lowest_and_highest(seed: int) -> None:
    table = scale.stack_scales(FOUR, [5, 3], 2, [0.5], draws=1, seed=seed)
    assert (table.low == table.measured).all()
    assert (table.high == table.measured).all()


def test_stack_summary() -> None:
    rows = [("fan-in", 1, 0.0312, 0.031, 1.48e-7, 0.0419), ("0.5", 2, 8159.9, 7100.0, 550.0, 18e3)]
    columns = ["init", "layer", "predicted", "measured", "low", "high"]
    table = scale.stack_summary(pd.DataFrame(rows, columns=columns))
    assert list(table.numbers.itertuples(index=False, name=None)) == rows
    assert table.text.index.names == ["init", "layer"]
    assert table.text.to_dict("index") == {
        ("fan-in", 1): {
            **{"predicted": "0.031", "measured": "0.031"},
            **{"lowest": "1.5e-07", "highest": "0.042"},
        },
        ("0.5", 2): {
            **{"predicted": "8,200", "measured": "7,100"},
            **{"lowest": "550", "highest": "18,000"},
        },
    }


def test_the_worst_disagreement_is_relative_and_to_either_side() -> None:
    table = pd.DataFrame({"predicted": [1.0, 2.0, 400.0], "measured": [1.125, 1.5, 450.0]})
    assert scale.worst_disagreement(table) == 0.25
    table.loc[0, "measured"] = 1.5
    assert scale.worst_disagreement(table) == 0.5
