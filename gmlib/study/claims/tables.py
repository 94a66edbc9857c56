"""Tables of the statements: the note's numbers beside measured results, and the verdicts.

No measured number is stored: each is computed from records when a table is made.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pandas as pd

from gmlib.study.analysis.curves import diverged
from gmlib.study.analysis.text import labelled, unbroken
from gmlib.study.claims.claim import Claim, load
from gmlib.study.claims.evidence import Evidence, is_about, num_seeds
from gmlib.study.claims.results import Runs
from gmlib.study.claims.verdicts import VERDICTS, Judgement, judge
from gmlib.study.runs.ledger import Ledger

__all__ = ["by_section", "details", "review", "statements", "summary", "table"]

Comparison = pd.DataFrame | str
"""A table of the note's statements beside ours, or a sentence if there is nothing to compare."""

_NO_NUMBERS = "The note has no numbers for these settings."


def table(page: str, records: Runs, ledger: Ledger | None = None) -> Comparison:
    """Compare the note's statements that a page of the book shows with the results of runs.

    Args:
        page: Name of a notebook, or ``"index"``.
        records: The runs, of any arms and seeds. If one of them has other settings than the note,
            there is no comparison.
        ledger: Ledger whose committed runs count beside these, see `Evidence`; none by default.

    Returns:
        One row per statement: the note's figure; ours, as mean (lowest to highest) over the seeds
        that trained; the number of seeds; the verdict, with the distance of the mean from the
        note's range.
    """
    claims = [claim for claim in load() if page in claim.tables]
    if not all(any(is_about(claim, record.config) for claim in claims) for record in records):
        return _NO_NUMBERS
    evidence = Evidence(records, ledger)
    rows = []
    for claim in claims:
        judgement = _assess(claim, evidence)
        verdict = ": ".join(filter(None, [judgement.verdict, judgement.off]))
        rows.append(
            {
                "quantity": claim.quantity,
                "note": claim.stated_text,
                "ours": judgement.measured,
                "seeds": judgement.seeds,
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
        its 95 % interval and number of seeds, the verdict, and remarks. A statement is not measured
        if a record of its study is missing.
    """
    evidence = Evidence(ledger=Ledger(ledger))
    rows = []
    for claim in load():
        missing = evidence.missing(claim)
        judgement = _not_measured(missing) if missing else _assess(claim, evidence)
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
                "seeds": judgement.seeds,
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
        seeds = f"seeds: {row['seeds']}" if row["seeds"] else ""
        result = row["measured"].replace(" to ", unbroken(" to "))
        measured = [result, interval, seeds, row["remark"]]
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


def _assess(claim: Claim, evidence: Evidence) -> Judgement:
    if claim.why:
        return Judgement("–", "cannot be judged", remark=claim.why)
    runs = evidence.runs(claim)
    if not all(runs):
        return _not_measured("there are no such runs")
    lost = [
        f"{arm}: {num} of {len(own)} diverged"
        for arm, own in zip(claim.arms, runs, strict=True)
        if (num := sum(map(diverged, own)))
    ]
    return replace(
        judge(claim, claim.measure(runs)),
        seeds=num_seeds(claim.arms, runs) if runs else "",
        remark="; ".join(lost),
    )


def _not_measured(remark: str) -> Judgement:
    return Judgement("not measured", "not measured", remark=remark)
