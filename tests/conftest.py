"""How many examples Hypothesis tries, and a real browser for what readers see."""

import os
import shutil

import pytest
from hypothesis import settings
from playwright.sync_api import sync_playwright

# The same examples every time, so that a failure is the change's; others by the profile below.
settings.register_profile("default", max_examples=300, derandomize=True, deadline=None)
settings.register_profile("torture", max_examples=100_000, deadline=None, database=None)
settings.load_profile("default")


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
