"""Key–value lines fill the context with a table.

Keys occur once, and only the lines asked for have their values.
"""

import re
from collections import Counter

import pytest
from toys import CASES, word_toy

from farcontext.tasks.sample import even_depths

CASE = CASES["lookup"]


@pytest.mark.parametrize("length", [64, 1024, 8192])
def test_the_table_fills_the_context(length: int) -> None:
    toy = word_toy()
    made = CASE.sample(toy, length)
    lines = re.findall(r"\n(\w+ \w+): (\w+)", toy.decode(made.context.tolist()))
    assert 0 <= len(made.context) - 4 * len(lines) < 4  # a line has four tokens
    assert len(dict(lines)) == len(lines)
    values = Counter(value for _, value in lines)
    answers = [toy.decode(query.answer).strip() for query in made.queries]
    assert [values[answer] for answer in answers] == [1] * 4


@pytest.mark.parametrize("queries", [2, 5])
def test_lines_asked_for_are_spread_evenly(queries: int) -> None:
    made = CASE.sample(word_toy(), 4096, queries=queries)
    assert [query.depth for query in made.queries] == pytest.approx(even_depths(queries), abs=0.002)
    assert made.chance == pytest.approx(1 / queries)


def test_a_longer_table_begins_with_the_shorter() -> None:
    toy = word_toy()
    short, long = (
        re.findall(r"\n\w+ \w+:", toy.decode(CASE.sample(toy, n).context)) for n in (256, 1024)
    )
    assert long[: len(short)] == short


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="queries = 1: expected at least 2"):
        CASE.sample(word_toy(), 256, queries=1)
    with pytest.raises(
        ValueError, match=r"length = 300000: expected less than [0-9]+, all that the keys give"
    ):
        CASE.sample(word_toy(), 300_000)
