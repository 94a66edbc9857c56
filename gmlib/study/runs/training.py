"""From configurations to records, one run or several at once, with no side effects on disk."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from gmlib.init import ScaleReport, scale_report
from gmlib.study import datasets
from gmlib.study.plan.arms import arm_of
from gmlib.study.plan.config import OPTIMIZERS, RunConfig
from gmlib.study.runs.gates import watched_gates
from gmlib.study.runs.provenance import provenance
from gmlib.study.runs.records import CURVES, RunRecord

__all__ = [
    "build_network",
    "evaluation_steps",
    "first_batch",
    "first_step",
    "generator_of",
    "hold_out",
    "reproducible_arithmetic",
    "train",
    "train_together",
    "training_steps",
]


def train(
    config: RunConfig,
    on_evaluation: Callable[[], object] | None = None,
    *,
    dataset: datasets.Dataset | None = None,
) -> RunRecord:
    """Train one network as `config` says and measure it along the way.

    Runs on one thread of the CPU with denormals flushed to zero: on one machine the same
    configuration gives the same curves and snapshots bit for bit, whatever else runs.

    Args:
        config: What to run.
        on_evaluation: Called after every evaluation; may raise to stop the run.
        dataset: Data in the place of those that the configuration names.

    Returns:
        The record; it is up to the caller to keep it.

    Raises:
        DataError: If the data set cannot be had.
        ValueError: If the configuration does not fit the data set.
    """
    return train_together([config], on_evaluation=on_evaluation, dataset=dataset)[0]


def train_together(
    configs: Sequence[RunConfig],
    device: torch.device | str = "cpu",
    *,
    on_evaluation: Callable[[], object] | None = None,
    dataset: datasets.Dataset | None = None,
) -> list[RunRecord]:
    """Train the seeds of one configuration as one program, on stacked parameters.

    Made for accelerators, which a single run of this size leaves idle. Every seed has the initial
    parameters and sees the batches that it has and sees in :func:`train`; only the rounding of
    float32 arithmetic differs.

    Args:
        configs: What to run: configurations that differ in nothing but the seed.
        device: Where to run it.
        on_evaluation: Called after every evaluation; may raise to stop the runs.
        dataset: Data in the place of those that the configurations name.

    Returns:
        The records, in the order of `configs`.

    Raises:
        DataError: If the data set cannot be had.
        ValueError: If the configurations differ in more than the seed, repeat one, or do not fit
            the data set.
    """
    seedless = {replace(config, seed=0).run_id for config in configs}
    if len(seedless) != 1 or len({config.seed for config in configs}) < len(configs):
        raise ValueError(
            "runs that are trained together must differ in the seed and in nothing else, got "
            f"{', '.join(config.run_id for config in configs) or 'none'}"
        )
    config = configs[0]
    if dataset is None:
        dataset = datasets.load(config.dataset, config.standardize)
    if config.held_out:
        dataset = hold_out(dataset, config.held_out)
    if config.widths[-1] < dataset.num_classes:
        raise ValueError(
            f"the last of widths must be at least the {dataset.num_classes} classes of "
            f"{config.dataset!r}, got {config.widths[-1]}"
        )
    made = provenance(dataset.checksums, torch.device(device), len(configs))
    start = time.perf_counter()
    with reproducible_arithmetic():
        results = _train(configs, dataset, torch.device(device), on_evaluation)
    wall_time = (time.perf_counter() - start) / len(configs)
    return [
        RunRecord(
            config=config,
            curves=curves,
            init_report=tuple(init_report),
            wall_time=wall_time,
            provenance=made,
            **kept,
        )
        for config, (curves, init_report, kept) in zip(configs, results, strict=True)
    ]


def hold_out(dataset: datasets.Dataset, number: int) -> datasets.Dataset:
    """The data set with some of its training examples, drawn once for all, for its test set.

    Raises:
        ValueError: If there are no more than `number`.
    """
    if number >= len(dataset.x_train):
        raise ValueError(
            f"held_out must be below the {len(dataset.x_train)} training images of "
            f"{dataset.name!r}, got {number}"
        )
    order = torch.randperm(len(dataset.x_train), generator=generator_of(0, "held out"))
    held, kept = order[:number], order[number:]
    return replace(
        dataset,
        x_train=dataset.x_train[kept],
        y_train=dataset.y_train[kept],
        x_test=dataset.x_train[held],
        y_test=dataset.y_train[held],
    )


def build_network(config: RunConfig, dataset: datasets.Dataset) -> tuple[nn.Module, ScaleReport]:
    """The network of a run, initialized, and the scale of its layers' outputs.

    The report is taken on the calibration inputs, which every arm of a seed shares.
    """
    widths = (dataset.num_features, *config.widths)
    pairs = list(itertools.pairwise(widths))
    generator = generator_of(config.seed, "parameters")
    order = torch.randperm(len(dataset.x_train), generator=generator_of(config.seed, "calibration"))
    # From the canonical form: two names of one run must not differ in the report.
    size = config.canonical().get("calibration_size", RunConfig.calibration_size)
    inputs = dataset.x_train[order[:size]]

    arm = arm_of(config.arm)
    drawn = arm.family.build(pairs, config)
    report = arm.initialize(drawn, inputs, config, generator)
    network = arm.family.finish(drawn, config, generator)
    if network is not drawn or not isinstance(report, ScaleReport):
        report = scale_report(network, inputs, arm.family.layer)
    return network, report


def first_batch(config: RunConfig, dataset: datasets.Dataset) -> tuple[Tensor, Tensor]:
    """The inputs and labels that training begins with."""
    order = torch.randperm(len(dataset.x_train), generator=generator_of(config.seed, "order"))
    batch = order[: config.batch_size]
    return dataset.x_train[batch], dataset.y_train[batch]


def first_step(config: RunConfig, dataset: datasets.Dataset) -> dict[str, float]:
    """Relative size of the first gradient step, by parameter.

    Returns:
        For each named parameter, the norm of its first update divided by its own norm (infinite
        for a parameter that starts at zero), on the batch that training would begin with.
    """
    with reproducible_arithmetic():
        network, _ = build_network(config, dataset)
        x, y = first_batch(config, dataset)
        cross_entropy(network(x), y).backward()
        rates = {
            parameter: group["lr"]
            for group in _parameter_groups(dict(network.named_parameters()), config)
            for parameter in group["params"]
        }
        return {
            name: (rates[parameter] * parameter.grad.norm() / parameter.norm()).item()
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }


def training_steps(
    network: nn.Module, config: RunConfig, dataset: datasets.Dataset
) -> Iterator[Tensor]:
    """Train a network of `build_network` step by step, with the batches and steps of :func:`train`.

    To be used within :func:`reproducible_arithmetic`, as `train` is.

    Yields:
        The loss of each step, once it is taken: the parameters have moved, and still have the
        gradients that moved them.
    """
    device = torch.device("cpu")
    for losses in _steps([config], _Networks([network], device), dataset, device):
        yield losses.squeeze(0)


def evaluation_steps(epochs: int, steps_per_epoch: int) -> list[int]:
    """Steps at which a run is evaluated: 0, log-spaced in the first epoch, each epoch's end."""
    if epochs == 0:
        return [0]
    count = 1 + math.ceil(2 * math.log2(steps_per_epoch))  # a factor of sqrt(2), roughly
    early = np.unique(np.geomspace(1, steps_per_epoch, count).round().astype(int))
    return [0, *early.tolist(), *(steps_per_epoch * epoch for epoch in range(2, epochs + 1))]


