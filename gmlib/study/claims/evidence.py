"""Evidence: the runs that a statement is judged on."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gmlib.study.analysis.readings import first_epochs
from gmlib.study.claims.claim import Claim
from gmlib.study.claims.metrics import METRICS
from gmlib.study.claims.results import Runs
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.studies import STUDIES
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.records import RunRecord

__all__ = ["Evidence", "is_about", "num_seeds"]


class Evidence:
    """The runs that statements are judged on: those given, and the committed ones in a ledger.

    A statement names a study. It is judged on all runs that train as this study's do: the study's
    own, those of any other of `STUDIES`, and those given, provided that their settings are the same
    in all but the seed and what is recorded. If the statement is about the first epochs alone, runs
    of another length count as well, as far as those epochs go. Of the runs of one seed, one counts.
    If one of the study's networks was never run, there are no runs to judge on.

    What else is in the ledger does not count. Otherwise the verdicts would depend on what somebody
    happened to train, as a half-finished sweep or for another purpose.

    Args:
        given: Runs.
        ledger: The ledger of the committed runs; none of them counts by default.
        coordinates: Of GM layers in the runs that count; all other settings are the study's.
    """

    def __init__(
        self, given: Runs = (), ledger: Ledger | None = None, coordinates: str = "affine"
    ) -> None:
        self._given = given
        self._coordinates = coordinates
        self._get = functools.cache(ledger.get if ledger is not None else lambda _: None)

    def missing(self, claim: Claim) -> str:
        """What the ledger lacks of the statement's own study, as a clause; empty if nothing."""
        configs = [config for config in STUDIES.get(claim.study, []) if config.arm in claim.arms]
        missing = sum(self._get(config) is None for config in configs)
        return f"{missing} of {len(configs)} records missing" if missing else ""

    def runs(self, claim: Claim) -> list[Runs]:
        """The runs that a statement is judged on, arm by arm, cut to the epochs it is about."""
        return [self._of_arm(claim, arm) for arm in claim.arms]

    def _of_arm(self, claim: Claim, arm: str) -> Runs:
        study = [
            replace(config, coordinates=self._coordinates)
            for config in STUDIES[claim.study]
            if config.arm == arm
        ]
        wanted = {_settings(config, claim.epochs) for config in study}
        committed = (c for c in (*study, *_committed()) if _settings(c, claim.epochs) in wanted)
        needs_snapshots = METRICS[claim.metric].needs_snapshots
        found: dict[tuple[str, int], RunRecord] = {}
        for record in (*self._given, *filter(None, map(self._get, committed))):
            settings = _settings(record.config, claim.epochs)
            if settings in wanted and (record.snapshots or not needs_snapshots):
                found.setdefault((settings, record.config.seed), record)
        if {settings for settings, _ in found} != wanted:
            return []
        if claim.epochs is not None:
            return first_epochs(list(found.values()), claim.epochs)
        return [replace(r, config=_unobserved(r.config)) for r in found.values()]


def is_about(claim: Claim, config: RunConfig) -> bool:
    """Whether a statement is about runs with these settings, whatever the arm and seed."""
    own = _settings(config, claim.epochs)
    return any(
        _settings(replace(theirs, arm=config.arm), claim.epochs) == own
        for theirs in STUDIES.get(claim.study, [])
    )


def num_seeds(arms: Sequence[str], runs: Sequence[Runs]) -> str:
    """The number of seeds as text: once if all arms have as many, and else by arm."""
    numbers = [_num_seeds(own) for own in runs]
    if len(set(numbers)) == 1:
        return numbers[0]
    return ", ".join(f"{arm} {number}" for arm, number in zip(arms, numbers, strict=True))


def _num_seeds(runs: Runs) -> str:
    """The number of seeds of each network, or the range of these numbers."""
    counts = Counter(replace(record.config, seed=0).run_id for record in runs).values()
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


@functools.cache
def _committed() -> tuple[RunConfig, ...]:
    """The configurations of all studies."""
    return tuple({c.run_id: c for configs in STUDIES.values() for c in configs}.values())


@functools.cache
def _settings(config: RunConfig, epochs: int | None) -> str:
    """A name of the settings that a run's first epochs depend on; empty if it has fewer.

    The seed is not among them, nor is what runs record beyond their curves: they train alike with
    and without.
    """
    epochs = config.epochs if epochs is None else epochs
    if config.epochs < epochs:
        return ""
    return replace(_unobserved(config), seed=0, epochs=epochs).run_id


def _unobserved(config: RunConfig) -> RunConfig:
    """The configuration of a run that records no more than its curves."""
    return replace(config, snapshots=False, gates=False)
