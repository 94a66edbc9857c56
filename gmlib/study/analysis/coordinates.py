r"""What a step of gradient descent does to the readout, in whichever coordinates it is taken.

In folded coordinates the readout of a component is :math:`A = U\,\mathrm{diag}(\sigma^2)/K` and
:math:`w = (U\mu + v)/K`. With :math:`L_A`, :math:`L_w`, :math:`L_\mu` and :math:`L_\sigma` for the
gradients of the loss there, those in affine coordinates are, by the chain rule,

.. math::
    \frac{\partial L}{\partial U} = \frac1K\big[L_A\,\mathrm{diag}(\sigma^2) + L_w\mu^\top\big],
    \quad \frac{\partial L}{\partial v} = \frac1K L_w,
    \quad \frac{\partial L}{\partial\mu} = L_\mu + \frac1K U^\top L_w,
    \quad \frac{\partial L}{\partial\sigma} = L_\sigma
    + \frac{2\sigma}K\odot\mathrm{diag}(U^\top L_A).

A step along them, at rates :math:`\eta` and :math:`\eta_\sigma`, moves the folded readout to first
order by

.. math::
    \Delta A &= -\frac\eta{K^2}\big[L_A\,\mathrm{diag}(\sigma^4) + L_w(\sigma^2\odot\mu)^\top\big]
    + \frac2K U\,\mathrm{diag}(\sigma\odot\Delta\sigma), \\
    \Delta w &= -\frac\eta{K^2}\big[L_A(\sigma^2\odot\mu) + (\lVert\mu\rVert^2 + 1) L_w\big]
    + \frac1K U\Delta\mu.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.functional import cross_entropy

from gmlib.layer import MixtureLayer, fold
from gmlib.study import datasets
from gmlib.study.analysis.curves import runs_table, tidy
from gmlib.study.analysis.statistics import mean_range
from gmlib.study.analysis.text import Table, ranged
from gmlib.study.plan.beyond import PREDICTED
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.measurements import Load, measurement
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import build_network, first_batch, reproducible_arithmetic

__all__ = [
    "affine_step",
    "effective_rates",
    "first_moves",
    "moves_table",
    "prediction_table",
    "rates_table",
]

_NUM_IMAGES = 1000
Parameters = Mapping[str, Tensor]


# --- Effective rates -----------------------------------------------------------------------------


def _squares(layer: MixtureLayer, coordinates: str) -> dict[str, dict[str, Tensor]]:
    """Squared derivatives of `A` and `w` in the parameters, summed over the parameters' entries.

    A step in a parameter at rate 1 moves an entry of the readout at this rate along its own
    gradient: the diagonal of the Jacobian times its transpose.

    Returns:
        By ``"A"`` or ``"w"`` and parameter, in shapes that broadcast with ``(K, C, d)`` and
        ``(K, C)``.
    """
    mu, variance = layer.mu, layer.sigma.square().unsqueeze(1)
    weights, _ = layer.readout
    one = torch.ones(())
    length = mu.square().sum(-1, keepdim=True)
    scale = 1.0 / layer.num_components**2
    found: dict[str, dict[str, Tensor]]
    match coordinates:
        case "folded":
            return {"A": {"A": one}, "w": {"w": one}}
        case "affine":
            found = {
                "A": {"U": variance.square(), "sigma": 4.0 * weights.square() * variance},
                "w": {"U": length, "v": one, "mu": weights.square().sum(-1)},
            }
        case "centered":
            found = {
                "A": {"U": variance.square(), "sigma": 4.0 * weights.square() * variance},
                "w": {"w": one},
            }
        case "centered and whitened":
            found = {"A": {"W": variance, "sigma": weights.square()}, "w": {"w": one}}
        case _:
            raise ValueError(f"no rates are known in {coordinates!r} coordinates")
    return {
        part: {name: scale * own for name, own in parameters.items()}
        for part, parameters in found.items()
    }


@measurement(version=1)
@torch.no_grad()
def effective_rates(configs: Sequence[RunConfig], *, load: Load = datasets.load) -> pd.DataFrame:
    """The rates at which a step moves the folded readout at the start, by what it is a step in.

    Args:
        configs: Runs of GM layers whose networks are looked at.
        load: Where data sets come from.

    Returns:
        One row a run, layer (from 1), part of the readout (``"A"`` or ``"w"``) and parameter:
        arm, coordinates, seed, layer, part, parameter, and rate, the learning rate at which the
        part moves along its own gradient, over that in folded coordinates: the mean over entries.
    """
    rows = []
    for config in configs:
        dataset = load(config.dataset, config.standardize)
        network, _ = build_network(config, dataset)
        for number, layer in enumerate(_layers(network).values(), start=1):
            for part, parameters in _squares(layer, config.coordinates).items():
                for name, squares in parameters.items():
                    rate = config.family.learning_rate(config, name) / config.lr
                    rows.append(
                        {
                            "arm": config.arm,
                            "coordinates": config.coordinates,
                            "seed": config.seed,
                            "layer": number,
                            "part": part,
                            "parameter": name,
                            "rate": rate * squares.double().mean().item(),
                        }
                    )
    return pd.DataFrame(rows)


def rates_table(rates: pd.DataFrame) -> Table:
    """`effective_rates` by start and coordinates: the median over seeds."""
    keys = ["arm", "coordinates", "layer", "part", "parameter"]
    middle = rates.groupby(keys, sort=False).rate.median().reset_index()
    return Table(
        middle,
        {"start": "{arm}", "coordinates": "{coordinates}", "rate of": "{part}, by {parameter}"},
        {"layer {layer}": "{rate:.2g}"},
    )


# --- The first step ------------------------------------------------------------------------------


def affine_step(
    parameters: Parameters, gradients: Parameters, lr: float, lr_sigma: float
) -> dict[str, Tensor]:
    """What a step in affine coordinates does to a layer in folded ones, to first order.

    Args:
        parameters: The layer's `mu`, `sigma`, `A` and `w`.
        gradients: Of the loss in these.
        lr: Learning rate of `mu`, `U` and `v`.
        lr_sigma: Learning rate of `sigma`.

    Returns:
        The changes of `mu`, `sigma`, `A` and `w`, by the formulas at the head of this module.
    """
    mu, sigma, A, _ = (parameters[name] for name in ("mu", "sigma", "A", "w"))
    d_mu, d_sigma, d_A, d_w = (gradients[name] for name in ("mu", "sigma", "A", "w"))
    K = len(mu)
    variance = sigma.square()
    U = K * A / variance.unsqueeze(1)
    shifted = variance * mu
    step_mu = -lr * (d_mu + torch.einsum("kcd,kc->kd", U, d_w) / K)
    step_sigma = -lr_sigma * (d_sigma + 2.0 / K * sigma * torch.einsum("kcd,kcd->kd", U, d_A))
    along = d_A * variance.square().unsqueeze(1) + d_w.unsqueeze(2) * shifted.unsqueeze(1)
    length = mu.square().sum(1, keepdim=True) + 1.0
    across = torch.einsum("kcd,kd->kc", d_A, shifted) + length * d_w
    return {
        "mu": step_mu,
        "sigma": step_sigma,
        "A": -lr / K**2 * along + 2.0 / K * U * (sigma * step_sigma).unsqueeze(1),
        "w": -lr / K**2 * across + torch.einsum("kcd,kd->kc", U, step_mu) / K,
    }


def _folded_step(
    parameters: Parameters, gradients: Parameters, lr: float, lr_sigma: float
) -> dict[str, Tensor]:
    return {
        name: -(lr_sigma if name == "sigma" else lr) * gradient
        for name, gradient in gradients.items()
    }


_STEPS: Mapping[str, Callable[[Parameters, Parameters, float, float], dict[str, Tensor]]] = {
    "affine": affine_step,
    "folded": _folded_step,
}


@measurement(version=1)
def first_moves(
    configs: Sequence[RunConfig], fraction: float = 1.0, *, load: Load = datasets.load
) -> pd.DataFrame:
    """What the first step of a run does to its logits, part by part, predicted and measured.

    The prediction knows the gradients in folded coordinates alone. It maps them by `affine_step`
    to the changes of `mu`, `sigma`, `A` and `w`, and these by the network's derivative to changes
    of the logits. Measured is the step that training takes, in its own coordinates.

    Args:
        configs: Runs in affine or folded coordinates.
        fraction: Of the learning rates, with which the step is taken.
        load: Where data sets come from.

    Returns:
        One row a run and part, ``"mu"``, ``"sigma"``, ``"A"`` and ``"w"`` of all layers, and
        ``"all"``: arm, coordinates, seed, part; measured and predicted, the root mean square
        change of the logits on 1000 test images if that part alone moves; error, the root mean
        square of their difference over the measured.
    """
    rows = []
    for config in configs:
        dataset = load(config.dataset, config.standardize)
        with reproducible_arithmetic():
            found = _first_move(config, fraction, dataset)
        rows += [
            {
                "arm": config.arm,
                "coordinates": config.coordinates,
                "seed": config.seed,
                "part": part,
                "measured": _size(measured),
                "predicted": _size(predicted),
                "error": _size(measured - predicted) / _size(measured),
            }
            for part, (measured, predicted) in found.items()
        ]
    return pd.DataFrame(rows)


def _first_move(
    config: RunConfig, fraction: float, dataset: datasets.Dataset
) -> dict[str, tuple[Tensor, Tensor]]:
    """Changes of the logits by part, measured and predicted."""
    network, _ = build_network(config, dataset)
    network.double()
    x, y = first_batch(config, dataset)
    x = x.double()
    images = dataset.x_test[:_NUM_IMAGES].double()
    folded = fold(network)
    before = {name: value.detach().clone() for name, value in folded.named_parameters()}

    cross_entropy(folded(x), y).backward()
    gradients = _gradients(folded)
    predicted: dict[str, Tensor] = {}
    for layer in _layers(folded):
        own, slopes = (
            {name: values[f"{layer}.{name}"] for name in ("mu", "sigma", "A", "w")}
            for values in (before, gradients)
        )
        rates = fraction * config.lr, fraction * config.lr_sigma
        step = _STEPS[config.coordinates](own, slopes, *rates)
        predicted |= {f"{layer}.{name}": change for name, change in step.items()}

    cross_entropy(network(x), y).backward()
    with torch.no_grad():
        parameters, slopes = dict(network.named_parameters()), _gradients(network)
        for name, parameter in parameters.items():
            rate = fraction * config.family.learning_rate(config, name.rpartition(".")[2])
            parameter.sub_(slopes[name], alpha=rate)
    after = {name: value.detach() for name, value in fold(network).named_parameters()}

    def logits(parameters: dict[str, Tensor]) -> Tensor:
        result: Tensor = functional_call(folded, parameters, (images,))
        return result

    start = logits(before).detach()
    found = {}
    for part in ("mu", "sigma", "A", "w", "all"):
        moves = [name for name in before if part in ("all", name.rpartition(".")[2])]
        stepped = logits({**before, **{name: after[name] for name in moves}})
        tangents = {
            name: predicted[name] if name in moves else torch.zeros_like(value)
            for name, value in before.items()
        }
        tangent = jvp(logits, (before,), (tangents,))[1]
        found[part] = ((stepped - start).detach(), tangent.detach())
    return found


def _gradients(network: nn.Module) -> dict[str, Tensor]:
    named = dict(network.named_parameters())
    return {name: value.grad for name, value in named.items() if value.grad is not None}


def _layers(network: nn.Module) -> dict[str, MixtureLayer]:
    return {name: own for name, own in network.named_modules() if isinstance(own, MixtureLayer)}


def _size(values: Tensor) -> float:
    """Root mean square."""
    return values.square().mean().sqrt().item()


def moves_table(moves: pd.DataFrame) -> Table:
    """`first_moves` by start and coordinates: medians over seeds."""
    keys = ["arm", "coordinates", "part"]
    middle = moves.groupby(keys, sort=False)[["measured", "predicted", "error"]].median()
    return Table(
        middle.reset_index(),
        {"start": "{arm}", "coordinates": "{coordinates}", "by": "{part}"},
        {
            "logits move by": "{measured:.2g}",
            "predicted": "{predicted:.2g}",
            "difference": "{error:.1f %}",
        },
    )


# --- Predictions ---------------------------------------------------------------------------------


def prediction_table(records: Mapping[str, Sequence[RunRecord]]) -> Table:
    """What was predicted of settings before they were run, beside what they did.

    Args:
        records: Of `beyond.predicted`, by name.

    Returns:
        One row a prediction: whether a setting would learn fast and why; the mean and range of the
        error (%) at the end over the seeds, with that of always answering 0 for seeds that
        diverged; the bound of what is fast, the geometric mean of KUMAR's errors in affine and in
        folded coordinates; and whether the prediction came true.
    """
    errors = {name: runs_table(own).final for name, own in records.items()}
    rows = []
    for name, (fast, why, _) in PREDICTED.items():
        layers = "one layer, " if len(records[name][0].config.widths) == 1 else ""
        judges = [errors[f"{layers}{own}"].mean() for own in ("affine", "folded")]
        bound = (judges[0] * judges[1]) ** 0.5
        found = bool(errors[name].mean() < bound)
        rows.append(
            {
                "setting": name,
                "why": why,
                "predicted": "fast" if fast else "slow",
                **mean_range("error", errors[name]),
                "bound": bound,
                "found": "fast" if found else "slow",
                "verdict": "as predicted" if found == fast else "otherwise",
            }
        )
    return Table(
        tidy(rows),
        {"setting": "{setting}"},
        {
            "because": "{why}",
            "predicted": "{predicted}",
            "error (%)": ranged("error", "{:.1f}"),
            "fast below": "{bound:.1f}",
            "outcome": "{verdict}",
        },
    )
