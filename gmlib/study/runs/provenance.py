"""Where and when a record was made, and with what."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import gmlib

__all__ = ["cpu_model", "git_state", "provenance", "stamp"]


def provenance(checksums: Mapping[str, Any], device: torch.device, runs: int) -> dict[str, Any]:
    """Provenance of a record, as it is kept in the ledger.

    Args:
        checksums: Of the data set's files, by name; of several data sets, by theirs.
        device: Where the run is trained.
        runs: How many are trained there as one program.
    """
    commit, dirty = git_state()
    return {
        "gmlib": gmlib.__version__,
        "git_commit": commit,
        "git_dirty": dirty,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "device": _device_name(device),
        "runs_together": runs,
        "threads": 1,
        "data": dict(checksums),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the package's checkout and whether tracked files differ from it.

    Both None where the package lies in no checkout, and, with a warning, where git is not there
    or refuses.
    """
    root = Path(gmlib.__file__).parent

    def git(*arguments: str) -> str:
        # Whoever owns the checkout: its code is running already.
        command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout.strip()

    try:
        if not git("ls-files", "--", "__init__.py"):
            return None, None  # installed inside somebody else's checkout
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "-uno", "--", "."))
    except FileNotFoundError:
        reason = "git is not installed"
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        if "not a git repository" in reason:
            return None, None
    warnings.warn(f"records will not name their commit: {reason}", stacklevel=2)
    return None, None


def stamp() -> dict[str, str]:
    """Commit of the package, with ", changed" where its files differ from it, and today's date."""
    commit, dirty = git_state()
    return {
        "commit": f"{commit or 'unknown'}{', changed' * bool(dirty)}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    return f"{device.type}: {torch.cuda.get_device_name(device)}"


@functools.cache
def cpu_model() -> str:
    """Name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
