"""A real browser, for the tests of what readers see."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright


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
