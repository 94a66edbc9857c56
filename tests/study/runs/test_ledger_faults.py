"""The ledger under fire: full and closed disks, rivals, damaged files, and clocks that jump."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmlib.study import cli
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import ledger as ledger_module
from gmlib.study.runs import progress, provenance
from gmlib.study.runs import sweeps as sweep_module
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import sweep
from gmlib.study.runs.training import train

Contents = dict[str, list[bytes]]
Configure = Callable[..., RunConfig]
MakeRecord = Callable[..., RunRecord]

AGAIN = "move it away and run the sweep again, or restore it from version control"
CURES = (
    AGAIN,
    "the sweep writes it again",
    "it holds nothing",
    "it does not belong into a ledger",
)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """What hangs fails."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "results")


@pytest.fixture
def configs(tiny: Configure) -> list[RunConfig]:
    return [tiny(snapshots=True), tiny(seed=1, snapshots=True), tiny("FC")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("store") / "results")


@pytest.fixture
def whole(configs: list[RunConfig], store: Ledger, tmp_path: Path) -> Ledger:
    """The records of all of them."""
    sweep(configs, store, jobs=1)  # which trains for the first test only
    return Ledger(shutil.copytree(store.folder, tmp_path / "whole"))


@pytest.fixture
def expected(whole: Ledger) -> Contents:
    """What lasts of them."""
    return lasting(whole)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Configurations that are trained from now on, with one job."""
    configs: list[RunConfig] = []

    def spy(config: RunConfig, on_progress: Any) -> RunRecord:
        configs.append(config)
        return train(config, on_progress)

    monkeypatch.setattr(sweep_module, "train", spy)
    return configs


def content(path: Path) -> Any:
    """All that a repair must not lose, of whatever kind the file is."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "link", os.readlink(path)
    if stat.S_ISDIR(mode):
        return {child.name: content(child) for child in path.iterdir()}
    return path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)


def lasting(ledger: Ledger) -> Contents:
    """The files' bytes, but for the lines that tell when and where a run was made."""
    passing = (b' "wall_time"', b' "provenance"', b' "digest"')
    return {
        path.name: [line for line in path.read_bytes().splitlines() if not line.startswith(passing)]
        for path in ledger.folder.iterdir()
        if path.suffix in (".json", ".npz")
    }


# --- Disks ---------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs", folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting is not permitted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def fill(disk: Path, pages: int) -> Path:
    """A file that leaves so many pages of the disk free."""
    free = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes((free.f_bavail - pages) * free.f_frsize))
    return ballast


def cannot_write(path: Path, reason: str) -> str:
    """Pattern of the message about a record that cannot be written."""
    return (
        rf"^{re.escape(str(path))} cannot be written \({reason}\); see that its folder can be "
        "written and has room, and run the sweep again: what is recorded stays$"
    )


# Snapshots take two pages and a record takes one: room ends before, between and in both files.
@pytest.mark.parametrize("pages", range(6))
def test_a_full_disk(
    pages: int, disk: Path, expected: Contents, configs: list[RunConfig], trained: list[RunConfig]
) -> None:
    ledger = Ledger(disk / "results")
    sweep(configs[2:], ledger, jobs=1)
    ballast = fill(disk, pages)
    trained.clear()
    with pytest.raises(LedgerError) as error:
        sweep(configs, ledger, jobs=1)
    *recorded, stopped = trained
    assert re.search(cannot_write(ledger.path(stopped), "No space left .*"), str(error.value))
    assert sorted(record.config.run_id for record in ledger) == sorted(
        config.run_id for config in [*recorded, configs[2]]
    )
    assert lasting(ledger).items() <= expected.items()
    assert {path.suffix for path in ledger.folder.iterdir()} <= {".json", ".npz"}  # no drafts
    assert {fault.path for fault in ledger.check()} <= {ledger.path(stopped).with_suffix(".npz")}

    ballast.unlink()
    trained.clear()
    sweep(configs, ledger, jobs=1)
    assert trained == configs[len(recorded) : 2]
    assert lasting(ledger) == expected
    assert ledger.check() == []


