"""The story world: people move, and take and give things.

It is told in plain sentences, and what is true is known.

    simulate ──> events ──> sentences, laid into real prose ──> a sample to be asked
                   └──> state: where everybody is, who has what ──> questions, facts, contradictions

Nothing but the events tells an answer: places, holders and receivers are drawn independently and
uniformly, so whoever does not see the evidence is right at chance. Train and test worlds share
words but no person (a first name with a family name) and no wording (an opening with a verb), so no
event of one is in the other. As in bAbI (Weston et al. 2015), a place needs one sentence (hops = 1)
and a thing's place two: who has it, and where that person is.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from farcontext.tasks.events import (
    DAYS,
    OPENINGS,
    PLACES,
    TELLINGS,
    THINGS,
    VERBS,
    Event,
    Fact,
)
from farcontext.tasks.sample import (
    STORIES,
    Ask,
    Decode,
    Encode,
    Ids,
    Sample,
    assemble,
    even_depths,
    prose,
)

Split = Literal["train", "test"]

WOMEN = ("Anna", "Bella", "Clara", "Diana", "Emma", "Flora", "Grace", "Helen")
MEN = ("Arthur", "Boris", "Cecil", "Daniel", "Edgar", "Felix", "Henry", "Jacob")
FIRSTS = WOMEN + MEN
FAMILIES = (
    *("Archer", "Baker", "Carter", "Draper", "Fisher", "Gardener", "Hunter", "Mason"),
    *("Miller", "Piper", "Porter", "Potter", "Shepherd", "Tanner", "Turner", "Weaver"),
)
HELD_OUT = 4  # One in so many people and wordings is for tests alone.

NAME = rf"(?:{'|'.join(FIRSTS)}) (?:{'|'.join(FAMILIES)})"
TOLD = {
    "go": re.compile(rf"(?P<who>{NAME}) (?:{'|'.join(VERBS['go'])}) the (?P<what>\w+)\."),
    "take": re.compile(rf"[Tt]he (?P<what>\w+) (?:{'|'.join(VERBS['take'])}) (?P<who>{NAME})\."),
    "give": re.compile(
        rf"(?P<who>{NAME}) (?:{'|'.join(VERBS['give'])}) the (?P<what>\w+) to (?P<to>{NAME})\."
    ),
}
STATED = {
    "place": re.compile(rf"(?P<subject>{NAME}) is in the (?P<value>\w+)\."),
    "holder": re.compile(rf"The (?P<subject>\w+) is with (?P<value>{NAME})\."),
    "thing_place": re.compile(r"The (?P<subject>\w+) is in the (?P<value>\w+)\."),
}


@dataclass(frozen=True)
class Story:
    """Events in order, and how each is told."""

    people: tuple[str, ...]
    things: tuple[str, ...]
    events: tuple[Event, ...]
    sentences: tuple[str, ...]  # Each event has one sentence, with the space before it.


# --------------------------------------------------------------------------------------- simulation


def full_names(split: Split) -> list[tuple[str, str]]:
    """Return (first, family) of every person of a split.

    Every first and every family name is in both splits, but no person is.
    """
    pairs = [
        (i + j, first, family)
        for i, first in enumerate(FIRSTS)
        for j, family in enumerate(FAMILIES)
    ]
    return [(first, family) for number, first, family in pairs if _is_in(split, number)]


def wordings(split: Split, kind: str) -> list[tuple[str, str]]:
    """Return (opening, verb) of every wording of a split.

    Every opening and every verb is in both splits, but no combination is.
    """
    pairs = [
        (i + j, opening, verb)
        for i, opening in enumerate(OPENINGS)
        for j, verb in enumerate(VERBS[kind])
    ]
    return [(opening, verb) for number, opening, verb in pairs if _is_in(split, number)]


def _is_in(split: Split, number: int) -> bool:
    return (number % HELD_OUT == 0) == (split == "test")


def simulate(
    rng: np.random.Generator, *, people: int, things: int, changes: int = 0, split: Split = "test"
) -> Story:
    """Return a random story about some people and things.

    Everybody goes somewhere, somebody takes each thing, and `changes` more events follow.

    Args:
        changes: people who go elsewhere, or things that are handed on: what was so before is so no
            longer. At random places in the story, each after what it changes.

    Raises:
        ValueError: more people or things than there are, or nobody to hand a thing to.
    """
    if not (1 <= people <= len(FIRSTS) and 0 <= things <= len(THINGS)):
        raise ValueError(
            f"people = {people}, things = {things}: "
            f"expected 1 to {len(FIRSTS)} people, at most {len(THINGS)} things"
        )
    if things and changes and people < 2:
        raise ValueError(f"people = {people}, changes = {changes}: expected at least 2 people")
    known: dict[str, list[str]] = {}
    for first, family in full_names(split):
        known.setdefault(first, []).append(family)
    # No two people share a first name.
    chosen = [FIRSTS[i] for i in rng.permutation(len(FIRSTS))[:people]]
    names = tuple(f"{first} {known[first][rng.integers(len(known[first]))]}" for first in chosen)
    goods = tuple(THINGS[i] for i in rng.permutation(len(THINGS))[:things])
    turns = rng.permutation([*range(people + things), *rng.integers(people + things, size=changes)])
    events: list[Event] = []
    now: dict[str, str] = {}
    for turn in turns:
        event = _next(rng, (*names, *goods)[turn], names, now)
        events.append(event)
        now[event.subject] = event.value
    return Story(names, goods, tuple(events), tuple(_tell(rng, events, split)))


def _next(rng: np.random.Generator, turn: str, names: Sequence[str], now: dict[str, str]) -> Event:
    """Return what happens to a person or thing.

    It gets another place or holder than now, each as likely.
    """
    if turn in names:
        others = [place for place in PLACES if place != now.get(turn)]
        return Event("go", turn, others[rng.integers(len(others))])
    others = [name for name in names if name != now.get(turn)]
    other = others[rng.integers(len(others))]
    return Event("give", now[turn], turn, other) if turn in now else Event("take", other, turn)


def _tell(rng: np.random.Generator, events: Sequence[Event], split: Split) -> list[str]:
    days = np.sort(rng.integers(len(DAYS), size=len(events)))
    told = []
    for event, day in zip(events, days, strict=True):
        choices = wordings(split, event.kind)
        opening, verb = choices[rng.integers(len(choices))]
        said = TELLINGS[event.kind].format(verb=verb, **event._asdict())
        told.append(
            f" {opening.format(day=DAYS[day])}{said if opening else said[0].upper() + said[1:]}"
        )
    return told


# --------------------------------------------------------------------------------- what is the case


def read(text: str) -> list[Event]:
    """Return the events that a text tells, in order.

    It passes over whatever else the text says.
    """
    return [Event(kind, **parts) for kind, parts in _said(TOLD, text)]


def _said(patterns: dict[str, re.Pattern[str]], text: str) -> list[tuple[str, dict[str, str]]]:
    """Return the name and the groups of every match.

    They stand in the text's order.
    """
    found = [(match, kind) for kind, said in patterns.items() for match in said.finditer(text)]
    return [
        (kind, match.groupdict()) for match, kind in sorted(found, key=lambda one: one[0].start())
    ]


def state(events: Sequence[Event]) -> dict[Fact, Ids]:
    """Return every fact that holds at the end, with its events' indices."""
    places: dict[str, int] = {}
    holders: dict[str, int] = {}
    for number, event in enumerate(events):
        (places if event.kind == "go" else holders)[event.subject] = number
    facts = {Fact("place", who, events[number].value): (number,) for who, number in places.items()}
    for thing, number in holders.items():
        holder = events[number].value
        facts[Fact("holder", thing, holder)] = (number,)
        if holder in places:
            evidence = tuple(sorted((number, places[holder])))
            facts[Fact("thing_place", thing, events[places[holder]].value)] = evidence
    return facts


