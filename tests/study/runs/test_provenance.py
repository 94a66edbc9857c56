"""Where a record says that it was made: whose checkout it is does not matter."""

from __future__ import annotations

import os
import subprocess
import warnings
from pathlib import Path

import pytest

import gmlib
from gmlib.study.runs.provenance import git_state, stamp


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's first file, in a folder that is no checkout yet."""
    package = tmp_path / "gmlib"
    package.mkdir()
    source = package / "__init__.py"
    source.write_text("")
    monkeypatch.setattr(gmlib, "__file__", str(source))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return source


@pytest.fixture
def commit(source: Path, tmp_path: Path) -> str:
    """The one commit of the package's checkout."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "gmlib")
    git(tmp_path, "commit", "--quiet", "-m", "The package")
    return git(tmp_path, "rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def told() -> tuple[str | None, bool | None, str]:
    """What is known of the checkout, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return *git_state(), stamp()["commit"]


def test_the_commit_and_whether_it_was_changed(source: Path, commit: str, tmp_path: Path) -> None:
    assert told() == (commit, False, commit)
    (tmp_path / "README").write_text("untracked, and no part of the package")
    assert told() == (commit, False, commit)
    source.write_text("changed = True")
    assert told() == (commit, True, f"{commit}, changed")


def test_outside_of_a_checkout_there_is_nothing_to_tell(source: Path) -> None:
    assert told() == (None, None, "unknown")


def test_inside_of_somebody_elses(source: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "Nothing")
    assert told() == (None, None, "unknown")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_a_checkout_that_another_user_owns(
    commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.chown(path, 12345, 12345)
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        git(tmp_path, "status")
    assert "dubious ownership" in refusal.value.stderr
    assert told() == (commit, False, commit)


def test_without_git_it_warns(commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.warns(UserWarning, match="not name their commit: git is not installed"):
        assert git_state() == (None, None)
    with pytest.warns(UserWarning, match="not name their commit"):
        assert stamp()["commit"] == "unknown"


def test_what_git_refuses_is_told(commit: str, tmp_path: Path) -> None:
    (tmp_path / ".git/config").write_text("[core\n")
    with pytest.warns(UserWarning, match="not name their commit: .*bad config"):
        assert git_state() == (None, None)
