"""Verdict cards as pages: one a claim, and one that lists all."""

import math
import re
from pathlib import Path
from typing import Any

from farcontext.app.cards import Card, tally
from farcontext.app.site.layout import Page, Places, render
from farcontext.app.site.notebook import Source

NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?(?:e[−+-]?\d+)?")


def _numbers(effect: dict[str, Any]) -> list[float]:
    """Return what is drawn of an effect: its interval, then its thresholds."""
    limits = [float(x.replace("−", "-")) for x in NUMBER.findall(effect["threshold"])]
    numbers = [effect["low"], effect["estimate"], effect["high"], *limits]
    return numbers if all(map(math.isfinite, numbers)) else []


def drawn(effect: dict[str, Any], effects: list[dict[str, Any]]) -> dict[str, Any]:
    """Place an effect's interval and thresholds on a line.

    The line goes from 0 to 100. Cells of one effect share their scale; a cell's name is the
    effect's, a colon, and the cell.

    Returns:
        Nothing where a number is unknown or all of them are the same.
    """
    name = effect["effect"].partition(": ")[0]
    same = [x for x in effects if x["effect"].partition(": ")[0] == name]
    scale = [x for one in same for x in _numbers(one)]
    if not (numbers := _numbers(effect)) or min(scale) == max(scale):
        return {}
    width = max(scale) - min(scale)
    low, estimate, high, *marks = [5 + 90 * (x - min(scale)) / width for x in numbers]
    return {"low": low, "estimate": estimate, "high": high, "marks": marks}


def page(card: Card, places: Places, source: Source) -> Page:
    """Return a card's page, with the published figures of its study."""
    folder = places.root / "results" / "laptop" / card.claim.study / "figures"
    figures = [
        (path.stem.replace("_", " "), _figure(path, places, card.url))
        for path in sorted(folder.glob("*.svg"))
    ]
    effects = [one | {"drawn": drawn(one, card.effects)} for one in card.effects]
    told = {"card": card, "effects": effects, "source": source, "figures": figures}
    body = render("card", card.url, **told)
    return Page(card.url, f"{card.id}: {card.claim.hypothesis}", "Verdicts", body, card.id)


def _figure(path: Path, places: Places, page: str) -> str:
    at = f"figures/{path.parent.parent.name}/{path.name}"
    return places.show(path.relative_to(places.root).as_posix(), page, at)


def overview(cards: list[Card]) -> Page:
    """Return the page that lists all cards."""
    url = "claims/index.html"
    body = render("cards", url, cards=cards, tally=tally(cards))
    return Page(url, "Verdicts", "Verdicts", body, "All claims")
