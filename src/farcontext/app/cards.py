"""Verdict cards: one a claim, for notebook 14 and for the site.

They tell what is published, what was fixed before it, and what it means for a choice.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from farcontext.app.languages import CHINESE
from farcontext.app.literature import Found, Source, read_literature
from farcontext.results import findings, freezing
from farcontext.results.claims import Claim, Effect, read_claims
from farcontext.results.freezing import Try
from farcontext.schema import read_yaml

WORDS = Path(__file__).with_name("words.yaml")  # The article's words in English.
CHOICES = Path(__file__).with_name("choices.yaml")  # What each verdict means for a choice.
KINDS = ("supported", "refuted", "undecided", "mixed", "pending")
PENDING = "not published yet"
# Which claims an answer of README's first screen rests on, by the answer's question.
ANSWERS = {
    "When is retrieval enough?": ("Q1", "C1"),
    "When does length pay?": ("Q1", "Q1-pronouns", "Q1-steps", "S1"),
    "How do you get one?": ("P1", "P2", "P2-order", "P3"),
    "What does training on long rows buy?": ("L1", "W1", "G1"),
    "What does it cost?": ("E1", "E2"),
}


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
    night: str  # The verdict and the estimate at several times the budget, where recorded.
    means: str  # What the verdict means for somebody who must choose.
    literature: list[tuple[Source, Found]]

    @property
    def url(self) -> str:
        """The card's page on the site."""
        return f"claims/{self.id}.html"

    @property
    def verdict(self) -> str:
        """The verdict as published."""
        return self.row.get("verdict", PENDING)

    @property
    def kind(self) -> str:
        """The verdict's first word, by which it is coloured."""
        return self.verdict.split(" ")[0] if self.row else "pending"

    @property
    def chinese(self) -> str:
        """The verdict in one line of Chinese; its numbers are the table's."""
        word = CHINESE.verdicts[self.kind]
        if not self.row:
            return word
        return f"{word}：{self.row['shown']}（阈值 {self.row['threshold_shown']}）"

    @property
    def newer(self) -> int:
        """The try that was frozen after the published one; 0: none."""
        last = self.tries[-1].number if self.tries else 0
        return last if self.row and last > int(self.row["tries"]) else 0

    @property
    def changed(self) -> bool:
        """Whether the claim is no longer the one whose verdict is published."""
        return bool(self.row) and (bool(self.newer) or effect_of(self.row, self.claim) is None)

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

    @property
    def counts(self) -> str:
        """How many effects say what."""
        said = [one["decision"] for one in self.effects]
        return ", ".join(
            f"{said.count(kind)} {kind}" for kind in ("supported", "refuted", "undecided")
        )

    @property
    def doses(self) -> list[str]:
        """What was varied, with its levels where the effects' names hold them."""
        return list(dict.fromkeys(filter(None, map(_slope_or_crossing, self.claim.effects)))) + [
            f"{column}: {', '.join(levels)}" for column, levels in _levels(self).items()
        ]


def effect_of(row: dict[str, Any], claim: Claim) -> Effect | None:
    """Return the effect of a row of effects.csv.

    A cell's name begins with its effect's. None: the claim has changed since it was published.
    """
    names = {row["effect"], row["effect"].rpartition(": ")[0]}
    return next((one for one in claim.effects if one.name in names), None)


def _slope_or_crossing(effect: Effect) -> str:
    if effect.slope:
        return f"{effect.slope}, by doublings"
    return f"{effect.crossing.on}, for the level from which it holds" if effect.crossing else ""


