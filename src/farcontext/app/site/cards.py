"""Verdict cards: one a claim.

They tell what is published, and what was fixed before it.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from farcontext.app.site.layout import Page, Places, render
from farcontext.app.site.notebook import Source
from farcontext.results import findings, freezing
from farcontext.results.claims import Claim, read_claims
from farcontext.results.freezing import Try
from farcontext.schema import read_yaml

WORDS = Path(__file__).with_name("words.yaml")  # The article's words in English.
CHINESE = {
    "supported": "成立",
    "refuted": "不成立",
    "undecided": "未定",
    "mixed": "因情况而异",
    "pending": "尚未发表",
}
NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?(?:e[−+-]?\d+)?")


@dataclass(frozen=True)
class Card:
    """A claim with all that is known of its verdict."""

    id: str
    claim: Claim
    english: str
    row: dict[str, Any]  # Its row of verdicts.csv; empty before its first publication.
    effects: list[dict[str, Any]]
    tries: tuple[Try, ...]
    elsewhere: str  # The verdict on a second machine, where one is recorded.

    @property
    def url(self) -> str:
        """The card's page."""
        return f"claims/{self.id}.html"

    @property
    def verdict(self) -> str:
        """The verdict as published."""
        return self.row.get("verdict", "not published yet")

    @property
    def kind(self) -> str:
        """The verdict's first word, by which it is coloured."""
        return self.verdict.split(" ")[0] if self.row else "pending"

    @property
    def chinese(self) -> str:
        """The verdict in one line of Chinese; its numbers are the table's."""
        if not self.row:
            return CHINESE[self.kind]
        told = f"{self.row['shown']}（阈值 {self.row['threshold_shown']}）"
        return f"{CHINESE.get(self.kind, self.verdict)}：{told}"

    @property
    def newer(self) -> int:
        """The try that was frozen after the published one; 0: none."""
        last = self.tries[-1].number if self.tries else 0
        return last if self.row and last > int(self.row["tries"]) else 0

    @property
    def last_of_each(self) -> list[Try]:
        """Each try as it was frozen first.

        Later entries of the same number gave the same rows.
        """
        return list({one.number: one for one in reversed(self.tries)}.values())[::-1]

    @property
    def checks(self) -> list[tuple[str, str]]:
        """Each check with its threshold, as people read it."""
        return [(one.name, findings.threshold(one)) for one in self.claim.checks]


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


def _rows(path: Path) -> list[dict[str, Any]]:
    frame = pd.read_csv(path)
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.fillna(dict.fromkeys(texts, "")).to_dict("records")


def cards(root: Path) -> list[Card]:
    """Return all cards in the order of claims.yaml."""
    published = root / "results" / "laptop"
    rows = {row["claim"]: row for row in _rows(published / "verdicts.csv")}
    effects: dict[str, list] = {name: [] for name in rows}
    for row in _rows(published / "effects.csv"):
        number = {key: findings.show_number(row[key]) for key in ("estimate", "low", "high")}
        effects[row["claim"]].append(row | {"shown": number})
    second = _rows(root / "results" / "second_machine" / "verdicts.csv")
    elsewhere = {row["claim"]: row["verdict"] for row in second}
    english, locked = read_yaml(WORDS), freezing.read_lock(root)
    return [
        Card(
            id=name,
            claim=claim,
            english=english.get(claim.words, ""),
            row=rows.get(name, {}),
            effects=[x | {"drawn": drawn(x, effects[name])} for x in effects.get(name, [])],
            tries=locked.get(name, ()),
            elsewhere=elsewhere.get(name, ""),
        )
        for name, claim in read_claims(root / "claims.yaml").claims.items()
    ]


def page(card: Card, places: Places, source: Source) -> Page:
    """Return a card's page, with the published figures of its study."""
    folder = places.root / "results" / "laptop" / card.claim.study / "figures"
    figures = [
        (path.stem.replace("_", " "), _figure(path, places, card.url))
        for path in sorted(folder.glob("*.svg"))
    ]
    body = render("card", card.url, card=card, source=source, figures=figures)
    return Page(card.url, f"{card.id}: {card.claim.hypothesis}", "Verdicts", body, card.id)


def _figure(path: Path, places: Places, page: str) -> str:
    at = f"figures/{path.parent.parent.name}/{path.name}"
    return places.show(path.relative_to(places.root).as_posix(), page, at)


def overview(cards: list[Card]) -> Page:
    """Return the page that lists all cards."""
    url = "claims/index.html"
    body = render("cards", url, cards=cards, tally=tally(cards))
    return Page(url, "Verdicts", "Verdicts", body, "All claims")


def tally(cards: list[Card]) -> dict[str, int]:
    """Return how many cards have each kind of verdict."""
    kinds = [card.kind for card in cards]
    return {kind: kinds.count(kind) for kind in CHINESE if kind in kinds}
