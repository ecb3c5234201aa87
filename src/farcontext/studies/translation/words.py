"""Words of both languages as ids, and rows of them.

A row is what is read of a document, MARK, the sentence to translate, BOS, its translation and EOS,
filled up with PAD. Scored are the tokens from the translation on up to EOS. In training several
sentences may be asked for, each with its translation behind it.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator

from farcontext.schema import BOS, EOS, SPECIAL
from farcontext.tasks import second_language as language
from farcontext.tasks import world
from farcontext.tasks.sample import Ids
from farcontext.tasks.second_language import PIECE, Frame
from farcontext.tasks.translation import Sentence

MARK = len(SPECIAL)  # This id stands before the sentence to translate.
LAST = 7  # A translation has so many tokens at most.


def _frames() -> Iterator[Frame]:
    """Yield every sentence of both languages, with gaps."""
    tables = (*language.TELLINGS.values(), *language.LASTS.values())
    yield from itertools.chain(*tables, language.IN_MIND, language.FILLERS)


def _gaps() -> Iterator[str]:
    """Yield what fills the frames' gaps."""
    for english, noun in (*language.THINGS.items(), *language.PLACES.items()):
        yield f"{english} {language.article(noun)} {noun}"
    for word, meanings in language.TERMS.items():
        for topic, noun in meanings:
            yield " ".join((word, *topic, language.article(noun), noun))
    yield from (" ".join(pair) for pair in language.STANDS)
    yield " ".join((*world.FIRSTS, *world.FAMILIES))


def _texts() -> Iterator[str]:
    """Yield texts with every word and mark.

    Words stand there as at a sentence's beginning and as within it.
    """
    for text in itertools.chain(*_frames()):
        for ending in language.ENDINGS:
            said = re.sub(r"{\w+}", " ", text.replace("{word}", ending)).strip()
            yield from (f" {said}", f" {said[0].upper()}{said[1:]}")
    for gap in (*_gaps(), *itertools.chain(*language.OPENINGS.items())):
        yield from (f" {gap}", f" {gap[:1].upper()}{gap[1:]}")
    yield " La Lo"  # A frame may begin with a gap, and a gap with an article.


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Return every word and mark of both languages, sorted.

    Words have the space before them; ids count from MARK + 1.
    """
    return tuple(sorted({piece for text in _texts() for piece in PIECE.findall(text)}))


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


def row_length(length: int, asked: int = 1) -> int:
    """Return T for documents of at most `length` tokens.

    So many of their sentences are asked for.

    Beside the document there are MARK, BOS, a translation and EOS for each of these.
    """
    return length + asked * (3 + LAST)


def read_of(sentences: Iterable[Sentence]) -> list[int]:
    """Return the ids of sentences that are read."""
    return [token for sentence in sentences for token in encode(sentence.source)]


def asked_of(last: Sentence) -> list[int]:
    """Return how a sentence to translate is asked for: MARK, itself, BOS."""
    return [MARK, *encode(last.source), BOS]


def target_of(text: str) -> list[int]:
    """Return what is written then: a translation, and EOS."""
    return [*encode(text), EOS]
