"""How fast it is: `python benchmarks`, or `make bench`; `--study` adds a quarter of an hour.

What is measured replaces its part of benchmarks/speed.json, from which the book draws.
"""

import argparse
import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself

import sampling
import scaling
import step
import study
from harness import machine, write


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__)
    parser.add_argument("--study", action="store_true", help="the whole main study as well")
    options = parser.parse_args()
    sections = {"step": step, "scaling": scaling, "sampling": sampling}
    if options.study:
        sections["study"] = study
    for name, section in sections.items():
        write({"machine": machine(), name: section.measure()})
        print()


if __name__ == "__main__":
    main()
