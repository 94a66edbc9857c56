"""The ledger on full and read-only disks, behind permissions, in folders that go."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from ledger_files import Contents, content, lasting, ledger_command

from gmlib.study.plan.config import RunConfig
from gmlib.study.runs import places
from gmlib.study.runs.ledger import Ledger, LedgerError
from gmlib.study.runs.records import RunRecord
from gmlib.study.runs.sweeps import sweep
from gmlib.study.runs.training import train

pytestmark = pytest.mark.usefixtures("bounded")


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
        assert ledger_command(bound, "repair") == 2
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
        assert ledger_command(bound, "check") == 1
        with pytest.raises(LedgerError, match=re.escape(str(path))):
            sweep(configs, bound, jobs=1)
        assert trained == []
        # As it is, so it is set aside.
        assert ledger_command(bound, "repair") == 0
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

        def spy(config: RunConfig, on_evaluation: object) -> RunRecord:
            if next(count) == 2:
                happen()
            return train(config)

        monkeypatch.setattr(places, "train", spy)

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
