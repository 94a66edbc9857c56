"""Readings of the note's text: how often runs diverge under each, and how far one epoch gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from gmlib.study.analysis.comparisons import divergence_table
from gmlib.study.analysis.curves import by_variant, runs_table, tidy
from gmlib.study.analysis.statistics import sign_test
from gmlib.study.analysis.text import Table, ranged
from gmlib.study.runs.records import RunRecord

__all__ = ["as_the_note", "divergence_pairs", "first_epochs", "readings_table"]

_NOTE_SEEDS = 5


def first_epochs(records: Sequence[RunRecord], number: int = 1) -> list[RunRecord]:
    """Runs cut at the end of an epoch: the curves are those of runs of so many epochs.

    Args:
        records: The runs, of `number` epochs or more.
        number: Epochs to keep.
    """
    cut = []
    for record in records:
        end = record.curves["step"][-1] * number // max(record.config.epochs, 1)
        kept = sum(step <= end for step in record.curves["step"])
        curves = {name: curve[:kept] for name, curve in record.curves.items()}
        config = replace(record.config, epochs=number, snapshots=False, gates=False)
        cut.append(
            replace(record, config=config, curves=curves, movement={}, snapshots={}, gates={})
        )
    return cut


def as_the_note(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs with a ReLU between the layers, under the settings of those without.

    For a comparison with the note's figures, on the supposition that it had one.
    """
    return [replace(record, config=replace(record.config, between="none")) for record in records]


def readings_table(
    records: Mapping[str, Sequence[RunRecord]], note_error: tuple[float, float] | None = None
) -> Table:
    """Tabulate divergence and the first epoch's error of each reading, below the note's.

    Args:
        records: Runs of one epoch, of one arm each, by reading.
        note_error: The note's test error (%) after the first epoch: mean and highest.

    Returns:
        One row per reading, after one of the note if its error is given: seeds that diverged, their
        share with an exact 95 % interval; the probability, at that share and at the ends of the
        interval, that none of five seeds, as many as the note has, diverges; mean and range of the
        others' test error (%).
    """
    tables = [
        divergence_table(runs).numbers.assign(reading=reading) for reading, runs in records.items()
    ]
    numbers = pd.concat(tables, ignore_index=True)
    # The more diverge, the less probable it is that none of five does.
    for end, share in (("", "share"), ("_low", "share_high"), ("_high", "share_low")):
        numbers[f"spared{end}"] = (1.0 - numbers[share]) ** _NOTE_SEEDS
    if note_error is not None:
        mean, highest = note_error
        note = {"reading": "the note", "first_epoch": mean, "first_epoch_high": highest}
        numbers = pd.concat([tidy([note]), numbers], ignore_index=True)
    fate, spared = "{diverged:.0f} of {seeds:.0f}", ranged("spared", "{:.0%}")
    return Table(
        numbers,
        {"reading": "{reading}"},
        {
            "diverged": f"{fate}|none reported",
            "95 % interval": "{share_low:.0%} to {share_high:.0%}|–",
            "five of five train": spared,
            "error of the others (%)": ranged(
                "first_epoch",
                "{:.1f}",
                otherwise="about {first_epoch:.0f} (up to {first_epoch_high:.0f})|–",
            ),
        },
    )


def divergence_pairs(records: Mapping[str, Sequence[RunRecord]], reference: str) -> Table:
    """Compare how often variants diverge with how often another does, seed by seed.

    Returns:
        One row per variant but `reference`: the number of seeds that both have; of these, how many
        diverged in both, in `reference` alone and in the variant alone; and the two-sided p-value
        of McNemar's exact test, which is the sign test of the last two.
    """
    diverged = by_variant(records, runs_table).pivot(index="seed", columns="arm", values="diverged")
    rows = []
    for variant in records:
        if variant != reference:
            pairs = diverged[[reference, variant]].dropna().astype(bool)
            theirs, own = pairs[reference], pairs[variant]
            rows.append(
                {
                    "variant": variant,
                    "pairs": len(pairs),
                    "both": int((own & theirs).sum()),
                    "theirs": int((theirs & ~own).sum()),
                    "own": int((own & ~theirs).sum()),
                    "p": sign_test(own.astype(int) - theirs.astype(int)),
                }
            )
    return Table(
        tidy(rows),
        {"diverged": "{variant}"},
        {
            "pairs": "{pairs}",
            "both": "{both}",
            f"only {reference}": "{theirs}",
            "only this one": "{own}",
            "p": "{p:.2g}|–",
        },
    )
