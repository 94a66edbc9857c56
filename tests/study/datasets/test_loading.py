"""The way in: names, and what a data set of one's own may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from small_data import sha256

from gmlib.study import datasets

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
    for name, function in (
        ("pixel", datasets.standardize_pixels),
        ("range", datasets.scale_range),
    ):
        expected = function(x, x[:2] + 1)
        found = datasets.load("own_data.sets:tensors", name)
        assert torch.equal(found.x_train, expected[0])
        assert torch.equal(found.x_test, expected[1])
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
    allowed = "'image', 'dataset', 'pixel', 'range'"
    with pytest.raises(ValueError, match=f"^standardize must be one of {allowed}, got 'none'$"):
        datasets.load("mnist", "none")


@pytest.mark.parametrize("name", ["own_data.sets:tensors", "mnist-1d"])
def test_only_published_files_are_fetched(name: str) -> None:
    with pytest.raises(ValueError, match=f"'mnist-7x7', 'cifar-10', got '{name}'$"):
        datasets.fetch(name)
