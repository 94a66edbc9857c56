"""Records of the ledger and their JSON form: runs, and measurements that need no training."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sized
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gmlib.init import LayerScale
from gmlib.study.plan.config import RunConfig

__all__ = [
    "CURVES",
    "MIGRATIONS",
    "SCHEMA",
    "MeasurementConfig",
    "MeasurementRecord",
    "NewerRecordError",
    "RunRecord",
    "migrated",
]

SCHEMA = 1
"""Version of the records' JSON form."""

MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Functions by version that convert a record's content to the next version; files do not change.

Raising `SCHEMA` by one requires a migration from the previous version.
"""


class NewerRecordError(ValueError):
    """A record was written by a newer version, so this version cannot tell whether it is valid."""


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of a record of any version to the form of this version.

    Raises:
        NewerRecordError: If its version is newer than `SCHEMA`.
        ValueError: If it has no version, or one that never existed.
    """
    schema: Any = content.get("schema")
    sentence = f"its schema is {schema!r}, this version reads {SCHEMA}"
    if type(schema) is not int or schema < min(MIGRATIONS, default=SCHEMA):
        raise ValueError(sentence)
    if schema > SCHEMA:
        raise NewerRecordError(sentence)
    for version in range(schema, SCHEMA):
        content = {**MIGRATIONS[version](content), "schema": version + 1}
    return content


CURVES = ("step", "test_error", "test_loss", "train_loss")
"""Names of a record's curves, each a list with one entry per evaluation.

``step`` counts gradient steps; ``test_error`` is a fraction; the losses are mean cross-entropies
in nats, ``train_loss`` over the batches since the previous evaluation (NaN at step 0).
"""


@dataclass(frozen=True)
class RunRecord:
    """The result of a run.

    Attributes:
        config: The configuration.
        curves: Values at the evaluated steps, for each name in `CURVES`.
        init_report: Output scale of each layer at initialization, on the calibration inputs.
        movement: Distance of each parameter, by name, from its initialization at the evaluated
            steps, relative to its norm at initialization (NaN where that is zero), to five
            digits. Empty in records made before the movement was measured.
        gates: By ``"layer.shut"`` and ``"layer.open"``, at the evaluated steps: the shares of test
            images to which each component of the layer is shut or open, see `runs.gates`. Empty
            unless the configuration asks for them.
        wall_time: Seconds of training and evaluation, without loading of data. Runs that were
            trained together have equal shares.
        provenance: Where and when the run was made, and with what.
        snapshots: Parameters by name, each stacked over the initialization and the ends of epochs,
            shape ``(epochs + 1, ...)``; empty unless the configuration asks for them.
    """

    config: RunConfig
    curves: Mapping[str, list[float]]
    init_report: tuple[LayerScale, ...]
    wall_time: float
    provenance: Mapping[str, Any]
    snapshots: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    movement: Mapping[str, list[float]] = field(default_factory=dict)
    gates: Mapping[str, list[list[float]]] = field(default_factory=dict)

    KEYS: ClassVar = {
        *("schema", "run_id", "config", "provenance", "wall_time", "init_report", "curves"),
        "snapshots",
    }
    OPTIONAL_KEYS: ClassVar = {"movement", "gates"}

    def to_json(self) -> dict[str, Any]:
        """Return all but the snapshots as a JSON-serializable object."""
        content = {
            "schema": SCHEMA,
            "run_id": self.config.run_id,
            "config": self.config.canonical(),
            "provenance": dict(self.provenance),
            "wall_time": self.wall_time,
            "init_report": [asdict(layer) for layer in self.init_report],
            "curves": {name: _curve_to_json(self.curves[name]) for name in CURVES},
        }
        if self.movement:
            content["movement"] = {
                name: _curve_to_json(distances) for name, distances in self.movement.items()
            }
        if self.gates:
            content["gates"] = {name: list(shares) for name, shares in self.gates.items()}
        return content

    @classmethod
    def from_json(
        cls, content: Mapping[str, Any], snapshots: Mapping[str, NDArray[np.float32]]
    ) -> RunRecord:
        """Return the record with the content that `to_json` returned, and with its snapshots.

        Content of an entirely different form raises other exceptions than those below.

        Raises:
            NewerRecordError: If the record has settings that this version does not know.
            ValueError: If the content is not that of a run.
        """
        unknown = set(content["config"]) - {field.name for field in fields(RunConfig)}
        if unknown:
            raise NewerRecordError(f"it has settings unknown here, {sorted(unknown)}")
        config = RunConfig.from_dict(content["config"])
        if config.run_id != content["run_id"]:
            raise ValueError(f"its configuration is that of {config.run_id}")
        curves = {name: _curve_from_json(content["curves"][name]) for name in CURVES}
        movement = {
            name: _curve_from_json(curve) for name, curve in content.get("movement", {}).items()
        }
        gates = {name: _shares_from_json(rows) for name, rows in content.get("gates", {}).items()}
        every: list[Sized] = [*curves.values(), *movement.values(), *gates.values()]
        if len({len(curve) for curve in every}) != 1:
            raise ValueError("its curves differ in length")
        steps = curves["step"]
        if not steps or steps[0] < 0 or not all(one < later for one, later in pairwise(steps)):
            raise ValueError("its steps do not rise from 0 on")
        return cls(
            config=config,
            curves=curves,
            init_report=tuple(LayerScale(**layer) for layer in content["init_report"]),
            wall_time=_wall_time(content),
            provenance=content["provenance"],
            snapshots=snapshots,
            movement=movement,
            gates=gates,
        )


