"""Compare records."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gmlib.study.runs.records import RunRecord


def assert_same_run(one: RunRecord, other: RunRecord) -> None:
    """Equal but for time and place."""
    assert one.config == other.config
    np.testing.assert_equal(dict(one.curves), dict(other.curves))  # takes NaN for equal to NaN
    assert one.init_report == other.init_report
    assert list(one.movement) == list(other.movement)
    np.testing.assert_equal(dict(one.movement), dict(other.movement))
    assert_same_arrays(one.snapshots, other.snapshots)


def assert_same_record(one: RunRecord, other: RunRecord) -> None:
    """Equal in all that is recorded."""
    assert_same_run(one, other)
    assert one.wall_time == other.wall_time
    assert one.provenance == other.provenance


def assert_same_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    """Equal in names and their order, in types, shapes and numbers."""
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name, strict=True)
