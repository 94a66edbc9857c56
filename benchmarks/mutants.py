"""Would the tests notice? `make mutants` changes the code in small ways, and runs them each time.

What mutmut finds goes to benchmarks/mutants.json, from which the book draws: by module how many
mutants there were, and those that survived, each with its reason from benchmarks/survivors.toml.
Ends with 1 if one has none, or a reason explains nothing.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

from gmlib.study.analysis.benchmarks import values_file
from gmlib.study.runs.provenance import stamp

ROOT = Path(__file__).parents[1]
REASONS = tomllib.loads((ROOT / "benchmarks/survivors.toml").read_text())["reasons"]


def change(mutant: str) -> str:
    """What the mutant is, as function: old line => new line."""
    diff = get_diff_for_mutant(mutant).splitlines()
    old, new = (
        " ".join(line[1:].strip() for line in diff if line[:1] == sign and line[:3] != 3 * sign)
        for sign in "-+"
    )
    function = mutant.rpartition("__mutmut_")[0].rpartition(".")[2]
    function = re.sub("^x_", "", function.removeprefix("xǁ").replace("ǁ", "."))
    return f"{function}: {old} => {new}"


def reason(mutated: str) -> str:
    """Why it may survive, or nothing."""
    return next((why for pattern, why in REASONS if re.search(pattern, mutated)), "")


def found(folder: Path) -> dict[str, dict]:
    """By module, how many mutants mutmut tried and which survived."""
    modules = {}
    for meta in sorted((folder / "gmlib").rglob("*.meta")):
        statuses = {
            name: status_by_exit_code[code]
            for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()
        }
        if "not checked" in statuses.values():
            raise SystemExit(f"{meta}: not all mutants were tried; --resume tries the others")
        alive = [
            change(name)
            for name, status in statuses.items()
            if status not in ("killed", "timeout", "segfault")
        ]
        modules[str(meta.relative_to(folder).with_suffix(""))] = {
            "mutants": len(statuses),
            "survivors": [{"change": each, "reason": reason(each)} for each in alive],
        }
    return modules


def main() -> int:
    """Run mutmut, and write what it found."""
    parser = argparse.ArgumentParser(prog="python benchmarks/mutants.py", description=__doc__)
    parser.add_argument("--resume", action="store_true", help="go on with the last run")
    folder = ROOT / "mutants"
    if not parser.parse_args().resume:
        shutil.rmtree(folder, ignore_errors=True)
    mutmut = Path(sys.executable).with_name("mutmut")
    one_thread_each = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([mutmut, "run"], cwd=ROOT, env=one_thread_each, check=True)
    modules = found(folder)
    text = json.dumps({**stamp(), "modules": modules}, indent=1, ensure_ascii=False)
    values_file("mutants.json").write_text(text + "\n")
    survivors = [survivor for own in modules.values() for survivor in own["survivors"]]
    unexplained = [survivor["change"] for survivor in survivors if not survivor["reason"]]
    idle = {why for _, why in REASONS} - {survivor["reason"] for survivor in survivors}
    for mutated in unexplained:
        print(f"survives without a reason: {mutated}", file=sys.stderr)
    for why in idle:
        print(f"explains no survivor: {why}", file=sys.stderr)
    return bool(unexplained or idle)


if __name__ == "__main__":
    sys.exit(main())
