"""Learning rates: the error that each gives, the best, and how far outputs move at one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from gmlib.layer import MixtureLayer
from gmlib.study import datasets
from gmlib.study.analysis.curves import diverged, runs_table, tidy
from gmlib.study.analysis.text import Table
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.measurements import Load, measurement
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.training import build_network, reproducible_arithmetic, training_steps

__all__ = [
    "best_rates",
    "best_rates_table",
    "output_changes",
    "rate_errors",
]

_NUM_IMAGES = 1000


def rate_errors(
    records: Mapping[str, Sequence[RunRecord]], measure: str = "smoothed"
) -> pd.DataFrame:
    """One row a run: variant, lr, seed, error (%) and diverged.

    Args:
        records: By variant, each at several learning rates.
        measure: Which error, a column of `runs_table`.
    """
    return tidy(
        {
            "variant": variant,
            "lr": record.config.lr,
            "seed": record.config.seed,
            "error": error,
            "diverged": diverged(record),
        }
        for variant, runs in records.items()
        for record, error in zip(runs, runs_table(runs)[measure], strict=True)
    )


def best_rates(errors: pd.DataFrame) -> pd.DataFrame:
    """The rate of the lowest mean error, among those at which no seed diverged.

    Args:
        errors: The output of `rate_errors`.

    Returns:
        One row a variant: variant, lr (NaN if seeds diverged at every rate), error (%), its mean
        there; at_edge, whether the rate is the lowest or the highest that was tried.
    """
    rows = []
    for variant, own in errors.groupby("variant", sort=False):
        means = own.groupby("lr").error.mean()[~own.groupby("lr").diverged.any()]
        lr = means.idxmin() if len(means) else float("nan")
        rows.append(
            {
                "variant": variant,
                "lr": lr,
                "error": means.min() if len(means) else float("nan"),
                "at_edge": lr in (own.lr.min(), own.lr.max()),
            }
        )
    return tidy(rows)


def best_rates_table(errors: pd.DataFrame) -> Table:
    """Mean error (%) of each variant at each rate, the number that diverged, and the best rate."""
    grid = errors.groupby(["variant", "lr"], sort=False).agg(
        mean=("error", "mean"), lost=("diverged", "sum"), seeds=("seed", "count")
    )
    trained = errors[~errors.diverged].groupby(["variant", "lr"]).error.mean()
    grid["mean"] = trained.reindex(grid.index)
    rows = grid.reset_index().merge(
        best_rates(errors)[["variant", "lr"]].rename(columns={"lr": "best"}), on="variant"
    )
    rows["mark"] = (rows.lr == rows.best).map({True: " *", False: ""})
    rows["fate"] = rows.lost.map(lambda lost: f" ({lost} lost)" if lost else "")
    return Table(rows, {"error in %": "{variant}"}, {"{lr:g}": "{mean:.2f}{mark}{fate}|lost"})


@measurement(version=1)
def output_changes(
    configs: Sequence[RunConfig], steps: Sequence[int], *, load: Load = datasets.load
) -> pd.DataFrame:
    """How far the outputs of each layer are from their start after some steps of training.

    This is the coordinate check of Yang et al., "Tensor programs V: tuning large neural networks
    via zero-shot hyperparameter transfer", 2022 (arXiv:2203.03466): under a rule of learning rates
    that suits all sizes, outputs move as far in a large network as in a small one.

    Args:
        configs: Runs of GM layers.
        steps: Numbers of steps, rising, within the runs.
        load: Where data sets come from.

    Returns:
        One row a run, layer (from 1) and number of steps: components, scaled (whether the run has
        scaled rates), seed, layer, step, and moved, the root mean square change of the layer's
        outputs on 1000 test images.
    """
    rows = []
    for config in configs:
        dataset = load(config.dataset, config.standardize)
        images = dataset.x_test[:_NUM_IMAGES]
        with reproducible_arithmetic():
            network, _ = build_network(config, dataset)
            start = _outputs(network, images)
            taken = enumerate(training_steps(network, config, dataset), start=1)
            for step, _ in taken:
                if step in steps:
                    changes = zip(_outputs(network, images), start, strict=True)
                    rows += [
                        {
                            "components": config.num_components,
                            "scaled": config.scaled_rates,
                            "seed": config.seed,
                            "layer": layer,
                            "step": step,
                            "moved": (now - before).square().mean().sqrt().item(),
                        }
                        for layer, (now, before) in enumerate(changes, start=1)
                    ]
                if step == max(steps):
                    break
    return tidy(rows)


@torch.no_grad()
def _outputs(network: torch.nn.Module, inputs: Tensor) -> list[Tensor]:
    """Outputs of the GM layers of a stack, from the first on."""
    outputs = []
    for module in network.children():
        inputs = module(inputs)
        if isinstance(module, MixtureLayer):
            outputs.append(inputs)
    return outputs
