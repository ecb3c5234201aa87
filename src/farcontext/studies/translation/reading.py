"""What an arm reads of a document before its last sentence.

    last             the last sentences, so many that they hold a share of all that tell
    bm25             the sentences that BM25 finds for the last one, in as many tokens
    bm25_neighbours  the same, each with the sentences before and behind it
    random           all of another document's
    telling          the one sentence that decides, alone

What BM25 finds stands in the order of the text, and room that is left takes the last sentences.
"""

from collections.abc import Iterable, Iterator, Sequence

from farcontext.measure.retrieval import ranking
from farcontext.tasks.second_language import tokens_in
from farcontext.tasks.translation import Sentence

FOUND = ("bm25", "bm25_neighbours")
ARMS = ("last", *FOUND, "random", "telling")


def last_sentences(document: Sequence[Sentence], share: float) -> list[int]:
    """Return which last sentences hold a share of the tellings.

    A share of 0 stands for the sentences behind the last that tells, 1 for all there are.
    """
    end = len(document) - 1
    places = [number for number in range(end) if document[number].tells]
    held = round(share * len(places))
    if held == len(places):
        return list(range(end))
    return list(range(places[-held] if held else places[-1] + 1, end))


def size_of(document: Sequence[Sentence], numbers: Iterable[int]) -> int:
    """Return the tokens of these sentences."""
    return sum(tokens_in(document[number].source) for number in numbers)


def ranked(document: Sequence[Sentence]) -> list[int]:
    """Return which sentences BM25 finds, the best first.

    It looks for the words of the last one.
    """
    *before, last = (sentence.source for sentence in document)
    return ranking(before, last)


def found(
    document: Sequence[Sentence], order: Sequence[int], tokens: int, *, neighbours: bool
) -> list[int]:
    """Return the numbers of sentences found that fit.

    They have so many tokens in all, and stand in the order of the text.
    """
    taken: set[int] = set()
    for number in _wanted(order, len(document) - 1, neighbours):
        size = size_of(document, [number])
        if number not in taken and size <= tokens:
            taken.add(number)
            tokens -= size
    return sorted(taken)


def _wanted(order: Sequence[int], end: int, neighbours: bool) -> Iterator[int]:
    """Yield those found, the best first, then all others.

    The others come from the last one back.
    """
    for number in order:
        yield number
        if neighbours:
            yield from (near for near in (number - 1, number + 1) if 0 <= near < end)
    yield from reversed(range(end))


def read_by(
    arm: str,
    document: Sequence[Sentence],
    share: float,
    *,
    other: Sequence[Sentence],
    order: Sequence[int],
) -> list[Sentence]:
    """Return the sentences that an arm reads before the last one.

    Args:
        arm: one of ARMS.
        document: what is translated the last sentence of.
        share: of the tellings, that the last sentences hold; BM25 has as many tokens as they have.
        other: another document.
        order: what `ranked` returns.

    Raises:
        ValueError: an unknown arm.
    """
    match arm:
        case "last":
            numbers = last_sentences(document, share)
        case "bm25" | "bm25_neighbours":
            tokens = size_of(document, last_sentences(document, share))
            numbers = found(document, order, tokens, neighbours=arm == "bm25_neighbours")
        case "telling":
            numbers = [document[-1].setter]
        case "random":
            return list(other[:-1])
        case _:
            raise ValueError(f"arm = {arm}: expected one of {', '.join(ARMS)}")
    return [document[number] for number in numbers]
