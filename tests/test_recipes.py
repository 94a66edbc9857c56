"""The recipes of the book, followed to the letter: its files saved, its commands typed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book/reproduce.md").read_text(encoding="utf-8")


def follow(title, folder):
    """Do in `folder`, beside the notebooks, what the section `title` says; return its records."""
    [section] = re.findall(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    steps = re.findall(r"^```(python|bash)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in steps] == ["python", "bash"]
    for kind, text in steps:
        if kind == "python":
            (folder / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        else:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            subprocess.run(
                ["bash", "-ec", text],
                cwd=folder,
                env={**os.environ, "PATH": path},
                check=True,
                capture_output=True,
            )
    return [json.loads(path.read_text()) for path in (folder / "trial").glob("*.json")]


def images(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_add_your_own_data_set(tmp_path):
    records = follow("Add your own data set", tmp_path)
    runs = {(record["config"]["arm"], record["config"]["seed"]) for record in records}
    assert runs == {(arm, seed) for arm in ("FC", "BL", "KUMAR") for seed in (0, 1)}
    assert images(nbformat.read(tmp_path / "patterns.ipynb", as_version=4)) == 1
    for record in records:
        assert record["config"]["dataset"] == "mydata:patterns"
        assert record["provenance"]["data"]
        if record["config"]["arm"] != "BL":
            assert record["curves"]["test_error"][-1] < 0.3  # chance is 0.9


def test_add_your_own_initialization(tmp_path):
    records = follow("Add your own initialization", tmp_path)
    runs = {(record["config"]["arm"], record["config"]["seed"]) for record in records}
    arms = ("BL", "KUMAR", "myinit:narrow_")
    assert runs == {(arm, seed) for arm in arms for seed in (0, 1)}
    assert images(nbformat.read(tmp_path / "narrow.ipynb", as_version=4)) == 1
    for record in records:
        if record["config"]["arm"] != "BL":
            for layer in record["init_report"]:
                assert layer["std_after"] == pytest.approx(0.5, rel=1e-3)
