"""Variable tracking: every hop is needed, chains alternate, and each keeps its order."""

from dataclasses import replace

import numpy as np
import pytest
from toys import CASES, word_toy

from farcontext.tasks import tracking

CASE = CASES["tracking"]


@pytest.mark.parametrize("hops", [0, 1, 4])
def test_every_hop_is_needed(hops: int) -> None:
    toy = word_toy()
    made = CASE.sample(toy, 1024, chains=3, hops=hops)
    assert made.chance == pytest.approx(1 / 3)
    for number, query in enumerate(made.queries):
        assert len(query.evidence) == hops + 1
        for start, end in query.evidence:
            context = made.context.copy()
            context[start:end] = made.spare[: end - start]
            answers = tracking.oracle(replace(made, context=context), toy.decode)
            assert answers[number] == ()
            others = [answer for i, answer in enumerate(answers) if i != number]
            assert others == [q.answer for i, q in enumerate(made.queries) if i != number]


def test_assignments_keep_their_order_and_chains_alternate() -> None:
    toy = word_toy()
    alternate = 0
    for seed in range(10):
        made = CASE.sample(toy, 1024, seed, chains=2, hops=3)
        for query in made.queries:
            assert list(query.evidence) == sorted(query.evidence)
            lines = [
                toy.decode(made.context[start:end].tolist()).strip("\n.").split(" = ")
                for start, end in query.evidence
            ]
            assert [value for _, value in lines[1:]] == [name for name, _ in lines[:-1]]
            assert toy.decode(query.question) == f"\nThe value of {lines[-1][0]} is"
        first, second = ([start for start, _ in query.evidence] for query in made.queries)
        alternate += min(first[-1], second[-1]) > max(first[0], second[0])
    assert alternate >= 8


def test_assignments_spread_over_the_context() -> None:
    made = CASE.sample(word_toy(), 8192, chains=2, hops=3)
    starts = sorted(start for query in made.queries for start, _ in query.evidence)
    assert np.array(starts) / len(made.context) == pytest.approx(
        (np.arange(8) + 0.5) / 8, abs=0.025
    )


@pytest.mark.parametrize("options", [{"chains": 1}, {"hops": -1}, {"chains": 10, "hops": 9}])
def test_bad_counts_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match="expected 2 chains or more, of at most 90 variables"):
        CASE.sample(word_toy(), 8192, **options)
