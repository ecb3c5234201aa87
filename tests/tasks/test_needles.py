"""Needles: the protocol's wording, even depths, one-token answers, and several values a key."""

from dataclasses import replace

import numpy as np
import pytest
from toys import BYTES, CASES, FILLER, word_toy

from farcontext.tasks import needles
from farcontext.tasks.sample import even_depths, places_of

CASE = CASES["needles"]


def test_a_question_is_the_needles_beginning_and_its_answer_one_token_in_place() -> None:
    toy = word_toy()
    made = CASE.sample(toy, 2048, keys=10)
    assert made.chance == pytest.approx(0.1)
    for query in made.queries:
        ((start, end),) = query.evidence
        assert tuple(made.context[start : end - 1]) == query.question + query.answer
        assert len(query.answer) == 1 and {len(choice) for choice in query.choices} == {1}
        assert toy.decode(query.question).startswith("\nThe secret word of ")
    assert len({query.choices for query in made.queries}) == 1
    assert {query.answer for query in made.queries} == set(made.queries[0].choices)


@pytest.mark.parametrize("keys", [1, 5, 10])
def test_depths_are_even_whatever_share_the_needles_are(keys: int) -> None:
    for length in (256, 8192):
        depths = sorted(query.depth for query in CASE.sample(word_toy(), length, keys=keys).queries)
        assert depths == pytest.approx(even_depths(keys), abs=0.025)


def test_asked_depths_are_kept() -> None:
    asked = [0.0, 0.2, 0.9, 1.0]
    made = CASE.sample(word_toy(), 4096, keys=4, depths=asked)
    assert sorted(query.depth for query in made.queries) == pytest.approx(asked, abs=0.025)
    assert min(made.queries, key=lambda query: query.depth).evidence[0][0] == 0
    assert max(made.queries, key=lambda query: query.depth).evidence[0][1] == len(made.context)


def test_which_key_stands_where_is_random() -> None:
    first = [CASE.sample(word_toy(), 256, seed=seed, keys=4).queries[0].depth for seed in range(40)]
    assert len(set(np.round(first, 1))) >= 4


def test_many_values_are_asked_for_at_once() -> None:
    toy = word_toy()
    made = CASES["many_values"].sample(toy, 1024, keys=3, values=4)
    for query in made.queries:
        assert len(query.evidence) == 4
        words = toy.decode(query.answer).replace(",", "").split()
        assert words == sorted(words) and len(words) == 4
        texts = [toy.decode(made.context[start:end].tolist()) for start, end in query.evidence]
        assert {text.rstrip(".").split()[-1] for text in texts} == set(words)
    spans = [[start for start, _ in query.evidence] for query in made.queries]
    assert min(map(max, spans)) > max(map(min, spans))  # the keys' needles alternate


def test_a_single_key_has_choices_that_do_not_occur() -> None:
    made = CASES["single_needle"].sample(BYTES, 512, filler="zz zz. " * 100)
    (query,) = made.queries
    assert made.chance == 0.25
    assert [
        len(places_of(choice, made.context)) for choice in query.choices if choice != query.answer
    ] == [0, 0, 0]


def test_the_oracle_follows_the_text() -> None:
    """Twin: two needles whose words are exchanged."""
    toy = word_toy()
    made = CASE.sample(toy, 256, keys=2)
    context = made.context.copy()
    at = [query.evidence[0][1] - 2 for query in made.queries]
    context[at] = context[at[::-1]]
    assert needles.oracle(replace(made, context=context), toy.decode) == [
        q.answer for q in made.queries[::-1]
    ]


@pytest.mark.parametrize("options", [{"keys": 0}, {"keys": 60}, {"values": 0}])
def test_bad_counts_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match=r"^keys = .* expected 1 to 54 keys, 1 value or more$"):
        needles.sample(length=256, seed=0, encode=BYTES.encode, filler=FILLER, **options)