def _levels(card: Card) -> dict[str, list[str]]:
    """Return the columns whose cells are told apart, with their values."""
    found: dict[str, dict[str, None]] = {}
    for row in card.effects:
        effect = effect_of(row, card.claim)
        cell = row["effect"].rpartition(": ")[2]
        for column, value in re.findall(r"(\w+) ([^,]+)", cell):
            if effect and column in effect.each:
                found.setdefault(column, {})[value] = None
    return {column: list(values) for column, values in found.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    frame = pd.read_csv(path)
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.fillna(dict.fromkeys(texts, "")).to_dict("records")


def _means(name: str, verdict: str, choices: dict[str, Any]) -> str:
    """Return what a verdict means for a choice, where somebody wrote it."""
    if verdict.startswith("undecided"):
        return choices["undecided"].get(verdict, "")
    return choices["claims"].get(name, {}).get(verdict, "")


def shown(row: dict[str, Any], effect: Effect | None) -> dict[str, str]:
    """Return an effect's numbers as people read them.

    A crossing that is not reached in the range is "never"; the table leaves it empty.
    """
    never = effect is not None and effect.crossing is not None and row["n"] > 1
    return {
        key: "never" if never and math.isnan(row[key]) else findings.show_number(row[key])
        for key in ("estimate", "low", "high")
    }


def cards(root: Path) -> list[Card]:
    """Return all cards in the order of claims.yaml."""
    results = root / "results"
    rows = {row["claim"]: row for row in _rows(results / "laptop" / "verdicts.csv")}
    effects = _rows(results / "laptop" / "effects.csv")
    there = {
        name: {row["claim"]: row for row in _rows(results / name / "verdicts.csv")}
        for name in ("second_machine", "night")
    }
    english, choices = read_yaml(WORDS), read_yaml(CHOICES)
    locked, literature = freezing.read_lock(root), read_literature(root)

    def card(name: str, claim: Claim) -> Card:
        row = rows.get(name, {})
        second, night = (there[x].get(name) for x in ("second_machine", "night"))
        return Card(
            id=name,
            claim=claim,
            english=english.get(claim.words, ""),
            row=row,
            effects=[
                x | {"shown": shown(x, effect_of(x, claim))} for x in effects if x["claim"] == name
            ],
            tries=locked.get(name, ()),
            elsewhere=second["verdict"] if second else "",
            night=f"{night['verdict']}, {night['shown']}" if night else "",
            means=_means(name, row.get("verdict", PENDING), choices),
            literature=literature.of(name),
        )

    known = read_claims(root / "claims.yaml").claims
    return [card(name, claim) for name, claim in known.items()]


def tally(known: Iterable[Card]) -> dict[str, int]:
    """Return how many cards have each kind of verdict."""
    kinds = [card.kind for card in known]
    return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}


def chosen(known: Iterable[Card], study: str = "all", verdict: str = "all") -> list[Card]:
    """Return the cards of one study and one kind of verdict."""
    return [
        card
        for card in known
        if study in ("all", card.claim.study) and verdict in ("all", card.kind)
    ]


def answers(readme: str) -> str:
    """Return README's answers with links to the cards behind them.

    Args:
        readme: README's text, whose block of answers is generated from the verdicts.
    """
    block = readme.split("<!-- answers:begin -->")[1].split("<!-- answers:end -->", maxsplit=1)[0]
    told = []
    for number, line in enumerate(block.strip().splitlines(), 1):
        names = ANSWERS[re.search(r"\*\*(.+?)\*\*", line)[1]]
        links = ", ".join(f"[{name}](#{name})" for name in names)
        told.append(f"{number}. {line.removeprefix('- ')} *Cards: {links}.*")
    return "\n".join(told)


def summary(known: list[Card]) -> str:
    """Return how all claims came out, in two sentences."""
    said = [f"{number} {kind}" for kind, number in tally(known).items()]
    runs = sum(int(card.row["tries"]) for card in known if card.row)
    both = [card for card in known if card.elsewhere]
    same = sum(card.elsewhere == card.verdict for card in both)
    return (
        f"**{len(known)} hypotheses from one article's words: {', '.join(said)}.** Their tables "
        f"took {runs} tries, each frozen before its seeds ran; a second machine gave the same "
        f"verdict for {same} of the {len(both)} that it recorded."
    )


def by_question(known: list[Card], questions: Mapping[str, str]) -> pd.DataFrame:
    """Return the claims by question and kind of verdict.

    Args:
        known: the cards.
        questions: study → its question.
    """
    cells: dict[str, dict[str, list[str]]] = {}
    for card in known:
        row = cells.setdefault(questions[card.claim.study], {})
        row.setdefault(card.kind, []).append(card.id)
    table = pd.DataFrame.from_dict(cells, orient="index").reindex(columns=list(tally(known)))
    return table.map(lambda names: ", ".join(names) if isinstance(names, list) else "–")