_Curves = dict[str, list[float]]
_Result = tuple[_Curves, ScaleReport, dict[str, Any]]


class _Networks:
    """Networks of one shape, called as one: by stacked parameters where there are several."""

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        self._template = networks[0].to(device)
        self._stacked = len(networks) > 1
        if self._stacked:
            for network in networks:
                network.to(device)
            self.parameters, _ = stack_module_state(list(networks))
        else:
            self.parameters = dict(self._template.named_parameters())
        self._start = {name: value.detach().clone() for name, value in self.parameters.items()}

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (runs, batch, classes) for inputs (runs, batch, features).

        Inputs without the first dimension are the same for all runs.
        """
        if not self._stacked:
            single: Tensor = self._template(inputs.squeeze(0) if inputs.ndim == 3 else inputs)
            return single.unsqueeze(0)
        in_dims = (0, 0 if inputs.ndim == 3 else None)
        logits: Tensor = vmap(self._call, in_dims=in_dims)(self.parameters, inputs)
        return logits

    def watched(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits for inputs that are the same for all runs, and shares of gates (runs, K)."""
        if not self._stacked:
            with watched_gates(self._template) as shares:
                logits = self(inputs)
            return logits, {name: own.unsqueeze(0) for name, own in shares.items()}

        def call(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            with watched_gates(self._template) as shares:
                return self._call(parameters, inputs), dict(shares)

        result: tuple[Tensor, dict[str, Tensor]] = vmap(call)(self.parameters)
        return result

    def values(self) -> list[dict[str, NDArray[np.float32]]]:
        """Copies of the parameters by name, run by run."""
        parameters = {name: value.detach().cpu() for name, value in self.parameters.items()}
        if not self._stacked:
            return [{name: value.numpy().copy() for name, value in parameters.items()}]
        runs = range(len(next(iter(parameters.values()))))
        return [{name: v[run].numpy().copy() for name, v in parameters.items()} for run in runs]

    def movement(self) -> list[dict[str, float]]:
        """Distance of each parameter from its start, relative to its norm there, run by run."""
        runs = 1 if not self._stacked else len(next(iter(self._start.values())))
        result: list[dict[str, float]] = [{} for _ in range(runs)]
        for name, start in self._start.items():
            change = (self.parameters[name].detach() - start).view(runs, -1).norm(dim=1)
            ratios = change.double() / start.view(runs, -1).norm(dim=1).double()
            for run, ratio in zip(result, ratios.tolist(), strict=True):
                run[name] = float(f"{ratio:.5g}") if math.isfinite(ratio) else math.nan
        return result

    def _call(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._template, parameters, (inputs,))
        return logits


class _Recorder:
    """What is kept of runs that train as one: curves, movement, snapshots."""

    def __init__(
        self,
        configs: Sequence[RunConfig],
        networks: _Networks,
        dataset: datasets.Dataset,
        device: torch.device,
        on_evaluation: Callable[[], object] | None,
    ) -> None:
        self._configs, self._networks, self._on_evaluation = configs, networks, on_evaluation
        self._x, self._y = dataset.x_test.to(device), dataset.y_test.to(device)
        config = configs[0]
        self._steps_per_epoch = math.ceil(len(dataset.x_train) / config.batch_size)
        self._due = set(evaluation_steps(config.epochs, self._steps_per_epoch))
        self._step = 0
        self._losses: list[Tensor] = []  # of the steps since the last evaluation
        self._curves: list[_Curves] = [{name: [] for name in CURVES} for _ in configs]
        self._movement: list[_Curves] = [
            {name: [] for name in networks.parameters} for _ in configs
        ]
        self._snapshots: list[dict[str, list[NDArray[np.float32]]]] = [{} for _ in configs]
        self._gates: list[dict[str, list[list[float]]]] = [{} for _ in configs]
        self._evaluate()
        self._keep()

    def after_step(self, losses: Tensor) -> None:
        """Note the losses; evaluate, and keep the parameters, if it is time."""
        self._step += 1
        self._losses.append(losses)
        if self._step in self._due:
            self._evaluate()
        if self._step % self._steps_per_epoch == 0:
            self._keep()

    def results(self, reports: Iterable[ScaleReport]) -> list[_Result]:
        """Everything, run by run."""
        kept = [
            {
                "snapshots": {name: np.stack(values) for name, values in snapshots.items()},
                "movement": movement,
                "gates": gates,
            }
            for snapshots, movement, gates in zip(
                self._snapshots, self._movement, self._gates, strict=True
            )
        ]
        return list(zip(self._curves, reports, kept, strict=True))

    def _keep(self) -> None:
        """Keep the parameters, if that is wanted."""
        if self._configs[0].snapshots:
            for run, values in zip(self._snapshots, self._networks.values(), strict=True):
                for name, value in values.items():
                    run.setdefault(name, []).append(value)

    def _evaluate(self) -> None:
        runs = len(self._configs)
        with torch.no_grad():
            if self._configs[0].canonical().get("gates"):
                logits, gates = self._networks.watched(self._x)
            else:
                logits, gates = self._networks(self._x), {}
            errors = _evaluation(logits, self._y)
        evaluation: dict[str, list[float]] = {"step": [self._step] * runs, **errors}
        evaluation["train_loss"] = [math.nan] * runs
        if self._losses:
            evaluation["train_loss"] = torch.stack(self._losses).double().mean(0).tolist()
            self._losses.clear()
        for name, by_run in evaluation.items():
            for curves, value in zip(self._curves, by_run, strict=True):
                curves[name].append(value)
        for run, distances in zip(self._movement, self._networks.movement(), strict=True):
            for name, distance in distances.items():
                run[name].append(distance)
        for name, shares in gates.items():
            for run_gates, own in zip(self._gates, shares.tolist(), strict=True):
                run_gates.setdefault(name, []).append([round(share, 5) for share in own])
        if self._on_evaluation is not None:
            self._on_evaluation()


def _train(
    configs: Sequence[RunConfig],
    dataset: datasets.Dataset,
    device: torch.device,
    on_evaluation: Callable[[], object] | None,
) -> list[_Result]:
    built = [_built(config, dataset) for config in configs]
    networks = _Networks([network for network, _ in built], device)
    recorder = _Recorder(configs, networks, dataset, device, on_evaluation)
    for losses in _steps(configs, networks, dataset, device):
        recorder.after_step(losses)
    return recorder.results(report for _, report in built)


def _steps(
    configs: Sequence[RunConfig],
    networks: _Networks,
    dataset: datasets.Dataset,
    device: torch.device,
) -> Iterator[Tensor]:
    """Train, and yield the losses of each step, by run, once it is taken."""
    config = configs[0]  # in all but the seed
    optimizer = OPTIMIZERS[config.optimizer](_parameter_groups(networks.parameters, config))
    rise = None
    if config.warmup:
        rise = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / config.warmup, 1.0)
        )
    orders = [generator_of(config.seed, "order") for config in configs]
    x, y = dataset.x_train.to(device), dataset.y_train.to(device)
    for _ in range(config.epochs):
        # On the CPU: other devices draw other orders from the same seed.
        indices = torch.stack([torch.randperm(len(x), generator=order) for order in orders])
        for batch in indices.to(device).split(config.batch_size, dim=1):
            losses = _losses(networks(x[batch]), y[batch])
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            if rise is not None:
                rise.step()
            yield losses.detach()


