"""The built-in data sets: what is loaded is what was published."""

from __future__ import annotations

import io
import pickle
import random
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import URLError

import mnist1d
import numpy as np
import pytest
import torch
from small_data import cached, md5, sha256, write
from torch import Tensor

from gmlib.study import datasets
from gmlib.study.datasets import catalogue, sources
from gmlib.study.datasets.catalogue import Entry

CIFAR_10 = datasets.DATASETS["cifar-10"].origin


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


@pytest.mark.parametrize("side", [14, 7])
def test_mnist_at_lower_resolutions(side: int, mnist: datasets.Dataset) -> None:
    small = datasets.load(f"mnist-{side}x{side}", "range")
    images = datasets.load("mnist", "range").x_train.view(-1, 28, 28)
    size = 28 // side
    for row, column in ((side // 4, side // 2), (side // 2, side // 2), (side - 3, 3)):
        square = images[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
        pixel = small.x_train[:, row * side + column]
        # Of a range of its own: no square of the brightest pixels is needed to be in the data.
        ratio = square.mean((1, 2)).max() / pixel.max()
        torch.testing.assert_close(pixel * ratio, square.mean((1, 2)), atol=1e-5, rtol=1e-5)
    assert torch.equal(small.y_train, mnist.y_train)
    assert torch.equal(small.y_test, mnist.y_test)
    assert small.x_test.shape == (10_000, side**2)
    assert small.checksums == mnist.checksums


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
    checksums = md5(CIFAR_FILES)
    origin = replace(CIFAR_10, md5=checksums)
    monkeypatch.setitem(datasets.DATASETS, "cifar-10", Entry("CIFAR-10", origin))
    monkeypatch.setenv("GMLIB_DATA", str(tmp_path))
    cifar = sources._import_torchvision().datasets.CIFAR10
    for files in ("train_list", "test_list"):
        published = [[file, checksums[file]] for file, _ in getattr(cifar, files)]
        monkeypatch.setattr(cifar, files, published)
    monkeypatch.setitem(cifar.meta, "md5", checksums["batches.meta"])

    def register(download: Callable[[Path], None]) -> None:
        monkeypatch.setattr(cifar, "download", lambda self: download(Path(self.root)))

    return register


def write_cifar(root: Path) -> None:
    write(root / "cifar-10-batches-py", CIFAR_FILES)


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
    write(folder, CIFAR_FILES)
    assert datasets.load("cifar-10").x_train.shape == (10, 3072)
