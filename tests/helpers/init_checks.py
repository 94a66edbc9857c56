"""What the tests of initializations share: groups of them, inputs, scales of outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from draws import seeded
from kinds import KINDS
from module_checks import unchanged
from torch import Tensor, nn

from gmlib.init import (
    ScaleReport,
    analytic_,
    baseline_,
    calibrate_,
    fan_in_,
    kumar_,
    lsuv_,
    scale_report,
)
from gmlib.layer import MixtureLayer

READOUTS = {name for kind in KINDS.values() for name in kind.layer.readout_names}
CALIBRATIONS = [calibrate_, kumar_]  # whose target can be chosen
DRAWN = [kumar_, lsuv_]  # which draw before they look at the data
SHOWN = [calibrate_, kumar_, lsuv_]
MEASURING = [*SHOWN, scale_report]  # which look at data
INITS = {  # which write; each takes a network, and data where it looks at them
    "baseline_": lambda network, data, **more: baseline_(network, **more),
    "fan_in_": lambda network, data, **more: fan_in_(network, **more),
    "analytic_": lambda network, data, **more: analytic_(network, 6.0, **more),
    "calibrate_": lambda network, data, generator=None: calibrate_(network, data),
    "kumar_": kumar_,
    "lsuv_": lsuv_,
}
TARGET = {calibrate_: 0.5, kumar_: 0.5, lsuv_: 1.0}  # by default, or always


def sample(n: int = 200, d: int = 6, seed: int = 7, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inputs to calibrate on."""
    return torch.randn(n, d, generator=seeded(seed), dtype=dtype)


def seeded_init(
    init_: Callable[..., ScaleReport], network: nn.Module, data: Any, **more: Any
) -> ScaleReport:
    """Run it with a seed of its own; where it draws nothing itself, `fan_in_` does before."""
    if init_ in DRAWN:
        return init_(network, data, generator=seeded(3), **more)
    fan_in_(network, generator=seeded(3))
    return init_(network, data, **more)


def output_stds(
    module: nn.Module, inputs: Tensor, layer_type: type[nn.Module] = MixtureLayer
) -> dict[str, float]:
    """Output stds by layer name, from a forward of the test's own: as training will see them.

    But dropout is off.
    """
    module = copy.deepcopy(module)
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.eval()
    stds: dict[str, float] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, layer_type):

            def hook(_: nn.Module, args: object, output: Tensor, name: str = name) -> None:
                values = output.detach().double().flatten()
                stds[name] = (values - values.mean()).square().mean().sqrt().item()

            layer.register_forward_hook(hook)
    with torch.no_grad():
        module(inputs)
    return stds


def is_refused(
    calibration: Callable[..., Any],
    network: nn.Module,
    data: Any,
    error: type[BaseException],
    match: str,
    **target: Any,
) -> None:
    """Check that the call raises and leaves no trace."""
    generator = seeded(3)
    state = generator.get_state()
    if calibration in DRAWN:
        target["generator"] = generator
    with unchanged(network), pytest.raises(error, match=match):
        calibration(network, data, **target)
    assert torch.equal(generator.get_state(), state)
