"""The paper as a page, beside the PDF.

Typst writes it as HTML from the published tables.
"""

import base64
import re
from pathlib import Path

import typst

from farcontext.app.site.layout import Heading, Page, Places, render
from farcontext.app.site.markdown import plain, slug

PDF = "paper/paper.pdf"
URL = "paper/index.html"
# In HTML, what is only placed on a page of paper would be left out with all that it holds.
MAIN = """\
#show align: it => it.body
#show pad: it => it.body
#include "/paper/paper.typ"
"""
PUBLISHED = "published"


def _files(root: Path) -> dict[str, bytes]:
    """Return all that the paper reads.

    The published tables stand where a run's would.
    """
    known = {"main": MAIN.encode()}
    for path in (x for x in (root / "paper").iterdir() if x.suffix != ".pdf"):
        known[f"paper/{path.name}"] = path.read_bytes()
    results = root / "results" / "laptop"
    for path in (x for x in results.rglob("*") if x.suffix in (".csv", ".json", ".svg")):
        name = path.relative_to(results)
        folder = f"{PUBLISHED}/studies" if len(name.parts) > 1 else PUBLISHED
        known[f"{folder}/{name.as_posix()}"] = path.read_bytes()
    return known


def _html(root: Path) -> str:
    """Return the paper's body as HTML.

    It is empty where the paper has run ahead of the tables.
    """
    try:
        made, _ = typst.compile_with_warnings(
            _files(root),
            root=str(root),
            format="html",
            ignore_system_fonts=True,
            sys_inputs={"build": f"/{PUBLISHED}"},
        )
    except typst.TypstError:
        return ""
    return made.decode("utf-8").partition("<body>")[2].partition("</body>")[0]


def _figures(html: str, places: Places) -> str:
    """Let the figures in the text be the published files."""
    for path in sorted((places.root / "results" / "laptop").glob("*/figures/*.svg")):
        text = f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
        if text in html:
            at = f"figures/{path.parent.parent.name}/{path.name}"
            html = html.replace(
                text, places.show(path.relative_to(places.root).as_posix(), URL, at)
            )
    return html


def page(places: Places) -> Page:
    """Return the paper's page."""
    headings: list[Heading] = []

    def anchored(found: re.Match[str]) -> str:
        text = plain(found[2])
        anchor = slug(text, [one.anchor for one in headings])
        headings.append(Heading(int(found[1]), anchor, text))
        return f'<h{found[1]} id="{anchor}">{found[2]}</h{found[1]}>'

    html = re.sub(r"<h([2-4])>(.*?)</h\1>", anchored, _figures(_html(places.root), places))
    html = re.sub(r"<table>.*?</table>", r'<div class="scroll">\g<0></div>', html, flags=re.S)
    first, end, rest = html.partition("</p>")  # Its first paragraph is the title.
    pdf = places.show(PDF, URL, PDF)
    told = {"title": plain(first) or "The paper", "html": rest if end else "", "pdf": pdf}
    body = render("paper", URL, **told, size=(places.root / PDF).stat().st_size)
    return Page(URL, told["title"], "About", body, "The paper", tuple(headings))
