"""Counting: who says most, and who says least.

No sentence of the context is a needle. Every line of the context is real prose and bears the name
of one who says it. The answer stands nowhere, and no line alone gives it or takes it away: the
whole context is to be counted. This is the kind of question that OOLONG asks (Bertsch et al. 2025),
with a label that is written down, so that only the counting is hard.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from farcontext.tasks.sample import (
    Ask,
    Decode,
    Encode,
    Ids,
    Sample,
    assemble,
    choice_reading,
    longest,
    prose,
    take,
)
from farcontext.tasks.words import NAMES, draw_words

COUNTING = 8  # It is this task's random stream; `sample` numbers those of the older tasks.
MOST, FEWEST, OTHERS = 3, 1, 2  # A round holds so many lines of each.
ROUNDS = 2  # With so many rounds no line decides alone.
QUESTIONS = ("most", "fewest")


def sample(
    *,
    length: int,
    seed: int,
    encode: Encode,
    filler: str,
    speakers: int = 4,
    words: int = 8,
    bos: Sequence[int] = (),
) -> Sample:
    r"""Return lines with their speakers, and two questions.

    They are for the first and the last of the speakers. There are as many rounds of lines as fit,
    in random order; prose before them fills the rest.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> tale = "It was cold. Nobody saw them go. A dog barked. She lit the lamp. Rain came."
    >>> made = sample(length=52, seed=1, encode=toy.encode, filler=tale, speakers=2, words=3)
    >>> print(toy.decode(made.context).strip())
    A dog barked.
    Diana: Rain came.
    Ruth: It was
    Diana: Nobody saw them
    Diana: A dog barked
    Ruth: She lit the
    Diana: Rain came.
    Diana: It was
    Diana: Nobody saw them
    >>> for query in made.queries:
    ...     said = toy.decode(query.question), toy.decode(query.answer)
    ...     print(*map(repr, said))
    '\nThe name with the most lines is' ' Diana'
    '\nThe name with the fewest lines is' ' Ruth'
    >>> oracle(made, toy.decode) == [query.answer for query in made.queries]
    True

    Args:
        length: tokens of context, longest question and longest choice together.
        seed: the same names at every length.
        encode: text → ids, without special tokens.
        filler: real prose.
        speakers: number of names, 2 or more; they are the choices.
        words: tokens of a line behind its name.
        bos: ids put first.

    Raises:
        ValueError: too few or too many speakers, or too short a length; it says what fits.
    """
    if not 2 <= speakers <= len(NAMES) or words < 1:
        raise ValueError(
            f"speakers = {speakers}, words = {words}: expected 2 to {len(NAMES)}, and 1 or more"
        )
    rng = np.random.default_rng((COUNTING, seed))
    names = draw_words(rng, encode, speakers, NAMES)
    heads = [tuple(encode(f"\n{name}:")) for name in names]
    choices = tuple(tuple(encode(f" {name}")) for name in names)
    asks = [
        Ask(tuple(encode(f"\nThe name with the {which} lines is")), answer, choices, ())
        for which, answer in zip(QUESTIONS, (choices[0], choices[-1]), strict=True)
    ]
    counts = [MOST, *[OTHERS] * (speakers - 2), FEWEST]
    owners = np.repeat(np.arange(speakers), counts)
    beside = len(bos) + max(map(longest, asks))
    a_round = sum(len(heads[owner]) + words for owner in owners)
    if (rounds := (length - beside) // a_round) < ROUNDS:
        raise ValueError(f"length = {length}: expected at least {beside + ROUNDS * a_round}")
    stream = prose(filler, encode, rng)
    pieces = [
        (*heads[owner], *take(stream, words)[0])
        for owner in rng.permutation(np.tile(owners, rounds))
    ]
    every = tuple(range(len(pieces)))
    asks = [Ask(ask.question, ask.answer, ask.choices, every) for ask in asks]
    return assemble(pieces, np.ones(len(pieces)), asks, length=length, filler=stream, bos=bos)


def oracle(sample: Sample, decode: Decode) -> list[Ids]:
    """Return the answers that the decoded text gives.

    An answer is () where the text gives none. The oracle never looks at `answer` or spans.
    """
    text, answers = decode(sample.context.tolist()), []
    for query in sample.queries:
        known = [re.findall(r"\w+", decode(choice))[0] for choice in query.choices]
        said = Counter(name for name in re.findall(r"\n\s*(\w+):", text) if name in known)
        ranked = [name for name, _ in said.most_common()]
        place = 0 if "most" in decode(query.question) else -1
        answers.append(choice_reading(query, ranked[place:][:1], decode))
    return answers
