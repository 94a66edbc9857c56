"""The note's statements: the content of ``claims.toml``, and how each is measured.

The note is J. Paek, "A Calibrated Initialization for Gaussian Mixture Layers", 30 June 2026.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gmlib.study.claims.metrics import METRICS
from gmlib.study.claims.results import COMPARISONS, Result, Runs
from gmlib.study.plan.arms import arm_of
from gmlib.study.plan.studies import STUDIES

__all__ = ["Claim", "load"]


@dataclass(frozen=True)
class Claim:
    """A statement of the note, and how it is measured.

    Args:
        id: Name of the statement.
        section: The section of the page that it belongs to.
        where: Place of the statement in the note.
        quote: The note's words.
        quantity: What is measured.
        note: The range in which the note's figure lies, as wide as its rounding or its "about"; or
            the truth value that the note gives to each entry.
        metric: Name of one of `METRICS`; empty if nothing could be measured.
        compare: Name of one of `COMPARISONS`, by which the first arm is compared with the others;
            empty where the metric is given the runs of all arms.
        arms: The arms whose runs are measured, in this order.
        study: The study that these runs belong to, one of `studies.STUDIES`; empty for a metric
            that needs no runs. Other runs with the same settings count, too, see `Evidence`.
        epochs: The number of epochs, from the start, that the statement is about; all if None.
        parameters: Further arguments of the metric.
        against: Parameters that differ for the arms compared with the first arm or, if there are
            none, for the first arm when it is compared with itself.
        unit: Unit of the numbers.
        digits: Digits after the decimal point.
        stated: Text to print for the note, if its range would not express it.
        reading: What the note's words are taken to mean, if they give no figure.
        chapter: The page of the book about the statement.
        tables: The pages whose comparison tables show the statement.
        comment: Comment on a statement that does not simply hold, or on which there is more to say.
        why: Why the statement cannot be judged, if there is no metric.

    Raises:
        ValueError: If the metric, the comparison or the study is not known, or there is neither a
            metric nor a reason for its absence.
    """

    id: str
    section: str
    where: str
    quote: str
    quantity: str
    note: tuple[float, float] | bool = True
    metric: str = ""
    compare: str = ""
    arms: tuple[str, ...] = ()
    study: str = ""
    epochs: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    against: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    digits: int = 1
    stated: str | None = None
    reading: str = ""
    chapter: str = ""
    tables: tuple[str, ...] = ()
    comment: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if bool(self.metric) == bool(self.why):
            raise ValueError(f"claim {self.id!r} needs a metric, or else a reason why it has none")
        if self.metric and self.metric not in METRICS:
            raise ValueError(f"claim {self.id!r}: there is no metric {self.metric!r}")
        if self.compare and self.compare not in COMPARISONS:
            raise ValueError(f"claim {self.id!r}: there is no comparison {self.compare!r}")
        if self.study and self.study not in STUDIES:
            raise ValueError(f"claim {self.id!r}: there is no study {self.study!r}")

    @property
    def depends_on_coordinates(self) -> bool:
        """Whether it is about the training of GM layers.

        Dense networks have no coordinates, and at the start a GM layer is the same function in all.
        """
        return self.epochs != 0 and any("coordinates" in arm_of(arm).settings for arm in self.arms)

    @property
    def range(self) -> tuple[float, float]:
        """The note's range; for a truth value, only 1 or only 0."""
        if isinstance(self.note, bool):
            return float(self.note), float(self.note)
        return self.note

    @property
    def stated_text(self) -> str:
        """The note's figure or truth value as text."""
        if self.stated is not None:
            return self.stated
        if isinstance(self.note, bool):
            each = bool(self.metric) and bool(METRICS[self.metric].entries)
            yes, no = ("all", "none") if each else ("yes", "no")
            return yes if self.note else no
        low, high = self.note
        if low == high:
            return f"{low:,.{self.digits}f}{self.unit}"
        return f"{low:,.{self.digits}f} to {high:,.{self.digits}f}{self.unit}"

    def measure(self, arms: Sequence[Runs]) -> Result:
        """Measure the runs, given arm by arm."""
        metric = METRICS[self.metric]
        if not self.compare:
            return metric(*arms, **self.parameters)
        first, *others = arms
        return COMPARISONS[self.compare](
            metric(first, **self.parameters),
            *(metric(own, **{**self.parameters, **self.against}) for own in others or [first]),
        )


@functools.cache
def load() -> tuple[Claim, ...]:
    """The statements in ``claims.toml``, in the note's order.

    Raises:
        ValueError: If an entry is not a statement, or two have the same name.
    """
    file = importlib.resources.files("gmlib.study.claims") / "claims.toml"
    claims = tuple(_claim(entry) for entry in tomllib.loads(file.read_text("utf-8"))["claim"])
    names = [claim.id for claim in claims]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"claims.toml has two entries of one id: {repeated}")
    return claims


def _claim(entry: Mapping[str, Any]) -> Claim:
    """Make a statement of an entry of the file: lists become tuples, a single figure a range."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    note = values.get("note", True)
    if not isinstance(note, (bool, tuple)):
        values["note"] = (note, note)
    try:
        return Claim(**values)
    except TypeError as error:
        raise ValueError(f"claim {entry.get('id')!r}: {error}") from None
