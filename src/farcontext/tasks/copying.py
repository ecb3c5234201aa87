"""Copying: continue a stretch of the context from its first few tokens.

The task consists of token ids only, so any vocabulary serves. In random ids nothing but the context
tells how a stretch goes on; in prose a language model may guess, which `sample.closed_book`
measures.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from farcontext.tasks.sample import (
    COPYING,
    Ask,
    Encode,
    Ids,
    Sample,
    assemble,
    even_depths,
    follower,
    places_of,
    prose,
    take,
)

TRIES = 100
SENTENCE_TOKENS = 8  # A block has so many random ids.


def sample(
    *,
    length: int,
    seed: int,
    encode: Encode,
    filler: str,
    queries: int = 4,
    cue: int = 4,
    span: int = 4,
    bos: Sequence[int] = (),
) -> Sample:
    r"""Return prose in which some stretches are to be continued.

    The stretches are beginnings of sentences from elsewhere in the prose.

    Args:
        length: tokens of context, question and answer together.
        seed: the same stretches at every length, unless one is not unique there.
        encode: text → ids, without special tokens.
        filler: real prose.
        queries: number of stretches, at even depths; their continuations are the choices.
        cue: tokens of the question.
        span: tokens of the answer.
        bos: ids put first.

    Raises:
        ValueError: too short a length (it says what fits), or so short a cue that it is not unique.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> tale = (
    ...     "The old men rode out early. Nobody saw them go. It was cold on the hills. "
    ...     "Then the rain came. A dog barked at the gate. She lit the lamp and sat down."
    ... )
    >>> made = sample(length=40, seed=0, encode=toy.encode, filler=tale, queries=2, cue=2, span=3)
    >>> print(toy.decode(made.context).strip().replace(". ", ".\n"))
    Nobody saw them go.
    It She lit the lamp and was cold on the hills.
    Then the rain came.
    A dog The old men rode barked at the gate.
    She
    >>> [(toy.decode(query.question), toy.decode(query.answer)) for query in made.queries]
    [(' She lit', ' the lamp and'), (' The', ' old men rode')]
    >>> oracle(made) == [query.answer for query in made.queries]
    True
    """
    stream = prose(filler, encode, np.random.default_rng((COPYING, seed)))
    return _copying(stream, length, queries, cue, span, bos)


def _copying(
    stream: Iterator[Ids], length: int, queries: int, cue: int, span: int, bos: Sequence[int]
) -> Sample:
    if min(queries - 1, cue, span) < 1:
        raise ValueError(
            f"queries = {queries}, cue = {cue}, span = {span}: expected at least 2, 1 and 1"
        )
    for _ in range(TRIES):
        stretches = [tuple(take(stream, cue + span)[0]) for _ in range(queries)]
        choices = tuple(stretch[cue:] for stretch in stretches)
        asks = [Ask(s[:cue], s[cue:], choices, (number,)) for number, s in enumerate(stretches)]
        if len(set(choices)) < queries or any(
            len(places_of(ask.answer, ask.question)) for ask in asks
        ):
            continue
        made = assemble(
            stretches, even_depths(queries), asks, length=length, filler=stream, bos=bos
        )
        if all(len(places_of(query.question, made.context)) == 1 for query in made.queries):
            return made
    raise ValueError(
        f"cue = {cue}: expected more: no {queries} stretches whose beginning is unique in {length} "
        "tokens"
    )


def oracle(sample: Sample) -> list[Ids]:
    """Return what follows each question's only occurrence.

    An answer is () where there is no such occurrence. The oracle never looks at `answer` or spans.
    """
    return [follower(sample.context, query) for query in sample.queries]
