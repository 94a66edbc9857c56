"""What the README promises."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("layer", ["GaussianMixtureLayer", "FoldedGaussianMixtureLayer"])
def test_example_runs_elsewhere_with_either_layer(layer, tmp_path):
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 5
    example = example.replace("GaussianMixtureLayer", layer)
    result = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["0", "1"]
    assert all(float(row[-1]) == pytest.approx(0.5, rel=1e-3) for row in rows)


def test_gmlib_needs_torch_alone():
    code = (
        "import sys; import gmlib; "
        "print([m for m in ('pandas', 'scipy', 'matplotlib', 'joblib') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_figure_is_that_of_the_notebook():
    notebook = nbformat.read(ROOT / "notebooks/dynamics.ipynb", as_version=4)
    images = [
        output["data"]["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert (ROOT / "book/_static/dynamics.png").read_bytes() == base64.b64decode(images[0])


def test_links_and_commands_exist():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_contents_and_folder_have_the_same_notebooks():
    files = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())["chapters"]
    chapters = [entry["file"] for entry in contents]
    assert {name for name in chapters if "/" in name} == {f"notebooks/{name}" for name in files}
    pages = {path.stem for path in (ROOT / "book").glob("*.md")} - {"index"}
    assert {name for name in chapters if "/" not in name} == pages
