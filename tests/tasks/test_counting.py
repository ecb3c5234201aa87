"""Counting: the counts are as stated, and no line alone is a needle."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from toys import CASES, word_toy

from farcontext.tasks import counting

CASE = CASES["counting"]


@pytest.mark.parametrize("length", [200, 1024])
def test_one_says_most_one_least_and_the_others_the_same(length: int) -> None:
    toy = word_toy()
    made = CASE.sample(toy, length)
    counts = Counter(re.findall(r"\n(\w+):", toy.decode(made.context.tolist())))
    most, fewest = (toy.decode(q.answer).strip() for q in made.queries)
    rounds = counts[fewest]
    assert rounds >= 2 and counts[most] == 3 * rounds and len(counts) == 4
    assert {counts[name] for name in counts if name not in (most, fewest)} == {2 * rounds}
    assert made.chance == 0.25


def test_no_line_is_a_needle_without_which_the_answer_is_another() -> None:
    toy = word_toy()
    made = CASE.sample(toy, 200)
    answers = [query.answer for query in made.queries]
    for start, end in pairwise([*made.blocks, len(made.context)]):
        context = made.context.copy()
        context[start:end] = made.spare[: end - start]
        assert counting.oracle(replace(made, context=context), toy.decode) == answers
    # twin: with two names exchanged the answers are exchanged
    text = toy.decode(made.context.tolist())
    most, fewest = (toy.decode(answer).strip() for answer in answers)
    swap = {most: fewest, fewest: most}
    turned = re.sub(r"(?<=\n)\w+(?=:)", lambda name: swap.get(name.group(), name.group()), text)
    other = replace(made, context=np.array(toy.encode(turned)))
    assert counting.oracle(other, toy.decode) == answers[::-1]


@pytest.mark.parametrize("options", [{"speakers": 1}, {"speakers": 1000}, {"words": 0}])
def test_bad_sizes_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match="expected 2 to"):
        CASE.sample(word_toy(), 512, **options)
