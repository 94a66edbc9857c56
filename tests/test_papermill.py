"""A notebook with other parameters: trains what is missing, for real, and then nothing."""

import json
from pathlib import Path

import nbformat
import papermill
import pytest
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from gmlib.study import datasets

ROOT = Path(__file__).parents[1]
PARAMETERS = {"seeds": [905], "epochs": 1, "widths": [10], "components": 2, "screen_seeds": []}


def execute(name, folder, **parameters) -> nbformat.NotebookNode:
    """Execute a notebook on a ledger of its own, ``folder / "ledger"``."""
    return papermill.execute_notebook(
        ROOT / f"notebooks/{name}.ipynb",
        folder / "out.ipynb",
        {**parameters, "ledger": str(folder / "ledger")},
        progress_bar=False,
        kernel_name="python3",
    )


def shown(notebook, mime="text/plain"):
    """What the notebook's outputs hold of a type."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[mime] for output in outputs if mime in output.get("data", {})]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("papermill")

    def run():
        notebook = execute("dynamics", folder, **PARAMETERS, jobs=2)
        return notebook, {path: path.read_bytes() for path in (folder / "ledger").iterdir()}

    return *run(), *run()


def _stderr(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stderr")


def test_trains_the_missing_runs_with_visible_progress(executed):
    first, files, _, _ = executed
    assert "3/3 runs" in _stderr(first)
    assert "% error" in _stderr(first)
    configs = [json.loads(content)["config"] for content in files.values()]
    assert {config["arm"] for config in configs} == {"FC", "BL", "KUMAR"}
    assert {(config["seed"], config["epochs"]) for config in configs} == {(905, 1)}
    for content in files.values():
        curves = json.loads(content)["curves"]
        assert curves["step"][-1] == 938
        assert len(set(curves["test_error"])) > 5  # it moved


def test_second_run_trains_nothing(executed):
    _, files, second, files_after = executed
    assert "runs" not in _stderr(second)
    assert files_after == files


def test_figure_is_drawn_from_the_new_records(executed):
    first, _, _, _ = executed
    assert len(shown(first, "image/png")) == 1


def test_the_screen_on_another_data_set(tmp_path, skip_or_fail):
    try:
        datasets.fetch("fashion-mnist")
    except datasets.DataError as error:
        skip_or_fail(str(error))
    parameters = {"datasets": ["fashion-mnist"], "seeds": [905], "epochs": 1, "components": 2}
    texts = shown(execute("init_screen", tmp_path, **parameters, jobs=2))
    assert len(list((tmp_path / "ledger").iterdir())) == 2
    assert "Fashion-MNIST, KUMAR" in texts[1]
    assert not any("MNIST" in text.replace("Fashion-MNIST", "") for text in texts)
    assert "no numbers for these settings" in texts[-1]


def test_the_budget_at_other_sizes(tmp_path):
    sizes = {"components": [1], "hidden": [0], "dense_hidden": [2]}
    sizes |= {"narrow_components": [1], "narrow": [0]}  # the same once more
    texts = shown(execute("budget", tmp_path, seeds=[905], epochs=1, **sizes, jobs=2))
    assert len(list((tmp_path / "ledger").glob("*.json"))) == 3
    assert len(list((tmp_path / "ledger/measurements").glob("num-features-*.json"))) == 1
    assert "KUMAR less BL" in texts[1]
    assert "KUMAR\N{NO-BREAK SPACE}784→10" in texts[2]
    assert "9,418" in texts[3]
    assert "FC\N{NO-BREAK SPACE}784→2→10" in texts[3]


def test_statements_without_records_are_not_measured(tmp_path):
    texts = shown(execute("claims", tmp_path), "text/markdown")
    assert not (tmp_path / "ledger").exists()  # nothing was trained
    assert "are not measured" in texts[0]
    assert any("**not measured**" in text for text in texts[1:])


BAD = {
    "dynamics": [
        ({"seeds": []}, "seeds must be a list of at least one entry"),
        ({"seeds": [1, 1]}, "seeds must not repeat an entry"),
        ({"epochs": -1}, "epochs must be an integer of at least 0, got -1"),
        ({"components": 0}, "num_components must be an integer of at least 1, got 0"),
        ({"dataset": "cats"}, "dataset must be one of"),
        ({"arms": ["KUMAR", "nonsense"]}, "arm must be one of"),
    ],
    "init_screen": [
        ({"datasets": []}, "datasets, arms and seeds each need at least one entry"),
        ({"datasets": ["mnist", "cats"]}, "dataset must be one of"),
        ({"components": 0}, "num_components must be an integer of at least 1, got 0"),
    ],
    "ablation": [
        ({"targets": []}, "target_std must be given a list of at least one value"),
        ({"images": [64, 0]}, "calibration_size must be an integer of at least 1, got 0"),
    ],
    "budget": [
        ({"components": []}, "components must be a list of at least one entry"),
        ({"hidden": [-3]}, "every entry of widths must be an integer of at least 1, got -3"),
        ({"arms": ["nonsense"]}, "arm must be one of"),
    ],
    "harder_tasks": [
        ({"depths": []}, "depths must be a list of at least one entry"),
        ({"depths": [1, 0]}, "every depth must be an integer of at least 1, got 0"),
        ({"wide": 0}, "every entry of widths must be an integer of at least 1, got 0"),
    ],
}


CASES = [(name, *case) for name, cases in BAD.items() for case in cases]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What the notebooks' first cells say to bad parameters, all in one kernel: case by case."""
    folder = tmp_path_factory.mktemp("bad")
    cells, starts = [], []
    for number, (name, parameters, _) in enumerate(CASES):
        own = {**parameters, "ledger": str(folder / str(number))}
        notebook = load_notebook_node(str(ROOT / f"notebooks/{name}.ipynb"))
        parameterized = parameterize_notebook(notebook, own).cells
        starts.append(len(cells))
        cells.append(nbformat.v4.new_code_cell("%reset -f"))
        # The parameters, those injected, and the first cell of the code.
        cells += [cell for cell in parameterized if cell.cell_type == "code"][:3]
    notebook.cells = cells
    NotebookClient(notebook, allow_errors=True, kernel_name="python3").execute()
    errors = [
        [
            output.evalue
            for cell in cells[start : start + 4]
            for output in cell.outputs
            if output.output_type == "error"
        ]
        for start in starts
    ]
    return folder, errors


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n} {p}" for n, p, _ in CASES])
def test_bad_parameters_stop_a_notebook_before_it_trains(number, refusals, measured):
    folder, errors = refusals
    (error,) = errors[number]
    assert CASES[number][2] in error
    assert not (folder / str(number)).exists()
    measured.add("refused", "bad parameters of notebooks")
