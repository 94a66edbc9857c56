"""What nbval compares when it runs the notebooks, on which sockets, and one thread a worker."""

import os
import tempfile

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side with several threads each take each other's processors.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config):
    wanted = any(getattr(config.option, name, False) for name in ("nbval", "nbval_lax"))
    if wanted and os.name == "posix":
        _give_kernels_sockets_of_their_own(config)


def _give_kernels_sockets_of_their_own(config):
    """Start nbval's kernels on files: two that start at once may choose the same TCP port."""
    from jupyter_client.manager import KernelManager
    from nbval import kernel

    folder = tempfile.TemporaryDirectory(prefix="nbval-")
    config.add_cleanup(folder.cleanup)

    def manager(**settings):
        own = tempfile.mkdtemp(dir=folder.name)
        return KernelManager(transport="ipc", ip=f"{own}/kernel", **settings)

    kernel.KernelManager = manager


def pytest_collectstart(collector):
    # Progress bars and one-off notices (matplotlib builds its font cache) come on stderr. They
    # depend on the machine and the day; the committed notebooks have none.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
