"""Files: fetched once, verified at every load, and from the first source that has them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from small_data import ARCHIVES, FILES, SPLITS, cached, flip_byte, md5, write

from gmlib.study import datasets
from gmlib.study.datasets import files, formats
from gmlib.study.datasets.catalogue import Entry


def fail(reason: str, _: Path) -> None:
    raise OSError(reason)


@pytest.fixture
def register_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Register a data set "tiny" in a cache of its own; called with its sources, name and fill."""

    def register(**fills: Callable[[Path], None]) -> Path:
        tried = tuple(files.Source(name, fill) for name, fill in fills.items())
        made = files.FileSet("Tiny/raw", md5(FILES), tried, formats.decode_mnist)
        monkeypatch.setitem(datasets.DATASETS, "tiny", Entry("Tiny", made))
        monkeypatch.setenv("GMLIB_DATA", str(tmp_path / "cache"))
        return tmp_path / "cache" / "Tiny" / "raw"

    return register


def test_fetch_fills_the_cache_once(register_tiny: Callable[..., Path]) -> None:
    fetches = []
    raw = register_tiny(good=lambda folder: (fetches.append(folder), write(folder)))
    assert datasets.fetch("tiny") == raw
    dataset = datasets.load("tiny")
    assert cached(raw) == FILES
    assert len(fetches) == 1
    assert fetches[0].parent == raw  # on the same file system, so that renaming is atomic
    assert torch.equal(dataset.y_test, SPLITS[3].long())
    assert torch.equal(dataset.x_train, datasets.standardize_images(SPLITS[0]))


def test_root_goes_before_the_environment(
    register_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    raw = register_tiny(good=write)
    elsewhere = tmp_path / "elsewhere"
    assert datasets.fetch("tiny", root=elsewhere) == elsewhere / "Tiny" / "raw"
    assert not raw.exists()


def test_the_environment_is_asked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMLIB_DATA", "/one")
    assert datasets.data_root() == Path("/one")
    monkeypatch.setenv("GMLIB_DATA", "~/two")
    assert datasets.data_root() == Path.home() / "two"
    monkeypatch.delenv("GMLIB_DATA")
    assert datasets.data_root().name == "gmlib"


@pytest.mark.parametrize("file", formats.IDX_FILES)
def test_a_flipped_byte_is_seen_at_every_load(
    register_tiny: Callable[..., Path], file: str
) -> None:
    raw = register_tiny(good=write)
    before = datasets.load("tiny")
    for aside in (f"{file}.corrupt", f"{file}.corrupt-1"):
        flip_byte(raw / file)
        with pytest.warns(UserWarning, match=f"{file} has MD5 .*renamed to {aside}$"):
            after = datasets.load("tiny")
        assert torch.equal(after.x_train, before.x_train)
        assert torch.equal(after.y_test, before.y_test)
        assert (raw / aside).exists()
        assert (raw / file).read_bytes() == FILES[file]


def test_only_the_faulty_file_is_replaced(register_tiny: Callable[..., Path]) -> None:
    raw = register_tiny(good=write)
    datasets.fetch("tiny")
    stamps = {file: (raw / file).stat().st_ino for file in formats.IDX_FILES}
    (raw / formats.TEST_LABELS).unlink()
    datasets.fetch("tiny")
    changed = {file for file in formats.IDX_FILES if (raw / file).stat().st_ino != stamps[file]}
    assert changed <= {formats.TEST_LABELS}
    assert cached(raw) == FILES


def test_the_error_lists_every_source_and_the_file_set_aside(
    register_tiny: Callable[..., Path],
) -> None:
    def corrupt(folder: Path) -> None:
        write(folder)
        flip_byte(folder / formats.TEST_IMAGES)

    raw = register_tiny(
        first=partial(fail, "no route\nto host"), second=corrupt, third=lambda folder: None
    )
    write(raw)
    flip_byte(raw / formats.TEST_IMAGES)
    with pytest.warns(UserWarning, match="corrupt"), pytest.raises(datasets.DataError) as caught:
        datasets.load("tiny")
    message = str(caught.value)
    assert "first: OSError: no route to host" in message
    assert re.search(rf"second: {formats.TEST_IMAGES} has MD5 \w+, not \w+", message)
    assert f"third: {formats.TEST_IMAGES} is missing" in message
    assert message.index("first:") < message.index("second:") < message.index("third:")
    assert f"renamed to {formats.TEST_IMAGES}.corrupt" in message
    assert f"into {raw}" in message
    assert "GMLIB_DATA" in message
    # The file is kept for whoever wants to look, and never read as data again.
    assert (raw / f"{formats.TEST_IMAGES}.corrupt").exists()
    assert not (raw / formats.TEST_IMAGES).exists()


def test_the_next_source_is_tried(register_tiny: Callable[..., Path]) -> None:
    def half(folder: Path) -> None:
        (folder / formats.TRAIN_IMAGES).write_bytes(FILES[formats.TRAIN_IMAGES][:50])
        raise OSError("connection reset")

    raw = register_tiny(half=half, good=write)
    datasets.fetch("tiny")
    assert cached(raw) == FILES


def test_an_interrupted_fetch_leaves_nothing(register_tiny: Callable[..., Path]) -> None:
    def interrupted(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    raw = register_tiny(interrupted=interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.fetch("tiny")
    assert cached(raw) == {}


def test_archives_put_there_by_hand_are_used(register_tiny: Callable[..., Path]) -> None:
    raw = register_tiny(unreachable=partial(fail, "offline"))
    write(raw, ARCHIVES)
    assert torch.equal(datasets.load("tiny").y_train, SPLITS[1].long())


def test_a_cache_that_cannot_be_written_is_named(
    register_tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_tiny(good=write)
    (tmp_path / "file").touch()
    monkeypatch.setenv("GMLIB_DATA", str(tmp_path / "file"))
    with pytest.raises(datasets.DataError, match="set GMLIB_DATA to a folder that can be written"):
        datasets.fetch("tiny")


FETCH = """
import hashlib, sys, time
from pathlib import Path
from gmlib.study import datasets
from gmlib.study.datasets import catalogue, files, formats

origin, log, ready, go = map(Path, sys.argv[1:])

def fill(folder):
    with log.open("a") as stream:
        stream.write("fetched\\n")
    time.sleep(0.3)
    files.from_folder(formats.IDX_FILES, origin, folder)

md5 = {file: hashlib.md5((origin / file).read_bytes()).hexdigest() for file in formats.IDX_FILES}
made = files.FileSet("Tiny/raw", md5, (files.Source("origin", fill),), formats.decode_mnist)
datasets.DATASETS["tiny"] = catalogue.Entry("Tiny", made)
ready.touch()
while not go.exists():
    time.sleep(0.001)
print(int(datasets.load("tiny").y_train.sum()))
"""


def test_two_processes_fetch_into_one_empty_cache(tmp_path: Path) -> None:
    origin, log, go = tmp_path / "origin", tmp_path / "log", tmp_path / "go"
    write(origin)
    environment = os.environ | {
        "GMLIB_DATA": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path])),
    }
    ready = [tmp_path / f"ready-{number}" for number in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, *map(str, (origin, log, path, go))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in ready
    ]
    while not all(path.exists() for path in ready):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    go.touch()
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (0, f"{int(SPLITS[1].sum())}\n"), stderr
    assert cached(tmp_path / "cache" / "Tiny" / "raw") == FILES
    assert log.read_text() == "fetched\n"  # the second waited, and found the first one's files
