"""What holds for every figure."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def _nothing_global_is_left() -> Iterator[None]:
    """No figure for pyplot to show a second time, and no style for whoever draws next."""
    style = dict(mpl.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == style
