"""A pickle can run code when it is read: none is, but by the unpickler that admits arrays only."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}
RUNS_CODE: dict[str, Callable[[Mapping[str | None, object]], bool]] = {
    "eval": lambda given: True,
    "exec": lambda given: True,
    "joblib.load": lambda given: True,
    "np.load": lambda given: given.get("allow_pickle") is not False,
    "numpy.load": lambda given: given.get("allow_pickle") is not False,
    "pandas.read_pickle": lambda given: True,
    "pd.read_pickle": lambda given: True,
    "torch.load": lambda given: given.get("weights_only") is not True,
}


def pickles(source: str) -> list[str]:
    """What of a program's text reads pickles or could."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in MODULES:
                found.append(module)
            found += [
                f"{module}.{name.name}"
                for name in node.names
                if f"{module}.{name.name}" in RUNS_CODE
            ]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if name in RUNS_CODE and RUNS_CODE[name](given):
                found.append(name)
    return found


def programs() -> Iterator[tuple[str, str]]:
    """Path and text of every program that users run."""
    for folder in ("gmlib", "benchmarks", "book", "notebooks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        yield str(path.relative_to(ROOT)), "\n".join(code)


def test_only_one_place_reads_pickles() -> None:
    found = {path: reads for path, source in programs() if (reads := pickles(source))}
    assert found == {"gmlib/study/datasets/formats.py": ["pickle"]}


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("import pickle as p", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("from torch import load", ["torch.load"]),
        ("torch.load('x')", ["torch.load"]),
        ("torch.load('x', weights_only=False)", ["torch.load"]),
        ("torch.load('x', weights_only=True)", []),
        ("np.load('x', allow_pickle=True)", ["np.load"]),
        ("np.load('x', allow_pickle=False)", []),
        ("network.eval()", []),
        ("eval('1')", ["eval"]),
    ],
)
def test_what_counts(source: str, reads: list[str]) -> None:
    assert pickles(source) == reads


def test_the_one_place_reads_by_its_own_unpickler_alone() -> None:
    tree = ast.parse((ROOT / "gmlib/study/datasets/formats.py").read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    }
    assert used == {"Unpickler", "UnpicklingError"}
