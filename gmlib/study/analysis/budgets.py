"""Costs of networks: parameters, and multiplications for one input; see `plan.families`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from gmlib.study import datasets
from gmlib.study.analysis.curves import movement_table, runs_table, tidy
from gmlib.study.analysis.text import Table, ranged, unbroken
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.families import DENSE
from gmlib.study.runs.measurements import Load, measurement
from gmlib.study.runs.records import RunRecord

__all__ = [
    "COSTS",
    "against_dense",
    "budget_summary",
    "budget_table",
    "multiplications",
    "num_features",
    "num_parameters",
    "pareto_front",
    "readout_movement",
]


def num_parameters(config: RunConfig, num_features: int) -> int:
    """Count the trained parameters of the network that `config` describes.

    Args:
        config: The run.
        num_features: Size of the data set's inputs.
    """
    pairs = itertools.pairwise((num_features, *config.widths))
    return sum(config.family.num_parameters(config, d, C) for d, C in pairs)


def multiplications(config: RunConfig, num_features: int) -> int:
    """Count the multiplications that the trained network needs for one input.

    Args:
        config: The run.
        num_features: Size of the data set's inputs.
    """
    pairs = itertools.pairwise((num_features, *config.widths))
    return sum(config.family.multiplications(config, d, C) for d, C in pairs)


COSTS = ("parameters", "multiplications")
"""Costs of a network: columns of `budget_table`."""


def budget_table(
    records: Iterable[RunRecord], num_features: int, measure: str = "smoothed"
) -> pd.DataFrame:
    """Tabulate the costs of each network and its error over all seeds.

    Args:
        records: The runs; those that differ only in the seed belong to one network.
        num_features: Size of the inputs, on which the costs depend.
        measure: The error, one of `MEASURES`.

    Returns:
        One row per network: its name, arm, family, number of layers, hidden units of a GM network
        and size, each of its `COSTS`, the number of seeds and of those that diverged, and median,
        lowest and highest error (%). Diverged runs are included with the error they have.
    """
    rows = []
    for own in _networks(records).values():
        config, runs = own[0].config, runs_table(own)
        errors = runs[measure]
        rows.append(
            {
                "network": _network_name(config, num_features),
                "arm": config.label,
                "family": config.family.name,
                "layers": len(config.widths),
                "hidden": "" if config.family is DENSE else ", ".join(map(str, config.widths[:-1])),
                "size": config.family.size(config),
                "parameters": num_parameters(config, num_features),
                "multiplications": multiplications(config, num_features),
                "seeds": len(runs),
                "diverged": int(runs.diverged.sum()),
                "error": errors.median(),
                "low": errors.min(),
                "high": errors.max(),
            }
        )
    return tidy(rows)


def _networks(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Group runs by network: runs of one network differ only in the seed."""
    networks: dict[str, list[RunRecord]] = {}
    for record in records:
        networks.setdefault(replace(record.config, seed=0).run_id, []).append(record)
    return networks


def _network_name(config: RunConfig, num_features: int) -> str:
    layers = "→".join(map(str, (num_features, *config.widths)))
    size = "" if config.family is DENSE else f", {config.family.size(config)}"
    colon = ":" if config.label != config.arm else ""  # "rank 1: 784→10"
    return unbroken(f"{config.label}{colon} {layers}{size}")


def pareto_front(costs: ArrayLike, errors: ArrayLike) -> NDArray[np.bool_]:
    """Mark the networks on the Pareto front of cost and error.

    A network is on it if no other costs less and errs no more, or errs less and costs no more.

    Args:
        costs: Costs by network.
        errors: Errors by network.
    """
    costs, errors = np.asarray(costs, dtype=float), np.asarray(errors, dtype=float)
    no_worse = (costs[:, None] <= costs) & (errors[:, None] <= errors)  # [i, j]: i than j
    better = (costs[:, None] < costs) | (errors[:, None] < errors)
    return np.asarray(~(no_worse & better).any(axis=0))


