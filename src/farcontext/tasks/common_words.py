"""Common words: a few words of a list occur more often.

The task is RULER's common-words extraction (Hsieh et al. 2024): the answer stands nowhere, so a
reader must count the whole context. The evidence is therefore every line of the list, those of the
words that are not common too.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from farcontext.tasks.sample import (
    COMMON_WORDS,
    Ask,
    Decode,
    Encode,
    Ids,
    Sample,
    assemble,
    choice_reading,
    longest,
    prose,
)
from farcontext.tasks.words import draw_words, listing


def sample(
    *,
    length: int,
    seed: int,
    encode: Encode,
    filler: str,
    common: int = 1,
    choices: int = 4,
    ratio: int = 3,
    bos: Sequence[int] = (),
) -> Sample:
    r"""Return a list of words and one question for the common ones.

    The list is as long as fits, and prose before it fills the rest.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> made = sample(length=24, seed=3, encode=toy.encode, filler="It was a cold day.", choices=3)
    >>> print(toy.decode(made.context))
    It was a cold day
    - doctor
    - doctor
    - friend
    - doctor
    - night
    >>> (query,) = made.queries
    >>> toy.decode(query.question), toy.decode(query.answer)
    ('\nMost common words, A to Z:', ' doctor')
    >>> [toy.decode(choice) for choice in query.choices]
    [' night', ' doctor', ' friend']
    >>> oracle(made, toy.decode) == [query.answer]
    True

    Args:
        length: tokens of context, question and longest choice together.
        seed: the same words at every length.
        encode: text → ids, without special tokens.
        filler: real prose.
        common: number of common words; the answer names all, in alphabetical order.
        choices: sets of `common` words to choose from, one of them the common ones; no other words
            occur.
        ratio: how many times as often a common word occurs, 2 or more.
        bos: ids put first.

    Raises:
        ValueError: too few choices or ratio, or too short a length; it says what fits.
    """
    if common < 1 or choices < 2 or ratio < 2:
        raise ValueError(
            f"common = {common}, choices = {choices}, ratio = {ratio}: expected at least 1, 2 and 2"
        )
    rng = np.random.default_rng((COMMON_WORDS, seed))
    words = np.reshape(draw_words(rng, encode, common * choices), (choices, common))
    sets = tuple(listing(encode, row) for row in words)
    ask = Ask(tuple(encode("\nMost common words, A to Z:")), sets[0], sets, ())
    lines = [(*encode("\n-"), *encode(f" {word}")) for word in words.flat]
    once = [line for i, line in enumerate(lines) for _ in range(ratio if i < common else 1)]
    times = (length - len(bos) - longest(ask)) // sum(map(len, once))
    pieces = [once[i] for i in rng.permutation(np.tile(np.arange(len(once)), max(times, 1)))]
    ask = Ask(ask.question, ask.answer, ask.choices, tuple(range(len(pieces))))
    return assemble(
        pieces,
        np.ones(len(pieces)),
        [ask],
        length=length,
        filler=prose(filler, encode, rng),
        bos=bos,
    )


def oracle(sample: Sample, decode: Decode) -> list[Ids]:
    """Return the answers that the decoded text gives.

    An answer is () where the text gives none. The oracle never looks at `answer` or spans.
    """
    counts = Counter(re.findall(r"\n\s*-\s+(\w+)", decode(sample.context.tolist())))
    answers = []
    for query in sample.queries:
        wanted = len(re.findall(r"\w+", decode(query.choices[0])))
        answers.append(
            choice_reading(query, sorted(word for word, _ in counts.most_common(wanted)), decode)
        )
    return answers
