"""Costs: counted by hand, and by what PyTorch sees of the networks; and tables of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_runs import MakeRecord, rows
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gmlib import GaussianMixtureLayer
from gmlib.study import analysis, datasets
from gmlib.study.analysis.budgets import multiplications, num_parameters
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.coordinates import COORDINATES
from gmlib.study.plan.neurons import draw_neurons
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import build_network

# --- Costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters", "products"),
    [
        # Softmax regression: ten rows of 784 weights, ten biases.
        (RunConfig("FC", 0, widths=(10,)), 7_850, 7_840),
        (RunConfig("FC", 0, widths=(100, 10)), 78_400 + 100 + 1_000 + 10, 78_400 + 1_000),
        # mu and sigma, U, v; the squares, mu x and sigma^2 x^2, U sigma^2 x, by F and by G.
        (
            RunConfig("BL", 0, widths=(10,), num_components=1),
            1_568 + 7_840 + 10,
            784 + 1_568 + 7_840 + 20,
        ),
        (
            RunConfig("KUMAR", 0, widths=(10,), num_components=40),
            40 * (1_568 + 7_840 + 10),
            784 + 40 * (1_568 + 7_840 + 20),
        ),
        (
            RunConfig("KUMAR", 0, widths=(100, 10), num_components=1),
            (1_568 + 78_400 + 100) + (200 + 1_000 + 10),
            (784 + 1_568 + 78_400 + 200) + (100 + 200 + 1_000 + 20),
        ),
        (RunConfig("NEURONS", 0, widths=(10,), num_neurons=100), 79_400, 79_400),
        # A is as large as U, and a trained network answers as before.
        (
            RunConfig("KUMAR", 0, widths=(10,), num_components=1, coordinates="folded"),
            1_568 + 7_840 + 10,
            784 + 1_568 + 7_840 + 20,
        ),
        # mu and one sigma, w; the squares, mu x and sigma^2 |x|^2, by F.
        (
            RunConfig("KUMAR", 0, widths=(10,), num_components=40, coordinates="rank 0"),
            40 * (784 + 1 + 10),
            784 + 40 * (784 + 1 + 10),
        ),
        # Twice more a vector of the inputs and one of the outputs; their products, and by G.
        (
            RunConfig("KUMAR", 0, widths=(10,), num_components=40, coordinates="rank 2"),
            40 * (3 * 784 + 1 + 3 * 10),
            784 + 40 * (3 * 784 + 1 + 3 * 10 + 2),
        ),
    ],
    ids=lambda value: f"{value.label} {value.widths}" if isinstance(value, RunConfig) else "",
)
def test_by_hand(config: RunConfig, parameters: int, products: int) -> None:
    assert num_parameters(config, 784) == parameters
    assert multiplications(config, 784) == products


@pytest.mark.parametrize(
    "label", ["FC", "BL", "KUMAR", "NEURONS", *(f"KUMAR, {own}" for own in COORDINATES)]
)
@pytest.mark.parametrize("widths", [(3,), (6, 3), (5, 6, 3)])
def test_as_many_parameters_as_the_network_that_trains(
    label: str, widths: tuple[int, ...], tiny: Any
) -> None:
    arm, _, coordinates = label.partition(", ")
    settings = {"coordinates": coordinates or "affine", "num_components": 4, "num_neurons": 8}
    config = tiny(arm, widths=widths, **settings)
    dataset = datasets.load(config.dataset)
    network, _ = build_network(config, dataset)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert num_parameters(config, dataset.num_features) == count


class _Elementwise(TorchDispatchMode):
    """Counts multiplications of arrays entry by entry, but those of one number a component."""

    def __init__(self, moments: tuple[int, ...]) -> None:
        super().__init__()
        self.moments, self.count = moments, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        products = (torch.ops.aten.mul, torch.ops.aten.pow, torch.ops.aten.addcmul)
        if func.overloadpacket in products and result.shape != self.moments:
            self.count += result.numel()
        return result


def _observed(network: nn.Module, d: int, batch: int, moments: tuple[int, ...]) -> int:
    """Multiplications of a forward: in matrix products by PyTorch's counter, and by entry."""
    x = torch.randn(batch, d)
    flops, entries = FlopCounterMode(display=False), _Elementwise(moments)
    with torch.no_grad(), flops, entries:
        network(x)
    products, odd = divmod(flops.get_total_flops(), 2)  # a multiplication and an addition each
    assert odd == 0
    return products + entries.count


