"""Copying: a beginning occurs once, what follows it is the answer, in random ids and in prose."""

import pytest
from toys import BYTES, CASES, word_toy

from farcontext.tasks import copying
from farcontext.tasks.sample import even_depths, places_of

COPYING = CASES["copying"]


@pytest.mark.parametrize("name", ["copying"])
def test_a_beginning_occurs_once_and_the_answer_follows(name: str) -> None:
    for seed in range(20):
        made = CASES[name].sample(word_toy(), 512, seed)
        for query in made.queries:
            ((start, end),) = query.evidence
            assert places_of(query.question, made.context).tolist() == [start]
            assert tuple(made.context[start:end]) == query.question + query.answer


@pytest.mark.parametrize("queries", [2, 5])
def test_stretches_stand_at_even_depths(queries: int) -> None:
    made = COPYING.sample(word_toy(), 4096, queries=queries)
    assert [query.depth for query in made.queries] == pytest.approx(even_depths(queries), abs=0.025)
    assert made.chance == pytest.approx(1 / queries)


def test_a_beginning_that_cannot_be_unique_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^cue = 2: expected more"):
        copying.sample(
            length=2048, seed=0, encode=BYTES.encode, filler="All work and no play. " * 50, cue=2
        )


def test_a_beginning_found_twice_has_no_answer() -> None:
    """Twin: what the generator refuses, its oracle refuses too."""
    made = COPYING.sample(word_toy(), 512)
    ((start, end),) = made.queries[0].evidence
    other = made.queries[-1].evidence[0][1]
    context = made.context.copy()
    context[other : other + end - start] = context[start:end]
    assert copying.follower(context, made.queries[0]) == ()
    assert copying.follower(made.context, made.queries[0]) == made.queries[0].answer


@pytest.mark.parametrize("options", [{"queries": 1}, {"cue": 0}, {"span": 0}])
def test_bad_counts_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match="expected at least 2, 1 and 1"):
        COPYING.sample(word_toy(), 512, **options)
