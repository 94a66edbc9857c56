"""How hard the tests try, what they measure for the book, and a real browser for what readers see.

``--torture=FILE`` runs those that can try harder or measure something, has them try as hard as
`make torture` does, and writes what they measured.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import sync_playwright
from xdist.scheduler import LoadScopeScheduling

from gmlib.study.runs.provenance import cpu_model, stamp

# The same examples every time, so that a failure is the change's; others under torture. How long
# one takes is a matter of what else the machine does.
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=300, derandomize=True, **UNHURRIED)
settings.register_profile(
    "torture", max_examples=100_000, derandomize=False, database=None, **UNHURRIED
)


# So that failed assertions of the helpers show the values, as those of tests do.
pytest.register_assert_rewrite(*(path.stem for path in Path(__file__).parent.glob("helpers/*.py")))
from kinds import KINDS, NETWORKS  # noqa: E402 - it would not be rewritten any more


def pytest_addoption(parser):
    parser.addoption("--torture", type=Path, metavar="FILE", help="try hard, write values to FILE")


def pytest_configure(config):
    settings.load_profile("torture" if config.getoption("--torture") else "default")


# Files whose tests share what takes long to make, as the cells of a notebook share a kernel.
TOGETHER = (
    *(
        ".ipynb",
        "claims/test_tables.py",
        "test_catalogue.py",
        "test_explorables.py",
        "test_papermill.py",
    ),
    *("test_pythons.py", "test_tutorial.py"),
)


class Scheduling(LoadScopeScheduling):
    """Each test goes to the worker that is free, but those that share much all to one."""

    def _split_scope(self, nodeid):
        path = nodeid.partition("::")[0]
        if path.endswith(TOGETHER):
            return path
        page = re.search(r"[\w/]+\.html", nodeid)
        return page[0] if page else nodeid


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--torture"):
        items[:] = [item for item in items if {"torture", "measured"} & set(item.fixturenames)]


def pytest_runtest_logreport(report):
    if report.when == "call":
        MEASURED.ran(report.nodeid, report.passed)


def pytest_sessionfinish(session):
    if (file := session.config.getoption("--torture")) and MEASURED.passed:
        MEASURED.write(file)


class Measured:
    """What tests measured: values by section of the book's page, each with what it is of."""

    def __init__(self):
        self.rows = {}
        self.passed = {}  # those that ran, by function, all its parameters taken together

    def __call__(self, section, what, value):
        """Keep a number or a text."""
        self.rows[section, what] = {
            "section": section,
            "what": what,
            "value": value,
            "test": _function(os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]),
        }

    def add(self, section, what, number=1):
        """Count."""
        if (section, what) not in self.rows:
            self(section, what, 0)
        self.rows[section, what]["value"] += number

    def ran(self, test, passed):
        """A test has come to its end."""
        name = _function(test)
        self.passed[name] = self.passed.get(name, True) and passed

    def write(self, file):
        """Into a file; it keeps what tests measured that did not run, but none of failed ones."""
        known = json.loads(file.read_text()) if file.exists() else []
        rows = [row for row in known if row["test"] not in self.passed]
        made = {"cpu": cpu_model(), **stamp()}
        rows += [row | made for row in self.rows.values() if self.passed.get(row["test"])]
        file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


MEASURED = Measured()


def _function(test):
    """The function of a test, whatever its parameters."""
    return test.partition("[")[0]


@pytest.fixture(scope="session")
def torture(pytestconfig):
    """Whether to try as hard as one can."""
    return pytestconfig.getoption("--torture") is not None


@pytest.fixture(scope="session")
def measured():
    """Where to put a value for the book."""
    return MEASURED


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys(), scope="module")
def kind(request):
    """A kind of GM layer, each in turn."""
    return request.param


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys(), scope="module")
def kinds(request):
    """The kinds of the GM layers of a network: all of one, or both mixed."""
    return request.param


@pytest.fixture(scope="session")
def skip_or_fail():
    """What to do where something is missing: skip, or fail where ``CI`` is ``true``."""

    def stop(reason):
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return stop


@pytest.fixture(scope="session")
def browser(skip_or_fail):
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        skip_or_fail(f"no browser: none of {', '.join(names)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()
