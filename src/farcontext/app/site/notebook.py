"""A notebook as a page: prose, code, and saved outputs."""

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from nbconvert.filters.ansi import ansi2html
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from farcontext.app import notebooks
from farcontext.app.site.layout import Page, Places, render
from farcontext.app.site.markdown import Renderer
from farcontext.studies.params import STUDIES

# Pandas writes these into each table; the site has a style of its own.
STYLE = re.compile(r'<style scoped>.*?</style>| border="1"', re.S)
CHINESE = "zh"  # A cell with this tag holds Chinese: a short answer, or a quotation.
RICHEST = ("image/svg+xml", "image/png", "text/markdown", "text/html")  # Of an output's forms.
PUBLISHED, COMMITTED = "laptop", "smoke"


@dataclass(frozen=True)
class Source:
    """A notebook of the repository, and the file whose outputs are shown."""

    study: str
    path: Path  # This is the committed notebook.
    executed: Path  # DVC's run of it at full size; where there is none, the committed one.
    url: str

    @property
    def profile(self) -> str:
        """Which profile's run the outputs are of."""
        return COMMITTED if self.executed == self.path else PUBLISHED

    @property
    def page(self) -> bool:
        """Whether it is no study's, but shows what is published."""
        return self.study not in STUDIES

    @property
    def number(self) -> str:
        """The two digits by which the notebooks are in order."""
        return self.path.name[:2]

    @property
    def name(self) -> str:
        """The study's name, as a reader's eye finds it."""
        words = self.study.replace("_", " ").replace("mlm ", "masked-LM ")
        return words[:1].upper() + words[1:]


def sources(root: Path) -> list[Source]:
    """Return all notebooks in reading order."""
    found = []
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        study = path.stem[3:]
        made = root / "build" / PUBLISHED / "studies" / study / "notebook.ipynb"
        url = f"notebooks/{path.stem}.html"
        found.append(Source(study, path, made if made.is_file() else path, url))
    return found


def code(text: str) -> str:
    """Return Python code with its words marked for the style sheet."""
    return highlight(text, PythonLexer(), HtmlFormatter(nowrap=False, cssclass="code"))


def _output(output: NotebookNode, alt: str, markdown: Renderer) -> str:
    """Return one saved output as HTML.

    Of several forms the richest is shown.
    """
    if output.output_type == "stream":
        return f"<pre>{ansi2html(output.text)}</pre>"
    if output.output_type == "error":
        return f"<pre>{ansi2html(chr(10).join(output.traceback))}</pre>"
    data = output.get("data", {})
    kind = next((kind for kind in RICHEST if kind in data), None)
    match kind:
        case "image/svg+xml":
            html = f'<figure class="paper">{data[kind]}</figure>'
        case "image/png":
            source = f"data:image/png;base64,{data[kind].replace(chr(10), '')}"
            html = f'<figure class="paper"><img src="{source}" alt="{escape(alt)}"></figure>'
        case "text/markdown":
            html = f"<section>{markdown.html(data[kind])}</section>"
        case "text/html":
            html = f'<div class="scroll">{STYLE.sub("", data[kind])}</div>'
        case _:
            html = f"<pre>{escape(data.get('text/plain', ''))}</pre>"
    return html


def _cells(notebook: NotebookNode, markdown: Renderer) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            lang = "zh-Hans" if CHINESE in tags else ""
            shown.append({"kind": "markdown", "html": markdown.html(cell.source), "lang": lang})
        elif cell.cell_type == "code":
            alt = f"Figure: {markdown.headings[-1].text if markdown.headings else ''}"
            outputs = [_output(one, alt, markdown) for one in cell.outputs]
            folded = any(notebooks.PARAMETERS in tag for tag in tags)  # papermill's cell, too
            shown.append(
                {"kind": "code", "html": code(cell.source), "folded": folded, "outputs": outputs}
            )
    return shown


def page(source: Source, places: Places, cards: list, around: tuple) -> Page:
    """Return a notebook's page.

    Args:
        source: the notebook.
        places: where links lead.
        cards: the claims that it tests.
        around: the notebook before it and the one after it, or None.
    """
    markdown = Renderer(places, source.path.relative_to(places.root).as_posix(), source.url)
    cells = _cells(notebooks.read(source.executed), markdown)
    title = markdown.headings[0].text if markdown.headings else source.name
    told = {"source": source, "cells": cells, "cards": cards, "around": around}
    body = render("notebook", source.url, **told)
    label = f"{source.number} {source.name}"
    return Page(source.url, title, "Notebooks", body, label, tuple(markdown.headings[1:]))


def lead(source: Source, places: Places, page: str) -> str:
    """Return the paragraph after a notebook's title as HTML: its short answer."""
    first = notebooks.read(source.executed).cells[0].source
    blocks = [block for block in re.split(r"\n\s*\n", first) if not block.startswith("#")]
    name = source.path.relative_to(places.root).as_posix()
    return Renderer(places, name, page).html(blocks[0]) if blocks else ""