def test_a_full_disk_for_temporary_files_fails_no_run(
    disk: Path, ledger: Ledger, configs: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    fill(disk, 0)
    assert len(sweep(configs, ledger, jobs=1)) == 3


@pytest.mark.parametrize("size", [0, 1, 1000, 2000])
def test_a_file_that_may_not_grow(size: int, ledger: Ledger, configs: list[RunConfig]) -> None:
    resource = pytest.importorskip("resource")
    recorded, record = train(configs[2]), train(configs[0])
    ledger.put(recorded)
    before = content(ledger.folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(LedgerError, match=cannot_write(ledger.path(configs[0]), "File too .*")):
            ledger.put(record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(ledger.folder) == before
    ledger.put(record)
    assert ledger.check() == []


def test_a_disk_that_turns_read_only(
    disk: Path, expected: Contents, configs: list[RunConfig], trained: list[RunConfig]
) -> None:
    ledger = Ledger(disk / "results")
    sweep(configs[1:], ledger, jobs=1)
    before = content(ledger.folder)
    mount("-o", "remount,ro", disk)
    assert len(sweep(configs[1:], ledger)) == 2  # reading needs no right to write
    with pytest.raises(LedgerError, match=cannot_write(ledger.path(configs[0]), "Read-only .*")):
        sweep(configs, ledger, jobs=1)
    assert content(ledger.folder) == before
    mount("-o", "remount,rw", disk)
    trained.clear()
    sweep(configs, ledger, jobs=1)
    assert trained == configs[:1]
    assert lasting(ledger) == expected


# --- Permissions ---------------------------------------------------------------------------------

NOBODY = 65534


@pytest.fixture
def bound(configs: list[RunConfig], whole: Ledger, expected: Contents) -> Iterator[Ledger]:
    """All records but the first, for a user whom permissions bind: root is nobody meanwhile."""
    folder = Path(tempfile.mkdtemp())  # not in `tmp_path`, which nobody could enter
    ledger = Ledger(folder / "results")
    shutil.copytree(whole.folder, ledger.folder)
    for file in ledger.folder.glob(f"{configs[0].run_id}.*"):
        file.unlink()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        if os.geteuid() == 0:
            try:
                for path in (folder, ledger.folder, *ledger.folder.iterdir()):
                    os.chown(path, NOBODY, NOBODY)
                os.seteuid(NOBODY)
            except OSError as error:
                pytest.skip(f"root cannot be somebody else here: {error}")
            stack.callback(os.seteuid, 0)
            if not os.access(ledger.folder, os.R_OK, effective_ids=True):
                pytest.skip(f"others cannot enter {folder}")
        yield ledger


@contextmanager
def permissions(path: Path, mode: int) -> Iterator[None]:
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def test_a_folder_without_write_permission(
    bound: Ledger, expected: Contents, configs: list[RunConfig], trained: list[RunConfig]
) -> None:
    with permissions(bound.folder, 0o555):
        before = content(bound.folder)
        assert len(sweep(configs[1:], bound)) == 2
        message = cannot_write(bound.path(configs[0]), "Permission denied")
        with pytest.raises(LedgerError, match=message):
            sweep(configs, bound, jobs=1)
        assert bound.check() == []
        assert content(bound.folder) == before
    trained.clear()
    sweep(configs, bound, jobs=1)
    assert trained == configs[:1]
    assert lasting(bound) == expected


def test_a_repair_without_write_permission(
    bound: Ledger, configs: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    path = bound.path(configs[1])
    path.write_bytes(b"")
    before = content(bound.folder)
    with permissions(bound.folder, 0o555):
        assert gmlib(bound, "repair") == 2
    assert re.fullmatch(
        rf"gmlib: {re.escape(str(path))} cannot be set aside \(Permission denied\); see that its "
        "folder can be written, and repair it again: nothing is lost\n",
        capsys.readouterr().err,
    )
    assert content(bound.folder) == before


def test_a_folder_that_may_not_be_entered(
    bound: Ledger, configs: list[RunConfig], trained: list[RunConfig]
) -> None:
    looks: list[Callable[[], object]] = [
        lambda: Ledger(bound.folder / "inner"),
        lambda: configs[1] in bound,
        lambda: bound.get(configs[1]),
        lambda: list(bound),
        lambda: bound.check(),
        lambda: bound.repair(),
        lambda: sweep(configs, bound, jobs=1),
    ]
    with permissions(bound.folder, 0o000):
        for look in looks:
            with pytest.raises(LedgerError, match=cannot_read(bound.folder, "Permission denied")):
                look()
    assert trained == []


def cannot_read(path: Path, reason: str) -> str:
    return (
        rf"^{re.escape(str(path))}\S* cannot be read \({reason}\); see that the ledger is a folder "
        "that may be entered and read$"
    )


def test_a_record_that_may_not_be_read(
    bound: Ledger, configs: list[RunConfig], trained: list[RunConfig]
) -> None:
    path = bound.path(configs[1])
    before = lasting(bound)
    with permissions(path, 0o000):
        (fault,) = bound.check()
        assert str(fault).startswith(f"{path} is not a valid record ([Errno 13] Permission denied")
        assert gmlib(bound, "check") == 1
        with pytest.raises(LedgerError, match=re.escape(str(path))):
            sweep(configs, bound, jobs=1)
        assert trained == []
        # As it is, so it is set aside.
        assert gmlib(bound, "repair") == 0
        aside = bound.folder / "set-aside" / path.name
        assert stat.S_IMODE(aside.stat().st_mode) == 0
        sweep(configs[1:], bound, jobs=1)
    assert trained == configs[1:2]
    assert lasting(bound) == before


# --- Folders that go -----------------------------------------------------------------------------


@pytest.fixture
def at_second_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something when a sweep begins with its second run."""

    def arrange(happen: Callable[[], object]) -> None:
        count = itertools.count(1)

        def spy(config: RunConfig, on_progress: Any) -> RunRecord:
            if next(count) == 2:
                happen()
            return train(config, on_progress)

        monkeypatch.setattr(sweep_module, "train", spy)

    return arrange


def test_a_folder_that_is_removed_while_a_sweep_runs(
    ledger: Ledger,
    expected: Contents,
    configs: list[RunConfig],
    at_second_run: Callable[[Callable[[], object]], None],
) -> None:
    at_second_run(lambda: shutil.rmtree(ledger.folder))
    assert len(sweep(configs, ledger, jobs=1)) == 3
    assert [config in ledger for config in configs] == [False, True, True]
    assert ledger.check() == []
    sweep(configs, ledger, jobs=1)
    assert lasting(ledger) == expected


@pytest.mark.parametrize(
    "become", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "link"]
)
def test_a_folder_that_becomes_something_else(
    become: Callable[[Path], None],
    ledger: Ledger,
    expected: Contents,
    configs: list[RunConfig],
    tmp_path: Path,
    at_second_run: Callable[[Callable[[], object]], None],
) -> None:
    def happen() -> None:
        ledger.folder.rename(tmp_path / "moved")
        become(ledger.folder)

    at_second_run(happen)
    with pytest.raises(LedgerError, match=cannot_write(ledger.path(configs[1]), "File exists")):
        sweep(configs, ledger, jobs=1)
    assert ledger.get(configs[0]) is None
    for look in (ledger.check, ledger.repair, lambda: list(ledger)):
        if ledger.folder.exists():
            with pytest.raises(LedgerError, match=cannot_read(ledger.folder, "Not a directory")):
                look()
        else:
            assert look() == []
    with pytest.raises(LedgerError, match=f"{re.escape(str(ledger.folder))} is not a folder"):
        Ledger(ledger.folder)
    ledger.folder.unlink()
    (tmp_path / "moved").rename(ledger.folder)
    sweep(configs, ledger, jobs=1)
    assert lasting(ledger) == expected


# --- Rivals --------------------------------------------------------------------------------------

RIVAL = """
import sys
from gmlib.study.runs import ledger as ledger_module
from gmlib.study.runs import progress
from gmlib.study.runs import provenance
from gmlib.study.runs import sweeps as sweep_module
from gmlib.study.plan.config import RunConfig
from gmlib.study.runs.ledger import Ledger

train = sweep_module.train

def spy(config, on_progress):
    print(config.run_id, flush=True)
    return train(config, on_progress)

sweep_module.train = spy
print("ready", flush=True)
sys.stdin.readline()
records = sweep_module.sweep({configs!r}, Ledger(sys.argv[1]), jobs=1)
print("returns", *(record.config.run_id for record in records))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that sweeps as soon as it is told to."""
    with ExitStack() as stack:

        def start(
            configs: list[RunConfig], ledger: Ledger, **environment: str
        ) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", RIVAL.format(configs=configs), str(ledger.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def end(process: subprocess.Popen[str], configs: list[RunConfig]) -> list[str]:
    """The runs that a process has trained, after it has returned the records of all."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    *trained, returned = out.splitlines()
    assert returned.split() == ["returns", *(config.run_id for config in configs)]
    return trained


@pytest.fixture
def many(tiny: Configure) -> list[RunConfig]:
    return [
        tiny(arm, seed, epochs=2, snapshots=seed == 1)
        for seed in range(4)
        for arm in ("FC", "BL", "KUMAR")
    ]


def test_two_sweeps_train_what_they_share_once(
    many: list[RunConfig], ledger: Ledger, tmp_path: Path, start: Start
) -> None:
    one, other = many[:8], many[:3:-1]
    rivals = start(one, ledger), start(other, ledger)
    go(*rivals)
    trained = end(rivals[0], one) + end(rivals[1], other)
    assert sorted(trained) == sorted(config.run_id for config in many)
    alone = Ledger(tmp_path / "alone")
    sweep(many, alone, jobs=1)
    assert lasting(ledger) == lasting(alone)
    assert ledger.check() == []


@pytest.mark.parametrize("begun", [1, 6])
def test_a_sweep_starts_while_the_one_that_trains_is_killed(
    begun: int,
    many: list[RunConfig],
    ledger: Ledger,
    tmp_path: Path,
    start: Start,
    trained: list[RunConfig],
) -> None:
    rival = start(many, ledger)
    go(rival)
    assert rival.stdout is not None
    for _ in range(begun):
        rival.stdout.readline()
    with ThreadPoolExecutor() as pool:
        records = pool.submit(sweep, many, ledger, jobs=1)
        rival.kill()
        assert [r.config.run_id for r in records.result()] == [c.run_id for c in many]
    assert trained == many[len(many) - len(trained) :]
    assert len(trained) <= len(many) - begun + 1
    sweep(many, Ledger(tmp_path / "alone"), jobs=1)
    assert lasting(ledger) == lasting(Ledger(tmp_path / "alone"))
    assert ledger.check() == []


def test_sweeps_on_machines_of_their_own(
    many: list[RunConfig], ledger: Ledger, tmp_path: Path, start: Start
) -> None:
    """They cannot know of each other, and both train; of each run the first record stays."""
    rivals = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        rivals.append(start(many, ledger, TMPDIR=str(tmp_path / name)))
    go(*rivals)
    first: dict[str, bytes] = {}
    while any(rival.poll() is None for rival in rivals):
        for path in ledger.folder.glob("own-*.json"):
            first.setdefault(path.name, path.read_bytes())
        time.sleep(0.001)
    trained = [end(rival, many) for rival in rivals]
    assert {*trained[0], *trained[1]} == {config.run_id for config in many}
    sweep(many, Ledger(tmp_path / "alone"), jobs=1)
    assert lasting(ledger) == lasting(Ledger(tmp_path / "alone"))
    assert ledger.check() == []
    assert first.items() <= content(ledger.folder).items()


def test_records_of_two_machines_are_not_mixed(
    ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that round in their own ways end the same run in the same instant."""
    records = [
        make_record(errors=[0.9, error], snapshots={"0.mu": np.full((2, 3), error, np.float32)})
        for error in (0.25, 0.26)
    ]
    replaced = os.replace
    both = threading.Barrier(2)

    def slowly(source: str, target: Path) -> None:
        with suppress(threading.BrokenBarrierError):  # the other is kept waiting, rightly
            both.wait(timeout=0.2)
        replaced(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    threads = [threading.Thread(target=ledger.put, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    first: dict[str, bytes] = {}
    while any(thread.is_alive() for thread in threads):
        for path in ledger.folder.glob("mnist-*.json"):
            first.setdefault(path.name, path.read_bytes())
    assert ledger.check() == []
    assert first.items() <= content(ledger.folder).items()


def test_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    """Whoever ends removes the lock's file under those who wait for it."""
    inside: list[int] = []

    def enter(number: int) -> None:
        with sweep_module._alone(tmp_path):
            inside.append(number)
            time.sleep(0.002)
            assert inside == [number]
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(40)))


# --- Damaged files -------------------------------------------------------------------------------

Damage = Callable[[Path], object]


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

    def forge(path: Path) -> None:
        record = json.loads(path.read_text())
        del record["digest"]
        for name, value in entries.items():
            (record["curves"] if name in record["curves"] else record)[name] = value
        record["digest"] = ledger_module._digest(record)
        path.write_text(json.dumps(record))

    return forge


def snapshots(damage: Damage) -> Damage:
    return lambda path: damage(path.with_suffix(".npz"))


def archived(archive: bytes) -> Damage:
    """Snapshots replaced by something whose checksum the record states."""

    def forge(path: Path) -> None:
        file = path.with_suffix(".npz")
        file.write_bytes(archive)
        sha256 = hashlib.sha256(archive).hexdigest()
        forged(snapshots={"file": file.name, "sha256": sha256})(path)

    return forge


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


def aged(seconds: float) -> Damage:
    """A draft of the record that was written so long ago."""

    def leave(path: Path) -> None:
        draft = path.with_name(f".{path.stem}-1.tmp")
        draft.write_text("{")
        os.utime(draft, (time.time() - seconds,) * 2)

    return leave


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


def gmlib(ledger: Ledger, action: str) -> int:
    return cli.main(["ledger", action, "--ledger", str(ledger.folder)])


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
    assert gmlib(whole, "check") == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    assert summary.endswith(f" runs, 0 measurements, {len(named)} faults")
    assert len(lines) == len(named)
    for path, line in zip(sorted(named), lines, strict=True):
        assert re.fullmatch(rf"{re.escape(str(path))} .+; ({'|'.join(CURES)})", line)
    assert content(whole.folder) == damaged
    assert trained == []

    assert gmlib(whole, "repair") == 0
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
        assert gmlib(whole, action) == 1
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
    assert gmlib(whole, "repair") == 2
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
    assert gmlib(whole, "check") == 1
    assert gmlib(whole, "repair") == 0


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


# --- Clocks --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")  # of the thread that draws the bar
def test_a_clock_that_jumps(
    ledger: Ledger, expected: Contents, configs: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time

    def jumping() -> Callable[[], float]:
        jumps = itertools.cycle([0.0, -3e8, 3e8, 7200.0, -7200.0])
        return lambda: now() + next(jumps)

    dates = jumping()

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Jumping:
            return cls.fromtimestamp(dates(), tz)

    monkeypatch.setattr(time, "time", jumping())
    monkeypatch.setattr("tqdm.std.time", jumping())
    monkeypatch.setattr(provenance, "datetime", Jumping)
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    records = sweep(configs, ledger, jobs=1)
    assert all(0.0 <= record.wall_time < 60.0 for record in records)
    assert len({record.provenance["utc"][:4] for record in records}) == 3
    assert lasting(ledger) == expected
    assert ledger.check() == []
    assert len(sweep(configs, ledger)) == 3


@pytest.mark.parametrize(
    ("age", "is_cleared"),
    [(3e9, True), (7200, True), (1800, False), (0, False), (-1800, False), (-7200, True)],
)
def test_a_draft_is_cleared_when_nobody_can_be_at_work_on_it(
    age: float, is_cleared: bool, ledger: Ledger, configs: list[RunConfig]
) -> None:
    ledger.folder.mkdir()
    path = ledger.path(configs[2])
    aged(age)(path)
    assert bool(ledger.check()) == is_cleared
    sweep(configs[2:], ledger, jobs=1)
    assert {file.suffix for file in ledger.folder.iterdir()} == {".json"} | (
        set() if is_cleared else {".tmp"}
    )
    assert lasting(ledger).keys() == {path.name}


def test_a_draft_that_cannot_be_cleared_stops_nobody(
    ledger: Ledger, configs: list[RunConfig]
) -> None:
    draft = ledger.folder / f".{ledger.path(configs[2]).stem}-1.tmp"
    draft.mkdir(parents=True)
    os.utime(draft, (0, 0))
    sweep(configs[2:], ledger, jobs=1)
    assert [fault.path for fault in ledger.check()] == [draft]
