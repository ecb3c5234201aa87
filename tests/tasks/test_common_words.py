"""Common words: counts are as stated, and no line but the list's own counts."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from toys import CASES, word_toy

from farcontext.tasks import common_words

CASE = CASES["common_words"]


@pytest.mark.parametrize("common", [1, 3])
@pytest.mark.parametrize("ratio", [2, 5])
def test_common_words_occur_ratio_times_as_often(common: int, ratio: int) -> None:
    toy = word_toy()
    made = CASE.sample(toy, 2048, common=common, ratio=ratio, choices=4)
    (query,) = made.queries
    counts = Counter(re.findall(r"\n- (\w+)", toy.decode(made.context.tolist())))
    answer = re.findall(r"\w+", toy.decode(query.answer))
    others = set(counts) - set(answer)
    assert len(counts) == 4 * common and len(others) == 3 * common and len(answer) == common
    once = {counts[word] for word in others}
    assert {counts[word] for word in answer} == {ratio * count for count in once} and len(once) == 1
    assert made.chance == 0.25


def test_the_list_is_as_long_as_fits() -> None:
    toy = word_toy()
    for length in (128, 1000, 4096):
        made = CASE.sample(toy, length)
        lines = sum(end - start for start, end in made.queries[0].evidence)
        # once each word: 18 lines of three tokens
        assert 0 <= len(made.context) - lines < (3 * 3 + 9) * 3


def test_the_oracle_counts() -> None:
    """Twin: the lines of the common word and of another one exchanged."""
    toy = word_toy()
    made = CASE.sample(toy, 512, common=1)
    (query,) = made.queries
    (common,), (other,) = (
        query.answer,
        next(choice for choice in query.choices if choice != query.answer),
    )
    context = made.context.copy()
    context[made.context == common], context[made.context == other] = other, common
    assert common_words.oracle(replace(made, context=context), toy.decode) == [(other,)]


@pytest.mark.parametrize("options", [{"common": 0}, {"choices": 1}, {"ratio": 1}])
def test_bad_counts_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match="expected at least 1, 2 and 2"):
        CASE.sample(word_toy(), 512, **options)
