"""How a run overflows: its first steps, one at a time, until a tensor is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import pandas as pd
from torch import Tensor, nn

from gmlib.study import datasets
from gmlib.study.analysis.curves import tidy
from gmlib.study.analysis.statistics import median_range
from gmlib.study.analysis.text import Table, ranged
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.gates import watched_gates
from gmlib.study.runs.measurements import Load, measurement
from gmlib.study.runs.training import build_network, reproducible_arithmetic, training_steps

__all__ = ["early_steps", "overflow_table"]


@measurement(version=1)
def early_steps(config: RunConfig, num_steps: int, *, load: Load = datasets.load) -> pd.DataFrame:
    """Train a run's first steps until a tensor is not finite, and look at the network at each.

    Args:
        config: The run, without held-out images.
        num_steps: Steps after which to stop at the latest.
        load: Where data sets come from.

    Returns:
        One row a step: step (from 1); loss on its batch; for each layer, numbered from 1,
        ``largest_1``, the largest absolute output on the batch (of the last layer, the largest
        logit), ``shut_1`` and ``open_1``, of a GM layer, the shares of pairs of an image of the
        batch and a component that are shut and open, and ``mu_1`` and so on, the Euclidean norms of
        its parameters after the step. ``not_finite`` names the first tensor of the step that is
        not finite, in the order in which they are computed: outputs, loss, gradients from the last
        layer back, parameters; it is empty but in a last row. Numbers have five digits.
    """
    dataset = load(config.dataset, config.standardize)
    rows = []
    with reproducible_arithmetic():
        network, _ = build_network(config, dataset)
        outputs: dict[str, Tensor] = {}
        for name, layer in _layers(network).items():
            layer.register_forward_hook(partial(_note, outputs, name))
        with watched_gates(network) as shares:
            steps = islice(training_steps(network, config, dataset), num_steps)
            for step, loss in enumerate(steps, start=1):
                rows.append({"step": step, **_row(network, loss, outputs, shares)})
                if rows[-1]["not_finite"]:
                    break
    return pd.DataFrame(rows)


def overflow_table(runs: Sequence[pd.DataFrame]) -> Table:
    """Count the tensors that are the first not to be finite.

    Args:
        runs: Outputs of `early_steps`, of networks with equally many layers.

    Returns:
        One row per tensor: in how many runs it was the first; median and range over these of the
        step, and of the last loss before it. Runs in which all is finite have a row of their own.
    """
    ends = tidy(map(_end, runs))
    rows = [
        {
            "first": first,
            "runs": len(own),
            **median_range("step", own.step),
            **median_range("loss", own.loss),
        }
        for first, own in ends.groupby("first", sort=False)
    ]
    return Table(
        tidy(rows),
        {"first not finite": "{first}"},
        {
            "runs": "{runs}",
            "at step": ranged("step", "{:,.0f}"),
            "last finite loss": ranged("loss", "{:.0e}"),
        },
    )


def _end(run: pd.DataFrame) -> dict[str, object]:
    """The last step of an output of `early_steps`."""
    finite = run[run.not_finite == ""]
    return {
        "first": run.not_finite.iloc[-1] or "none",
        "step": run.step.iloc[-1],
        "loss": finite.loss.iloc[-1] if len(finite) else float("nan"),
    }


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers by name: modules with parameters of their own."""
    return {
        name: module
        for name, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }


def _note(
    outputs: dict[str, Tensor], name: str, layer: nn.Module, args: object, output: Tensor
) -> None:
    outputs[name] = output.detach()


def _row(
    network: nn.Module, loss: Tensor, outputs: Mapping[str, Tensor], shares: Mapping[str, Tensor]
) -> dict[str, float | str]:
    """What `early_steps` tells of a step."""
    row: dict[str, float | str] = {"loss": _rounded(loss)}
    for number, (name, layer) in enumerate(_layers(network).items(), start=1):
        row[f"largest_{number}"] = _rounded(outputs[name].abs().max())
        for gate in ("shut", "open"):
            if f"{name}.{gate}" in shares:
                row[f"{gate}_{number}"] = _rounded(shares[f"{name}.{gate}"].mean())
        for parameter, value in layer.named_parameters():
            # In float64: the squares of finite numbers may not be finite in float32.
            row[f"{parameter}_{number}"] = _rounded(value.detach().double().norm())
    tensors = _tensors(network, loss, outputs)
    row["not_finite"] = next((name for name, tensor in tensors if not tensor.isfinite().all()), "")
    return row


def _tensors(
    network: nn.Module, loss: Tensor, outputs: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a step in the order in which they are computed."""
    parameters = [
        (f"{name}, layer {number}", parameter)
        for number, layer in enumerate(_layers(network).values(), start=1)
        for name, parameter in layer.named_parameters()
    ]
    for number, output in enumerate(outputs.values(), start=1):
        yield f"output of layer {number}", output
    yield "loss", loss
    for name, parameter in reversed(parameters):
        assert parameter.grad is not None
        yield f"gradient of {name}", parameter.grad
    yield from parameters


def _rounded(value: Tensor) -> float:
    return float(f"{value.item():.5g}")
