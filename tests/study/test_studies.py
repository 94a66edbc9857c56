"""Which runs a study consists of."""

from __future__ import annotations

from typing import Any

import pytest

from gmlib.study import studies

# --- The budget ----------------------------------------------------------------------------------


def test_the_budget_is_every_arm_at_every_size() -> None:
    configs = studies.budget(["BL", "KUMAR"], [1, 5], [0, 7], [0, 4], [8, 9], outputs=3, epochs=2)
    found = {(c.arm, c.widths, c.num_components, c.seed) for c in configs}
    stacks = {
        (arm, widths, K, seed)
        for arm in ("BL", "KUMAR")
        for widths in ((3,), (7, 3))
        for K in (1, 5)
        for seed in (8, 9)
    }
    dense = {("FC", widths, 10, seed) for widths in ((3,), (4, 3)) for seed in (8, 9)}
    assert found == stacks | dense
    assert len(configs) == len(found)
    assert {config.epochs for config in configs} == {2}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"arms": []}, "arms must be a list of at least one entry, got []"),
        ({"arms": ["KUMAR", "cats"]}, "arm must be one of"),
        ({"components": 5}, "components must be a list of at least one entry, got 5"),
        ({"components": [1, 0]}, "num_components must be an integer of at least 1, got 0"),
        ({"hidden": []}, "hidden must be a list of at least one entry"),
        ({"hidden": [-1]}, "every entry of widths must be an integer of at least 1, got -1"),
        ({"dense_hidden": None}, "dense_hidden must be a list of at least one entry, got None"),
        ({"seeds": [1, 1]}, "seeds must not repeat an entry"),
        ({"outputs": 0}, "every entry of widths must be an integer of at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused_by_name(values: dict[str, Any], sentence: str) -> None:
    good = {"arms": ["BL"], "components": [1], "hidden": [0], "dense_hidden": [2], "seeds": [0]}
    with pytest.raises(ValueError, match="^" + sentence.replace("[", r"\[")):
        studies.budget(**{**good, **values})