@pytest.mark.parametrize(("d", "C", "K"), [(30, 5, 3), (7, 11, 2), (784, 10, 1)])
def test_the_layer_multiplies_as_often_as_counted(d: int, C: int, K: int) -> None:
    layer = GaussianMixtureLayer(d, C, K)
    # Two batches tell what an input costs from what a batch costs. They are larger than C, or the
    # layer would scale the inputs rather than U.
    small, large = (_observed(layer, d, batch, (K, batch)) for batch in (64, 96))
    config = RunConfig("BL", 0, widths=(C,), num_components=K)
    assert large - small == 32 * multiplications(config, d)
    assert small - 64 * multiplications(config, d) == K * d * (2 * C + 1)  # a batch's


def test_dense_layers_and_neurons_multiply_as_often_as_counted() -> None:
    dense = nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 5))
    expected = multiplications(RunConfig("FC", 0, widths=(8, 5)), 30)
    assert _observed(dense, 30, 64, ()) == 64 * expected
    neurons = draw_neurons(GaussianMixtureLayer(30, 5, 2), 12)
    config = RunConfig("NEURONS", 0, widths=(5,), num_components=2, num_neurons=12)
    assert _observed(neurons, 30, 64, ()) == 64 * multiplications(config, 30)


# --- Networks ------------------------------------------------------------------------------------


def test_budget_table(curve: MakeRecord, make_record: MakeRecord) -> None:
    def small(arm: str, seed: int, *percent: float, K: int = 2, lost: bool = False) -> RunRecord:
        record = curve(arm, seed, *percent, lost=lost)
        return replace(
            record, config=replace(record.config, widths=(4, 3), num_components=K, num_neurons=8)
        )

    records = [
        small("FC", 0, 90, 80, 70, 30, 20),  # 25 on average over its two epochs, 20 at best
        small("FC", 1, 90, 80, 70, 16, 14),
        small("BL", 0, 90, 80, 70, 50, 40),
        small("BL", 1, 90, 80, 70, 90, 90, lost=True),
        small("BL", 0, 90, 80, 70, 90, 90, K=5, lost=True),
        small("NEURONS", 0, 90, 80, 70, 12),
        make_record("FC", 0, [0.9, 0.25], widths=(3,)),
    ]
    table = analysis.budget_table(records, 6)
    assert list(table.columns) == [
        *("network", "arm", "family", "layers", "hidden", "size", "parameters", "multiplications"),
        *("seeds", "diverged", "error", "low", "high"),
    ]
    assert not table.network.str.contains(" ").any()  # names do not break in a table's cell
    table.network = table.network.str.replace("\N{NO-BREAK SPACE}", " ")
    gm = 2 * (2 * 6 + 4 * 6 + 4) + 2 * (2 * 4 + 3 * 4 + 3), 6 + 2 * (36 + 8) + 4 + 2 * (20 + 6)
    neurons = 2 * (8 * (6 + 4) + 8 * (4 + 3),)
    assert rows(table) == [
        (
            "FC 6→4→3",
            "FC",
            "dense",
            2,
            "",
            "n = 4",
            24 + 4 + 12 + 3,
            24 + 12,
            2,
            0,
            20.0,
            15.0,
            25.0,
        ),
        ("BL 6→4→3, K = 2", "BL", "mixture", 2, "4", "K = 2", *gm, 2, 1, 67.5, 45.0, 90.0),
        ("BL 6→4→3, K = 5", "BL", "mixture", 2, "4", "K = 5", 315, 360, 1, 1, 90.0, 90.0, 90.0),
        (
            "NEURONS 6→4→3, n = 8",
            "NEURONS",
            "neurons",
            2,
            "4",
            "n = 8",
            *neurons,
            1,
            0,
            12.0,
            12.0,
            12.0,
        ),
        ("FC 6→3", "FC", "dense", 1, "", "n = 0", 21, 18, 1, 0, 25.0, 25.0, 25.0),
    ]
    assert analysis.budget_table(records, 6, "best").error.tolist()[:2] == [17.0, 65.0]


