"""The note's statements, each beside what the runs gave, and a verdict.

What the note says is in ``claims.toml``, one entry a statement, with the name of the metric that
measures it, one of `study.claim_metrics`. Nothing measured is written down: every number is
computed from records when a table is made.

The note is J. Paek, "A Calibrated Initialization for Gaussian Mixture Layers", 30 June 2026.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy

from gmlib.study.analysis.curves import diverged
from gmlib.study.analysis.text import labelled
from gmlib.study.claims.metrics import METRICS, Array, Measured, Ratio, Runs, Truths
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.studies import STUDIES
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord

__all__ = [
    "VERDICTS",
    "Claim",
    "by_section",
    "details",
    "judge",
    "load",
    "review",
    "statements",
    "summary",
    "table",
]

VERDICTS = ("holds", "holds in part", "does not hold", "cannot be judged", "not measured")
"""What can be said of a statement; see `judge`."""

Comparison = pd.DataFrame | str
"""A table of the note's statements beside ours, or a sentence where there is nothing to compare."""

_NO_FIGURES = "The note has no figures for these settings."
_INDEPENDENT = ("seeds", "pairs")  # entries of which there could be more: they have an interval


# --- The statements ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A statement of the note, and how it is measured.

    Args:
        id: Its name.
        section: The section of the page that it belongs to.
        where: Where the note has it.
        quote: The note's words.
        quantity: What is measured.
        note: The range in which the note's figure lies, as wide as its rounding or its "about"; or
            the truth value that the note gives to each entry.
        metric: Name of one of `METRICS`; empty where nothing could be measured.
        arms: The arms whose runs the metric is given, in this order.
        study: The study that these runs belong to, one of `studies.STUDIES`; empty for a metric
            that needs no runs.
        parameters: What else the metric is given.
        unit: Unit of the figures.
        digits: Digits behind the point.
        stated: What to print for the note, where its range would not say it.
        reading: What the note's words are taken to mean, where they give no figure.
        chapter: The page of the book that is about it.
        tables: The pages whose comparison tables show it.
        comment: What to say where the statement does not simply hold.
        why: Why it cannot be judged, where there is no metric.

    Raises:
        ValueError: If the metric or the study is not known, or there is neither a metric nor a
            reason for its absence.
    """

    id: str
    section: str
    where: str
    quote: str
    quantity: str
    note: tuple[float, float] | bool = True
    metric: str = ""
    arms: tuple[str, ...] = ()
    study: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
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
        if self.study and self.study not in STUDIES:
            raise ValueError(f"claim {self.id!r}: there is no study {self.study!r}")

    @property
    def stated_text(self) -> str:
        """What the note says, in few words."""
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


@functools.cache
def load() -> tuple[Claim, ...]:
    """The statements in ``claims.toml``, in the note's order.

    Raises:
        ValueError: If an entry is not a statement, or two have one name.
    """
    file = importlib.resources.files("gmlib.study.claims") / "claims.toml"
    claims = tuple(_claim(entry) for entry in tomllib.loads(file.read_text("utf-8"))["claim"])
    names = [claim.id for claim in claims]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"claims.toml has two entries of one id: {repeated}")
    return claims


def _claim(entry: Mapping[str, Any]) -> Claim:
    """An entry of the file: lists become tuples, a single figure a range."""
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


# --- Verdicts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What was measured, and what follows.

    Args:
        measured: The figures, as text.
        verdict: One of `VERDICTS`.
        interval: The 95 % interval, as text; empty if there is none.
        off: How far a mean is off, as text.
        remark: What else to know: how many runs diverged, or why there is no verdict.
    """

    measured: str
    verdict: str
    interval: str = ""
    off: str = ""
    remark: str = ""


def judge(claim: Claim, measured: Measured) -> Judgement:
    """Hold a measurement against a statement.

    A figure holds if the mean over seeds lies in the note's range, to the digit that is shown; in
    part if only the range over seeds meets the note's, or, where there is a single value, if it is
    off by a tenth of the note's figure at most; else it does not hold.

    A truth value for each seed (pair, epoch, component) holds if all are as the note says; in part
    if more than half are; else it does not hold.

    A ratio holds if it lies in the note's range; in part if its 95 % interval, where it has one,
    does not lie in that range as a whole; else it does not hold.
    """
    if measured is None:
        return Judgement("not measured", "cannot be judged")
    entries = METRICS[claim.metric].entries if claim.metric else ""
    if isinstance(measured, (bool, np.bool_)):
        return Judgement("yes" if measured else "no", _verdict(bool(measured) == claim.note))
    if isinstance(measured, Ratio):
        return _judge_ratio(claim, measured)
    if np.asarray(measured).dtype == bool:
        return _judge_truths(claim, np.asarray(measured, dtype=bool), entries)
    return _judge_figure(claim, np.asarray(measured, dtype=float), entries)


