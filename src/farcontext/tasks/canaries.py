"""Canaries: secrets of known count and place in a training text.

A canary is a sentence whose two last words are drawn from a known set, so that the rank of the true
ones among all candidates says what a model has memorised (Carlini et al. 2019, "The Secret
Sharer"). Sentences overwrite as many tokens of documents, so that these keep their length.

    document    … t t t t t t t t t t t t t t t …
    planted     … t t The code of Anna is w1 w2. t t …
                      |---- prefix ----| secret
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farcontext.tasks.sample import Encode, Ids
from farcontext.tasks.words import NAMES

BLOCK = 64  # Each sentence stands inside a block of so many tokens,
OFFSET = 40  # this far from its beginning: no row of BLOCK tokens or more cuts it.


@dataclass(frozen=True)
class Canary:
    """A secret, and how often it is planted."""

    prefix: Ids
    secret: Ids  # Two tokens.
    end: Ids
    count: int

    @property
    def sentence(self) -> Ids:
        """The whole sentence."""
        return (*self.prefix, *self.secret, *self.end)


@dataclass(frozen=True)
class Place:
    """Where a canary's secret begins."""

    canary: int
    document: int
    at: int


def draw(
    rng: np.random.Generator, encode: Encode, words: Sequence[int], counts: Sequence[int], each: int
) -> list[Canary]:
    """Return canaries of each count, about different people.

    Args:
        rng: draws people and secrets.
        encode: text → ids, without special tokens.
        words: ids of the candidates; a secret is two of them.
        counts: how often canaries are planted; 0 is a control.
        each: so many canaries of each count.

    Raises:
        ValueError: more canaries than names, or a sentence that a block does not hold.
    """
    if len(counts) * each > len(NAMES):
        raise ValueError(f"{len(counts) * each} canaries: expected at most {len(NAMES)}")
    names = rng.choice(NAMES, len(counts) * each, replace=False)
    made = [
        Canary(
            tuple(encode(f" The code of {name} is")),
            tuple(int(id_) for id_ in rng.choice(words, 2)),
            tuple(encode(".")),
            count,
        )
        for name, count in zip(names, np.repeat(counts, each).tolist(), strict=True)
    ]
    longest = max(len(canary.sentence) for canary in made)
    if longest > BLOCK - OFFSET:
        raise ValueError(f"a sentence of {longest} tokens: expected at most {BLOCK - OFFSET}")
    return made


def plant(
    rng: np.random.Generator, documents: np.ndarray, canaries: Sequence[Canary]
) -> tuple[np.ndarray, list[Place]]:
    """Return documents with every canary planted, and where.

    Every other canary stands in the first half of its documents, the rest in the second.

    Args:
        rng: draws the places.
        documents: (N, D) ids; they are copied.
        canaries: each is planted `count` times, at different places.

    Raises:
        ValueError: more sentences than blocks.
    """
    planted, places = documents.copy(), []
    blocks = documents.shape[1] // BLOCK
    halves = np.arange(len(documents) * blocks) % blocks >= blocks // 2
    for late in (False, True):
        wanted = [n for n, canary in enumerate(canaries) for _ in range(canary.count)]
        wanted = [number for number in wanted if is_late(number) == late]
        free = rng.permutation(np.flatnonzero(halves == late))
        if len(wanted) > len(free):
            raise ValueError(f"{len(wanted)} sentences: expected at most {len(free)}, one a block")
        for number, slot in zip(wanted, free.tolist(), strict=False):
            canary, (document, block) = canaries[number], divmod(slot, blocks)
            start = block * BLOCK + OFFSET
            planted[document, start : start + len(canary.sentence)] = canary.sentence
            places.append(Place(number, document, start + len(canary.prefix)))
    return planted, places


def is_late(number: int) -> bool:
    """Whether a canary stands in the second half of its documents."""
    return number % 2 == 1
