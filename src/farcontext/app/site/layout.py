"""Pages of the site, and where the repository's files stand on it."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

ELSEWHERE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")
QUOTED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


class Address(NamedTuple):
    """A link in its parts."""

    elsewhere: bool  # It names a scheme or a host.
    path: str
    anchor: str


def address(link: str) -> Address:
    """Return the parts of a link.

    The standard library's parser stands beside network clients, which no module here imports.
    """
    plain = QUOTED.sub(lambda x: bytes.fromhex(x[0].replace("%", "")).decode(), link)
    path, _, anchor = plain.partition("#")
    return Address(ELSEWHERE.match(link) is not None, path.partition("?")[0], anchor)


@dataclass(frozen=True)
class Heading:
    """A heading of a page, with the anchor that leads there."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Page:
    """One page before it is laid out: its body is HTML."""

    url: str
    title: str
    group: str  # The group of the sidebar in which the page is listed.
    body: str
    label: str = ""  # Its short name in the sidebar; without one it is not listed.
    headings: tuple[Heading, ...] = ()


@dataclass
class Places:
    """Where files of the repository stand on the site."""

    root: Path
    pages: Mapping[str, str]  # A file of the repository → its page.
    copies: dict[str, Path] = field(default_factory=dict)  # A URL of the site → the file to copy.

    def show(self, path: str, page: str, at: str = "") -> str:
        """Copy a file to the site, and return its address there."""
        url = at or f"files/{path}"
        self.copies[url] = self.root / path
        return relative(page, url)

    def follow(self, source: str, page: str, target: str) -> str | None:
        """Return where a link of the repository leads on the site.

        Args:
            source: the file that holds the link.
            page: the page that shows this file.
            target: the link as written there.

        Returns:
            An address; None where the site holds nothing of that name, as for a folder.
        """
        parts = address(target)
        if parts.elsewhere or not parts.path:
            return target
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), parts.path))
        if path in self.pages:
            anchor = f"#{parts.anchor}" if parts.anchor else ""
            return relative(page, self.pages[path]) + anchor
        inside = not path.startswith("..") and (self.root / path).is_file()
        return self.show(path, page) if inside else None


def relative(page: str, url: str) -> str:
    """Return a URL of the site as seen from a page."""
    return posixpath.relpath(url, posixpath.dirname(page) or ".")


def ticked(text: str) -> Markup:
    """Return a text as HTML, with what stands in backticks as code."""
    return Markup(re.sub(r"`+([^`]+)`+", r"<code>\1</code>", str(escape(text))))


@lru_cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("farcontext.app", "templates/site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["ticked"] = ticked
    return made


def render(template: str, url: str, **values: Any) -> str:
    """Render a template for a page.

    In the template `to` gives an address as seen from that page.
    """
    return (
        _templates()
        .get_template(f"{template}.html.j2")
        .render(to=lambda target: relative(url, target), **values)
    )


def lay_out(page: Page, pages: list[Page]) -> str:
    """Return a whole HTML page, with the sidebar that all pages share."""
    groups: dict[str, list[Page]] = {}
    for one in pages:
        if one.label:
            groups.setdefault(one.group, []).append(one)
    return render("layout", page.url, page=page, groups=groups)
