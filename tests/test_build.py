"""How the book is built, on a small one: what stops it, and what it says then."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
BUILD = (Path(sys.executable).with_name("jupyter-book"), "build")
PAGES = [path.name for path in (ROOT / "book").glob("*.md")]

GOOD = ["x = 1", "print(x + 1)"]
BAD = [
    "x = 1",
    "# What it needs\nfrom gmlib.study.datasets import DataError\nraise DataError("
    "'clothes could not be fetched. Tried in this order:\\n  - a: no route\\n  - b: no disk')",
    "print('never')",
]
LONG = ["raise ValueError('\\n'.join(f'line {n}' for n in range(50)))"]
DEAD = ["x = 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"]


@pytest.fixture
def small_book(tmp_path):
    """Make a checkout with the project's settings, and notebooks of the given cells."""

    def make(folder="checkout", **notebooks):
        root = tmp_path / folder
        (root / "notebooks").mkdir(parents=True)
        for name, cells in notebooks.items():
            notebook = nbformat.v4.new_notebook()
            notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
            code = [nbformat.v4.new_code_cell(cell, execution_count=1) for cell in cells]
            notebook.cells = [nbformat.v4.new_markdown_cell(f"# {name}"), *code]
            nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
        shutil.copytree(
            ROOT / "book",
            root / "book",
            ignore=lambda folder, names: {"notebooks", *PAGES} & {*names},
        )
        (root / "book/notebooks").symlink_to("../notebooks")
        (root / "book/index.md").write_text("# A small book\n")
        chapters = "".join(f"  - file: notebooks/{name}\n" for name in notebooks)
        (root / "book/_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n{chapters}")
        (root / "_toc.yml").symlink_to("book/_toc.yml")
        shutil.copy(ROOT / "_config.yml", root)
        return root

    return make


def build(root, *arguments):
    result = subprocess.run(
        [*BUILD, *(arguments or ["book"])], cwd=root, capture_output=True, text=True
    )
    return result, re.sub(r"\x1b\[[0-9;]*m", "", result.stdout + result.stderr).splitlines()


def test_a_page_that_fails_is_named_with_its_cause(small_book):
    root = small_book(first=GOOD, second=BAD, third=GOOD)
    result, lines = build(root)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-6:] == [
        "notebooks/second.ipynb, cell 2: # What it needs",
        "DataError: clothes could not be fetched. Tried in this order:",
        "  - a: no route",
        "  - b: no disk",
        "",
        "no book: 1 of its pages failed",
    ]
    assert not [line for line in lines if "Traceback" in line], "\n".join(lines)
    assert not (root / "_build/html/index.html").exists()


def test_each_page_that_fails_is_named(small_book):
    """With the beginning of a long message, and where it was that a kernel died."""
    result, lines = build(small_book(a=GOOD, b=BAD, c=DEAD, d=LONG))
    assert result.returncode == 1
    end = result.stderr.splitlines()
    causes = [line for line in end if line.startswith("notebooks/")]
    assert causes == [
        "notebooks/b.ipynb, cell 2: # What it needs",
        "notebooks/c.ipynb, cell 2: import os, signal",
        f"notebooks/d.ipynb, cell 1: {LONG[0]}",
    ]
    assert end[end.index(causes[1]) + 1].startswith("DeadKernelError: ")
    assert end[-18:-15] == [causes[2], "ValueError: line 0", "line 1"]  # of the last twenty lines
    assert end[-3:] == ["...", "", "no book: 3 of its pages failed"]
    assert not [line for line in lines if "Traceback" in line], "\n".join(lines)


def test_warnings_come_last_where_they_are_errors(small_book):
    root = small_book(first=GOOD)
    (root / "book/index.md").write_text("# A small book\n\n{ref}`nowhere`, {ref}`nor-there`\n")
    result, lines = build(root, "book", "-W", "-n", "--keep-going")
    assert result.returncode == 1
    assert [line for line in lines[-3:] if "undefined label" in line][1].endswith("'nor-there'")
    assert lines[-1] == "no book: 2 warnings"
    assert build(root)[0].returncode == 0  # else they are but warnings


def test_a_sound_book_is_built_wherever_it_is(small_book):
    root = small_book("with spaces and Ümläute", first=GOOD, second=GOOD)
    result, lines = build(root, "book", "-W", "-n", "--keep-going")
    assert result.returncode == 0, "\n".join(lines[-20:])
    assert "<title>first" in (root / "_build/html/notebooks/first.html").read_text()
    assert not [line for line in lines if "WARNING" in line]


def test_the_wrong_folder_is_refused_at_once(small_book):
    start = time.monotonic()
    result, lines = build(small_book(never=["import time; time.sleep(100)"]), ".")
    assert result.returncode == 1
    assert lines[-1] == "the book is in the folder book: jupyter-book build book"
    assert not [line for line in lines if "Traceback" in line], "\n".join(lines)
    assert time.monotonic() - start < 60


def test_a_checkout_without_symbolic_links_says_so(tmp_path):
    """As on Windows: git writes files that hold where the links lead."""
    root = tmp_path / "checkout"
    git = ["git", "-c", "safe.directory=*", "-c", "core.symlinks=false"]
    subprocess.run([*git, "clone", "-q", str(ROOT), str(root)], check=True)
    assert (root / "book/notebooks").read_text() == "../notebooks"
    assert not (root / "book/_toc.yml").is_symlink()  # what Jupyter Book reads first needs no link
    shutil.copytree(ROOT / "book/_ext", root / "book/_ext", dirs_exist_ok=True)
    result, lines = build(root)
    assert result.returncode == 1
    assert "core.symlinks is false" in lines[-1]
    assert "git restore book/notebooks" in lines[-1]
    assert not [line for line in lines if "Traceback" in line], "\n".join(lines)


def test_the_working_tree_has_its_links():
    for link in ("_toc.yml", "book/notebooks"):
        assert os.path.islink(ROOT / link)
