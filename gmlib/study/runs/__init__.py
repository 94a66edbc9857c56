"""Training, recorded: the ledger, what fills it, and what holds it to its word."""

from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.measurements import measure
from gmlib.study.runs.sweeps import SweepError, sweep, sweep_by

__all__ = ["Ledger", "LedgerError", "SweepError", "measure", "sweep", "sweep_by"]
