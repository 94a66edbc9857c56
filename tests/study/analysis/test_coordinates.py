"""What a step does to the folded readout: against autograd, and against the step itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.func import jacrev, jvp
from torch.nn.functional import cross_entropy

from gmlib import functional
from gmlib.study import analysis, datasets
from gmlib.study.plan.beyond import PREDICTED
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import build_network, train

Configure = Callable[..., RunConfig]
K, C, D = 3, 2, 4


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_the_step_is_the_chain_rule() -> None:
    mu, sigma, U, v = draw(K, D), draw(K, D), draw(K, C, D), draw(K, C)
    x, labels = draw(20, D), torch.arange(20) % C
    A, w = functional.fold(mu, sigma, U, v)

    def slopes(function: Callable[..., Tensor], *parameters: Tensor) -> tuple[Tensor, ...]:
        leaves = [p.clone().requires_grad_() for p in parameters]
        return torch.autograd.grad(cross_entropy(function(x, *leaves), labels), leaves)

    in_affine = slopes(functional.gm_layer, mu, sigma, U, v)
    in_folded = slopes(functional.gm_layer_folded, mu, sigma, A, w)
    lr, lr_sigma = 0.3, 2.0
    moves = tuple(
        -rate * slope for rate, slope in zip((lr, lr_sigma, lr, lr), in_affine, strict=True)
    )
    _, (dA, dw) = jvp(functional.fold, (mu, sigma, U, v), moves)
    names = ("mu", "sigma", "A", "w")
    found = analysis.affine_step(
        dict(zip(names, (mu, sigma, A, w), strict=True)),
        dict(zip(names, in_folded, strict=True)),
        lr,
        lr_sigma,
    )
    for name, expected in zip(names, (*moves[:2], dA, dw), strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


COORDINATES = {
    "affine": (("U", "v"), lambda mu, sigma, U, v: functional.fold(mu, sigma, U, v)),
    "folded": (("A", "w"), lambda mu, sigma, A, w: (A, w)),
    "centered": (
        ("U", "w"),
        lambda mu, sigma, U, w: (U * sigma.square().unsqueeze(1) / len(mu), w / len(mu)),
    ),
    "centered and whitened": (
        ("W", "w"),
        lambda mu, sigma, W, w: (W * sigma.unsqueeze(1) / len(mu), w / len(mu)),
    ),
}


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_effective_rates_are_the_diagonal_of_a_jacobian(
    coordinates: str, tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny("BL", coordinates=coordinates, lr=0.2, lr_sigma=0.6, rate_factors={"mu": 0.5})
    rates = analysis.effective_rates([config])
    network, _ = build_network(config, blobs)
    readout, to_folded = COORDINATES[coordinates]
    names = ("mu", "sigma", *readout)
    assert set(rates.layer) == {1, 2}
    for number, layer in enumerate(network, start=1):
        values = tuple(getattr(layer, name).detach().double() for name in names)
        jacobians = jacrev(to_folded, argnums=(0, 1, 2, 3))(*values)
        for part, own in zip(("A", "w"), jacobians, strict=True):
            for name, jacobian in zip(names, own, strict=True):
                axes = tuple(range(3 if part == "A" else 2, jacobian.ndim))
                expected = jacobian.square().sum(axes).mean().item()
                expected *= {"mu": 0.5, "sigma": 3.0}.get(name, 1.0)
                found = rates[
                    (rates.layer == number) & (rates.part == part) & (rates.parameter == name)
                ].rate
                assert found.sum() == pytest.approx(expected, rel=1e-5)


def test_rates_are_not_made_up_where_they_are_not_known(tiny: Configure) -> None:
    with pytest.raises(ValueError, match="no rates are known in 'whitened' coordinates"):
        analysis.effective_rates([tiny(coordinates="whitened")])


@pytest.mark.parametrize("coordinates", ["affine", "folded"])
@pytest.mark.parametrize("arm", ["FAN-IN", "KUMAR", "BL"])
def test_the_first_step_is_predicted_where_it_is_short(
    arm: str, coordinates: str, tiny: Configure
) -> None:
    config = tiny(arm, coordinates=coordinates)
    moves = analysis.first_moves([config], 1e-5)
    assert moves.part.tolist() == ["mu", "sigma", "A", "w", "all"]
    assert (moves.measured > 0).all()
    assert (moves.error < 0.01).all()
    # A step of twice the length goes twice as far.
    twice = analysis.first_moves([config], 2e-5)
    np.testing.assert_allclose(twice.predicted, 2 * moves.predicted, rtol=1e-9)
    np.testing.assert_allclose(twice.measured, 2 * moves.measured, rtol=0.01)


@pytest.mark.parametrize("coordinates", ["affine", "folded"])
def test_the_measured_step_is_that_of_training(
    coordinates: str, tiny: Configure, blobs: datasets.Dataset
) -> None:
    batch = len(blobs.x_train)
    config = tiny(
        "KUMAR", coordinates=coordinates, batch_size=batch, snapshots=True, lr=0.02, lr_sigma=0.1
    )
    record = train(config)
    network, _ = build_network(config, blobs)
    start = network(blobs.x_test).detach()
    network.load_state_dict({n: torch.from_numpy(v[-1]) for n, v in record.snapshots.items()})
    moved = (network(blobs.x_test) - start).square().mean().sqrt().item()
    moves = analysis.first_moves([config]).set_index("part")
    assert len(blobs.x_test) <= 1000  # all of which are looked at
    assert moves.measured["all"] == pytest.approx(moved, rel=1e-3)


def test_in_affine_coordinates_the_covariances_hardly_move(tiny: Configure) -> None:
    affine, folded = (
        analysis.first_moves([tiny("FAN-IN", coordinates=name)], 1e-3).set_index("part").measured
        for name in ("affine", "folded")
    )
    assert affine["mu"] == pytest.approx(folded["mu"], rel=0.5)
    assert affine["A"] < folded["A"]


def test_tables_are_medians_over_seeds() -> None:
    rates = pd.DataFrame(
        [
            ("KUMAR", "affine", seed, layer, "A", "U", rate)
            for seed, rate in enumerate([1e-8, 6.5e-8, 1e-7])
            for layer, rate in ((1, rate), (2, 100 * rate))
        ],
        columns=["arm", "coordinates", "seed", "layer", "part", "parameter", "rate"],
    )
    table = analysis.rates_table(rates)
    assert table.numbers.rate.tolist() == [6.5e-8, 6.5e-6]
    assert table.text.to_dict("index") == {
        ("KUMAR", "affine", "A, by U"): {"layer 1": "6.5e-08", "layer 2": "6.5e-06"}
    }
    moves = pd.DataFrame(
        [("BL", "folded", seed, "A", 1.0 + seed, 2.0, 0.5) for seed in range(3)],
        columns=["arm", "coordinates", "seed", "part", "measured", "predicted", "error"],
    )
    assert analysis.moves_table(moves).text.to_dict("index") == {
        ("BL", "folded", "A"): {
            "logits move by": "2",
            "predicted": "2",
            "difference": "50.0 %",
        }
    }


def test_seeds_and_starts_are_told_apart(tiny: Configure) -> None:
    configs = [tiny("FAN-IN", seed) for seed in (0, 1)]
    configs.append(dataclasses.replace(configs[0], coordinates="folded"))
    moves = analysis.first_moves(configs, 0.1)
    assert moves.groupby(["coordinates", "seed"], sort=False).ngroups == 3
    assert len(moves) == 15


def test_predictions_are_judged_by_their_own_number_of_layers(
    make_record: Callable[..., RunRecord],
) -> None:
    bounds = {"one layer, affine": 0.09, "one layer, folded": 0.04, "affine": 0.08, "folded": 0.02}
    errors = {**bounds, **dict.fromkeys(PREDICTED, 0.05)}
    errors["folded, LSUV"] = 0.03
    records = {
        name: [
            make_record(
                "KUMAR",
                seed,
                [0.9, error + change],
                widths=(10,) if name.startswith("one layer") else (100, 10),
            )
            for seed, change in enumerate((-0.01, 0.01))
        ]
        for name, error in errors.items()
    }
    table = analysis.prediction_table(records)
    assert list(table.text.index) == list(PREDICTED)
    rows = table.numbers.set_index("setting")
    single = [name for name in PREDICTED if name.startswith("one layer")]
    assert rows.bound[single].tolist() == pytest.approx([6.0] * len(single))
    assert rows.bound[[n for n in PREDICTED if n not in single]].tolist() == pytest.approx(
        [4.0] * 5
    )
    # 5 % is fast for a single layer, and slow for the stack; 3 % is fast for it.
    for name, (fast, _, _) in PREDICTED.items():
        found = name in single or name == "folded, LSUV"
        assert rows.verdict[name] == ("as predicted" if found == fast else "otherwise"), name
    assert table.text.loc["folded, LSUV"].to_dict() == {
        "because": "A moves at rate 1",
        "predicted": "fast",
        "error (%)": "3.0 (2.0 to 4.0)",
        "fast below": "4.0",
        "outcome": "as predicted",
    }