def facts_in(text: str) -> list[Fact]:
    """Return the facts that a text states as `Fact.sentence` does, in order."""
    return [Fact(kind, **parts) for kind, parts in _said(STATED, text)]


def contradictions(stated: Iterable[Fact], true: Iterable[Fact]) -> list[Fact]:
    """Return the stated facts whose subject has another known value.

    A fact about an unknown subject contradicts nothing.
    """
    known = {(fact.kind, fact.subject): fact.value for fact in true}
    return [
        fact for fact in stated if known.get((fact.kind, fact.subject), fact.value) != fact.value
    ]


# ----------------------------------------------------------------------------------------- a sample


def sample(
    *,
    length: int,
    seed: int,
    encode: Encode,
    filler: str,
    people: int = 4,
    things: int = 2,
    changes: int = 0,
    split: Split = "test",
    depth: float | None = None,
    bos: Sequence[int] = (),
) -> Sample:
    r"""Return a story laid into prose, and every question it answers.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> tale = "The old men rode out early. Nobody saw them go. It was cold on the hills."
    >>> tale += " Then the rain came."
    >>> made = sample(length=57, seed=4, encode=toy.encode, filler=tale, people=2, things=1)
    >>> print(toy.decode(made.context).replace(". ", ".\n"))
    The old men rode Later the coin is found by Diana Baker.
    out early.
    Nobody saw them go.
    Flora Potter goes to the garden.
    It was cold on the hills.
    Then On Sunday Diana Baker runs to the harbour.
    the rain came.
    >>> for query in made.queries:
    ...     said = toy.decode(query.question), toy.decode(query.answer)
    ...     print(*map(repr, said), len(query.evidence))
    '\nWhere is Flora Potter? In the' ' garden' 1
    '\nWhere is Diana Baker? In the' ' harbour' 1
    '\nWho has the coin?' ' Diana Baker' 1
    '\nWhere is the coin? In the' ' harbour' 2
    >>> oracle(made, toy.decode) == [query.answer for query in made.queries]
    True

    A place is chosen from all PLACES, a holder from the story's people.

    Args:
        length: tokens of context, longest question and longest choice together.
        seed: the same story at every length and depth.
        encode: text → ids, without special tokens.
        filler: real prose.
        depth: where the whole story stands together: 0 at the context's beginning, 1 right before
            the question; None: its sentences at even depths.
        bos: ids put first.

    Raises:
        ValueError: it does not fit, or no such story can be.
    """
    rng = _stream(seed)
    story = simulate(rng, people=people, things=things, changes=changes, split=split)
    choices = {False: _encoded(encode, PLACES), True: _encoded(encode, story.people)}
    asks = [
        Ask(
            tuple(encode(fact.question)),
            tuple(encode(f" {fact.value}")),
            choices[fact.kind == "holder"],
            evidence,
        )
        for fact, evidence in state(story.events).items()
    ]
    pieces = [tuple(encode(sentence)) for sentence in story.sentences]
    depths = even_depths(len(pieces)) if depth is None else np.full(len(pieces), depth)
    return assemble(pieces, depths, asks, length=length, filler=prose(filler, encode, rng), bos=bos)


def story_of(
    seed: int, *, people: int = 4, things: int = 2, changes: int = 0, split: Split = "test"
) -> Story:
    """Return the story that `sample` tells, at any length and depth."""
    return simulate(_stream(seed), people=people, things=things, changes=changes, split=split)


def _stream(seed: int) -> np.random.Generator:
    return np.random.default_rng((STORIES, seed))


def _encoded(encode: Encode, words: Sequence[str]) -> tuple[Ids, ...]:
    return tuple(tuple(encode(f" {word}")) for word in words)


def oracle(sample: Sample, decode: Decode) -> list[Ids]:
    """Return the answers that the decoded text gives.

    An answer is () where the text gives none. The oracle never looks at `answer` or spans.
    """
    known = {fact.question: fact.value for fact in state(read(decode(sample.context.tolist())))}
    answers = []
    for query in sample.queries:
        value = known.get(decode(query.question))
        answers.append(
            next((choice for choice in query.choices if decode(choice) == f" {value}"), ())
        )
    return answers
