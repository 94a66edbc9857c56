"""What nbval compares when it runs the notebooks, and one thread a worker."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side with several threads each take each other's processors.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collectstart(collector):
    # Progress bars and one-off notices (matplotlib builds its font cache) come on stderr. They
    # depend on the machine and the day; the committed notebooks have none.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
