"""Damaged files in the ledger: found, set aside and made good."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledger_files import Contents, Damage, aged, content, forge, lasting, ledger_command

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.sweeps import sweep

pytestmark = pytest.mark.usefixtures("bounded")

AGAIN = "move it away and run the sweep again, or restore it from version control"
CURES = (
    AGAIN,
    "the sweep writes it again",
    "it holds nothing",
    "it does not belong into a ledger",
)


def cut(share: float) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def holds(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def edited(pattern: str, new: str, encoding: str = "utf-8") -> Damage:
    """Text that fits the pattern replaced, as an editor does it."""

    def edit(path: Path) -> None:
        text, count = re.subn(pattern, lambda found: found.expand(new), path.read_text(), count=1)
        assert count == 1
        path.write_bytes(text.encode(encoding))

    return edit


def forged(**entries: Any) -> Damage:
    """Entries replaced in a record whose digest fits, as a faulty program would write it.

    A curve is named like an entry.
    """

    def change(record: dict[str, Any]) -> None:
        for name, value in entries.items():
            (record["curves"] if name in record["curves"] else record)[name] = value

    return lambda path: forge(path, change)


def snapshots(damage: Damage) -> Damage:
    return lambda path: damage(path.with_suffix(".npz"))


def archived(archive: bytes) -> Damage:
    """Snapshots replaced by something whose checksum the record states."""

    def replace(path: Path) -> None:
        file = path.with_suffix(".npz")
        file.write_bytes(archive)
        sha256 = hashlib.sha256(archive).hexdigest()
        forged(snapshots={"file": file.name, "sha256": sha256})(path)

    return replace


def replaced(by: Damage) -> Damage:
    """Something else under the name of the file."""

    def replace(path: Path) -> None:
        path.unlink()
        by(path)

    return replace


def neighbour(path: Path) -> Path:
    """The record of another run with snapshots."""
    return next(
        other.with_suffix(".json")
        for other in sorted(path.parent.glob("*.npz"))
        if other.stem != path.stem
    )


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_suffix(".swap"))
    other.rename(one)
    one.with_suffix(".swap").rename(other)


def zipped(compression: int) -> bytes:
    """An archive of one array that claims to be compressed in this way."""
    buffer, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(100, np.float32))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("0.mu.npy", array.getvalue())
        archive.filelist[0].compress_type = compression
    local = bytearray(buffer.getvalue())
    local[8:10] = compression.to_bytes(2, "little")
    return bytes(local)


HUGE = "[" * 100_000 + "]" * 100_000
STEPS = r'"step": \[0, 1, 2, 3, 4, 6\]'
DAMAGES: dict[str, Damage] = {
    # Torn
    "empty": cut(0.0),
    "one byte left": holds(b"{"),
    "cut in the configuration": cut(0.1),
    "cut in the middle": cut(0.5),
    "cut in the digest": cut(0.99),
    "the last brace is missing": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "zeros at the end": lambda path: path.write_bytes(path.read_bytes()[:2048].ljust(4096, b"\0")),
    "zeros throughout": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    # Of another kind
    "random bytes": holds(np.random.default_rng(0).bytes(4096)),
    "an image": holds(b"\x89PNG\r\n\x1a\n"),
    "a list": holds(b"[1, 2, 3]"),
    "a number alone": holds(b"1"),
    "null": holds(b"null"),
    "a string": holds(b'"schema"'),
    "a notebook": holds(b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'),
    "two records in one": lambda path: path.write_bytes(2 * path.read_bytes()),
    "snapshots in the record's place": lambda path: shutil.copy(path.with_suffix(".npz"), path),
    # Edited
    "a number": edited(r'("test_error": \[0\.\d)\d', r"\g<1>0"),
    "a step": edited(STEPS, '"step": [0, 1, 2, 3, 5, 6]'),
    "a setting": edited('"lr": 0.1', '"lr": 0.2'),
    "the digest": edited('"digest": ".', '"digest": "g'),
    "no digest": edited(r',\n "digest": "\w+"', ""),
    "the digest is a number": edited(r'"digest": "\w+"', '"digest": 1'),
    "a schema of the past": edited('"schema": 1', '"schema": 0'),
    "a negative schema": edited('"schema": 1', '"schema": -1'),
    "an unknown schema": edited('"schema": 1', '"schema": "one"'),
    "a list for a schema": edited('"schema": 1', '"schema": [2]'),
    "the name of the run": edited(r'"run_id": "\w', '"run_id": "x'),
    # JSON that is none, or too much
    "NaN": edited("null", "NaN"),
    "infinity": edited("null", "Infinity"),
    "minus infinity": edited("null", "-Infinity"),
    "a number that overflows": edited("null", "1e999"),
    "10,000 digits": edited("null", "1" * 10_000),
    "a schema of 10,000 digits": edited('"schema": 1', '"schema": ' + "1" * 10_000),
    "digits that are not ASCII": edited(STEPS, '"step": [0, ١, ٢, ٣, ٤, ٦]'),
    "brackets without end": holds(b"[" * 100_000),
    "100,000 brackets": holds(HUGE.encode()),
    "100,000 brackets within": edited('"git_commit": [^,]+', f'"git_commit": {HUGE}'),
    "900 objects within": edited(
        '"git_commit": [^,]+', '"git_commit": ' + '{"a":' * 900 + "0" + "}" * 900
    ),
    "a curve that hides another": edited(STEPS, r'"step": [0, 1], \g<0>'),
    "a setting that hides another": edited('"seed": 0', r'"seed": 7, \g<0>'),
    "a digest that hides another": edited('"digest"', r'"digest": "0", \g<0>'),
    "a byte order mark": edited("^", "\ufeff"),
    "UTF-16": edited("^", "", "utf-16"),
    "Latin-1": edited('"cpu": "', r"\g<0>é", "latin-1"),
    "half a surrogate pair": edited('"cpu": "', r"\g<0>\\ud800"),
    # A digest that fits what makes no sense
    "no curves": forged(curves=None),
    "a curve is null": forged(test_loss=None),
    "a curve is text": forged(test_loss="abcdef"),
    "a curve of texts": forged(test_loss=list("abcdef")),
    "a curve of lists": forged(test_loss=[[1.0]] * 6),
    "a curve by name": forged(test_loss=dict.fromkeys("abcdef", 1.0)),
    "steps are null": forged(step=[None] * 6),
    "negative steps": forged(step=[-1, 0, 1, 2, 3, 4]),
    "steps that fall": forged(step=[0, 1, 2, 4, 3, 6]),
    "steps that stand": forged(step=[0, 1, 2, 3, 3, 6]),
    "nothing evaluated": forged(
        movement={}, **{name: [] for name in ("step", "test_error", "test_loss", "train_loss")}
    ),
    "negative time": forged(wall_time=-1.0),
    "time as text": forged(wall_time="1 s"),
    # Snapshots
    "no snapshots": snapshots(Path.unlink),
    "empty snapshots": snapshots(cut(0.0)),
    "half of the snapshots": snapshots(cut(0.5)),
    "longer snapshots": snapshots(lambda file: file.write_bytes(file.read_bytes() + b"\0")),
    "another run's snapshots": lambda path: shutil.copy(
        neighbour(path).with_suffix(".npz"), path.with_suffix(".npz")
    ),
    "swapped snapshots": lambda path: swap(
        path.with_suffix(".npz"), neighbour(path).with_suffix(".npz")
    ),
    "snapshots are a folder": snapshots(replaced(Path.mkdir)),
    "snapshots are a pipe": snapshots(replaced(os.mkfifo)),
    "snapshots are a loop": snapshots(replaced(lambda file: file.symlink_to(file.name))),
    "snapshots are empty, and the checksum fits": archived(b""),
    "snapshots are no archive, and the checksum fits": archived(b"PK\x03\x04 and so on"),
    "snapshots of an unknown compression": archived(zipped(99)),
    "snapshots that do not unpack": archived(zipped(zipfile.ZIP_DEFLATED)),
    # Under other names
    "renamed": lambda path: path.rename(path.with_name("renamed.json")),
    "swapped": lambda path: swap(path, neighbour(path)),
    "in the place of another": lambda path: path.replace(neighbour(path)),
    "duplicated": lambda path: shutil.copy(path, path.with_stem("copy")),
    "duplicated with snapshots": lambda path: [
        shutil.copy(file, file.with_stem("copy")) for file in (path, path.with_suffix(".npz"))
    ],
    "duplicated in a hidden file": lambda path: shutil.copy(path, path.with_stem(f".{path.stem}")),
    "duplicated in a folder": lambda path: shutil.copytree(path.parent, path.with_name("copy")),
    "an editor's backup": lambda path: shutil.copy(path, path.with_suffix(".json~")),
    "the extension in capitals": lambda path: path.rename(path.with_suffix(".JSON")),
    "snapshots without a record": Path.unlink,
    # No files
    "a folder": replaced(Path.mkdir),
    "a folder with files": replaced(
        lambda path: shutil.copytree(path.parent, path, ignore=lambda *_: {path.name})
    ),
    "a loop": replaced(lambda path: path.symlink_to(path.name)),
    "a link to nothing": replaced(lambda path: path.symlink_to("nowhere")),
    "a link to a pipe": replaced(
        lambda path: [os.mkfifo(path.with_suffix(".pipe")), path.symlink_to(f"{path.stem}.pipe")]
    ),
    "a pipe": replaced(os.mkfifo),
    "a pipe more": lambda path: os.mkfifo(path.with_stem("pipe")),
    "a draft of long ago": aged(3e8),
    "a draft of two hours ago": aged(7200),
    "a draft of the far future": aged(-3e8),
    "a draft that links to itself": lambda path: [
        path.with_name(".a-1.tmp").symlink_to(".a-1.tmp"),
        os.utime(path.with_name(".a-1.tmp"), (0, 0), follow_symlinks=False),
    ],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_set_aside_and_made_good(
    name: str,
    whole: Ledger,
    expected: Contents,
    configs: list[RunConfig],
    trained: list[RunConfig],
    capsys: pytest.CaptureFixture[str],
    measured: Any,
) -> None:
    before = content(whole.folder)
    DAMAGES[name](whole.path(configs[0]))
    damaged = content(whole.folder)

    def is_sound(config: RunConfig) -> bool:
        files = whole.path(config).name, whole.path(config).with_suffix(".npz").name
        return all(damaged.get(file) == before.get(file) for file in files)

    for config in configs:
        if is_sound(config):
            assert whole.get(config) is not None
        elif config in whole:
            message = rf"^{re.escape(str(whole.path(config)))} is not .*; {AGAIN}$"
            with pytest.raises(LedgerError, match=message):
                sweep([config], whole, jobs=1)
    named = {fault.path for fault in whole.check()}
    assert named
    assert named.isdisjoint(whole.path(config) for config in configs if is_sound(config))
    capsys.readouterr()
    assert ledger_command(whole, "check") == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    assert summary.endswith(f" runs, 0 measurements, {len(named)} faults")
    assert len(lines) == len(named)
    for path, line in zip(sorted(named), lines, strict=True):
        assert re.fullmatch(rf"{re.escape(str(path))} .+; ({'|'.join(CURES)})", line)
    assert content(whole.folder) == damaged
    assert trained == []

    assert ledger_command(whole, "repair") == 0
    left = content(whole.folder)
    assert left.pop("set-aside") | left == damaged
    sweep(configs, whole, jobs=1)
    assert trained == [config for config in configs if not is_sound(config)]
    assert lasting(whole) == expected
    measured.add("damage", "kinds of damage to the ledger: found, set aside and made good")


def test_a_newer_version_s_record_stays(
    whole: Ledger,
    configs: list[RunConfig],
    trained: list[RunConfig],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = whole.path(configs[0])
    edited('"schema": 1', '"schema": 2, "more": 1')(path)
    before = content(whole.folder)
    message = f"{path} is not a valid record (its schema is 2, this version reads 1); update gmlib"
    for action in ("check", "repair"):
        assert ledger_command(whole, action) == 1
        assert capsys.readouterr().out.splitlines()[0].startswith(message)
    assert content(whole.folder) == before
    with pytest.raises(LedgerError, match=re.escape(message)):
        sweep(configs, whole, jobs=1)
    assert trained == []


def test_a_file_in_the_place_of_set_aside(
    whole: Ledger, configs: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    (whole.folder / "set-aside").touch()
    whole.path(configs[0]).write_bytes(b"")
    before = content(whole.folder)
    assert {fault.path for fault in whole.check()} == {
        whole.folder / "set-aside",
        whole.path(configs[0]),
    }
    assert ledger_command(whole, "repair") == 2
    assert "cannot be set aside (File exists); see that" in capsys.readouterr().err
    assert content(whole.folder) == before


def test_what_was_set_aside_is_not_replaced_by_the_next(
    whole: Ledger, configs: list[RunConfig]
) -> None:
    path = whole.path(configs[2])
    for target in ("one", "two"):  # links to nothing, whose names are taken all the same
        path.unlink()
        path.symlink_to(target)
        whole.repair()
        sweep(configs, whole, jobs=1)
    aside = content(whole.folder / "set-aside")
    assert sorted(aside.values()) == [("link", "one"), ("link", "two")]


def test_a_name_that_cannot_be_printed(whole: Ledger) -> None:
    name = os.fsdecode(b"\xff\xfe.json")
    try:
        (whole.folder / name).touch()
    except OSError as error:
        pytest.skip(f"file names are text here: {error}")
    (fault,) = whole.check()
    assert str(fault).encode().startswith(f"{whole.folder}/\\udcff\\udcfe.json is not".encode())
    assert ledger_command(whole, "check") == 1
    assert ledger_command(whole, "repair") == 0


def test_files_may_go_while_they_are_checked(
    whole: Ledger, configs: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft becomes a record, say."""
    draft = whole.folder / ".a-1.tmp"
    draft.touch()
    files = sorted(whole.folder.iterdir())
    draft.unlink()
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(files if path == whole.folder else []))
    assert whole.check() == []
