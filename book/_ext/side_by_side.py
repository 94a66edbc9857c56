"""Read pages side by side, as `sphinx-build --jobs` would: Jupyter Book has no such option.

Reading executes notebooks, and two kernels a processor keep it busy while others start.
"""

import os


def setup(app):
    """Sphinx calls this."""
    app.parallel = max(app.parallel, 2 * (os.cpu_count() or 1))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