def _judge_truths(claim: Claim, truths: Truths, entries: str) -> Judgement:
    if not len(truths):
        return Judgement("not measured", "cannot be judged")
    share = float((truths == claim.note).mean())
    hits, total = int(truths.sum()), len(truths)
    interval = ""
    if entries in _INDEPENDENT and total > 1:
        ends = scipy.stats.binomtest(hits, total).proportion_ci()
        interval = f"{100 * ends.low:.0f} to {100 * ends.high:.0f} %"
    return Judgement(f"{hits} of {total} {entries}", _verdict(share == 1, share > 0.5), interval)


def _judge_ratio(claim: Claim, ratio: Ratio) -> Judgement:
    assert not isinstance(claim.note, bool)
    if not math.isfinite(ratio.value):
        return Judgement("not measured", "cannot be judged")
    low, high = claim.note
    inside = low <= ratio.value <= high
    certain = not (ratio.low < low or ratio.high > high)  # also where there is no interval
    parts = " against ".join(f"{part:,.{claim.digits}f}" for part in (ratio.first, ratio.second))
    interval = "" if math.isnan(ratio.low) else f"{ratio.low:.2g} to {ratio.high:.2g}"
    return Judgement(
        f"{parts}{claim.unit}: ratio {ratio.value:.2g}",
        _verdict(inside and certain, inside),
        interval,
    )


def _judge_figure(claim: Claim, values: Array, entries: str) -> Judgement:
    assert not isinstance(claim.note, bool)
    low, high = claim.note
    values = values[np.isfinite(values)]
    if not len(values):
        return Judgement("not measured", "cannot be judged")

    def write(value: float) -> str:
        return f"{value:,.{claim.digits}f}".replace("-", "−")

    mean, slack = values.mean(), 0.5 * 10.0**-claim.digits
    verdict, distance = "holds", ""
    if not low - slack <= mean <= high + slack:
        off = mean - high if mean > high else low - mean
        near = values.min() <= high and low <= values.max()
        if len(values) == 1:  # which has no range
            near = off <= 0.1 * abs(high if mean > high else low)
        verdict = _verdict(False, bool(near))
        unit = " points" if claim.unit.strip() == "%" else claim.unit
        distance = f"{write(off)}{unit} {'above' if mean > high else 'below'}"
    measured, interval = f"{write(mean)}{claim.unit}", ""
    least, most = write(values.min()), write(values.max())
    if least != most:
        measured += f" ({least} to {most})"
        if entries in _INDEPENDENT:
            ends = scipy.stats.t.interval(0.95, len(values) - 1, mean, scipy.stats.sem(values))
            interval = " to ".join(map(write, ends))
    return Judgement(measured, verdict, interval, distance)


def _verdict(holds: bool, in_part: bool = False) -> str:
    return "holds" if holds else "holds in part" if in_part else "does not hold"


# --- From records to judgements ------------------------------------------------------------------

Source = Callable[[Claim], list[list[RunRecord]] | str]
"""The runs that a statement needs, arm by arm, or why they are not there."""


def _assess(claim: Claim, source: Source) -> Judgement:
    if claim.why:
        return Judgement("–", "cannot be judged", remark=claim.why)
    runs = source(claim)
    if isinstance(runs, str):
        return Judgement("not measured", "not measured", remark=runs)
    judgement = judge(claim, METRICS[claim.metric].function(*runs, **claim.parameters))
    lost = [
        f"{arm}: {num} of {len(own)} diverged"
        for arm, own in zip(claim.arms, runs, strict=True)
        if (num := sum(map(diverged, own)))
    ]
    return replace(judgement, remark="; ".join(lost))


def _given(records: Runs) -> Source:
    """The runs among `records`, whatever their seeds."""

    def find(claim: Claim) -> list[list[RunRecord]] | str:
        runs = [
            [r for r in records if r.config.arm == arm and _is_of(r.config, claim.study)]
            for arm in claim.arms
        ]
        return runs if all(runs) else "there are no such runs"

    return find


def _recorded(ledger: Ledger) -> Source:
    """The runs of the committed studies in a ledger: all that a statement needs, or none."""
    find = functools.cache(ledger.get)

    def get(claim: Claim) -> list[list[RunRecord]] | str:
        configs = [c for c in STUDIES.get(claim.study, []) if c.arm in claim.arms]
        records = [record for record in map(find, configs) if record is not None]
        if len(records) < len(configs):
            missing = len(configs) - len(records)
            return f"{missing} of {len(configs)} records missing"
        return [[r for r in records if r.config.arm == arm] for arm in claim.arms]

    return get


def _is_of(config: RunConfig, study: str) -> bool:
    """Whether a run is of a study's settings, whatever its arm and seed."""
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.canonical().items()
        if name not in ("arm", "seed", "snapshots")
    }
    return any(
        all(getattr(theirs, name) == value for name, value in settings.items())
        and (config.snapshots or not theirs.snapshots)
        for theirs in _distinct(study)
    )


@functools.cache
def _distinct(study: str) -> frozenset[RunConfig]:
    """The settings of a study, of one arm and seed each."""
    return frozenset(replace(config, arm="KUMAR", seed=0) for config in STUDIES.get(study, []))


# --- Tables --------------------------------------------------------------------------------------


