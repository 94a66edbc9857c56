"""Execute notebooks in place, as they are committed.

They keep their outputs, but neither times nor the standard error. The figure
of `dynamics` is written to a file of its own as well, for the README.

Usage: python notebooks/execute.py [NOTEBOOK ...]; all by default.
"""

import base64
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
README_FIGURE = FOLDER.parent / "book/_static/dynamics.png"


def execute(path: Path) -> None:
    """Run one notebook and write it back, unless a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, record_timing=False, resources=resources
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr"
            ]
    # Without the version, which is that of the day.
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)
    if path.stem == "dynamics":
        README_FIGURE.write_bytes(first_image(notebook))


def first_image(notebook: nbformat.NotebookNode) -> bytes:
    """The first PNG among the outputs."""
    outputs = (
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    images = (
        output["data"]["image/png"]
        for output in outputs
        if "image/png" in output.get("data", {})
    )
    return base64.b64decode(next(images))


if __name__ == "__main__":
    for path in (
        map(Path, sys.argv[1:])
        if sys.argv[1:]
        else sorted(FOLDER.glob("*.ipynb"))
    ):
        print(path)
        execute(path)