def test_networks_of_several_hidden_layers(make_record: MakeRecord) -> None:
    records = [make_record(arm, widths=(5, 4, 3), num_components=2) for arm in ("FC", "BL")]
    table = analysis.budget_table(records, 6).replace("\N{NO-BREAK SPACE}", " ", regex=True)
    assert table.network.tolist() == ["FC 6→5→4→3", "BL 6→5→4→3, K = 2"]
    assert table["size"].tolist() == ["n = 5, 4", "K = 2"]
    assert table.hidden.tolist() == ["", "5, 4"]


def test_networks_of_one_size_in_several_coordinates(make_record: MakeRecord) -> None:
    ways = ["affine", "folded", "rank 1"]
    records = [make_record("KUMAR", seed, coordinates=own) for own in ways for seed in (0, 1)]
    table = analysis.budget_table(records, 6).replace("\N{NO-BREAK SPACE}", " ", regex=True)
    assert table.arm.tolist() == ["KUMAR", "KUMAR, folded", "KUMAR, rank 1"]
    assert table.network.tolist() == [
        "KUMAR 6→100→10, K = 10",
        "KUMAR, folded: 6→100→10, K = 10",
        "KUMAR, rank 1: 6→100→10, K = 10",
    ]
    assert table.seeds.tolist() == [2, 2, 2]
    assert table.parameters[0] == table.parameters[1] > table.parameters[2]


def test_a_seed_that_is_lost_does_not_move_the_error_of_a_network(make_record: MakeRecord) -> None:
    records = [make_record("KUMAR", seed, [0.9, e]) for seed, e in enumerate([0.06, 0.9, 0.07])]
    (row,) = rows(analysis.budget_table(records, 6))
    assert row[-3:] == pytest.approx((7.0, 6.0, 90.0))


def test_how_far_the_readouts_have_come(make_record: MakeRecord) -> None:
    def moving(seed: int, mu: float, U: float, **settings: Any) -> RunRecord:
        names = {"0.mu": mu, "0.sigma": 9.0, "0.U": U, "0.v": 9.0, "1.mu": 9.0, "1.U": 9.0}
        movement = {name: [0.0, 0.5, end] for name, end in names.items()}
        return make_record("KUMAR", seed, movement=movement, widths=(4, 3), **settings)

    records = [
        make_record("FC", 0, movement={"0.weight": [0.0, 0.5, 1.0]}, widths=(4, 3)),
        make_record("KUMAR", 0, widths=(4, 3), num_components=9),  # from before it was recorded
        *(moving(seed, mu, U, num_components=2) for seed, mu, U in [(0, 1, 0.1), (1, 3, 0.3)]),
        moving(2, 8, 0.8, num_components=2, losses=[1.0, math.nan, math.nan]),  # lost
        moving(0, 2.5, 0.00012, num_components=7),
    ]
    table = analysis.readout_movement(records, 60)
    numbers, text = table.numbers, table.text
    assert list(numbers.columns) == ["network", "matrix", "mu", "moved", "share"]
    assert numbers.mu.tolist() == [2.0, 2.5]
    assert numbers.moved.tolist() == pytest.approx([0.2, 0.00012])
    parameters = 2 * (2 * 60 + 4 * 60 + 4) + 2 * (2 * 4 + 3 * 4 + 3)
    assert numbers.share.tolist() == pytest.approx([2 * 4 * 60 / parameters] * 2)
    assert list(text.columns) == ["mu moved", "U moved", "share of parameters in U"]
    text.index = text.index.str.replace("\N{NO-BREAK SPACE}", " ")
    assert list(text.itertuples(name=None)) == [
        ("KUMAR 60→4→3, K = 2", "2", "0.2", "62 %"),
        ("KUMAR 60→4→3, K = 7", "2.5", "0.00012", "62 %"),
    ]


