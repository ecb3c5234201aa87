"""A sample of a long-context task: context, questions and evidence.

A sample has one context, questions that follow it, and the places of their evidence in it.

    |<---------------------------- length ---------------------------->|
    | bos | block | block | EVIDENCE | block | … | block | question answer |
    |<------------------ context ------------------->|

A task makes pieces of text and what to ask about them; `assemble` lays the pieces into filler so
that context, longest question and longest choice have together exactly `length` tokens. Text is
encoded piece by piece and joined as ids, never tokenised again, so an answer in the context has the
ids of the answer that is scored. Chat templates are not applied.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

Ids = tuple[int, ...]
Encode = Callable[[str], Sequence[int]]  # It turns text into ids, without special tokens.
Decode = Callable[[Sequence[int]], str]

# Each task has one random stream.
NEEDLES, LOOKUP, TRACKING, COMMON_WORDS, COPYING, ASSOCIATIVE, SHUFFLE, STORIES = range(8)
SNAP = 0.02  # A piece moves to the nearest sentence start within this share of the filler.
SENTENCE = re.compile(
    r"[\s\S]{1,400}?(?:[.!?][\"'”’)]*(?=\s)|[。！？][”’』」]*|(?=\n\n)|\Z)|[\s\S]{400}"
)


@dataclass(frozen=True)
class Query:
    """One question with its answer and choices.

    The answer is among the choices, which a model may be asked to choose from.
    """

    question: Ids
    answer: Ids
    choices: tuple[Ids, ...]  # Choices are in order of their ids, so that the order says nothing.
    # These are spans [start, end) of the context; a control that takes them away leaves none.
    evidence: tuple[tuple[int, int], ...]
    # This is the mean middle of the evidence, as a share of the context: 0 is its start, 1 the
    # question.
    depth: float


@dataclass(frozen=True, eq=False)
class Sample:
    """Questions about one context.

    Each span of evidence is a block, so controls can move or replace it whole. Every choice stands
    in the evidence of some question or in none, so a context without evidence favours no choice.

    Raises:
        ValueError: the parts contradict each other: another length than stated, an answer that is
            no choice or stands in its own question, evidence that is no block.
    """

    context: np.ndarray  # The ids are int64 (S,) and read-only.
    queries: tuple[Query, ...]
    chance: float  # A random choice gets this share right.
    length: int
    # This is the first token of each block; what stands before the first block (bos) never moves.
    blocks: Ids
    spare: np.ndarray  # The controls take this other filler, int64 (length,).

    def __post_init__(self) -> None:
        """Check that the parts agree."""
        whole = len(self.context) + max(map(longest, self.queries))
        if whole != self.length:
            raise ValueError(
                f"length = {self.length}: expected context, question and choice of so many, "
                f"not {whole}"
            )
        known = set(pairwise([*self.blocks, len(self.context)]))
        for number, query in enumerate(self.queries):
            if query.answer not in query.choices or len(set(query.choices)) < len(query.choices):
                raise ValueError(
                    f"queries[{number}].choices: expected different ones, the answer among them"
                )
            if len(places_of(query.answer, query.question)):
                raise ValueError(f"queries[{number}].question: expected not to contain its answer")
            if not known.issuperset(query.evidence):
                raise ValueError(
                    f"queries[{number}].evidence = {query.evidence}: expected blocks of the context"
                )
        self.context.setflags(write=False)

    def sequence(self, query: Query) -> np.ndarray:
        """Return context, question and answer as one row, int64.

        The row has at most `length` ids.
        """
        return np.concatenate([self.context, query.question, query.answer])


@dataclass(frozen=True)
class Ask:
    """A question about pieces that are not laid out yet.

    The field `pieces` has the indices of its evidence.
    """

    question: Ids
    answer: Ids
    choices: tuple[Ids, ...]
    pieces: Ids


def longest(query: Query | Ask) -> int:
    """Return the number of tokens of a question and its longest choice."""
    return len(query.question) + max(map(len, query.choices))


def even_depths(count: int) -> np.ndarray:
    """Return the middles of `count` equal parts of [0, 1].

    For five parts they are 0.1, 0.3, 0.5, 0.7 and 0.9.
    """
    return (np.arange(count) + 0.5) / count


def prose(text: str, encode: Encode, rng: np.random.Generator) -> Iterator[Ids]:
    """Yield a text's sentences as ids, without end.

    The stream starts at a random sentence and goes round again.

    A sentence keeps the space before it; another parts the text's end from its beginning. Without
    punctuation, 400 characters count as one sentence.

    Raises:
        ValueError: there is no text.
    """
    if not text.strip() or not len(encode(text[:400])):
        raise ValueError(f"filler = {text[:20]!r}: expected prose")
    start = SENTENCE.match(text, int(rng.integers(len(text)))).end() % len(text)
    while True:
        for sentence in SENTENCE.finditer(text, start):
            yield tuple(encode(sentence.group()))
        yield tuple(encode(" "))
        start = 0


def take(stream: Iterator[Ids], count: int) -> tuple[list[int], list[int]]:
    """Return the next ids of a stream, and its sentence starts.

    There are `count` ids, and the last sentence is cut.
    """
    ids: list[int] = []
    starts = []
    while len(ids) < count:
        starts.append(len(ids))
        ids.extend(next(stream))
    return ids[:count], starts


def assemble(
    pieces: Sequence[Ids],
    depths: Sequence[float],
    asks: Sequence[Ask],
    *,
    length: int,
    filler: Iterator[Ids],
    bos: Sequence[int] = (),
) -> Sample:
    """Lay pieces into filler and ask about them.

    Args:
        pieces: ids that stay together.
        depths: for each piece the share of the filler that stands before it, ascending. Between
            sentences where one starts near by (SNAP), else inside a sentence.

    Raises:
        ValueError: the pieces do not fit; it says the smallest length that does.
    """
    need = len(bos) + sum(map(len, pieces)) + max(map(longest, asks))
    if length < need:
        raise ValueError(f"length = {length}: expected at least {need}")
    if len(depths) != len(pieces) or np.any(np.diff([0, *depths, 1]) < 0):
        raise ValueError(
            f"depths = {[*depths]}: expected {len(pieces)} ascending numbers from 0 to 1"
        )
    room = length - need
    ids, starts = take(filler, room)
    edges = np.array([*starts, room])
    places = [_place(depth, edges, room) for depth in depths]
    context, blocks, spans = list(bos), [], []
    for left, right in pairwise([*sorted({*starts, *places, room}), room]):
        while len(spans) < len(pieces) and places[len(spans)] == left:
            blocks.append(len(context))
            context.extend(pieces[len(spans)])
            spans.append((blocks[-1], len(context)))
        if right > left:
            blocks.append(len(context))
            context.extend(ids[left:right])
    queries = tuple(
        _query(ask.question, ask.answer, ask.choices, [spans[i] for i in ask.pieces], len(context))
        for ask in asks
    )
    return Sample(
        context=np.array(context, dtype=np.int64),
        queries=queries,
        chance=float(np.mean([1 / len(query.choices) for query in queries])),
        length=length,
        blocks=tuple(blocks),
        spare=np.array(take(filler, length)[0], dtype=np.int64),
    )


def _place(depth: float, edges: np.ndarray, room: int) -> int:
    exact = round(depth * room)
    nearest = int(edges[np.abs(edges - exact).argmin()])
    return nearest if abs(nearest - exact) <= SNAP * room else exact


def _query(
    question: Ids, answer: Ids, choices: tuple[Ids, ...], spans: list[tuple[int, int]], size: int
) -> Query:
    depth = float(np.mean(spans)) / size
    return Query(question, answer, tuple(sorted(choices)), tuple(spans), depth)


# ----------------------------------------------------------------------------------------- controls


def closed_book(sample: Sample) -> Sample:
    """Return the sample with other filler as its whole context.

    It shows what is known without the context, at equal length.
    """
    context = sample.context.copy()
    first = sample.blocks[0]
    context[first:] = sample.spare[: len(context) - first]
    return replace(sample, context=context, queries=_without_evidence(sample.queries))


def evidence_removed(sample: Sample) -> Sample:
    """Return the sample with other filler in place of all evidence.

    As much filler replaces the evidence of all questions, and the rest stays.
    """
    context = sample.context.copy()
    used = 0
    for start, end in sorted({span for query in sample.queries for span in query.evidence}):
        context[start:end] = sample.spare[used : used + end - start]
        used += end - start
    return replace(sample, context=context, queries=_without_evidence(sample.queries))


def reading(sample: Sample, queries: Sequence[Query], context: np.ndarray) -> Sample:
    """Return some of a sample's questions after another, shorter context.

    That context is all that there is to read.
    """
    size = len(context) + max(map(longest, queries))
    return replace(
        sample, context=context, queries=_without_evidence(queries), blocks=(0,), length=size
    )


def _without_evidence(queries: Sequence[Query]) -> tuple[Query, ...]:
    return tuple(replace(query, evidence=()) for query in queries)


def shuffled(sample: Sample, seed: int) -> Sample:
    """Return the sample with its blocks in a random order.

    The blocks are sentences and evidence; spans and depths follow them.
    """
    blocks = list(pairwise([*sample.blocks, len(sample.context)]))
    order = np.random.default_rng((SHUFFLE, seed)).permutation(len(blocks))
    context, moved = [*sample.context[: sample.blocks[0]]], {}
    for start, end in (blocks[number] for number in order):
        moved[start, end] = (len(context), len(context) + end - start)
        context.extend(sample.context[start:end])
    queries = tuple(
        _query(q.question, q.answer, q.choices, [moved[span] for span in q.evidence], len(context))
        for q in sample.queries
    )
    starts = tuple(sorted(start for start, _ in moved.values()))
    return replace(
        sample, context=np.array(context, dtype=np.int64), queries=queries, blocks=starts
    )


# ------------------------------------------------------------------------------------------ answers


def places_of(part: Sequence[int], ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return where a part starts in ids, (occurrences,)."""
    if len(ids) < len(part):
        return np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(ids), len(part))
    return np.flatnonzero((windows == np.asarray(part)).all(1))


def follower(context: np.ndarray, query: Query) -> Ids:
    """Return the choice that follows the question's only occurrence.

    It returns () if the context has no such occurrence, or if what follows is no choice.
    """
    places = places_of(query.question, context)
    if len(places) != 1:
        return ()
    after = context[places[0] + len(query.question) :].tolist()
    return next((choice for choice in query.choices if tuple(after[: len(choice)]) == choice), ())


def choice_reading(query: Query, words: Sequence[str], decode: Decode) -> Ids:
    """Return the choice that consists of these words in order.

    It returns () if there is none.
    """
    return next(
        (choice for choice in query.choices if re.findall(r"\w+", decode(choice)) == [*words]), ()
    )


def accuracy(sample: Sample, answers: Sequence[Ids]) -> float:
    """Return the share of questions that these answers get right.

    There is one answer for each question.
    """
    return float(
        np.mean(
            [query.answer == given for query, given in zip(sample.queries, answers, strict=True)]
        )
    )