def budget_summary(table: pd.DataFrame) -> Table:
    """Format `budget_table`, sorted by parameters, with the Pareto fronts of each network.

    Returns:
        One row per network: parameters, multiplications, seeds that diverged, median and range of
        the error (%), and the costs for which the network is on the Pareto front of all networks.
    """
    ordered = table.sort_values("parameters", kind="stable", ignore_index=True)
    fronts = pd.DataFrame({cost: pareto_front(ordered[cost], ordered.error) for cost in COSTS})
    on = [[cost for cost in COSTS if row[cost]] for row in fronts.to_dict("records")]
    front = ["both" if len(costs) == len(COSTS) else ", ".join(costs) or None for costs in on]
    ordered = ordered.rename(columns={"low": "error_low", "high": "error_high"})
    return Table(
        ordered.assign(front=pd.Series(front)),
        {"network": "{network}"},
        {
            **{cost: f"{{{cost}:,}}" for cost in COSTS},
            "diverged": "{diverged} of {seeds}",
            "test error (%)": ranged("error", "{:.2f}"),
            "on the front": "{front}|–",
        },
    )


def against_dense(table: pd.DataFrame, cost: str = "parameters") -> Table:
    """Compare each network that is not dense with dense networks of equal error and equal cost.

    Args:
        table: The output of `budget_table`.
        cost: The cost to compare, one of `COSTS`.

    Returns:
        One row per network that is not dense: its error (%); the hidden units of the cheapest dense
        network with no higher error, and the ratio of the network's cost to the cost of that one;
        the hidden units of the best dense network with no higher cost, and its error (%).
    """
    is_dense = table.family == DENSE.name
    dense = table[is_dense]
    rows = []
    for _, own in table[~is_dense].sort_values(cost, kind="stable").iterrows():
        row = {"network": own.network, "error": own.error}
        as_good, affordable = dense[dense.error <= own.error], dense[dense[cost] <= own[cost]]
        if len(as_good):
            cheapest = as_good.loc[as_good[cost].idxmin()]
            row |= {"as_good": cheapest["size"], "cost_ratio": own[cost] / cheapest[cost]}
        if len(affordable):
            best = affordable.loc[affordable.error.idxmin()]
            row |= {"affordable": best["size"], "affordable_error": best.error}
        rows.append(row)
    columns = ["network", "error", "as_good", "cost_ratio", "affordable", "affordable_error"]
    return Table(
        pd.DataFrame(rows, columns=columns),
        {"network": "{network}"},
        {
            "error": "{error:.2f}",
            "FC as good": "{as_good:unbroken}|–",
            "cost ratio": "{cost_ratio:.1f}|–",
            "FC in its budget": "{affordable:unbroken}|–",
            "its error": "{affordable_error:.2f}|–",
        },
    )


def readout_movement(records: Iterable[RunRecord], num_features: int) -> Table:
    """Tabulate how far the means and matrices of each GM network's first layer have moved.

    Returns:
        One row per network with matrices U, or A in folded coordinates: the final distance of mu
        and of these from the initialization, relative to the norm at initialization, as median over
        the seeds that trained; and the share of the network's parameters that are in them.
    """
    rows = []
    for own in _networks(records).values():
        config = own[0].config
        table = movement_table(own)
        last = table[(table.layer == 1) & (table.step == table.step.max())]
        matrix = next((name for name in ("U", "A") if name in set(last.parameter)), None)
        if matrix is None:
            continue
        entries = config.num_components * config.widths[0] * num_features
        moved = last.groupby("parameter").moved.median()
        rows.append(
            {
                "network": _network_name(config, num_features),
                "matrix": matrix,
                "mu": moved["mu"],
                "moved": moved[matrix],
                "share": entries / num_parameters(config, num_features),
            }
        )
    matrices = " or ".join(dict.fromkeys(str(row["matrix"]) for row in rows))
    return Table(
        tidy(rows),
        {"network": "{network}"},
        {
            "mu moved": "{mu:two digits}",
            f"{matrices} moved": "{moved:two digits}",
            f"share of parameters in {matrices}": "{share:.0f %}",
        },
    )


@measurement(version=1)
def num_features(dataset: str, *, load: Load = datasets.load) -> int:
    """Return the number of features of a data set's inputs."""
    return load(dataset).num_features
