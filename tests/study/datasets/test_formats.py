"""The formats of files: written and read exactly, and pickles that run no code."""

from __future__ import annotations

import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import Call

from gmlib.study.datasets import formats


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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_unpickler_runs_no_code(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    payload = pickle.dumps(
        (np.arange(3), Call(os.open, str(marker), os.O_CREAT)), protocol=protocol
    )
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
