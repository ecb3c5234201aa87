"""The search's index: the text of every section of every page."""

import json
import re

from farcontext.app.site.layout import Page
from farcontext.app.site.markdown import plain

# A section begins at a heading with an anchor.
SECTION = re.compile(r'<h[2-4][^>]* id="([^"]+)"[^>]*>(.*?)</h[2-4]>', re.S)
# What is drawn says nothing to a reader of words.
UNREAD = re.compile(r"<(svg|style|script)\b.*?</\1>", re.S)
# Words on both sides of such a tag are apart.
BLOCK = re.compile(r"</?(p|td|th|li|dt|dd|pre|tr|div|summary|figcaption|h\d|br)\b[^>]*>")


def sections(page: Page) -> list[dict[str, str]]:
    """Return the sections of a page: address, titles and text."""
    parts = SECTION.split(UNREAD.sub(" ", page.body))
    found = [{"u": page.url, "p": page.title, "h": "", "t": _text(parts[0])}]
    for anchor, heading, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        told = {"u": f"{page.url}#{anchor}", "p": page.title, "h": _text(heading)}
        found.append(told | {"t": _text(text)})
    return [one for one in found if one["t"] or one["h"]]


def _text(html: str) -> str:
    return plain(BLOCK.sub(" ", html))


def index(pages: list[Page]) -> str:
    """Return the index as a script.

    A page that is opened from the disk may load a script, where it may not fetch JSON.
    """
    rows = [one for page in pages for one in sections(page)]
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return f"window.searchIndex = {text};\n"
