"""Where runs are trained: an accelerator, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sweeping import bars

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import places, sweeps
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import SweepError, sweep
from gmlib.study.runs.training import train, train_together

Configure = Callable[..., RunConfig]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[list[RunConfig]]:
    """What is trained together from now on, on the CPU in the place of an accelerator."""
    groups: list[list[RunConfig]] = []

    def spy(group, device):
        groups.append(list(group))
        assert device.type == "cuda"
        return train_together(group, "cpu")

    monkeypatch.setattr(sweeps, "usable_device", torch.device)
    monkeypatch.setattr(places, "train_together", spy)
    return groups


def test_on_an_accelerator_the_seeds_of_an_arm_train_together(
    tiny: Configure,
    ledger: Ledger,
    together: list[list[RunConfig]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    configs = [tiny(arm, seed) for seed in (0, 1, 2) for arm in ("KUMAR", "FC")]
    known = train(configs[0])
    ledger.put(known)
    records = sweep(configs, ledger, device="cuda")
    assert together == [[configs[1], configs[3], configs[5]], [configs[2], configs[4]]]
    assert [record.config.run_id for record in records] == [config.run_id for config in configs]
    assert [record.provenance["runs_together"] for record in records] == [1, 3, 2, 3, 2, 3]
    assert all(config in ledger for config in configs)
    assert bars(capfd.readouterr().err)[-1].startswith("5/5 runs")


def test_an_arm_that_fails_on_an_accelerator_costs_no_other(
    tiny: Configure, ledger: Ledger, together: list[list[RunConfig]]
) -> None:
    configs = [tiny("own_runs:failing", 0), tiny("own_runs:failing", 1), tiny("FC", 0)]
    with pytest.raises(SweepError, match=r"2 of 3 runs failed, the others are recorded"):
        sweep(configs, ledger, device="cuda")
    assert [config in ledger for config in configs] == [False, False, True]


@pytest.mark.parametrize(
    "device",
    [
        "gpu",
        7.5,
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here"),
        ),
    ],
)
def test_devices_that_are_not_there_are_refused(
    device: object, tiny: Configure, ledger: Ledger
) -> None:
    with pytest.raises(ValueError, match=rf"device must be .* got {device!r}: "):
        sweep([tiny("FC")], ledger, device=device)  # type: ignore[arg-type]