def test_how_far_folded_readouts_have_come(make_record: MakeRecord) -> None:
    def moved(coordinates: str, *names: str) -> RunRecord:
        movement = {f"0.{name}": [0.0, 0.1, 0.2 * i] for i, name in enumerate(names, start=1)}
        settings = {"widths": (3,), "num_components": 2, "coordinates": coordinates}
        return make_record("KUMAR", 0, movement=movement, **settings)

    records = [
        moved("affine", "mu", "sigma", "U", "v"),
        moved("folded", "mu", "sigma", "A", "w"),
        moved("rank 1", "mu", "sigma", "P", "Q", "w"),  # has no matrix of this size
    ]
    text = analysis.readout_movement(records, 60).text
    assert list(text.columns) == ["mu moved", "U or A moved", "share of parameters in U or A"]
    text.index = text.index.str.replace("\N{NO-BREAK SPACE}", " ")
    share = f"{2 * 3 * 60 / (2 * (2 * 60 + 3 * 60 + 3)):.0%}".replace("%", " %")
    assert list(text.itertuples(name=None)) == [
        ("KUMAR 60→3, K = 2", "0.2", "0.6", share),
        ("KUMAR, folded: 60→3, K = 2", "0.2", "0.6", share),
    ]


# --- Who beats whom ------------------------------------------------------------------------------


def test_pareto_front_by_hand() -> None:
    costs = [1, 2, 3, 3, 4, 4, 6, 6]
    errors = [9, 9, 7, 6, 6, 5, 2, 2]
    #              dearer worse        dearer     alike: neither beats the other
    expected = [True, False, False, True, False, True, True, True]
    assert analysis.pareto_front(costs, errors).tolist() == expected
    assert analysis.pareto_front([], []).tolist() == []


def test_the_pareto_front_is_all_that_one_could_want() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        costs, errors = rng.integers(0, 12, (2, 20))  # with ties
        front = analysis.pareto_front(costs, errors)
        points = list(zip(costs.tolist(), errors.tolist(), strict=True))
        for (cost, error), kept in zip(points, front, strict=True):
            beaten = any((c, e) != (cost, error) and c <= cost and e <= error for c, e in points)
            assert kept != beaten


@pytest.fixture
def budget() -> pd.DataFrame:
    names = ["FC 6-9-3", "FC 6-3", "FC 6-2-3", "BL 6-3, K = 1", "KUMAR 6-3, K = 1", "BL 6-3, K = 9"]
    errors = [5.0, 8.0, 30.0, 40.0, 8.0, 90.0]
    return pd.DataFrame(
        {
            "network": names,
            "arm": [name.split()[0] for name in names],
            "family": ["dense" if name.startswith("FC") else "mixture" for name in names],
            "size": ["n = 9", "n = 0", "n = 2", "K = 1", "K = 1", "K = 9"],
            "parameters": [1500, 210, 200, 300, 300, 2700],
            "multiplications": [140, 20, 19, 19, 29, 260],
            "seeds": 3,
            "diverged": [0, 0, 0, 2, 0, 3],
            "error": errors,
            "low": [4.0, 8.0, 29.0, 40.0, 7.5, 90.0],
            "high": [6.0, 8.0, 31.0, 40.0, 8.25, 90.0],
        }
    )


