"""Tokenizers, prose and cases that the tests of the tasks share."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from farcontext.tasks import (
    associative,
    common_words,
    copying,
    counting,
    lookup,
    needles,
    tracking,
    world,
)
from farcontext.tasks.sample import Decode, Encode, Ids, Query, Sample, longest
from farcontext.tasks.words import WordTokenizer

BOS = (7,)


def prose(words: int, seed: int = 0) -> str:
    """Return sentences of 4 to 14 made-up words."""
    draw = random.Random(seed)
    lexicon = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 8))) for _ in range(500)]
    sentences = (
        " ".join(draw.choices(lexicon, k=draw.randint(4, 14))).capitalize()
        for _ in range(words // 9)
    )
    return ". ".join(sentences) + "."


FILLER = prose(30_000)


def bytes_of(text: str) -> list[int]:
    return list(text.encode("utf-8"))


def text_of(ids: Ids) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Toy:
    """A tokenizer as a task takes it."""

    name: str
    encode: Encode
    decode: Decode


def word_toy() -> Toy:
    words = WordTokenizer()
    return Toy("words", words.encode, words.decode)


BYTES = Toy("bytes", bytes_of, text_of)


@dataclass(frozen=True)
class Case:
    """A task with its arguments.

    `small` are those that fit 64 tokens of words or of a small BPE.
    """

    module: ModuleType
    options: dict[str, Any]
    small: dict[str, Any]
    evidence: str  # what every span says
    make: str = "sample"

    def sample(self, toy: Toy, length: int, seed: int = 0, **options: Any) -> Sample:
        text = {"encode": toy.encode, "filler": FILLER} if self.text else {}
        return getattr(self.module, self.make)(
            **text | {"length": length, "seed": seed} | self.options | options
        )

    @property
    def text(self) -> bool:
        return "vocabulary" not in self.options

    def oracle(self, sample: Sample, toy: Toy) -> list[Ids]:
        decodes = self.module not in (copying, associative)
        return self.module.oracle(sample, toy.decode) if decodes else self.module.oracle(sample)


CASES = {
    "single_needle": Case(needles, {"keys": 1}, {}, r"\nThe secret word of \w+ is \w+\."),
    "needles": Case(needles, {"keys": 5}, {"keys": 2}, r"\nThe secret word of \w+ is \w+\."),
    "many_values": Case(
        needles,
        {"keys": 2, "values": 3},
        {"keys": 2, "values": 1},
        r"\n(?:A|The) secret word of \w+ is \w+\.",
    ),
    "lookup": Case(lookup, {}, {}, r"\n\w+ \w+: \w+"),
    "tracking": Case(
        tracking, {"chains": 4, "hops": 2}, {"chains": 2, "hops": 1}, r"\nX\d\d = \w+\."
    ),
    "common_word": Case(common_words, {}, {"ratio": 2, "choices": 3}, r"\n- \w+"),
    "common_words": Case(
        common_words, {"common": 3}, {"common": 1, "ratio": 2, "choices": 2}, r"\n- \w+"
    ),
    "counting": Case(counting, {}, {"speakers": 2, "words": 1}, r"\n\w+:[\s\S]+"),
    "copying": Case(copying, {"cue": 6}, {"cue": 4}, r"[\s\S]+"),
    "story": Case(
        world,
        {"people": 4, "things": 2},
        {"people": 1, "things": 0},
        r" (?:Then |Later |On \w+ )?(?:\w+ \w+ \w+ to the \w+|[Tt]he \w+ is \w+ by \w+ \w+)\.",
    ),
    "associative": Case(associative, {"vocabulary": range(50)}, {}, r"[\s\S]+"),
}
CASE = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
TEXT_CASE = pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.text],
    ids=[name for name, case in CASES.items() if case.text],
)


def size(sample: Sample) -> int:
    """Return the tokens of the longest thing that a model is shown."""
    return max(len(sample.context) + longest(query) for query in sample.queries)


def smallest(make: Callable[[int], Sample], length: int) -> int:
    """Return the smallest length that fits, as the refusal of a too short one states it."""
    with pytest.raises(
        ValueError, match=f"^length = {length}: expected at least [0-9]+$"
    ) as refusal:
        make(length)
    return int(re.findall(r"\d+", str(refusal.value))[-1])


def same(one: Sample, other: Sample) -> bool:
    return (one.queries, one.context.tolist()) == (other.queries, other.context.tolist())


def narrowed(sample: Sample, query: Query) -> Sample:
    """Return a sample whose context is one question's evidence and nothing else."""
    parts = [sample.context[start:end] for start, end in query.evidence]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    starts = [0, *ends[:-1]]
    return replace(
        sample,
        context=np.concatenate(parts),
        queries=(replace(query, evidence=tuple(zip(starts, ends, strict=True))),),
        blocks=tuple(starts),
        length=ends[-1] + longest(query),
    )
