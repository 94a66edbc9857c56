"""The built book as its reader meets it: opened from disk, in a browser, with no network.

The book is looked for in ``_build/html``, or where the variable ``GMLIB_BOOK`` says. Without a
book or a browser these tests are skipped, or fail where ``CI`` is ``true``.
"""

import functools
import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import axe_playwright_python
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
BOOK = Path(os.environ.get("GMLIB_BOOK") or ROOT / "_build" / "html").resolve()
# Pages that Sphinx makes and nobody writes.
GENERATED = {"genindex.html", "py-modindex.html", "search.html"}
PAGES = sorted(
    str(path.relative_to(BOOK))
    for path in BOOK.rglob("*.html")
    if path.name not in GENERATED and "_static" not in path.parts
)

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")

# What a page looks like once MathJax has finished, as plain data.
INSPECT = r"""
async () => {
  if (window.MathJax) await MathJax.startup.promise;
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  const all = selector => [...document.querySelectorAll(selector)];
  const text = element => element.textContent.trim();
  const prose = document.querySelector("main").cloneNode(true);
  prose.querySelectorAll("pre, code, script, mjx-container").forEach(e => e.remove());
  return {
    untypeset: all(".math").filter(e => !e.querySelector("mjx-container")).map(text),
    // MathJax marks an error in a box, an unknown macro in red, an unknown label with "???".
    misset: all("mjx-merror, [data-mjx-error], mtext[mathcolor='red']").map(text)
      .concat(all("mjx-container").map(text).filter(t => t.includes("???"))),
    rawMath: prose.textContent.match(/\\[()[\]]|\$\$|\\(?:begin|frac|mu|sigma)\b/g) ?? [],
    broken: all("img").filter(i => !(i.complete && i.naturalWidth)).map(i => i.src),
    // Sphinx fills a missing description with the name of the file.
    undescribed: all("img").filter(i => !i.alt.trim() || /\.\w+$/.test(i.alt)).map(i => i.src),
    stray: all(".output.stderr, .output.traceback, .system-message, .problematic").map(text),
    ids: all("[id]").map(e => e.id),
    links: all("a[href]").map(a => a.href),
  };
}
"""


# What is wider than the window, of formulas as well: in a line of text, or in the margin, one has
# nothing to scroll by.
TOO_WIDE = """
() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))).then(() =>
  (document.documentElement.scrollWidth > innerWidth ? ["the page"] : []).concat(
  [...document.querySelectorAll("article mjx-container:not([display])")]
    .filter(e => !e.closest("div.cell_output, table") && e.getBoundingClientRect().width)
    .filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML)))
"""
WIDTHS = (390, 1100, 1280)
# With the rules to check: what fails in the dark alone is a matter of colors.
THEMES = {"light": {}, "dark": {"runOnly": ["color-contrast", "link-in-text-block"]}}


@pytest.fixture(scope="session")
def look(browser, skip_or_fail):
    """Open a page once; what was requested, reported and shown, in each width and theme."""
    if not PAGES:
        skip_or_fail(f"no book in {BOOK}: build it with `make book`")

    @functools.cache
    def look(name):
        # A fresh context each: no page profits from what another one loaded.
        context = browser.new_context(offline=True, viewport={"width": WIDTHS[0], "height": 900})
        page = context.new_page()
        requested, failed, complaints = [], [], []
        page.on("request", lambda request: requested.append(request.url))
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.goto((BOOK / name).as_uri(), wait_until="load")
        seen = page.evaluate(INSPECT)
        # As it is now: axe requests the style sheets once more.
        seen |= {"requested": [*requested], "failed": [*failed], "complaints": [*complaints]}
        # Colors and places as they will be.
        page.add_style_tag(content="* { transition: none !important }")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            seen["too wide", width] = page.evaluate(TOO_WIDE)
        page.evaluate(AXE)
        for theme, rules in THEMES.items():
            page.evaluate(
                "theme => Object.assign(document.documentElement.dataset, theme)",
                {"mode": theme, "theme": theme},
            )
            found = page.evaluate("async rules => (await axe.run(rules)).violations", rules)
            seen["shut out", theme] = [
                f"{violation['help']}: {violation['nodes'][0]['html']}"
                for violation in found
                if violation["impact"] in ("serious", "critical")
            ]
        context.close()
        return seen

    return look


