"""File formats of MNIST and CIFAR-10."""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = [
    "IDX_FILES",
    "TEST_IMAGES",
    "TEST_LABELS",
    "TRAIN_IMAGES",
    "TRAIN_LABELS",
    "Array",
    "ArrayUnpickler",
    "decode_cifar",
    "decode_idx",
    "decode_mnist",
    "encode_idx",
    "pooled",
]

Array = npt.NDArray[Any]
TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
IDX_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

# --- The IDX format ------------------------------------------------------------------------------


def encode_idx(array: Tensor) -> bytes:
    """Write a uint8 tensor in the IDX format of the MNIST files.

    The file holds two zero bytes, one byte for the type (8: unsigned byte), one for the number of
    dimensions, each dimension as a big-endian 32-bit integer, and the elements in C order.

    Args:
        array: Tensor of any shape, uint8.

    Returns:
        The contents of the file.

    Raises:
        ValueError: If `array` is not uint8.
    """
    if array.dtype != torch.uint8:
        raise ValueError(f"IDX files hold uint8 here, got {array.dtype}")
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.contiguous().numpy().tobytes()


def decode_idx(payload: bytes) -> Tensor:
    """Read the IDX format that `encode_idx` writes.

    Args:
        payload: The contents of the file.

    Returns:
        A uint8 tensor with as many dimensions as the header says.

    Raises:
        ValueError: If the header is not that of unsigned bytes, or the length does not match it.
    """
    if len(payload) < 4 or payload[:3] != b"\0\0\x08":
        raise ValueError(f"no IDX header of unsigned bytes: {payload[:4].hex()!r}")
    start = 4 + 4 * payload[3]
    if len(payload) < start:
        raise ValueError(f"an IDX header of {start} bytes cut off after {len(payload)}")
    shape = struct.unpack_from(f">{payload[3]}I", payload, 4)
    if len(payload) != start + math.prod(shape):
        got, expected = len(payload) - start, math.prod(shape)
        raise ValueError(f"an IDX file of shape {shape} has {expected} elements, got {got}")
    elements = np.frombuffer(payload, dtype=np.uint8, offset=start)
    return torch.from_numpy(elements.copy()).reshape(shape)


def decode_mnist(files: Mapping[str, bytes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the four files of MNIST or Fashion-MNIST."""
    x_train, y_train, x_test, y_test = (decode_idx(files[file]) for file in IDX_FILES)
    return x_train, y_train, x_test, y_test


def pooled(size: int, files: Mapping[str, bytes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the files of MNIST or Fashion-MNIST, and average images over squares of pixels.

    Args:
        size: Pixels of a square's side.
        files: Contents of the four files by name.

    Returns:
        Training images, float32, and labels; test images and labels.
    """
    x_train, y_train, x_test, y_test = decode_mnist(files)
    x_train, x_test = (avg_pool2d(x.float().unsqueeze(1), size) for x in (x_train, x_test))
    return x_train, y_train, x_test, y_test


# --- Pickles -------------------------------------------------------------------------------------


def _empty_array(*_: object) -> Array:
    return np.empty(0)


def _numeric_dtype(code: Any, *_: object) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(code, copy=True)  # a copy: the pickle may change it
    if dtype.kind not in "fiu":
        raise pickle.UnpicklingError(f"the pickle asks for elements of type {dtype}")
    return dtype


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler that admits numeric arrays and refuses anything that could run code.

    NumPy's own constructors would admit too much: an array of objects takes bytes for pointers.
    A pickle needs only the name of `ndarray`.
    """

    # CIFAR-10's pickles are verified by MD5 alone, and two files can be made that share an MD5.

    _ADMITTED: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,  # NumPy moved it here
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _numeric_dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the object for a name in the pickle, if it is admitted."""
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which is no part of an array"
            ) from None


# --- CIFAR-10 ------------------------------------------------------------------------------------

_CIFAR_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR_TEST = "test_batch"


def decode_cifar(files: Mapping[str, bytes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the pickled batches, each with 10,000 labels and 10,000 rows of 3 x 32 x 32 bytes."""

    def batches(*names: str) -> tuple[Tensor, Tensor]:
        loaded = [ArrayUnpickler(io.BytesIO(files[n]), encoding="latin1").load() for n in names]
        images = np.concatenate([batch["data"] for batch in loaded])
        return torch.from_numpy(images), torch.tensor([y for b in loaded for y in b["labels"]])

    return *batches(*_CIFAR_TRAIN), *batches(_CIFAR_TEST)
