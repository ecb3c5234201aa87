"""Markdown as HTML.

Links lead to pages of the site, and formulas become MathML.
"""

import re
from html import escape, unescape
from typing import Any

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from farcontext.app.site.layout import Heading, Places, address
from farcontext.files import UserError

LONG = 40  # A formula within a line that may be wider than a narrow screen.
TAG = re.compile(r"<[^>]*>")


def plain(html: str) -> str:
    """Return the text of a piece of HTML."""
    return " ".join(unescape(TAG.sub("", html)).split())


def slug(text: str, taken: list[str]) -> str:
    """Return a heading's anchor, as the usual forges name it."""
    name = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") or "section"
    again = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", one) is not None for one in taken)
    return f"{name}-{again}" if again else name


def mathml(tex: str, display: str) -> str:
    """Return a formula as MathML, which browsers draw without a script.

    Raises:
        UserError: the converter does not know a command of the formula.
    """
    # Inside \text the converter keeps a backslash before an underscore; it knows align* alone, and
    # draws a bracket of fixed size apart from what stands in it.
    ready = re.sub(r"\\text\{[^}]*\}", lambda found: found[0].replace(r"\_", "_"), tex.strip())
    ready = re.sub(r"\\[bB]igg?[lr]?(?![a-z])", "", ready).replace("{aligned}", "{align*}")
    try:
        made = convert(ready, display=display)
    except Exception as error:
        raise UserError(f"formula {ready!r}: expected LaTeX: {error!r}") from None
    if unknown := re.search(r"\\\w+", made):
        raise UserError(f"formula {ready!r}: {unknown[0]}: expected a command that is known")
    return made


class Renderer(IPythonRenderer):
    """HTML of one page; it keeps the headings that it met."""

    def __init__(self, places: Places, source: str, page: str) -> None:
        """Read a file of the repository for a page of the site."""
        super().__init__(escape=False, exclude_anchor_links=True)
        self.places, self.source, self.page = places, source, page
        self.headings: list[Heading] = []

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """Give a heading an anchor."""
        anchor = slug(plain(text), [one.anchor for one in self.headings])
        self.headings.append(Heading(level, anchor, plain(text)))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """Lead to a page of the site.

        A link to what the site does not hold stays text. Jupyter names a heading as it is written,
        the site by its slug.
        """
        url = f"#{slug(address(url).anchor, [])}" if url.startswith("#") else url
        at = self.places.follow(self.source, self.page, url)
        return text if at is None else super().link(text, at, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Show an image that is copied to the site."""
        at = self.places.follow(self.source, self.page, url) or url
        return f'<img src="{escape(at)}" alt="{escape(plain(text))}" loading="lazy">'

    def table(self, text: str) -> str:
        """Let a wide table scroll by itself."""
        return f'<div class="scroll"><table>\n{text}</table></div>\n'

    def block_math(self, body: str) -> str:
        """Set a formula on a line of its own."""
        return f'<div class="scroll">{mathml(body, "block")}</div>\n'

    def inline_math(self, body: str) -> str:
        """Set a formula within a line."""
        formula = mathml(body, "inline")
        return f'<span class="long">{formula}</span>' if len(body) > LONG else formula

    def latex_environment(self, name: str, body: str) -> str:
        """Set a formula that is an environment of its own."""
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def html(self, text: str) -> str:
        """Return a text of Markdown as HTML."""
        return MarkdownWithMath(renderer=self).render(text)
