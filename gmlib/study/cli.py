"""The command ``gmlib`` checks whether the ledger is whole and its records are true."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from gmlib.study.datasets import DataError
from gmlib.study.runs.ledger import Ledger, LedgerError, printable
from gmlib.study.runs.verify import choose, choose_measurements, verify, verify_measurement

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if something is wrong, 2 if it cannot be done."""
    parser = argparse.ArgumentParser(prog="gmlib", description=__doc__)
    commands = parser.add_subparsers(required=True)

    ledger = commands.add_parser("ledger", help="look after the folder of records").add_subparsers(
        required=True
    )
    for name, action, text in (
        ("check", _check, "read every file and say what is wrong"),
        ("repair", _repair, "move bad files into its folder set-aside; delete nothing"),
    ):
        command = ledger.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        _add_folder(command)

    text = "repeat some recorded runs and measurements, and compare the results with the records"
    command = commands.add_parser("verify", help=text, description=text)
    command.set_defaults(action=_verify)
    _add_folder(command)
    command.add_argument("--runs", type=_count, default=3, help="how many (default: %(default)s)")
    command.add_argument(
        "--epochs",
        type=_count,
        default=1,
        help="how many of each run's first epochs (default: %(default)s)",
    )
    command.add_argument("--arm", action="append", help="only this arm; may be given several times")
    command.add_argument(
        "--measurements", type=_count, default=1, help="how many (default: %(default)s)"
    )
    command.add_argument(
        "--exact", action="store_true", help="accept nothing but equality bit for bit"
    )
    command.add_argument("--seed", type=int, help="seed of the choice (default: random)")

    options = parser.parse_args(arguments)
    try:
        return int(options.action(options))
    except (DataError, LedgerError) as error:
        print(f"gmlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ledger", type=Path, metavar="FOLDER", help="(default: the project's)", default=None
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def _existing(folder: Path | None) -> Ledger:
    ledger = Ledger(folder)
    if not ledger.folder.is_dir():
        raise LedgerError(f"there is no ledger {ledger.folder}")
    return ledger


def _check(options: argparse.Namespace) -> int:
    ledger = _existing(options.ledger)
    faults = ledger.check()
    for fault in faults:
        print(fault)
    runs = len(list(ledger.folder.glob("*.json")))
    measurements = len(list(ledger.folder.glob("measurements/*.json")))
    print(f"{ledger.folder}: {runs} runs, {measurements} measurements, {len(faults)} faults")
    return bool(faults)


def _repair(options: argparse.Namespace) -> int:
    ledger = _existing(options.ledger)
    for fault, target in ledger.repair():
        print(printable(f"{fault.path} {fault.reason}; moved to {target}"))
    return _check(options)


def _verify(options: argparse.Namespace) -> int:
    ledger = _existing(options.ledger)
    runs = choose(ledger, options.runs, options.arm, options.seed)
    measurements = choose_measurements(ledger, options.measurements, options.seed)
    verdicts = chain(
        (verify(record, options.epochs, exact=options.exact) for record in runs),
        (verify_measurement(record, ledger, exact=options.exact) for record in measurements),
    )
    holds = True
    for verdict in verdicts:
        print(verdict, flush=True)
        holds &= verdict.holds
    return not holds
