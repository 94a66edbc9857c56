"""Read pages side by side, as `sphinx-build --jobs` would: Jupyter Book has no such option.

Reading executes notebooks, and two kernels a processor keep it busy while others start.
"""

import os

# These say nothing of the matter. They act before pages are read or after they are written.
SAFE = ("sphinx-mathjax-offline", "sphinx_multitoc_numbering")


def declare_safe(app, env, docnames):
    """Put in what the extensions leave out; with one of them unsafe, Sphinx goes page by page."""
    for name in SAFE:
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True
            app.extensions[name].parallel_write_safe = True


def setup(app):
    """Sphinx calls this."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # kernels with more get in each other's way
    app.parallel = max(app.parallel, 2 * (os.cpu_count() or 1))
    app.connect("env-before-read-docs", declare_safe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
