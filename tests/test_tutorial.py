"""The tutorial as its reader meets it: pasted into an empty folder, with the package alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks/tutorial.ipynb"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the cells print as one script, where nothing but torch and gmlib can be imported."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    script = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
    imported = set(re.findall(r"^(?:from|import) (\w+)", script, re.MULTILINE))
    assert imported == {"torch", "gmlib", "io"}
    folder = tmp_path_factory.mktemp("empty")
    (folder / "script.py").write_text(script, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
        },  # two threads on busy cores take ten times as long
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


def test_it_trains_and_kumar_starts_sooner(shown):
    curves = [
        [float(error.rstrip("%")) for error in line.split()]
        for line in shown
        if re.fullmatch(r"(\d+% ?)+", line)
    ]
    mlp, default, kumar, mixed = curves
    assert {len(curve) for curve in curves} == {10}
    # As the page says, and by margins that another processor's rounding leaves.
    assert mlp[-1] < 30
    assert mixed[-1] < 40
    assert sum(kumar) < sum(default) - 60
    assert kumar[-1] < default[-1]


def test_it_shows_scales_and_errors(shown):
    text = "\n".join(shown)
    assert text.count("std before") == 4
    assert "True" in shown  # the copy equals the original
    for sentence in (
        "a positive, finite one above rounding error is needed",
        "pass [data] for one batch, iter(data) for several",
        "the data never reached the layers 'forgotten'",
    ):
        assert sentence in text
