"""pyproject.toml says what is admitted; constraints.txt and environment.yml say what is used."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA, PIP = [], []
for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
    if isinstance(entry, dict):
        PIP += entry["pip"]
    else:
        CONDA.append(entry)


def pins(lines):
    """Map canonical names to versions; every line has to be an exact version, some for some."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)( ;.*)?", line)
        assert match, f"not an exact public version: {line!r}"
        name = canonicalize_name(match[1])
        assert name not in found, f"pinned twice: {name}"
        found[name] = Version(match[2])
    return found


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return pins(line for line in lines if not line.startswith("#"))


def test_requirements_are_the_constraints_with_hashes():
    """All but torch and torchvision, whose builds differ by machine."""
    lines = (ROOT / "requirements.txt").read_text().replace("\\\n", "").splitlines()
    spaced = [" ".join(line.split()) for line in lines if not line.startswith("#")]
    entries = [line.partition(" --hash=") for line in spaced]
    for _, _, hashes in entries:
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", h) for h in hashes.split(" --hash="))
    locked = {pin for pin, _, _ in entries}
    constrained = (ROOT / "constraints.txt").read_text().splitlines()
    assert locked == {line for line in constrained if not re.match("#|torch(vision)?==", line)}
    assert (
        "pip install --require-hashes --no-deps -r requirements.txt\n"
        in (ROOT / "Makefile").read_text()
    )


def direct_requirements():
    """Yield every requirement that pyproject.toml states, those of the extras included."""
    extras = PROJECT["optional-dependencies"].values()
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]:
        yield Requirement(line)


@pytest.mark.parametrize("requirement", [*direct_requirements()], ids=lambda r: r.name)
def test_constraints_pin_an_admitted_version(requirement):
    pinned = constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned)


def test_constraints_cover_the_whole_environment():
    """Nothing that the extras pull in, directly or not, is left to the day of the installation."""
    pinned, seen = constraints(), set()
    todo = [(r, "") for r in direct_requirements()]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        # A CUDA build of torch brings its own libraries at its own versions.
        if (name, extra) in seen or name.startswith(("cuda-", "nvidia-", "triton")):
            continue
        seen.add((name, extra))
        assert name in pinned, f"{name} is installed, but constraints.txt does not name it"
        requires = [Requirement(line) for line in metadata.requires(name) or []]
        todo += [(r, e) for r in requires for e in ["", *requirement.extras]]


def test_environment_yml_takes_the_rest_from_the_project():
    assert {"-c constraints.txt", "-e ."} <= set(PIP)


def test_environment_yml_names_every_direct_requirement_at_its_constraint():
    conda = dict(entry.split("=") for entry in CONDA)
    assert Version(conda.pop("python")) in SpecifierSet(PROJECT["requires-python"])
    named = pins([line for line in PIP if not line.startswith("-")])
    named |= pins(f"{name}=={version}" for name, version in conda.items())
    wanted = {canonicalize_name(r.name) for r in direct_requirements()}
    assert named == {name: constraints()[name] for name in wanted}


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
