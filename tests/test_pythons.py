"""The environment for each Python that the project names, resolved anew against its pins.

Asks the package index which files there are; without one this is skipped.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PREFIX = "Programming Language :: Python :: 3."
PYTHONS = [f"3.{line.removeprefix(PREFIX)}" for line in PROJECT["classifiers"] if PREFIX in line]
FIRST = PYTHONS[0]


def test_the_same_pythons_are_named_everywhere():
    assert [*map(int, (version.partition(".")[2] for version in PYTHONS))] == [11, 12, 13, 14]
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={FIRST}")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["ruff"]["target-version"] == f"py{FIRST.replace('.', '')}"
    assert tools["mypy"]["python_version"] == FIRST
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"python(3\.\d+)", makefile) == PYTHONS[::-1]
    assert f"Python {FIRST} or newer" in (ROOT / "README.md").read_text()
    workflow = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text())
    image = workflow["jobs"]["check"]["container"]["image"]
    assert image.startswith(tuple(f"python:{version}-" for version in PYTHONS))


@pytest.fixture(scope="module")
def resolutions():
    """What uv makes of pyproject.toml and the pins for the first release of each Python."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--all-extras"]
    command += ["--constraint", "constraints.txt", "--no-header", "--no-annotate", "--quiet"]
    command += ["--no-python-downloads"]  # a Python that is not here is not needed either
    running = {
        version: subprocess.Popen(
            [*command, "--python-version", f"{version}.0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version in PYTHONS  # at once: most of it is waiting for the index
    }
    return {version: (*process.communicate(), process) for version, process in running.items()}


@pytest.mark.parametrize("version", PYTHONS)
def test_the_pins_are_what_a_python_needs(version, resolutions, skip_or_fail):
    """Down to its first release, and with a file to install each of them from."""
    resolved, complaint, process = resolutions[version]
    if re.search(r"error sending request|Failed to fetch", complaint):
        skip_or_fail("the package index can't be reached")
    assert process.returncode == 0, complaint
    wanted = {line for line in resolved.splitlines() if not CUDA.match(line)}
    environment = {"python_full_version": f"{version}.0", "python_version": version}
    pinned = {
        f"{requirement.name}{requirement.specifier}"
        for requirement in pins()
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }
    assert wanted == pinned


# A CUDA build of torch brings libraries of its own, at versions of its own.
CUDA = re.compile("cuda-|nvidia-|triton")


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]
