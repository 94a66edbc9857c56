"""Several runs as one."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from record_checks import assert_same_run
from torch import Tensor, nn
from training_checks import ARMS, MILD

from gmlib.study import datasets
from gmlib.study.plan import arms
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import training
from gmlib.study.runs.training import build_network, train, train_together

Configure = Callable[..., RunConfig]


def record_batches(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Where the inputs of every gradient step will be, (runs, batch, features)."""
    batches: list[Tensor] = []
    call = training._Networks.__call__

    def spy(networks: Any, inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # evaluation has gradients off
            batches.append(inputs.clone())
        return call(networks, inputs)

    monkeypatch.setattr(training._Networks, "__call__", spy)
    return batches


@pytest.mark.parametrize(
    ("arm", "settings"),
    [("KUMAR", {}), ("FC", {}), ("BL", {"gamma": 0.4}), ("LSUV", {}), ("NEURONS", {})],
    ids=str,
)
def test_runs_trained_together_agree_with_single_ones(
    arm: str, settings: dict[str, float], tiny: Configure
) -> None:
    # 102 steps. Stacked products add up in another order, and so differ in the last bits of
    # float32, 6e-8; steps of these rates leave that at some 5e-7 of a parameter's largest entry.
    # Any wrong batch, rate or start shows at 1e-2. The tolerance is far from both.
    configs = [tiny(arm, s, epochs=17, snapshots=True, **MILD, **settings) for s in (2, 0, 1)]
    together = train_together(configs)
    for config, record in zip(configs, together, strict=True):
        single = train(config)
        assert record.config is config
        assert record.init_report == single.init_report
        assert record.curves["step"] == single.curves["step"] == [0, 1, 2, 3, 4, *range(6, 103, 6)]
        for name in ("test_loss", "train_loss"):
            np.testing.assert_allclose(record.curves[name], single.curves[name], rtol=2e-5)
        # One image whose two best logits are equal but for rounding may fall to either class.
        np.testing.assert_allclose(
            record.curves["test_error"], single.curves["test_error"], atol=1.01 / 48
        )
        assert list(record.snapshots) == list(single.snapshots)
        for name, found in record.snapshots.items():
            expected = single.snapshots[name]
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            np.testing.assert_array_equal(found[0], expected[0], err_msg=name)
            for one, other in zip(found, expected, strict=True):
                error = np.abs(one - other).max()
                assert error <= 1e-5 * max(np.abs(other).max(), 1e-2), name
            assert not np.allclose(expected[0], expected[-1], rtol=1e-3, atol=1e-3), name
        assert record.curves["test_loss"][-1] < 0.8 * record.curves["test_loss"][0]


def test_runs_trained_together_see_the_batches_of_single_ones(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = record_batches(monkeypatch)
    configs = [tiny("KUMAR", seed, epochs=2, batch_size=20) for seed in (2, 0, 1)]
    train_together(configs)
    together = list(batches)
    sizes = 2 * [20, 20, 20, 20, 16]
    assert [tuple(batch.shape) for batch in together] == [(3, size, 25) for size in sizes]
    for run, config in enumerate(configs):
        batches.clear()
        train(config)
        assert all(torch.equal(b[run], s[0]) for b, s in zip(together, batches, strict=True))


def test_runs_trained_together_are_calibrated_as_single_ones(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    kumar_ = arms.kumar_

    def spy(network: nn.Module, inputs: Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(inputs)
        return kumar_(network, inputs, *rest, **more)

    monkeypatch.setattr(arms, "kumar_", spy)
    configs = [tiny("KUMAR", seed, epochs=0) for seed in (2, 0, 1)]
    train_together(configs)
    for config in configs:
        train(config)
    assert len(seen) == 6
    assert all(map(torch.equal, seen[:3], seen[3:]))


def test_one_run_together_with_none_is_a_single_run(tiny: Configure) -> None:
    for arm in ARMS:
        config = tiny(arm, epochs=2, snapshots=True)
        (record,) = train_together([config])
        assert_same_run(record, train(config))
        assert record.provenance["runs_together"] == 1


def test_runs_trained_together_repeat_bit_for_bit(
    tiny: Configure, state: Callable[[], object]
) -> None:
    configs = [tiny("own_runs:draw", seed, snapshots=True) for seed in range(3)]
    before = state()
    first = train_together(configs)
    assert state() == before
    torch.manual_seed(999)
    for one, other in zip(first, train_together(configs), strict=True):
        assert_same_run(one, other)


def test_snapshots_of_runs_trained_together_are_independent(tiny: Configure) -> None:
    configs = [tiny("KUMAR", seed, snapshots=True) for seed in range(3)]
    records = train_together(configs)
    shapes = {"mu": (2, 25), "sigma": (2, 25), "U": (2, 6, 25), "v": (2, 6)}
    for record in records:
        for name, shape in shapes.items():
            assert record.snapshots[f"0.{name}"].shape == (2, *shape)
            assert record.snapshots[f"0.{name}"].dtype == np.float32
    kept = records[1].snapshots["0.mu"].copy()
    records[0].snapshots["0.mu"][:] = 0.0
    np.testing.assert_array_equal(records[1].snapshots["0.mu"], kept)
    assert all(not record.snapshots for record in train_together([tiny(seed=s) for s in (0, 1)]))


def test_runs_trained_together_say_so(tiny: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 106.0])
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=clock.__next__))
    records = train_together([tiny(seed=seed, epochs=0) for seed in range(3)])
    for record in records:
        assert record.wall_time == pytest.approx(2.0)  # a third of 6 seconds
        assert (record.provenance["runs_together"], record.provenance["device"]) == (3, "cpu")
        assert json.loads(json.dumps(record.provenance)) == record.provenance


def test_every_evaluation_of_runs_trained_together_is_told_once(tiny: Configure) -> None:
    configs = [tiny(seed=seed, epochs=2) for seed in (4, 2, 3)]
    calls = itertools.count()
    records = train_together(configs, on_evaluation=lambda: next(calls))
    assert next(calls) == 7
    assert all(len(record.curves["step"]) == 7 for record in records)


@pytest.mark.parametrize(
    "settings",
    [
        [{"seed": 0}, {"seed": 1, "lr": 0.2}],
        [{"seed": 0}, {"seed": 1, "arm": "FC"}],
        [{"seed": 0, "arm": "ZERO"}, {"seed": 1, "arm": "ZERO-LAST"}],
        [{"seed": 0, "arm": "NEURONS"}, {"seed": 1, "arm": "NEURONS", "num_neurons": 20}],
        [{"seed": 0}, {"seed": 1, "snapshots": True}],
        [{"seed": 0}, {"seed": 1}, {"seed": 0}],
        [{"seed": 0}, {"seed": 0, "gamma": 0.1}],  # which KUMAR makes no use of
        [],
    ],
    ids=[
        "a rate",
        "an arm",
        "two of one kind",
        "neurons",
        "snapshots",
        "a seed twice",
        "a run twice",
        "none",
    ],
)
def test_runs_that_cannot_be_trained_together(
    settings: list[dict[str, Any]], tiny: Configure
) -> None:
    configs = [tiny(**each) for each in settings]
    named = ", ".join(config.run_id for config in configs) or "none"
    message = "must differ in the seed and in nothing else, got " + re.escape(named)
    with pytest.raises(ValueError, match=f"{message}$"):
        train_together(configs)


def test_runs_that_differ_in_what_they_make_no_use_of(tiny: Configure) -> None:
    configs = [tiny("FC", 0), tiny("FC", 1, gamma=0.1, num_components=5, num_neurons=7)]
    records = train_together(configs)
    assert [record.config for record in records] == configs


def test_a_run_that_diverges_leaves_the_others_alone(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [tiny("KUMAR", seed, epochs=2, snapshots=True) for seed in range(3)]
    expected = train_together(configs)

    def build(config: RunConfig, dataset: datasets.Dataset) -> tuple[nn.Module, Any]:
        network, report = build_network(config, dataset)
        if config.seed == 1:
            with torch.no_grad():
                network[0].U[0, 0, 0] = math.nan
        return network, report

    monkeypatch.setattr(training, "build_network", build)
    records = train_together(configs)
    assert all(map(math.isnan, records[1].curves["test_loss"]))
    assert all(0.0 <= error <= 1.0 for error in records[1].curves["test_error"])
    for run in (0, 2):
        assert_same_run(records[run], expected[run])
        assert np.isfinite(records[run].snapshots["0.U"]).all()


def test_a_failing_initialization_stops_all_of_them(tiny: Configure) -> None:
    with pytest.raises(ArithmeticError, match="no luck with seed 0"):
        train_together([tiny("own_runs:failing", seed) for seed in range(2)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("runs", [1, 3])
def test_runs_on_a_gpu_agree_with_single_ones(runs: int, tiny: Configure) -> None:
    configs = [tiny("KUMAR", seed, epochs=2, snapshots=True, **MILD) for seed in range(runs)]
    for config, record in zip(configs, train_together(configs, "cuda"), strict=True):
        single = train(config)
        assert record.init_report == single.init_report  # initialized on the CPU
        np.testing.assert_allclose(
            record.curves["test_loss"], single.curves["test_loss"], rtol=1e-4
        )
        for name, found in record.snapshots.items():
            np.testing.assert_array_equal(found[0], single.snapshots[name][0], err_msg=name)
            np.testing.assert_allclose(
                found, single.snapshots[name], rtol=1e-3, atol=1e-4, err_msg=name
            )
        device = record.provenance["device"]
        assert device == f"cuda: {torch.cuda.get_device_name()}"
        assert record.provenance["runs_together"] == runs
