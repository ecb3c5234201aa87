"""The checks of a finished site.

Its links resolve, and a browser asks no other host.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from farcontext.app.site.layout import address

# A browser fetches these by itself; a link (`a`) waits for the reader.
FETCHED = {
    ("img", "src"),
    ("img", "srcset"),
    ("script", "src"),
    ("link", "href"),
    ("source", "src"),
    ("source", "srcset"),
    ("iframe", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("video", "src"),
    ("audio", "src"),
    ("image", "href"),
    ("image", "xlink:href"),
    ("use", "href"),
    ("use", "xlink:href"),
}
IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s]+)""")


@dataclass
class Found(HTMLParser):
    """What a page names: anchors, links, and what is fetched."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin as the parser does; a dataclass would not."""
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag names."""
        for name, value in attrs:
            if value is None:
                continue
            if name in ("id", "name"):
                self.anchors.add(value)
            elif (tag, name) in FETCHED:
                self.fetched.append(value)
            elif (tag, name) in (("a", "href"), ("form", "action")):
                self.links.append(value)
            elif name == "style":
                self.fetched += IN_STYLE.findall(value)


def read(page: str) -> Found:
    """Read what a page or an SVG picture names."""
    found = Found()
    found.feed(page)
    for style in re.findall(r"<style.*?</style>", page, re.S):
        found.fetched += IN_STYLE.findall(style)
    return found


@dataclass(frozen=True)
class Report:
    """What the checks of a site counted, and what they object to."""

    pages: int
    links: int
    broken: tuple[str, ...]
    outside: tuple[str, ...]

    def line(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.pages} pages, {self.links} links, {len(self.broken)} broken, "
            f"{len(self.outside)} requests to another host"
        )


def _resolves(folder: Path, page: Path, link: str, known: dict[Path, Found]) -> bool:
    parts = address(link)
    path = (page.parent / parts.path).resolve() if parts.path else page
    if not path.is_relative_to(folder) or not path.is_file():
        return False
    return not parts.anchor or path not in known or parts.anchor in known[path].anchors


def _styles(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*.css")):
        for named in IN_STYLE.findall(path.read_text(encoding="utf-8")):
            yield path, named


def check(folder: Path) -> Report:
    """Follow every link of a site.

    What a browser would fetch from another host is listed, too.
    """
    folder = folder.resolve()
    known = {
        path: read(path.read_text(encoding="utf-8"))
        for kind in ("*.html", "*.svg")
        for path in sorted(folder.rglob(kind))
    }
    fetched = [(page, x) for page, found in known.items() for x in found.fetched]
    fetched += _styles(folder)
    links = [(page, x) for page, found in known.items() for x in found.links]
    broken = [
        (page, x)
        for page, x in [*links, *fetched]
        if not address(x).elsewhere and not _resolves(folder, page, x, known)
    ]
    outside = [
        (page, x) for page, x in fetched if address(x).elsewhere and not x.startswith("data:")
    ]
    return Report(
        pages=sum(path.suffix == ".html" for path in known),
        links=len(links),
        broken=tuple(f"{page.relative_to(folder)}: {x}" for page, x in broken),
        outside=tuple(f"{page.relative_to(folder)}: {x}" for page, x in outside),
    )
