"""Multi-query associative recall: key–value pairs, then their keys again.

The task is MQAR (Arora et al. 2023, "Zoology").

The task consists of token ids only. The gap between a pair and its question follows a power law,
p(g) ∝ g^(power − 1), as repeated bigrams do in language: power 1 is uniform, the paper's 0.01 puts
most questions near. The first half of a vocabulary are keys, the second values. Unlike the paper's,
filler never contains a key that is asked for, so each question has one answer.
"""

from collections.abc import Sequence

import numpy as np

from farcontext.tasks.sample import ASSOCIATIVE, Ask, Ids, Sample, assemble, follower


def sample(
    *,
    length: int,
    seed: int,
    vocabulary: Sequence[int],
    pairs: int = 4,
    power: float = 1.0,
    bos: Sequence[int] = (),
) -> Sample:
    """Return pairs among random ids, each asked for at the end.

    All questions stand at the end, so the depth of a pair is its gap.

    >>> made = sample(length=16, seed=0, vocabulary=range(100), pairs=2)
    >>> made.context.tolist()
    [58, 31, 88, 48, 99, 13, 32, 53, 99, 25, 55, 50, 51, 56]
    >>> [(query.question, query.answer, query.evidence) for query in made.queries]
    [((31,), (88,), ((1, 3),)), ((48,), (99,), ((3, 5),))]
    >>> oracle(made) == [query.answer for query in made.queries]
    True

    Args:
        length: tokens of context, key and value together.
        seed: the same pairs at every length.
        vocabulary: ids to use.
        pairs: number of pairs, 2 or more; their values are the choices.
        power: of the gaps' law.
        bos: ids put first.

    Raises:
        ValueError: too small a vocabulary, or too short a length; it says what fits.
    """
    rng = np.random.default_rng((ASSOCIATIVE, seed))
    keys, values = (ids[0].tolist() for ids in _pairs(rng, 1, vocabulary, pairs))
    room = max(0, length - len(bos) - 2 * pairs - 2)
    gaps = np.sort(rng.choice(room + 1, pairs, p=gap_law(room + 1, power)))[::-1]
    others = np.setdiff1d(vocabulary, keys)
    stream = ((int(id_),) for _ in iter(int, 1) for id_ in rng.choice(others, 1024))
    choices = tuple((value,) for value in values)
    asks = [
        Ask((key,), (value,), choices, (i,))
        for i, (key, value) in enumerate(zip(keys, values, strict=True))
    ]
    pieces = list(zip(keys, values, strict=True))
    return assemble(pieces, 1 - gaps / max(room, 1), asks, length=length, filler=stream, bos=bos)


def rows(
    rng: np.random.Generator,
    rows: int,
    length: int,
    *,
    vocabulary: Sequence[int],
    pairs: int = 8,
    power: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """Return MQAR in the paper's layout: (tokens, scored), both (R, T).

    This layout is for training.

    The row below has length 14 and 2 pairs: k is a key, v a value and f filler. A `^` stands below
    what is scored, a value right after its key:

        k3 v7 k5 v1 f f k5 v1 f f f f k3 v7
                           ^             ^

    Raises:
        ValueError: too small a vocabulary, odd length, or no room for the questions.
    """
    slots = (length - 2 * pairs) // 2  # Each slot holds a question and its answer.
    if length % 2 or slots < pairs:
        raise ValueError(f"length = {length}: expected an even number, at least {4 * pairs}")
    keys, values = _pairs(rng, rows, vocabulary, pairs)
    tokens = rng.choice(np.asarray(vocabulary), (rows, length))
    while (clash := (tokens[:, :, None] == keys[:, None]).any(2)).any():
        tokens[clash] = rng.choice(np.asarray(vocabulary), int(clash.sum()))
    law = gap_law(slots, power)
    gaps = np.stack([rng.choice(slots, pairs, replace=False, p=law) for _ in range(rows)])
    scored = np.zeros(tokens.shape, bool)
    for at in (np.arange(0, 2 * pairs, 2)[None].repeat(rows, 0), 2 * pairs + 2 * gaps):
        np.put_along_axis(tokens, at, keys, 1)
        np.put_along_axis(tokens, at + 1, values, 1)
    np.put_along_axis(scored, at + 1, True, 1)
    return tokens, scored


def gap_law(count: int, power: float) -> np.ndarray:
    """Return a power law over gaps, (count,).

    The law is p(g) ∝ g^(power − 1) for gaps g = 1 … count.
    """
    weights = np.arange(1, count + 1) ** (power - 1.0)
    return weights / weights.sum()


def _pairs(
    rng: np.random.Generator, rows: int, vocabulary: Sequence[int], pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw different keys, and values for them.

    Keys come from a vocabulary's first half, values from its second. The values differ too; both
    are (R, pairs).
    """
    ids, half = np.asarray(vocabulary), len(vocabulary) // 2
    if not 2 <= pairs < half:
        raise ValueError(
            f"vocabulary of {len(ids)}, pairs = {pairs}: "
            f"expected 2 pairs or more, fewer than {half}"
        )
    keys = ids[:half][np.argsort(rng.random((rows, half)), 1)[:, :pairs]]
    values = ids[half:][np.argsort(rng.random((rows, len(ids) - half)), 1)[:, :pairs]]
    return keys, values


def oracle(sample: Sample) -> list[Ids]:
    """Return what follows each key's only occurrence.

    An answer is () where there is no such occurrence. The oracle never looks at `answer` or spans.
    """
    return [follower(sample.context, query) for query in sample.queries]
