"""How Sphinx reads this book: side by side, and if a page fails, its cause comes last.

Reading executes notebooks, and two kernels a processor keep it busy while others start; Jupyter
Book has no option for it, as `sphinx-build` has. A page that fails does not end the others, whose
kernels would be torn down with tracebacks of their own. When all are read, the build ends with the
page, the cell and the exception, or with the warnings, where these are errors; and it exits, since
of any exception Jupyter Book would print a traceback.
"""

import logging
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from jupyter_cache.executors.utils import ExecutionResult
from myst_nb.core.execute import direct
from sphinx import builders
from sphinx.util.logging import WarningLogRecordTranslator
from traitlets.config import Config

BOOK = Path(__file__).resolve().parents[1]

# These say nothing of the matter. They act before pages are read or after they are written.
SAFE = ("sphinx-mathjax-offline", "sphinx_multitoc_numbering")

LINES = 15  # of a message at most, so that the build's last twenty lines have all of the cause
END_OF_CAUSE = "\n\nThe whole traceback:\n"


def refuse_elsewhere(app, config):
    """Exit at once where the book can't be built from."""
    if Path(app.srcdir).resolve() != BOOK:
        sys.exit(f"\nthe book is in the folder {BOOK.name}: jupyter-book build {BOOK.name}")
    if not (BOOK / "notebooks").is_dir():
        sys.exit(
            "\nbook/notebooks should be a symbolic link to the folder notebooks, and is a file, as "
            "git makes one where core.symlinks is false. On Windows switch on the developer mode; "
            "then: git config core.symlinks true && git restore book/notebooks _toc.yml. Or put a "
            "copy of the folder notebooks in its place."
        )


def declare_safe(app, env, docnames):
    """Put in what the extensions leave out; with one of them unsafe, Sphinx goes page by page."""
    for name in SAFE:
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True
            app.extensions[name].parallel_write_safe = True


def naming_causes(execute):
    """Let `execute` return whatever happens to a notebook, with the cause before the traceback."""

    def execute_and_name(notebook, **settings):
        started = []

        def start(cell, cell_index):
            started.append(cell)

        with (
            tempfile.TemporaryDirectory() as sockets,
            tempfile.TemporaryFile() as last_words,
            standard_error(last_words),
        ):
            settings |= {"on_cell_execute": start, "config": private(sockets)}
            try:
                result = execute(notebook, **settings)
            except Exception as error:  # the kernel died, say, or did not start
                last_words.seek(0)
                text = f"{error!r}\n{last_words.read().decode(errors='replace')}"
                result = ExecutionResult(notebook, settings["cwd"], 0.0, error, text)
        if result.err is not None:
            result.exc_string = f"{cause(started, result.err)}{END_OF_CAUSE}{result.exc_string}"
        return result

    return execute_and_name


def private(folder):
    """Sockets in a folder of its own: two kernels that start at once may choose the same port."""
    if os.name != "posix":
        return Config()
    return Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


@contextmanager
def standard_error(file):
    """Give processes that are started meanwhile a file for it.

    A kernel that is shut down while busy writes a traceback there of what it can't send any more.
    """
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def cause(started, error):
    """The last code cell that was started, and what became of it."""
    source = started[-1].source.strip().partition("\n")[0] if started else ""
    name = getattr(error, "ename", type(error).__name__)
    lines = f"{name}: {getattr(error, 'evalue', error)}".splitlines()
    if len(lines) > LINES:
        lines[LINES - 1 :] = ["..."]
    return "\n".join([f"cell {len(started)}: {source}", *lines])


def end_with_causes(app, env):
    """Exit if the code of a page failed, with what there is to know as the last lines."""
    failed = {
        name: metadata["exec_data"]["traceback"].partition(END_OF_CAUSE)[0]
        for name, metadata in sorted(getattr(env, "nb_metadata", {}).items())
        if not metadata.get("exec_data", {}).get("succeeded", True)
    }
    if failed:
        causes = [f"{env.doc2path(name, base=False)}, {text}" for name, text in failed.items()]
        sys.stdout.flush()
        sys.exit("\n" + "\n\n".join([*causes, f"no book: {len(failed)} of its pages failed"]))


class Warnings(logging.Handler):
    """Warnings in one line each, kept until the end."""

    def __init__(self, app):
        super().__init__(logging.WARNING)
        self.addFilter(WarningLogRecordTranslator(app))  # locations as text
        self.lines = []

    def emit(self, record):
        location = getattr(record, "location", None)
        self.lines.append(f"{location}: {record.getMessage()}" if location else record.getMessage())


def end_with_warnings(app, exception):
    """Exit with the warnings as the last lines, where they are errors."""
    if app.warnings_kept.lines and app.keep_going and exception is None:  # by -W --keep-going
        sys.stdout.flush()
        lines = app.warnings_kept.lines[:LINES]
        sys.exit("\n".join(["", *lines, f"no book: {len(app.warnings_kept.lines)} warnings"]))


def setup(app):
    """Sphinx calls this."""
    app.warnings_kept = Warnings(app)
    logging.getLogger("sphinx").addHandler(app.warnings_kept)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # kernels with more get in each other's way
    direct.single_nb_execution = naming_causes(direct.single_nb_execution)
    app.parallel = max(app.parallel, 2 * (os.cpu_count() or 1))
    # Page by page: Sphinx would give out five at a time, and wait for the last five.
    builders.make_chunks = lambda names, *_: [[name] for name in names]
    app.connect("config-inited", refuse_elsewhere)
    app.connect("env-before-read-docs", declare_safe)
    app.connect("env-updated", end_with_causes, priority=0)
    app.connect("build-finished", end_with_warnings, priority=1000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
