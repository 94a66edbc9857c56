"""Recorded training: the ledger, the sweeps that fill it, and the checks of its records."""

from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.measurements import measure
from gmlib.study.runs.sweeps import SweepError, sweep, sweep_by

__all__ = ["Ledger", "LedgerError", "SweepError", "measure", "sweep", "sweep_by"]
