"""Measurements: values computed from data or networks without training, recorded like runs.

``@measurement(version=1)`` makes a function a measurement. Calling it computes the value. `measure`
first looks up the value in the ledger by the measurement's name, version and settings, and computes
and records it only if it is missing::

    errors = measure(Ledger("records"), monte_carlo_errors, config, [10, 100], 8)

A change of what a function measures requires a new version: the old value keeps its name and is no
longer found.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gmlib.study import datasets
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.provenance import provenance
from gmlib.study.runs.records import MeasurementConfig, MeasurementRecord, RunRecord
from gmlib.study.runs.training import reproducible_arithmetic

__all__ = ["MEASUREMENTS", "Load", "Measurement", "measure", "measurement", "recompute"]

P = ParamSpec("P")
R = TypeVar("R")


class Load(Protocol):
    """A function that loads a measurement's data, such as `datasets.load`."""

    def __call__(self, name: str, standardize: str = "image") -> datasets.Dataset:
        """Return the data set."""


class Measurement(Generic[P, R]):
    """A function whose values can be recorded. Calling it computes a value.

    Args:
        function: The function. If it needs data, it has an argument ``load``, which is no setting.
        version: Version of what the function measures.
    """

    def __init__(self, function: Callable[P, R], version: int) -> None:
        functools.update_wrapper(self, function)  # its docstring, for the book and for help()
        self.name = function.__name__
        self.version = version
        self.function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute the value."""
        return self.function(*args, **kwargs)

    def config(self, *args: P.args, **kwargs: P.kwargs) -> MeasurementConfig:
        """Return the configuration that names the value of a call.

        Raises:
            TypeError: If a record cannot hold an argument, or an argument does not fit the
                function.
        """
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = {
            name: _to_setting(name, value)
            for name, value in bound.arguments.items()
            if name != "load"
        }
        return MeasurementConfig(self.name, self.version, settings)


MEASUREMENTS: dict[str, Measurement[..., Any]] = {}
"""The measurements by name. Importing a module registers the measurements that it defines."""


def measurement(version: int) -> Callable[[Callable[P, R]], Measurement[P, R]]:
    """Return a decorator that makes a function a measurement.

    The function's arguments are numbers, strings, configurations, records of runs with snapshots,
    or lists of these. Its value is a data frame, an array, a number, a string, or a mapping from
    names to these.

    Args:
        version: Version of the measurement, to be raised whenever the function's values change.
    """

    def register(function: Callable[P, R]) -> Measurement[P, R]:
        name = function.__name__
        if name in MEASUREMENTS:
            raise ValueError(f"there is a measurement {name!r} already")
        made = Measurement(function, version)
        MEASUREMENTS[name] = made
        return made

    return register


def measure(ledger: Ledger, what: Measurement[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Return the value of a measurement from the ledger; compute and record it if it is missing.

    Args:
        ledger: Ledger in which the value is looked up and stored.
        what: The measurement.
        *args: Positional arguments of the measurement.
        **kwargs: Keyword arguments of the measurement.

    Raises:
        LedgerError: If the record cannot be read or written.
        DataError: If the value has to be computed, and its data set cannot be loaded.
        TypeError: If a record cannot hold an argument.
    """
    config = what.config(*args, **kwargs)
    record = ledger.get(config)
    if record is None:
        record = _compute(what, config, args, kwargs)
        ledger.put(record)
    value: R = record.value  # read and computed values have the same form
    return value


def recompute(
    record: MeasurementRecord, ledger: Ledger, load: Load = datasets.load
) -> MeasurementRecord:
    """Compute a recorded measurement again.

    Args:
        record: The record.
        ledger: Ledger of the runs that were measured.
        load: Function that loads data sets.

    Raises:
        LedgerError: If this version of gmlib has no such measurement, or a run is missing or
            differs from the one that was measured.
    """
    config = record.config
    what = MEASUREMENTS.get(config.name)
    if what is None or what.version != config.version:
        raise LedgerError(f"this gmlib does not measure {config.name}, version {config.version}")
    bound = inspect.signature(what.function).bind_partial()
    for name, value in config.settings.items():
        bound.arguments[name] = _from_setting(value, ledger)
    return _compute(what, config, bound.args, bound.kwargs, load)


def _compute(
    what: Measurement[..., Any],
    config: MeasurementConfig,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    load: Load = datasets.load,
) -> MeasurementRecord:
    checksums: dict[str, dict[str, str]] = {}

    def noting_checksums(name: str, standardize: str = "image") -> datasets.Dataset:
        dataset = load(name, standardize)
        checksums[dataset.name] = dict(dataset.checksums)
        return dataset

    if "load" in inspect.signature(what.function).parameters:
        kwargs = {**kwargs, "load": noting_checksums}
    start = time.perf_counter()
    with reproducible_arithmetic():
        value = what.function(*args, **kwargs)
    return MeasurementRecord(
        config=config,
        value=value,
        wall_time=time.perf_counter() - start,
        provenance=provenance(checksums, torch.device("cpu"), 1),
    )


# --- Arguments as settings -----------------------------------------------------------------------


def _to_setting(name: str, value: Any) -> Any:
    """Return the JSON form of an argument in the record, which distinguishes its values."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, RunConfig):
        return {"RunConfig": value.canonical()}
    if isinstance(value, RunRecord):
        # The configuration is not enough: trained elsewhere, the run has other digits.
        return {"RunRecord": value.config.canonical(), "snapshots": _digest(value.snapshots)}
    if isinstance(value, Mapping):
        return {str(key): _to_setting(name, entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_to_setting(name, entry) for entry in value]
    raise TypeError(
        f"{name} must be a number, a string, a configuration, a record or a list of these, "
        f"got {value!r}"
    )


def _from_setting(value: Any, ledger: Ledger) -> Any:
    if isinstance(value, list):
        return [_from_setting(entry, ledger) for entry in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"RunConfig"}:
        return RunConfig.from_dict(value["RunConfig"])
    if set(value) == {"RunRecord", "snapshots"}:
        config = RunConfig.from_dict(value["RunRecord"])
        run = ledger.get(config)
        if run is None or _digest(run.snapshots) != value["snapshots"]:
            raise LedgerError(
                f"{ledger.folder} has no run {config.run_id} with the snapshots that were measured"
            )
        return run
    return {key: _from_setting(entry, ledger) for key, entry in value.items()}


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()
