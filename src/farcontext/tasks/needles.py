"""Needles in prose: unprepared sentences, each asked for by its key.

Nothing in the text prepares a needle.

One generator for three of RULER's tasks (Hsieh et al. 2024): `keys=1` single needle, `keys>1` many
keys, each the others' distractor and each asked for, `values>1` many values of a key. Unlike
RULER's, the values are words of one token where the tokenizer has them, the question repeats the
needle's own beginning (plain completion, no instruction), and scores come from choices of equal
standing rather than from generated text.
"""

import re
from collections.abc import Sequence

import numpy as np

from farcontext.tasks.sample import (
    NEEDLES,
    Ask,
    Decode,
    Encode,
    Ids,
    Sample,
    assemble,
    choice_reading,
    even_depths,
    prose,
)
from farcontext.tasks.words import NAMES, draw_words, listing

ABSENT = 3  # A single key has so many further choices, which are not in the text.


def sample(
    *,
    length: int,
    seed: int,
    encode: Encode,
    filler: str,
    keys: int = 4,
    values: int = 1,
    depths: Sequence[float] | None = None,
    bos: Sequence[int] = (),
) -> Sample:
    r"""Return needles in prose, and a question for each key.

    The needles stand at even depths unless `depths` says otherwise.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> tale = "The old men rode out early. Nobody saw them go. It was cold on the hills."
    >>> made = sample(length=40, seed=9, encode=toy.encode, filler=tale, keys=2)
    >>> print(toy.decode(made.context))
    The old men rode
    The secret word of Felix is role. out early. Nobody saw them go. It
    The secret word of Linda is death. was cold on the
    >>> for query in made.queries:
    ...     said = toy.decode(query.question), toy.decode(query.answer)
    ...     print(*map(repr, said), round(query.depth, 2))
    '\nThe secret word of Linda is' ' death' 0.76
    '\nThe secret word of Felix is' ' role' 0.24
    >>> oracle(made, toy.decode) == [query.answer for query in made.queries]
    True

    Args:
        length: tokens of context, longest question and longest choice together.
        seed: the same words, names and filler at every length.
        encode: text → ids, without special tokens.
        filler: real prose.
        keys: number of names, each asked for. The choices are the keys' values; for one key also
            words that do not occur, so that recognising its word is enough: a check of the set-up,
            not a measurement.
        values: words a name has. With several, the question asks for all in alphabetical order, and
            the needles of the names alternate at random.
        depths: share of the filler before each of the keys · values needles, ascending; None: even.
        bos: ids put first.

    Raises:
        ValueError: too many keys or values for the lists of words, or too short a length; it says
            what fits.
    """
    if not 1 <= keys <= len(NAMES) or values < 1:
        raise ValueError(
            f"keys = {keys}, values = {values}: expected 1 to {len(NAMES)} keys, 1 value or more"
        )
    rng = np.random.default_rng((NEEDLES, seed))
    names = rng.choice(NAMES, keys, replace=False)
    words = np.reshape(
        draw_words(rng, encode, (keys if keys > 1 else 1 + ABSENT) * values), (-1, values)
    )
    owners = rng.permutation(np.repeat(np.arange(keys), values))  # Each needle has its key here.
    left = [list(row) for row in words]
    pieces = [
        needle(encode, names[owner], left[owner].pop(), "The" if values == 1 else "A")
        for owner in owners
    ]
    choices = tuple(listing(encode, row) for row in words)
    asks = [
        Ask(
            question(encode, name, values),
            choices[key],
            choices,
            tuple(np.flatnonzero(owners == key).tolist()),
        )
        for key, name in enumerate(names)
    ]
    depths = even_depths(len(pieces)) if depths is None else depths
    return assemble(pieces, depths, asks, length=length, filler=prose(filler, encode, rng), bos=bos)


def needle(encode: Encode, name: str, word: str, article: str = "The") -> Ids:
    """Return the ids of one needle.

    The word of the needle has the ids that an answer has.
    """
    return (*encode(f"\n{article} secret word of {name} is"), *encode(f" {word}"), *encode("."))


def question(encode: Encode, name: str, values: int = 1) -> Ids:
    """Return the ids of a question.

    The question for one value is the needle's own beginning.
    """
    return tuple(
        encode(
            f"\nThe secret word of {name} is"
            if values == 1
            else f"\nSecret words of {name}, A to Z:"
        )
    )


def name_in(question: str) -> str:
    """Return whom a question asks about."""
    (name,) = re.findall(r"words? of (\w+)", question)
    return name


def oracle(sample: Sample, decode: Decode) -> list[Ids]:
    """Return the answers that the decoded text gives.

    An answer is () where the text gives none. The oracle never looks at `answer` or spans.
    """
    found = re.findall(
        r"\n\s*(?:The|A) secret word of (\w+) is\s+(\w+)\.", decode(sample.context.tolist())
    )
    answers = []
    for query in sample.queries:
        name = name_in(decode(query.question))
        answers.append(
            choice_reading(query, sorted(word for key, word in found if key == name), decode)
        )
    return answers
