"""Words of both languages as ids, and sources and targets.

S source tokens, filled up with PAD on the left: earlier sentences, MARK, and the sentence to
translate. T target tokens: BOS, its translation, EOS, filled up on the right; scored after BOS
up to EOS.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence

from farcontext.schema import BOS, EOS, PAD, SPECIAL
from farcontext.tasks import translation, world
from farcontext.tasks.sample import Ids
from farcontext.tasks.translation import Sentence

MARK = len(SPECIAL)  # This id stands before the sentence to translate.
PIECE = re.compile(r" ?\w+|[^\w\s]")
# The sentences of tasks.translation say this around the words of its tables.
FRAMES = (
    *(
        " The is here.",
        " esta qui.",
        " it.",
        " la lo",
        " and are",
        " e sona",
        " asks: do you?",
        " demanda a: tu? vos?",
    ),
    *(" It is about.", " Trata de.", " sees the.", " vida.", " waits.", " atenda."),
)
# Sentences between, the telling one and the last have at most so many tokens.
WAITING, TELLING, LAST = 4, 8, 10
T = LAST + 2  # A translation is as long as what it translates, between BOS and EOS.


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Return every word and mark of both languages, sorted.

    Words have the space before them; ids count from MARK + 1.
    """
    topics = [
        word
        for meanings in translation.TERMS.values()
        for topic, noun in meanings
        for word in (*topic, noun)
    ]
    asked = [
        verb + end[:1]
        for verb in translation.ASKED.values()
        for _, end in translation.FORMAL.values()
    ]
    tables = (translation.THINGS, translation.VERBS)
    said = [word for table in tables for pair in table.items() for word in pair] + [
        *translation.TERMS,
        *topics,
    ]
    known = [
        *translation.ASKED,
        *asked,
        *translation.FORMAL,
        *(others for others, _ in translation.FORMAL.values()),
    ]
    texts = [*FRAMES, *(f" {word}" for word in (*said, *known, *world.FIRSTS, *world.FAMILIES))]
    return tuple(sorted({piece for text in texts for piece in PIECE.findall(text)}))


@functools.cache
def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(vocabulary(), MARK + 1)}


def encode(text: str) -> Ids:
    """Return a text's ids.

    It raises KeyError for a word of neither language.
    """
    return tuple(_numbers()[piece] for piece in PIECE.findall(text))


def decode(ids: Iterable[int]) -> str:
    """Return the text of ids up to EOS, without special ones."""
    said = itertools.takewhile(lambda token: token != EOS, map(int, ids))
    return "".join(vocabulary()[token - MARK - 1] for token in said if token > MARK)


def source_length(sentences: int) -> int:
    """Return S for documents of so many sentences.

    A source has all sentences before the last one, MARK, and the last one.
    """
    return WAITING * (sentences - 2) + TELLING + 1 + LAST


def source_of(before: Sequence[Sentence], last: Sentence, length: int) -> list[int]:
    """Return a source's ids (S,).

    The sentences that are read stand first, then the one to translate.
    """
    ids = [
        *(token for sentence in before for token in encode(sentence.source)),
        MARK,
        *encode(last.source),
    ]
    return [PAD] * (length - len(ids)) + ids


def target_of(text: str) -> list[int]:
    """Return a translation's ids (T,)."""
    ids = [BOS, *encode(text), EOS]
    return ids + [PAD] * (T - len(ids))
