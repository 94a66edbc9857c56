"""Print the built book as one PDF, with page numbers and an outline, by a browser.

Usage: python book/print.py HTML_FOLDER OUTPUT

The pages' articles go one after the other into one document, which uses the book's own styles and
typesets its formulas. Anything wider than the paper is an error: it would be cut off.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import urldefrag

import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MARGINS = {"top": "18mm", "bottom": "20mm", "left": "20mm", "right": "20mm"}
WIDTH = 642  # of the text in CSS pixels: an A4 page of 210 mm, less its margins
FOOTER = (
    '<div style="font: 8pt sans-serif; width: 100%; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
STYLE = """
html { font-size: 10.5pt; }
body { background: white; }
a.headerlink, button.copybtn, summary, .tag_hide-input > details { display: none !important; }
.chapter, .contents { break-before: page; }
.title { margin-top: 30vh; text-align: center; }
.contents li { list-style: none; margin: 0.4em 0; }
h1, h2, h3, dt { break-after: avoid; }
h1 { margin-top: 0 !important; font-size: 2em; }
h2 { font-size: 1.5em; }
figure, img, tr, dt, .math, .cell_input, .highlight { break-inside: avoid; }
img { max-width: 100% !important; max-height: 190mm; }
img[style*="width"] { max-height: 105mm; } /* of one panel */
img { width: auto !important; height: auto !important; }
aside.margin { float: none !important; width: auto !important; margin: 0.5em 0 1em 2em !important; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
details.hide > :not(summary) { display: block !important; }
table { font-size: 0.8em; break-inside: auto !important; }
div.cell_output, div.highlight pre { overflow: visible !important; }
div.cell_output table.dataframe :is(th, td) { padding: 0.2em 0.4em; }
.table-wrapper, .pst-scrollable-table-container { overflow: visible !important; }
"""
TOO_WIDE = """
width => [...document.querySelectorAll("img, svg, table, pre, mjx-container, p, li")]
  .filter(element => element.getBoundingClientRect().right > width + 1)
  .map(element => element.closest(".chapter").id + ": " + element.outerHTML.slice(0, 100))
"""


def names() -> list[str]:
    """The pages in reading order, without their suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for chapter in toc["chapters"])]


def chapter(html: Path, name: str) -> BeautifulSoup:
    """The article of a page, its anchors made unique and its addresses those of one document."""
    page = html / f"{name}.html"
    article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").article
    for element in article.find_all(id=True):
        element["id"] = f"{name}--{element['id']}"
    for link in article.find_all("a", href=True):
        address, anchor = urldefrag(link["href"])
        if "://" in address or address.startswith("mailto:"):
            continue
        target = (page.parent / address).resolve() if address else page.resolve()
        if target.suffix == ".html":
            other = target.relative_to(html.resolve()).with_suffix("").as_posix()
            link["href"] = f"#{other}--{anchor}" if anchor else f"#{other}"
    for link in article.find_all("a", class_="image-reference"):
        link.unwrap()  # from a figure to its file
    for image in article.find_all("img"):
        image["src"] = (page.parent / image["src"]).resolve().as_uri()
    for details in article.find_all("details"):
        details["open"] = ""
    article.name, article["id"], article["class"] = "section", name, "chapter bd-article"
    return article


def document(html: Path) -> str:
    """The whole book as one HTML document."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    chapters = {name: chapter(html, name) for name in names()}
    head = BeautifulSoup((html / "index.html").read_text(encoding="utf-8"), "html.parser").head
    sheets = [link["href"].partition("?")[0] for link in head.find_all("link", rel="stylesheet")]
    styles = "".join(f'<link rel="stylesheet" href="{(html / name).as_uri()}">' for name in sheets)
    contents = "".join(
        f'<li><a href="#{name}">{article.h1.find(string=True)}</a></li>'
        for name, article in chapters.items()
    )
    mathjax = (html / "_static/mathjax/tex-chtml.js").as_uri()
    return f"""<!doctype html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{config["title"]}</title>
{styles}<style>{STYLE}</style>
<script>window.MathJax = {{options: {{processHtmlClass: "math"}}}}</script>
<script defer src="{mathjax}"></script></head>
<body class="bd-content"><main class="bd-article-container">
<div class="title"><h1>{config["title"]}</h1><p>{config["author"]}, {config["copyright"]}</p></div>
<div class="contents"><h2>Contents</h2><ul>{contents}</ul></div>
{"".join(map(str, chapters.values()))}</main></body></html>"""


def write_pdf(browser: Browser, combined: str, output: Path) -> None:
    """Print the document to `output`; exit if something in it is wider than the paper."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "book.html"
        source.write_text(combined, encoding="utf-8")
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, offline=True)
        page.emulate_media(media="print")
        page.goto(source.as_uri(), wait_until="load")
        page.evaluate("async () => { await MathJax.startup.promise }")
        if too_wide := page.evaluate(TOO_WIDE, WIDTH):
            sys.exit("wider than the paper:\n" + "\n".join(too_wide))
        page.pdf(
            path=output,
            format="A4",
            margin=MARGINS,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            print_background=True,
            outline=True,
            tagged=True,
        )
        page.close()


def main(html: Path, output: Path) -> None:
    """Print the book in the folder `html` to `output`."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit(f"no browser to print with: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        write_pdf(browser, document(html.resolve()), output)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