def test_budget_summary(budget: pd.DataFrame) -> None:
    budget.loc[3, ["multiplications", "error", "low", "high"]] = (18, 8.0, 8.0, 8.0)
    table = analysis.budget_summary(budget)
    numbers = table.numbers
    assert numbers.parameters.tolist() == [200, 210, 300, 300, 1500, 2700]
    assert numbers.error_low.tolist() == [29.0, 8.0, 8.0, 7.5, 4.0, 90.0]
    front = ["parameters", "parameters", "multiplications", None, "both", None]
    assert numbers.front.replace({math.nan: None}).tolist() == front
    assert list(table.text.columns) == [
        *("parameters", "multiplications", "diverged", "test error (%)", "on the front"),
    ]
    assert list(table.text.itertuples(name=None)) == [  # from the smallest on
        ("FC 6-2-3", "200", "19", "0 of 3", "30.00 (29.00 to 31.00)", "parameters"),
        ("FC 6-3", "210", "20", "0 of 3", "8.00", "parameters"),
        ("BL 6-3, K = 1", "300", "18", "2 of 3", "8.00", "multiplications"),
        ("KUMAR 6-3, K = 1", "300", "29", "0 of 3", "8.00 (7.50 to 8.25)", "–"),
        ("FC 6-9-3", "1,500", "140", "0 of 3", "5.00 (4.00 to 6.00)", "both"),
        ("BL 6-3, K = 9", "2,700", "260", "3 of 3", "90.00", "–"),
    ]


def test_against_dense(budget: pd.DataFrame) -> None:
    def compared(table: pd.DataFrame, cost: str = "parameters") -> list[tuple[Any, ...]]:
        numbers = analysis.against_dense(table, cost).numbers
        assert list(numbers.columns) == [
            *("network", "error", "as_good", "cost_ratio", "affordable", "affordable_error"),
        ]
        return [tuple(None if pd.isna(value) else value for value in row) for row in rows(numbers)]

    assert compared(budget) == compared(budget, "parameters")
    assert compared(budget[:3]) == []  # all are dense
    assert compared(budget) == [
        ("BL 6-3, K = 1", 40.0, "n = 2", 1.5, "n = 0", 8.0),
        ("KUMAR 6-3, K = 1", 8.0, "n = 0", 300 / 210, "n = 0", 8.0),
        ("BL 6-3, K = 9", 90.0, "n = 2", 13.5, "n = 9", 5.0),
    ]
    cheap = budget.assign(multiplications=[140, 20, 25, 19, 29, 260])
    assert compared(cheap, "multiplications")[:2] == [
        ("BL 6-3, K = 1", 40.0, "n = 0", 19 / 20, None, None),  # none is that cheap
        ("KUMAR 6-3, K = 1", 8.0, "n = 0", 29 / 20, "n = 0", 8.0),
    ]
    alike = budget.assign(parameters=[1500, 300, 200, 300, 300, 2700])
    assert compared(alike)[0][4:] == ("n = 0", 8.0)  # one that costs as much is in the budget
    better = budget.assign(error=[5.0, 8.0, 30.0, 40.0, 4.0, 90.0])
    assert compared(better)[1][2:] == (None, None, "n = 0", 8.0)  # no dense network is as good


def test_against_dense_as_it_is_read(budget: pd.DataFrame) -> None:
    cheap = budget.assign(multiplications=[140, 20, 25, 19, 29, 260])
    text = analysis.against_dense(cheap, "multiplications").text
    assert text.columns.name == "network"
    assert not [cell for _, *row in text.itertuples() for cell in row if " " in cell]
    text = text.replace("\N{NO-BREAK SPACE}", " ", regex=True)
    assert list(text.columns) == [
        *("error", "FC as good", "cost ratio", "FC in its budget", "its error"),
    ]
    assert list(text.itertuples(name=None))[:2] == [
        ("BL 6-3, K = 1", "40.00", "n = 0", "0.9", "–", "–"),
        ("KUMAR 6-3, K = 1", "8.00", "n = 0", "1.4", "n = 0", "8.00"),
    ]
    none = analysis.against_dense(budget[:3]).text
    assert (len(none), none.columns.name) == (0, "network")
    assert list(none.columns) == list(text.columns)
