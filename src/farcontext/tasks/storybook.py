"""Rows from which a small model learns to read stories.

A row holds a story in prose, then questions or statements of what is so (`reports` has more).

R rows, T tokens in a row, as (tokens, scored), (R, T) each. A word of the world has an id of its
own, beyond those of the tokenizer that encodes all else: what is learned then is reading, not
spelling.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal

import numpy as np

from farcontext.tasks import events, world
from farcontext.tasks.events import Fact
from farcontext.tasks.sample import SENTENCE, Decode, Encode, Ids
from farcontext.tasks.world import Story, simulate, state

Tail = Literal["questions", "cloze"]
Part = tuple[Ids, bool]  # The flag says whether the ids are scored.

CAST = "\nAbout"
SUMMARY, STATEMENTS, END = "\nIn short:", "\nAs it stands:", "\n"
PIECE = re.compile(r"[ \n]?\w+|[^\w\s]|\s")


class Vocabulary:
    """One id for each word of the world, and a tokenizer.

    The ids of the world's words start at `first`. The tokenizer serves other words, and its ids end
    below.
    """

    def __init__(self, encode: Encode, decode: Decode, first: int) -> None:
        self.outer_encode, self.outer_decode, self.first = encode, decode, first
        self.words = _words()
        self.ids = {word: first + number for number, word in enumerate(self.words)}
        self.size = first + len(self.words)
        self.encode = functools.lru_cache(1 << 17)(self._encode)

    def _encode(self, text: str) -> Ids:
        """Return a text's ids: word by word where the world says them.

        All other text is encoded as the tokenizer does.
        """
        ids: list[int] = []
        for known, run in groupby(PIECE.findall(text), self.ids.__contains__):
            pieces = list(run)
            ids.extend(
                [self.ids[piece] for piece in pieces]
                if known
                else self.outer_encode("".join(pieces))
            )
        return tuple(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
        runs = groupby(map(int, ids), lambda token: token >= self.first)
        return "".join(
            "".join(self.words[token - self.first] for token in run)
            if known
            else self.outer_decode(list(run))
            for known, run in runs
        )


def _words() -> list[str]:
    """Return every word and mark that the world says, sorted.

    Each has the space or newline before it.
    """
    names = [
        *world.FIRSTS,
        *world.FAMILIES,
        *events.PLACES,
        *events.THINGS,
        *events.DAYS,
        *events.ALIASES,
        *(form for word in events.PRONOUNS for form in (word, word.lower())),
        *events.NUMBERS,
        "the",
        "The",
        "to",
    ]
    told = [*events.OPENINGS, *(verb for verbs in events.VERBS.values() for verb in verbs), *names]
    asked = [*events.QUESTIONS.values(), events.ALIAS_QUESTION, events.COUNT_QUESTION]
    asked += [*events.FACTS.values(), SUMMARY, STATEMENTS, END]
    texts = [*(f" {text}" for text in told), *asked]
    return sorted(
        {piece for text in texts for piece in PIECE.findall(re.sub(r" ?{\w+}", "", text))} - {" "}
    )


def sentences_of(text: str, encode: Encode) -> list[Ids]:
    """Return a prose's sentences as ids, each with the space before it."""
    return [
        tuple(encode(found.group())) for found in SENTENCE.finditer(text) if found.group().strip()
    ]


def rows(
    rng: np.random.Generator,
    count: int,
    *,
    length: int,
    vocabulary: Vocabulary,
    filler: Sequence[Ids],
    tails: Sequence[Tail],
    bos: Sequence[int],
    people: int,
    things: int,
    changes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of training stories and what follows them.

    The rows are dealt to the tails in turn.

    Args:
        length: T.
        filler: a prose's sentences (`sentences_of`).
        people, things: in every story.
        changes: the most there are.

    Raises:
        ValueError: a story with what follows it does not fit.
    """
    tokens, scored = np.empty((count, length), np.int64), np.zeros((count, length), bool)
    for number in range(count):
        story = simulate(
            rng, people=people, things=things, changes=int(rng.integers(changes + 1)), split="train"
        )
        parts = following(rng, story, vocabulary.encode, tails[number % len(tails)])
        tail = [token for ids, _ in parts for token in ids]
        told = [vocabulary.encode(sentence) for sentence in story.sentences]
        context = laid(rng, told, filler, length - len(tail) - len(bos))
        tokens[number] = [*bos, *context, *tail]
        scored[number, length - len(tail) :] = [mark for ids, mark in parts for _ in ids]
    return tokens, scored


def laid(
    rng: np.random.Generator, pieces: Sequence[Ids], filler: Sequence[Ids], length: int
) -> list[int]:
    """Return pieces between a prose's sentences, as `length` ids.

    The pieces keep their order and all stand within a random stretch of the sentences.

    Raises:
        ValueError: the pieces alone are longer.
    """
    room = length - sum(map(len, pieces))
    if room < 0:
        raise ValueError(f"length = {length}: expected at least {length - room}")
    start, size, chosen = int(rng.integers(len(filler))), 0, []
    while size < room:
        chosen.append(filler[start % len(filler)])
        size, start = size + len(chosen[-1]), start + 1
    if size > room:
        chosen[-1] = chosen[-1][: room - size]
    low, high = np.sort(rng.integers(len(chosen) + 1, size=2))
    places = np.sort(rng.integers(low, high + 1, size=len(pieces)))
    ids, told = [], iter(pieces)
    counts = np.bincount(places, minlength=len(chosen) + 1)
    for number, sentence in enumerate([*chosen, ()]):
        for _ in range(counts[number]):
            ids.extend(next(told))
        ids.extend(sentence)
    return ids


def following(rng: np.random.Generator, story: Story, encode: Encode, tail: Tail) -> list[Part]:
    """Return what follows a story, and whether it is scored.

    Answers alone are scored. Questions and statements are drawn with replacement, each kind as
    often: what was not asked yet is no likelier to come. Where a thing is, is not among them: it
    follows from two facts, and is asked for in two steps.
    """
    facts = [fact for fact in in_order(story) if fact.kind != "thing_place"]
    kinds = sorted({fact.kind for fact in facts})
    alike = [
        [fact for fact in facts if fact.kind == kinds[number]]
        for number in rng.integers(len(kinds), size=len(facts))
    ]
    drawn = [some[rng.integers(len(some))] for some in alike]
    match tail:
        case "questions":
            return [
                part
                for fact in drawn
                for part in ((encode(fact.question), False), (encode(f" {fact.value}"), True))
            ]
        case "cloze":
            return [
                (encode(STATEMENTS), False),
                *(part for fact in drawn for part in _cloze(fact, encode)),
            ]


def _cloze(fact: Fact, encode: Encode) -> list[Part]:
    begin, end = events.FACTS[fact.kind].split(" {value}")
    return [
        (encode(begin.format(subject=fact.subject)), False),
        (encode(f" {fact.value}"), True),
        (encode(end), False),
    ]


def in_order(story: Story) -> list[Fact]:
    """Return a story's facts in the order of their events."""
    facts = state(story.events)
    return sorted(facts, key=lambda fact: (facts[fact][::-1], fact.kind))
