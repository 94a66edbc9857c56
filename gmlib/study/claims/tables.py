"""Tables of the statements: the note's numbers beside measured results, and the verdicts.

No measured number is stored: each is computed from records when a table is made.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from gmlib.study.analysis.curves import diverged
from gmlib.study.analysis.text import Table, labelled, unbroken
from gmlib.study.claims.claim import Claim, load
from gmlib.study.claims.evidence import Evidence, is_about, num_seeds
from gmlib.study.claims.results import Runs
from gmlib.study.claims.verdicts import VERDICTS, Judgement, judge
from gmlib.study.runs.ledger import Ledger

__all__ = [
    "by_section",
    "changed",
    "details",
    "folded",
    "folded_summary",
    "review",
    "statements",
    "summary",
    "table",
]

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
    judgements = []
    for claim in load():
        missing = evidence.missing(claim)
        judgement = _not_measured(missing) if missing else _assess(claim, evidence)
        judgements.append((claim, judgement))
    return _reviewed(judgements)


def folded(ledger: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Compare the statements about the training of GM layers with runs in folded coordinates.

    Args:
        ledger: Folder of the records; the project's by default.

    Returns:
        One row per statement, as in `review`: the same metric, comparison and rule, on the folded
        runs of the same settings that there are. A statement is not measured if some network that
        it is about has none.
    """
    evidence = Evidence(ledger=Ledger(ledger), coordinates="folded")
    claims = [claim for claim in load() if claim.depends_on_coordinates]
    return _reviewed((claim, _assess(claim, evidence)) for claim in claims)


def changed(reviewed: pd.DataFrame, folded: pd.DataFrame) -> Table:
    """Tabulate the statements that get another verdict in folded coordinates.

    Args:
        reviewed: The output of `review`.
        folded: The output of `folded`.

    Returns:
        Two rows per statement, affine and folded: the result, the number of seeds, the verdict.
    """
    same = _same_verdict(reviewed, folded)
    sides = {"affine": reviewed, "folded": folded}
    columns = ["quantity", "note", "measured", "interval", "seeds", "verdict"]
    rows = [
        {"id": name, "coordinates": coordinates, **side.loc[name, columns]}
        for name in same.index[~same]
        for coordinates, side in sides.items()
    ]
    return Table(
        pd.DataFrame(rows, columns=["id", "coordinates", *columns]),
        {"quantity": "{quantity}", "note": "{note}", "coordinates": "{coordinates}"},
        {name: f"{{{name}}}" for name in ("measured", "seeds", "verdict")},
    )


def folded_summary(reviewed: pd.DataFrame, folded: pd.DataFrame) -> str:
    """Return how many verdicts are others in folded coordinates, as sentences.

    Args:
        reviewed: The output of `review`.
        folded: The output of `folded`.
    """
    same = _same_verdict(reviewed, folded)
    return (
        f"Of the {len(reviewed)} statements, {len(folded)} are about the training of GM layers. "
        f"For {len(same)} of these there are folded runs to judge them on: the verdict is the same "
        f"for {same.sum()} and another for {(~same).sum()}. Not run folded, or on too few seeds: "
        f"{len(folded) - len(same)}."
    )


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


def details(reviewed: pd.DataFrame, *verdicts: str) -> str:
    """The statements of one verdict or more as a list in Markdown, with a comment on each."""
    rows = reviewed[reviewed.verdict.isin(verdicts)].to_dict("records")
    return "\n".join(map(_in_words, rows)) or "None."


def _in_words(row: Mapping[Hashable, Any]) -> str:
    """A row of `review` as an item of a list in Markdown."""
    name = row["quantity"] or f"“{row['quote']}”"
    here = f"Here: {row['measured']}. " if row["quantity"] else ""
    start = f"- **{name[:1].upper()}{name[1:]}.** The note: {row['note']}. "
    return f"{start}{here}{row['comment']}".rstrip()


def _same_verdict(reviewed: pd.DataFrame, folded: pd.DataFrame) -> pd.Series:
    """Whether the verdict is the same in both, by name of the statement, where both have one."""
    verdicts = pd.DataFrame({"affine": reviewed.verdict[folded.index], "folded": folded.verdict})
    verdicts = verdicts[verdicts.isin(VERDICTS[:3]).all(axis=1)]
    return verdicts.affine == verdicts.folded


def _reviewed(judgements: Iterable[tuple[Claim, Judgement]]) -> pd.DataFrame:
    """One row per statement, see `review`."""
    rows = [
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
        for claim, judgement in judgements
    ]
    return _typeset(pd.DataFrame(rows).set_index("id"))


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
