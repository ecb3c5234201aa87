"""Key–value lines: one long table, and the values of some keys.

The context is the whole table, and a few of its keys are asked for.

The task is the key–value retrieval of Liu et al. 2023 ("Lost in the Middle"), with plain lines and
words in place of JSON and UUIDs. Unlike needles in prose the distractors grow with the length:
every line looks like every other.
"""

import re
from collections.abc import Sequence

import numpy as np

from farcontext.tasks.sample import (
    LOOKUP,
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
from farcontext.tasks.words import NOUNS, draw_words

OTHER_VALUES = 24  # Lines that nobody asks for share so many words.


def sample(
    *,
    length: int,
    seed: int,
    encode: Encode,
    filler: str,
    queries: int = 4,
    bos: Sequence[int] = (),
) -> Sample:
    r"""Return as many lines as fit, and questions for some.

    The lines asked for stand at even depths. Prose before the first line fills the rest.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> made = sample(length=27, seed=0, encode=toy.encode, filler="It was cold.", queries=2)
    >>> print(toy.decode(made.context))
    It was cold
    table horn: face
    knife steel: sorrow
    ring silk: book
    fear wood: fire
    bird lamp: clock
    >>> for query in made.queries:
    ...     said = toy.decode(query.question), toy.decode(query.answer)
    ...     print(*map(repr, said), round(query.depth, 2))
    '\nknife steel:' ' sorrow' 0.39
    '\nfear wood:' ' fire' 0.74
    >>> oracle(made, toy.decode) == [query.answer for query in made.queries]
    True

    Keys are two words and occur once. The choices are the values of the lines asked for, which no
    other line has.

    Args:
        length: tokens of context, longest question and longest choice together.
        seed: the same table at every length, as far as it goes; other lines of it are asked for.
        encode: text → ids, without special tokens.
        filler: real prose.
        queries: number of lines asked for.
        bos: ids put first.

    Raises:
        ValueError: too short a length; it says what fits. Or too long for the number of different
            keys.
    """
    if queries < 2:
        raise ValueError(f"queries = {queries}: expected at least 2")
    rng = np.random.default_rng((LOOKUP, seed))
    words = draw_words(rng, encode, queries + OTHER_VALUES)
    values = [tuple(encode(f" {word}")) for word in words]
    widest = max(map(len, values))
    keys = _keys(rng, encode, [word for word in NOUNS if word not in words], queries, length)
    costs = np.array([len(key) + widest for key in keys])
    # So many lines and the longest question need these tokens.
    needs = len(bos) + np.cumsum(costs) + np.maximum.accumulate(costs)
    lines = int(np.searchsorted(needs, length, side="right"))
    if lines < queries:
        raise ValueError(f"length = {length}: expected at least {needs[queries - 1]}")
    if lines == len(keys):
        raise ValueError(
            f"length = {length}: expected less than {needs[-1]}, all that the keys give"
        )
    asked = (even_depths(queries) * lines).astype(int).tolist()
    others = rng.integers(queries, len(values), lines)
    others[asked] = np.arange(queries)
    pieces = [(*key, *values[value]) for key, value in zip(keys, others, strict=False)]
    asks = [
        Ask(keys[line], values[i], tuple(values[:queries]), (line,)) for i, line in enumerate(asked)
    ]
    return assemble(
        pieces, np.ones(lines), asks, length=length, filler=prose(filler, encode, rng), bos=bos
    )


def _keys(
    rng: np.random.Generator, encode: Encode, words: list[str], least: int, tokens: int
) -> list[Ids]:
    """Return different keys in random order.

    There are at least so many, and more until they have so many tokens.
    """
    keys: list[Ids] = []
    for pair in rng.permutation(len(words) ** 2):
        first, second = divmod(int(pair), len(words))
        if tokens <= 0 and len(keys) >= least:
            break
        keys.append(tuple(encode(f"\n{words[first]} {words[second]}:")))
        tokens -= len(keys[-1])
    return keys


def oracle(sample: Sample, decode: Decode) -> list[Ids]:
    """Return the answers that the decoded text gives.

    An answer is () where the text gives none. The oracle never looks at `answer` or spans.
    """
    table = dict(re.findall(r"\n\s*(\w+ \w+):\s*(\w+)", decode(sample.context.tolist())))
    answers = []
    for query in sample.queries:
        (key,) = re.findall(r"\w+ \w+", decode(query.question))
        answers.append(choice_reading(query, [table.get(key, "")], decode))
    return answers