def table(page: str, records: Runs) -> Comparison:
    """The note's statements that a page of the book shows, beside what some runs gave.

    Args:
        page: Name of a notebook, or ``"index"``.
        records: The runs, of whatever arms and seeds. Those of settings that are not the note's
            are not held against it.

    Returns:
        One row a statement: the note's figure; ours, as mean (lowest to highest) over the seeds
        that trained; the verdict, with how far off the mean is.
    """
    claims = [claim for claim in load() if page in claim.tables]
    studies = {claim.study for claim in claims}
    if not all(any(_is_of(record.config, study) for study in studies) for record in records):
        return _NO_FIGURES
    source = _given(records)
    rows = []
    for claim in claims:
        judgement = _assess(claim, source)
        verdict = ": ".join(filter(None, [judgement.verdict, judgement.off]))
        rows.append(
            {
                "quantity": claim.quantity,
                "note": claim.stated_text,
                "ours": judgement.measured,
                "verdict": verdict,
            }
        )
    return _typeset(labelled(pd.DataFrame(rows), "quantity"))


def review(ledger: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """All statements beside the recorded runs. Nothing is trained.

    Args:
        ledger: Folder of the records; None is the project's.

    Returns:
        One row a statement, by its name: where the note has it and in what words, what was measured
        with its 95 % interval, the verdict, and what else is to be known. A statement is not
        measured if a record that it needs is missing.
    """
    source = _recorded(Ledger(ledger))
    rows = []
    for claim in load():
        judgement = _assess(claim, source)
        rows.append(
            {
                "id": claim.id,
                "section": claim.section,
                "where": claim.where,
                "quote": claim.quote,
                "quantity": claim.quantity,
                "note": claim.stated_text,
                "reading": claim.reading,
                "measured": judgement.measured,
                "interval": judgement.interval,
                "verdict": judgement.verdict,
                "off": judgement.off,
                "remark": judgement.remark,
                "chapter": claim.chapter,
                "comment": claim.comment,
            }
        )
    return _typeset(pd.DataFrame(rows).set_index("id"))


def summary(reviewed: pd.DataFrame) -> str:
    """How many statements there are of each verdict, as a sentence."""
    verbs = {
        "holds": ("holds", "hold"),
        "holds in part": ("holds in part", "hold in part"),
        "does not hold": ("does not hold", "do not hold"),
        "cannot be judged": ("cannot be judged", "cannot be judged"),
        "not measured": ("is not measured", "are not measured"),
    }
    counts = reviewed.verdict.value_counts()
    parts = [
        f"{counts[verdict]} {verbs[verdict][int(counts[verdict] > 1)]}"
        for verdict in VERDICTS
        if verdict in counts
    ]
    listed = ", ".join(parts[:-1]) + (" and " if parts[1:] else "") + parts[-1]
    return f"Of {len(reviewed)} statements of the note, {listed}."


def by_section(reviewed: pd.DataFrame) -> pd.DataFrame:
    """Numbers of statements by section of the page and verdict."""
    counts = pd.crosstab(reviewed.section, reviewed.verdict)
    counts = counts.reindex(index=reviewed.section.unique(), columns=list(VERDICTS), fill_value=0)
    return counts.rename_axis(index=None, columns="statements")


def statements(reviewed: pd.DataFrame, section: str) -> str:
    """The statements of one section as a table in Markdown, with links to the chapters."""
    lines = ["| the note says | measured here | verdict | chapter |", "|---|---|---|---|"]
    for row in reviewed[reviewed.section == section].to_dict("records"):
        says = f"“{row['quote']}” ({_unbroken('§ ' + row['where'])})"
        if row["quantity"]:
            meaning = f"read as {row['reading']}" if row["reading"] else row["note"]
            says += f"<br>*{row['quantity']}*: {meaning}"
        interval = _unbroken(f"95 %: {row['interval']}") if row["interval"] else ""
        measured = [row["measured"].replace(" to ", _unbroken(" to ")), interval, row["remark"]]
        verdict = f"**{row['verdict']}**"
        if row["off"]:
            verdict += f"<br>{row['off']}"
        link = f"[{row['chapter']}]({row['chapter']}.ipynb)" if row["chapter"] else "–"
        cells = (says, "<br>".join(filter(None, measured)), verdict, link)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def details(reviewed: pd.DataFrame, verdict: str) -> str:
    """The statements of one verdict as a list in Markdown, with what there is to say of each."""
    rows = reviewed[reviewed.verdict == verdict].to_dict("records")
    if not rows:
        return "None."
    return "\n".join(
        f"- **{row['quantity'][:1].upper()}{row['quantity'][1:]}.** The note: {row['note']}. "
        f"Here: {row['measured']}. {row['comment']}".rstrip()
        for row in rows
    )


def _unbroken(text: str) -> str:
    """With spaces at which a line does not break."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _typeset(frame: pd.DataFrame) -> pd.DataFrame:
    """With no line breaks between a number and its percent sign."""
    return frame.replace(" %", "\N{NO-BREAK SPACE}%", regex=True)
