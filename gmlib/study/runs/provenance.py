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
    """Return the provenance of a record, as the ledger stores it.

    Args:
        checksums: Checksums of the data set's files by file name; for several data sets, these by
            data set name.
        device: Device on which the run is trained.
        runs: Number of runs that are trained there as one program.
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
    """Return the commit of the package's checkout and whether tracked files differ from it.

    Both are None if the package is not in a checkout or, with a warning, if git is missing or
    fails.
    """
    root = Path(gmlib.__file__).parent

    def git(*arguments: str) -> str:
        # Trust any owner of the checkout, since its code is running already.
        command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout.strip()

    try:
        if not git("ls-files", "--", "__init__.py"):
            return None, None  # installed inside another project's checkout
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
    """Return the package's commit, with ", changed" if its files differ from it, and the date."""
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
