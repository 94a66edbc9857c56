"""Tables of the statements: the note's numbers beside measured results, and the verdicts.

No measured number is stored: each is computed from records when a table is made.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from gmlib.study.analysis.curves import diverged
from gmlib.study.analysis.text import labelled, unbroken
from gmlib.study.claims.claim import Claim, load
from gmlib.study.claims.results import Runs
from gmlib.study.claims.verdicts import VERDICTS, Judgement, judge
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.studies import STUDIES
from gmlib.study.runs.ledger import Ledger

__all__ = ["by_section", "details", "review", "statements", "summary", "table"]

Comparison = pd.DataFrame | str
"""A table of the note's statements beside ours, or a sentence if there is nothing to compare."""

_NO_NUMBERS = "The note has no numbers for these settings."


def table(page: str, records: Runs) -> Comparison:
    """Compare the note's statements that a page of the book shows with the results of runs.

    Args:
        page: Name of a notebook, or ``"index"``.
        records: The runs, of any arms and seeds. If one of them has other settings than the note,
            there is no comparison.

    Returns:
        One row per statement: the note's figure; ours, as mean (lowest to highest) over the seeds
        that trained; the verdict, with the distance of the mean from the note's range.
    """
    claims = [claim for claim in load() if page in claim.tables]
    studies = {claim.study for claim in claims}
    if not all(any(_is_of(record.config, study) for study in studies) for record in records):
        return _NO_NUMBERS
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
    """Compare all statements with the recorded runs; nothing is trained.

    Args:
        ledger: Folder of the records; the project's by default.

    Returns:
        One row per statement, indexed by its name: its place and words in the note, the result with
        its 95 % interval, the verdict, and remarks. A statement is not measured if a record that it
        needs is missing.
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
    """Return the number of statements of each verdict, as a sentence."""
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
        says = f"“{row['quote']}” ({unbroken('§ ' + row['where'])})"
        if row["quantity"]:
            meaning = f"read as {row['reading']}" if row["reading"] else row["note"]
            says += f"<br>*{row['quantity']}*: {meaning}"
        interval = unbroken(f"95 %: {row['interval']}") if row["interval"] else ""
        measured = [row["measured"].replace(" to ", unbroken(" to ")), interval, row["remark"]]
        verdict = f"**{row['verdict']}**"
        if row["off"]:
            verdict += f"<br>{row['off']}"
        link = f"[{row['chapter']}]({row['chapter']}.ipynb)" if row["chapter"] else "–"
        cells = (says, "<br>".join(filter(None, measured)), verdict, link)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def details(reviewed: pd.DataFrame, verdict: str) -> str:
    """The statements of one verdict as a list in Markdown, with a comment on each."""
    rows = reviewed[reviewed.verdict == verdict].to_dict("records")
    if not rows:
        return "None."
    return "\n".join(
        f"- **{row['quantity'][:1].upper()}{row['quantity'][1:]}.** The note: {row['note']}. "
        f"Here: {row['measured']}. {row['comment']}".rstrip()
        for row in rows
    )


def _typeset(frame: pd.DataFrame) -> pd.DataFrame:
    """Prevent line breaks between a number and its percent sign."""
    return frame.replace(" %", "\N{NO-BREAK SPACE}%", regex=True)


# --- From records to judgements ------------------------------------------------------------------

Source = Callable[[Claim], list[Runs] | str]
"""Function that returns the runs that a statement needs, arm by arm, or why they are missing."""


def _assess(claim: Claim, source: Source) -> Judgement:
    if claim.why:
        return Judgement("–", "cannot be judged", remark=claim.why)
    runs = source(claim)
    if isinstance(runs, str):
        return Judgement("not measured", "not measured", remark=runs)
    judgement = judge(claim, claim.measure(runs))
    lost = [
        f"{arm}: {num} of {len(own)} diverged"
        for arm, own in zip(claim.arms, runs, strict=True)
        if (num := sum(map(diverged, own)))
    ]
    return replace(judgement, remark="; ".join(lost))


def _given(records: Runs) -> Source:
    """Return a source of the runs among `records`, whatever their seeds."""

    def find(claim: Claim) -> list[Runs] | str:
        runs = [
            [r for r in records if r.config.arm == arm and _is_of(r.config, claim.study)]
            for arm in claim.arms
        ]
        return list[Runs](runs) if all(runs) else "there are no such runs"

    return find


def _recorded(ledger: Ledger) -> Source:
    """Return a source of committed runs in a ledger: all that a statement needs, or none."""
    find = functools.cache(ledger.get)

    def get(claim: Claim) -> list[Runs] | str:
        configs = [c for c in STUDIES.get(claim.study, []) if c.arm in claim.arms]
        records = [record for record in map(find, configs) if record is not None]
        if len(records) < len(configs):
            missing = len(configs) - len(records)
            return f"{missing} of {len(configs)} records missing"
        return [[r for r in records if r.config.arm == arm] for arm in claim.arms]

    return get


def _is_of(config: RunConfig, study: str) -> bool:
    """Whether a run has a study's settings, whatever its arm and seed."""
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
    """The distinct settings of a study, each with the same arm and seed."""
    return frozenset(replace(config, arm="KUMAR", seed=0) for config in STUDIES.get(study, []))
