"""The committed notebooks: executed once, in order, and free of what only one machine knows."""

import re
from pathlib import Path

import nbformat
import pytest

PATHS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SECRET = re.compile(
    r"-----BEGIN|\b(?:AKIA|ASIA|gh[pousr]_|hf_|sk-|xox[abp]-|eyJ)[\w-]{12,}"
    r"|(?i:password|passwd|secret|token|api_?key)\s*[=:]\s*[\"'\w]"
)
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|mnt|root|tmp|Users|var|work)/|\b[A-Z]:\\Users\b")


def test_there_are_notebooks():
    # The tests below are parametrized over the files: with none, they would pass unseen.
    assert PATHS


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def tags(notebook):
    return [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]


def texts(notebook):
    """Yield the sources and every text that the outputs show."""
    for cell in notebook.cells:
        yield cell.source
    for output in outputs(notebook):
        yield output.get("text", "")
        for mime, data in output.get("data", {}).items():
            if mime.startswith("text/"):
                yield data


def test_format_is_valid(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)


def test_one_cell_holds_the_parameters(notebook):
    assert tags(notebook).count("parameters") == 1
    assert "injected-parameters" not in tags(notebook)


def test_cells_were_executed_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_have_no_errors_and_no_stderr(notebook):
    assert not [o for o in outputs(notebook) if o.output_type == "error"]
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]


def test_no_absolute_paths(notebook):
    assert not [text for text in texts(notebook) if ABSOLUTE_PATH.search(text)]


def test_no_secrets(notebook):
    assert not [text for text in texts(notebook) if SECRET.search(text)]


def test_secrets_would_be_found():
    for text in ("-----BEGIN KEY", "ghp_0123456789abcdef", "api_key = 'x'", "Token: abc"):
        assert SECRET.search(text)


def test_metadata_is_clean(notebook):
    # No widget state, no papermill log, no editor's or execution's leavings.
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags", "mystnb"}
