"""Labelled passages of real text.

Three kinds of task, none with a word of ours: which work is it from, who is named, of what type
is it?

    works:  | … labels … | gap | … tests … | gap | … labels … |   one work, cut as a ring
    names:  却说＿引兵追赶。 → 曹操                                  one name, every mention blanked
    types:  MaxResults (＿): The most items to return. → integer   one member of an API

Where the label is the work itself, labelled and tested passages come from different stretches of
it, a passage apart; where the label is blanked, from different documents.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

BLANK = "＿"  # It stands for every mention of the name, or for the type, that is asked for.
# A manual's line reads: name (type, …): what it is.
MEMBER = re.compile(r"^(\w+ \()(\w+)[^)\n]*(?=\): )", re.MULTILINE)


class Passage(NamedTuple):
    """A text with its label."""

    text: str
    label: int


class Labelled(NamedTuple):
    """Passages to learn from and passages to be tested on."""

    train: list[Passage]
    test: list[Passage]


def works(
    texts: Sequence[str], rng: np.random.Generator, *, characters: int, share: float
) -> Labelled:
    """Return the passages of some works, each labelled with its work.

    Args:
        texts: a work each.
        rng: it draws the stretch of each work that is tested.
        characters: of a passage.
        share: of a work that is tested.
    """
    train: list[Passage] = []
    test: list[Passage] = []
    for label, text in enumerate(texts):
        cut = _passages(text, int(rng.integers(characters)), characters)
        tested = round(share * len(cut))
        ring = np.roll(np.arange(len(cut)), -int(rng.integers(len(cut))))
        test += [Passage(cut[i], label) for i in ring[:tested]]
        # A passage on either side of the tested stretch is left out.
        train += [Passage(cut[i], label) for i in ring[tested + 1 : -1]]
    return Labelled(train, test)


def _passages(text: str, start: int, characters: int) -> list[str]:
    stops = range(start, len(text) - characters, characters)
    return [text[stop : stop + characters] for stop in stops]


def names(
    train: Sequence[str], test: Sequence[str], people: Sequence[str], *, characters: int
) -> Labelled:
    """Return a passage around each mention of each person.

    The person is its label.

    Args:
        train, test: documents to learn from, and others to be tested on.
        people: their names; no name is part of another one.
        characters: of a passage, half on either side of the mention.
    """
    return Labelled(*(_mentions(texts, people, characters) for texts in (train, test)))


def types(
    train: Sequence[str], test: Sequence[str], kinds: Sequence[str], *, characters: int
) -> Labelled:
    """Return a passage from each member of a manual on.

    The member's type is blanked, and is its label.

    Args:
        train, test: manuals to learn from, and others to be tested on.
        kinds: the types.
        characters: of a passage.
    """
    return Labelled(*(_members(texts, kinds, characters) for texts in (train, test)))


def _members(texts: Sequence[str], kinds: Sequence[str], characters: int) -> list[Passage]:
    found = []
    for text in texts:
        for place in MEMBER.finditer(text):
            if place[2] in kinds:
                behind = text[place.end() : place.start() + characters]
                found.append(Passage(place[1] + BLANK + behind, kinds.index(place[2])))
    return found


def _mentions(texts: Sequence[str], people: Sequence[str], characters: int) -> list[Passage]:
    found = []
    for label, name in enumerate(people):
        for text in texts:
            for at in (place.start() for place in re.finditer(re.escape(name), text)):
                around = text[max(0, at - characters // 2) : at + len(name) + characters // 2]
                found.append(Passage(around.replace(name, BLANK), label))
    return found


def most_named(people: Sequence[str], splits: Sequence[Sequence[str]], count: int) -> list[str]:
    """Return the people that all splits name often.

    Each counts by the split that names them least.
    """
    often = {name: min(sum(t.count(name) for t in split) for split in splits) for name in people}
    return sorted(people, key=lambda name: -often[name])[:count]


def drawn(passages: Sequence[Passage], rng: np.random.Generator, count: int) -> list[Passage]:
    """Return so many different passages, of every label alike.

    A label that has too few gives all it has.

    The first n of them are as even, so that fewer labels are a part of more labels.
    """
    order = rng.permutation(len(passages))
    rank: dict[int, int] = {}
    turns = []
    for i in order:
        label = passages[i].label
        rank[label] = rank.get(label, -1) + 1
        turns.append((rank[label], rng.random(), int(i)))
    return [passages[i] for _, _, i in sorted(turns)[:count]]


def oracle(
    documents: Mapping[int, Sequence[str]], passage: Passage, people: Sequence[str] = ()
) -> int:
    """Return the label that one who knows all documents gives.

    Args:
        documents: those of each label.
        passage: what is asked about; of a name, each in turn is put into the blank.
        people: the names, if labels are names.
    """
    for label, texts in documents.items():
        whole = passage.text.replace(BLANK, people[label]) if people else passage.text
        if any(whole in text for text in texts):
            return label
    raise ValueError(f"{passage.text!r:.40}: expected a passage of these documents")
