"""What tests measured: kept when they passed, and never lost to a run that did not get to them."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from hypothesis import settings

pytest_plugins = ["pytester"]

TESTS = """
import pytest

def test_counts(measured):
    for _ in range(3):
        measured.add("a", "examples")

@pytest.mark.parametrize("x", [1, 2, 3])
def test_of_parameters(x, measured, request):
    measured("b", f"value {x}", x)
    assert x != int(request.config.getoption("--fails"))

def test_that_tries(torture):
    assert torture

def test_of_something_else():
    pass
"""


@pytest.fixture
def run(pytester, pytestconfig):
    """Run the tests under torture; what the file then holds, as (what, value)."""
    source = (pytestconfig.rootpath / "tests/conftest.py").read_text()
    source = source.replace(
        "def pytest_addoption(parser):",
        "def pytest_addoption(parser):\n    parser.addoption('--fails', default=0)",
    )
    pytester.makeconftest(source)
    pytester.makepyfile(TESTS)

    def run(*arguments):
        pytester.runpytest("--torture", "values.json", *arguments)
        rows = json.loads((pytester.path / "values.json").read_text())
        for row in rows:
            assert set(row) == {"section", "what", "value", "test", "cpu", "commit", "date"}
            assert "[" not in row["test"]
        return {row["what"]: row["value"] for row in rows}

    profile = settings.get_current_profile_name()
    yield run
    settings.load_profile(profile)  # the inner run has set its own


ALL = {"examples": 3, "value 1": 1, "value 2": 2, "value 3": 3}


def test_values_are_written(run, pytester):
    assert run() == ALL
    result = pytester.runpytest("--torture", "values.json")
    result.assert_outcomes(passed=5)  # the one that neither tries nor measures is left out
    pytester.runpytest().assert_outcomes(passed=5, failed=1)


def test_values_of_tests_that_did_not_run_stay(run):
    run()
    assert run("--collect-only") == ALL
    assert run("-k", "counts") == ALL
    assert run("-k", "nothing") == ALL


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_a_test_that_fails_has_no_values(run, fails):
    run()
    assert run("--fails", str(fails)) == {"examples": 3}


def test_the_file_is_left_alone_where_no_test_ran(run, pytester):
    run()
    file = pytester.path / "values.json"
    before = file.stat().st_mtime_ns
    run("--collect-only")
    run("-k", "nothing")
    assert file.stat().st_mtime_ns == before  # the book is made anew whenever it changes


def test_what_comes_after_an_end_stays(run):
    run()
    assert run("--fails", "1", "-x") == {"examples": 3}
    run()
    assert run("--deselect", "test_what_comes_after_an_end_stays.py::test_of_parameters") == ALL


def test_the_command_of_make_finds_the_tests(pytestconfig):
    root = pytestconfig.rootpath
    recipe = re.search(
        r"^torture:.*\n\t\$\(BIN\)/(.*)", (root / "Makefile").read_text(), re.MULTILINE
    )
    command = [sys.executable, "-m", *shlex.split(recipe[1]), "--collect-only", "-q"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for row in json.loads((root / "benchmarks/torture.json").read_text()):
        assert row["test"] in found
