"""How runs overflow: the first steps, and what is the first not to be finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_runs import assert_numbers, spread
from torch import nn

from gmlib.study import analysis, datasets
from gmlib.study.analysis import overflow
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.gates import OPEN, SHUT, gates
from gmlib.study.runs.training import build_network, generator_of, train

Configure = Callable[..., RunConfig]


def test_a_row_a_step_until_the_run_is_over(tiny: Configure) -> None:
    config = tiny("BL", epochs=2, snapshots=True)
    record = train(config)
    run = analysis.early_steps(config, 100)
    assert run.step.tolist() == list(range(1, 13))
    assert set(run.not_finite) == {""}
    assert record.curves["train_loss"][-1] == pytest.approx(run.loss[6:].mean(), rel=1e-4)
    for layer in (1, 2):
        for name in ("mu", "sigma", "U", "v"):
            norm = np.linalg.norm(record.snapshots[f"{layer - 1}.{name}"][-1])
            assert run[f"{name}_{layer}"].iloc[-1] == pytest.approx(norm, rel=1e-4)
    pd.testing.assert_frame_equal(analysis.early_steps(config, 3), run.head(3))


@pytest.mark.parametrize("between", ["none", "relu"])
def test_outputs_and_gates_are_those_on_the_batch(
    between: str, tiny: Configure, blobs: datasets.Dataset
) -> None:
    config = tiny("BL", seed=2, between=between)
    (row,) = analysis.early_steps(config, 1).to_dict("records")
    network, _ = build_network(config, blobs)
    order = torch.randperm(96, generator=generator_of(config.seed, "order"))
    inputs = blobs.x_train[order[:16]]
    first, *relu, second = network
    hidden = first(inputs)
    for number, layer, x in ((1, first, inputs), (2, second, relu[0](hidden) if relu else hidden)):
        G = gates(x, layer.mu, layer.sigma)
        expected = [layer(x).abs().max(), (G < SHUT).double().mean(), (G > OPEN).double().mean()]
        found = [row[f"{name}_{number}"] for name in ("largest", "shut", "open")]
        assert found == pytest.approx([value.item() for value in expected], rel=1e-4)


@pytest.mark.parametrize(
    ("arm", "settings", "step", "tensor"),
    [
        ("BL", {"gamma": 1e18}, 1, "output of layer 1"),
        ("BL", {"gamma": 1e9}, 1, "output of layer 2"),
        ("BL", {"gamma": 100.0}, 2, "output of layer 2"),
        ("BL", {"gamma": 1000.0, "lr": 1e30}, 1, "mu, layer 1"),
        ("FC", {"lr": 1e10}, 3, "output of layer 2"),
    ],
)
def test_it_stops_at_the_first_tensor_that_is_not_finite(
    arm: str, settings: dict[str, Any], step: int, tensor: str, tiny: Configure
) -> None:
    run = analysis.early_steps(tiny(arm, **settings), 20)
    assert run.step.iloc[-1] == step
    assert run.not_finite.iloc[-1] == tensor
    assert set(run.not_finite.iloc[:-1]) <= {""}
    assert math.isfinite(run.loss.iloc[-1]) == ("output" not in tensor)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ({"0.mu"}, "gradient of mu, layer 1"),
        ({"0.mu", "0.v", "1.sigma"}, "gradient of sigma, layer 2"),
        ({"1.U", "1.v"}, "gradient of v, layer 2"),
    ],
)
def test_gradients_are_looked_at_from_the_last_back(
    names: set[str], first: str, tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: RunConfig, dataset: datasets.Dataset) -> tuple[nn.Module, object]:
        network, report = build_network(config, dataset)
        for name in names:
            network.get_parameter(name).register_hook(lambda gradient: gradient * math.nan)
        return network, report

    monkeypatch.setattr(overflow, "build_network", build)
    run = analysis.early_steps(tiny("BL"), 20)
    assert run.not_finite.tolist() == [first]
    assert math.isfinite(run.loss.item())


def test_norms_are_finite_where_their_squares_overflow(tiny: Configure) -> None:
    run = analysis.early_steps(tiny("BL", gamma=1000.0, lr=1e15), 1)
    assert run.not_finite.tolist() == [""]
    assert math.sqrt(torch.finfo(torch.float32).max) < run.mu_1.item() < math.inf


def run_of(*losses: float, first: str = "") -> pd.DataFrame:
    """As `analysis.early_steps` gives, of what the table needs."""
    names = [*[""] * (len(losses) - 1), first]
    return pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses, "not_finite": names})


def test_tensors_are_counted() -> None:
    table = analysis.overflow_table(
        [
            run_of(5.0, 1e3, math.nan, first="output of layer 2"),
            run_of(1.0, 2.0),
            run_of(5.0, 7e2, 3e9, math.nan, first="output of layer 2"),
            run_of(math.nan, first="loss"),
        ]
    )
    assert_numbers(
        table,
        {
            "first": "output of layer 2",
            "runs": 2,
            **spread("step", 3.5, 3, 4),
            **spread("loss", (1e3 + 3e9) / 2, 1e3, 3e9),
        },
        {"first": "none", "runs": 1, **spread("step", 2), **spread("loss", 2.0)},
        {"first": "loss", "runs": 1, **spread("step", 1), **spread("loss")},
    )
    assert table.text.to_dict("index")["output of layer 2"] == {
        "runs": 2,
        "at step": "4 (3 to 4)",
        "last finite loss": "2e+09 (1e+03 to 3e+09)",
    }
