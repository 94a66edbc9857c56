"""Would the tests notice? `make mutants` changes the code in small ways, and runs them each time.

What mutmut finds goes to benchmarks/mutants.json, from which the book draws: by module how many
mutants there were, and those that survived, each with a reason from benchmarks/survivors.toml.
Ends with 1 if one has none.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

from gmlib.study.measured import measured_file

REASONS = tomllib.loads(Path(__file__).with_name("survivors.toml").read_text())["reasons"]


def change(mutant: str) -> str:
    """What the mutant is, as function: old line => new line."""
    diff = get_diff_for_mutant(mutant).splitlines()
    old = [line[1:].strip() for line in diff if re.match(r"-(?!--)", line)]
    new = [line[1:].strip() for line in diff if re.match(r"\+(?!\+\+)", line)]
    function = mutant.rpartition("__mutmut_")[0].rpartition(".")[2]
    function = re.sub("^x_", "", function.removeprefix("xǁ").replace("ǁ", "."))
    return f"{function}: {' '.join(old)} => {' '.join(new)}"


def reason(mutated: str) -> str:
    """Why it may survive, or nothing."""
    return next((why for pattern, why in REASONS if re.search(pattern, mutated)), "")


def main() -> int:
    """Run mutmut on what has changed since it ran last, and write what it found."""
    subprocess.run([Path(sys.executable).with_name("mutmut"), "run", *sys.argv[1:]], check=False)
    found = {}
    for meta in sorted(Path("mutants/gmlib").rglob("*.meta")):
        statuses = json.loads(meta.read_text())["exit_code_by_key"]
        if None in statuses.values():
            raise SystemExit(f"{meta}: not all mutants were tried")
        alive = [
            change(name)
            for name, status in statuses.items()
            if status_by_exit_code[status] not in ("killed", "timeout", "segfault")
        ]
        found[str(meta.relative_to("mutants").with_suffix(""))] = {
            "mutants": len(statuses),
            "survivors": [{"change": each, "reason": reason(each)} for each in alive],
        }
    text = json.dumps(found, indent=1, ensure_ascii=False)
    measured_file("mutants.json").write_text(text + "\n")
    unexplained = [
        survivor["change"]
        for module in found.values()
        for survivor in module["survivors"]
        if not survivor["reason"]
    ]
    for mutated in unexplained:
        print(f"survives without a reason: {mutated}", file=sys.stderr)
    return bool(unexplained)


if __name__ == "__main__":
    sys.exit(main())
