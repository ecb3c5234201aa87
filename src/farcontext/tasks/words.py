"""Names and nouns for the tasks' sentences, and a toy tokenizer.

The nouns are common ones, and the tokenizer is for the tasks' examples.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from farcontext.tasks.sample import Encode, Ids

# The keys of cached runs hash these texts with their line ends, so the line ends stay.
NAMES = tuple(
    (  # noqa: SIM905
        "\n    Alice Anna Arthur Bella Boris Carla Cecil Clara Daniel Diana Edgar Elena Emma "
        "Felix Flora Frank Grace Hannah Harry"
        "\n    Helen Henry Ida Irene Jacob James Jane Julia Karl Laura Leo Linda Lucy Maria "
        "Martin Mary Nina Nora Oliver Oscar"
        "\n    Paul Peter Rachel Robert Rosa Ruth Samuel Sarah Simon Sofia Stella Thomas Tina "
        "Victor Walter\n    "
    ).split()
)
NOUNS = tuple(
    (  # noqa: SIM905
        "\n    river stone lamp bread sword crown horse house garden king queen table paper "
        "letter window door light night"
        "\n    morning winter summer water fire earth wind rain storm cloud sea ship island "
        "forest tree leaf flower rose grass"
        "\n    field road bridge tower wall city town village market church castle prison school "
        "master doctor soldier captain"
        "\n    friend brother sister mother father child woman lady prince servant voice music "
        "song dance dream sleep death life"
        "\n    hope fear joy anger sorrow truth power peace war battle blood bone hand foot head "
        "heart eye ear mouth nose face"
        "\n    hair finger shoulder skin coat shirt shoe ring gold silver iron steel wood glass "
        "silk wool wine beer milk honey"
        "\n    salt sugar meat fish bird dog cat cow sheep wolf lion bear fox mouse snake book "
        "story news number price money coin"
        "\n    gift box bag rope knife spoon cup dish plate key lock bell clock wheel cart boat "
        "sail flag drum horn list name"
        "\n    type group object file image page line class model server user color size role "
        "rule path task\n    "
    ).split()
)


def draw_words(
    rng: np.random.Generator, encode: Encode, count: int, words: Sequence[str] = NOUNS
) -> list[str]:
    """Return different words of few tokens, in random order.

    The words have as few tokens as this tokenizer allows.

    A word counts with the space before it. They are drawn from the words of one token if there are
    `count` of them, else from those of two, and so on: of equal length, so that no choice is
    likelier for being short. Where no length has so many, from the shortest. Of words with the same
    ids (an unknown token) only the first is used.

    Raises:
        ValueError: fewer than `count` words.
    """
    tokens: dict[Ids, str] = {}
    for word in words:
        tokens.setdefault(tuple(encode(f" {word}")), word)
    if count > len(tokens):
        raise ValueError(f"count = {count}: expected at most {len(tokens)} words")
    sizes = Counter(map(len, tokens))
    enough = min((size for size, found in sizes.items() if found >= count), default=None)
    pool = (
        sorted(tokens, key=len)[:count]
        if enough is None
        else [ids for ids in tokens if len(ids) == enough]
    )
    return [tokens[pool[number]] for number in rng.choice(len(pool), count, replace=False)]


def listing(encode: Encode, words: Sequence[str]) -> Ids:
    """Return the ids of words in alphabetical order: " lamp, river, stone".

    A set of words then has one spelling.
    """
    ids: list[int] = []
    for word in sorted(words):
        ids.extend([*(encode(",") if ids else ()), *encode(f" {word}")])
    return tuple(ids)


class WordTokenizer:
    """One id for each word or mark, for examples and tests.

    A word includes the space or newline before it, and a new word gets the next id.
    """

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        return [
            self.ids.setdefault(word, len(self.ids))
            for word in re.findall(r"\s?\w+|\s?[^\w\s]|\s", text)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that was encoded."""
        words = list(self.ids)
        return "".join(words[i] for i in ids)
