"""Variable tracking: chains of assignments in prose, and their last values.

The assignments are scattered over the prose, and the value at each chain's end is asked for.

RULER's variable tracking (Hsieh et al. 2024) asks for all variables of a value. Here each chain's
last variable is asked for, so that an answer needs every hop and the chains are each other's
distractors.
"""

import re
from collections.abc import Sequence

import numpy as np

from farcontext.tasks.sample import (
    TRACKING,
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
from farcontext.tasks.words import draw_words

VARIABLES = range(10, 100)


def sample(
    *,
    length: int,
    seed: int,
    encode: Encode,
    filler: str,
    chains: int = 2,
    hops: int = 1,
    bos: Sequence[int] = (),
) -> Sample:
    r"""Return chains of assignments in prose, and a question for each.

    The assignments of the chains alternate at random and stand at even depths.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> tale = "The old men rode out early. Nobody saw them go. It was cold on the hills."
    >>> made = sample(length=48, seed=10, encode=toy.encode, filler=tale, chains=2, hops=2)
    >>> print(toy.decode(made.context))
    The old
    X46 = wheel. men rode
    X81 = drum. out early. Nobody
    X12 = X46. saw them
    X76 = X12. go. It was
    X74 = X81. cold on
    X57 = X74. the hills
    >>> for query in made.queries:
    ...     said = toy.decode(query.question), toy.decode(query.answer)
    ...     print(*map(repr, said), len(query.evidence))
    '\nThe value of X76 is' ' wheel' 3
    '\nThe value of X57 is' ' drum' 3
    >>> oracle(made, toy.decode) == [query.answer for query in made.queries]
    True

    Args:
        length: tokens of context, longest question and longest choice together.
        seed: the same chains at every length.
        encode: text → ids, without special tokens.
        filler: real prose.
        chains: number of chains, 2 or more; their values are the choices.
        hops: assignments of one variable to another, after the first of a word; 0 is a lookup.
        bos: ids put first.

    Raises:
        ValueError: more variables than 90, or too short a length; it says what fits.
    """
    if chains < 2 or hops < 0 or chains * (hops + 1) > len(VARIABLES):
        raise ValueError(
            f"chains = {chains}, hops = {hops}: expected 2 chains or more, "
            "of at most 90 variables in all"
        )
    rng = np.random.default_rng((TRACKING, seed))
    names = [f"X{number}" for number in rng.choice(VARIABLES, chains * (hops + 1), replace=False)]
    values = draw_words(rng, encode, chains)
    owners = rng.permutation(np.repeat(np.arange(chains), hops + 1))
    pieces, last = _assignments(encode, names, values, owners)
    choices = tuple(tuple(encode(f" {word}")) for word in values)
    asks = [
        Ask(
            tuple(encode(f"\nThe value of {name} is")),
            choices[i],
            choices,
            tuple(np.flatnonzero(owners == i).tolist()),
        )
        for i, name in enumerate(last)
    ]
    return assemble(
        pieces,
        even_depths(len(pieces)),
        asks,
        length=length,
        filler=prose(filler, encode, rng),
        bos=bos,
    )


def _assignments(
    encode: Encode, names: list[str], values: list[str], owners: np.ndarray
) -> tuple[list[Ids], list[str]]:
    """Return an assignment for each name, and each chain's last name.

    An assignment goes on its owner's chain.
    """
    last, pieces = list(values), []
    for name, owner in zip(names, owners, strict=True):
        pieces.append((*encode(f"\n{name} ="), *encode(f" {last[owner]}"), *encode(".")))
        last[owner] = name
    return pieces, last


def oracle(sample: Sample, decode: Decode) -> list[Ids]:
    """Return the answers that the decoded text gives.

    An answer is () where the text gives none. The oracle never looks at `answer` or spans.
    """
    assigned = dict(re.findall(r"\n\s*(X\d+) =\s+(\w+)\.", decode(sample.context.tolist())))
    answers = []
    for query in sample.queries:
        (name,) = re.findall(r"X\d+", decode(query.question))
        for _ in assigned:
            name = assigned.get(name, name)
        answers.append(choice_reading(query, [name], decode))
    return answers