def _built(config: RunConfig, dataset: datasets.Dataset) -> tuple[nn.Module, ScaleReport]:
    torch.manual_seed(config.seed)  # for an arm of the user's that draws from the global state
    return build_network(config, dataset)


def _parameter_groups(parameters: Mapping[str, Tensor], config: RunConfig) -> list[dict[str, Any]]:
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in parameters.items():
        rate = config.family.learning_rate(config, name.rpartition(".")[2])
        groups.setdefault(rate, []).append(parameter)
    return [{"params": own, "lr": rate} for rate, own in groups.items()]


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy by run, for logits (runs, batch, classes) and labels (runs, batch)."""
    loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return loss.view(labels.shape).mean(1)


def _evaluation(logits: Tensor, y: Tensor) -> dict[str, list[float]]:
    """Error (a fraction) and mean cross-entropy on the test set, by run."""
    return {
        "test_error": (logits.argmax(-1) != y).double().mean(1).tolist(),
        "test_loss": _losses(logits.double(), y.expand(len(logits), -1)).tolist(),
    }


def generator_of(seed: int, purpose: str) -> torch.Generator:
    """Random numbers of one seed for one purpose, independent of those for any other purpose.

    Parameters come from ``manual_seed(seed)`` itself, as they would in a plain script.
    """
    if purpose != "parameters":
        digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big", signed=True)
    return torch.Generator().manual_seed(seed)


@contextmanager
def reproducible_arithmetic() -> Iterator[None]:
    """One thread, and denormals flushed: BL saturates Phi, and denormals double its time.

    The global random state is put back: the constructors of layers draw from it.
    """
    threads = torch.get_num_threads()
    flushed = bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0) == 0.0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(threads)