@pytest.fixture(params=PAGES or ["index.html"])
def page(request, look):
    return look(request.param)


@functools.cache
def anchors(name):
    """What links can lead to on a page."""
    soup = BeautifulSoup((BOOK / name).read_text(encoding="utf-8"), "html.parser")
    return {element["id"] for element in soup.find_all(id=True)}


def test_everything_comes_from_the_book(page):
    elsewhere = [url for url in page["requested"] if not url.startswith(("file:", "data:"))]
    assert not elsewhere
    assert not page["failed"]
    assert not page["complaints"]


def test_every_formula_is_typeset(page):
    assert not page["untypeset"]
    assert not page["misset"]
    assert not page["rawMath"]


def test_every_image_is_shown_and_described(page):
    assert not page["broken"]
    assert not page["undescribed"]


def test_no_stray_output(page):
    assert not page["stray"]


def leads_somewhere(link):
    url, fragment = urldefrag(link)
    if urlsplit(url).scheme != "file":
        return True  # elsewhere: for the reader to follow, not for the page to fetch
    target = Path(unquote(urlsplit(url).path))
    if not (target.is_file() and target.is_relative_to(BOOK)):
        return False
    name = str(target.relative_to(BOOK))
    return not fragment or name not in PAGES or unquote(fragment) in anchors(name)


def test_links_lead_somewhere(page):
    assert not [link for link in page["links"] if not leads_somewhere(link)]


@pytest.mark.parametrize("theme", THEMES)
def test_no_page_shuts_anybody_out(page, theme):
    assert not page["shut out", theme]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_its_window(page, width):
    assert not page["too wide", width]


@pytest.mark.parametrize(
    ("words", "title"),
    [("Mills ratio", "The layer: from neuron pairs"), ("lsuv", "What does the work?")],
)
def test_the_search_finds(open_page, words, title):
    page = open_page("index.html", 1280)
    complaints = []
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.keyboard.press("Control+k")
    page.keyboard.type(words)
    page.keyboard.press("Enter")
    page.locator("#search-results li a", has_text=title).wait_for()
    assert not complaints


@pytest.fixture
def open_page(browser, look):
    """Open a page of the book, its formulas typeset, in a window of a width."""
    contexts = []

    def open_(name, width, script=""):
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
        contexts.append(context)
        context.add_init_script(script)
        page = context.new_page()
        page.goto((BOOK / name).as_uri(), wait_until="load")
        page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise }")
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def printer(look):
    """The module book/print.py."""
    spec = importlib.util.spec_from_file_location("book_print", ROOT / "book/print.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_printed_book_is_whole(printer, browser, tmp_path):
    assert {f"{name}.html" for name in printer.names()} == set(PAGES)
    combined = BeautifulSoup(printer.document(BOOK), "html.parser")
    ids = [element["id"] for element in combined.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = {link["href"] for link in combined.find_all("a", href=True)}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert not [link for link in links if not link.startswith(("#", "https:"))]
    printer.write_pdf(browser, str(combined), tmp_path / "book.pdf")
    content = (tmp_path / "book.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", content)) > 3 * len(PAGES)
    assert b"/Outlines" in content


def test_what_paper_would_cut_off_is_an_error(printer, browser, tmp_path):
    wide = '<section class="chapter" id="wide"><table style="width: 700px"></table></section>'
    combined = printer.document(BOOK).replace("</main>", f"{wide}</main>")
    with pytest.raises(SystemExit, match="wider than the paper:\nwide: <table"):
        printer.write_pdf(browser, combined, tmp_path / "book.pdf")


def test_the_book_is_small(look):
    size = sum(path.stat().st_size for path in BOOK.rglob("*") if path.is_file())
    assert size < 60_000_000


def test_the_first_page_is_light(look):
    files = {Path(unquote(urlsplit(url).path)) for url in look("index.html")["requested"]}
    assert sum(path.stat().st_size for path in files if "mathjax" not in path.parts) < 1_000_000


def test_the_book_has_formulas_and_figures(look):
    # Otherwise the tests above would pass on a book that lost them.
    html = "".join((BOOK / name).read_text(encoding="utf-8") for name in PAGES)
    assert 'class="math' in html
    assert "<img" in html