@dataclass(frozen=True)
class MeasurementConfig:
    """What a measurement's value depends on.

    Attributes:
        name: Name of the measurement.
        version: Version of the measurement.
        settings: JSON form of the arguments, by name.
    """

    name: str
    version: int
    settings: Mapping[str, Any]

    def canonical(self) -> dict[str, Any]:
        """Return the attributes as a JSON-serializable object."""
        return {"name": self.name, "version": self.version, "settings": dict(self.settings)}

    @property
    def measurement_id(self) -> str:
        """Name of the value: a readable label, the version, and a hash of `canonical`."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        label = re.sub(r"[^a-z0-9]+", "-", self.name.lower())
        return f"{label}-v{self.version}-{digest}"


@dataclass(frozen=True)
class MeasurementRecord:
    """The result of a measurement.

    Attributes:
        config: The measurement and its settings.
        value: A data frame, an array, a number, a string, or a mapping from names to these.
        wall_time: Seconds that the measurement took.
        provenance: Where and when it was made, and with what.
    """

    config: MeasurementConfig
    value: Any
    wall_time: float
    provenance: Mapping[str, Any]

    KEYS: ClassVar = {"schema", "measurement_id", "config", "provenance", "wall_time", "value"}
    OPTIONAL_KEYS: ClassVar[set[str]] = set()

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON-serializable object.

        Raises:
            TypeError: If the value is of an unsupported type.
        """
        return {
            "schema": SCHEMA,
            "measurement_id": self.config.measurement_id,
            "config": self.config.canonical(),
            "provenance": dict(self.provenance),
            "wall_time": self.wall_time,
            "value": _value_to_json(self.value),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MeasurementRecord:
        """Return the record with the content that `to_json` returned.

        Content of an entirely different form raises other exceptions than those below.

        Raises:
            ValueError: If the content is not that of a measurement.
        """
        config = MeasurementConfig(**content["config"])
        if config.measurement_id != content["measurement_id"]:
            raise ValueError(f"its configuration is that of {config.measurement_id}")
        return cls(
            config=config,
            value=_value_from_json(content["value"]),
            wall_time=_wall_time(content),
            provenance=content["provenance"],
        )


def _wall_time(content: Mapping[str, Any]) -> float:
    wall_time = content["wall_time"]
    if not wall_time >= 0.0:
        raise ValueError(f"its wall_time is {wall_time!r}")
    return float(wall_time)


# --- Curves and values ---------------------------------------------------------------------------


def _curve_to_json(curve: list[float]) -> list[float | None]:
    """Replace values that are not finite by null, since JSON has no NaN and no infinity."""
    return [value if math.isfinite(value) else None for value in curve]


def _curve_from_json(curve: list[float | None]) -> list[float]:
    if not isinstance(curve, list) or {*map(type, curve)} - {int, float, type(None)}:
        raise ValueError("a curve holds something else than numbers")
    return [math.nan if value is None else value for value in curve]


def _shares_from_json(rows: list[list[float]]) -> list[list[float]]:
    entries = [entry for row in rows for entry in row]
    if {*map(type, entries)} - {int, float} or not all(0.0 <= entry <= 1.0 for entry in entries):
        raise ValueError("a share of gates is no number from 0 to 1")
    if len({len(row) for row in rows}) != 1:
        raise ValueError("the gates of a layer differ in number")
    return [[float(entry) for entry in row] for row in rows]


_DTYPES = ("bool", "int64", "float32", "float64", "str")


def _value_to_json(value: Any) -> Any:
    """Return a value and its kind as JSON; numbers keep all digits needed to restore them."""
    if isinstance(value, pd.DataFrame):
        return {"table": {str(name): _array_to_json(value[name]) for name in value.columns}}
    if isinstance(value, np.ndarray):
        return {"array": _array_to_json(value)}
    if isinstance(value, Mapping):
        return {"by name": {str(name): _value_to_json(entry) for name, entry in value.items()}}
    if isinstance(value, (int, float, str)):
        return value
    raise TypeError(f"a measurement's value must not be a {type(value).__name__}")


def _value_from_json(value: Any) -> Any:
    match value:
        case {"table": columns}:
            return pd.DataFrame({name: _array_from_json(own) for name, own in columns.items()})
        case {"array": own}:
            return _array_from_json(own)
        case {"by name": entries}:
            return {name: _value_from_json(entry) for name, entry in entries.items()}
        case int() | float() | str():
            return value
    raise ValueError(f"its value is of no known kind: {str(value)[:40]}")


def _array_to_json(values: Any) -> dict[str, Any]:
    array = np.asarray(values)
    dtype = "str" if array.dtype.kind in "OUT" else str(array.dtype)
    if dtype not in _DTYPES:
        raise TypeError(f"a measurement's arrays must be of {', '.join(_DTYPES)}, got {dtype}")
    entries = array.astype(object)
    if dtype.startswith("float"):
        entries[...] = np.array([*map(_float_to_json, array.flat)], object).reshape(array.shape)
    if dtype == "str" and not all(isinstance(entry, str) for entry in entries.flat):
        raise TypeError("a measurement's columns must hold numbers or strings alone")
    return {"dtype": dtype, "values": entries.tolist()}


def _float_to_json(number: np.floating[Any]) -> float | str:
    """Return the shortest digits that identify a number of its type, or a word if not finite."""
    return float(str(number)) if np.isfinite(number) else str(number)


def _array_from_json(content: Mapping[str, Any]) -> NDArray[Any]:
    if content["dtype"] not in _DTYPES:
        raise ValueError(f"its arrays are of {content['dtype']!r}")
    return np.array(content["values"], object if content["dtype"] == "str" else content["dtype"])
