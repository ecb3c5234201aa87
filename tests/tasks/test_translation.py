"""In the second language only an earlier sentence tells.

Both choices are as likely, and the oracle reads that sentence.
"""

import re
from collections import Counter

import numpy as np
import pytest

from farcontext.tasks import translation, world
from farcontext.tasks.translation import KINDS, TERMS, THINGS, document, oracle

DRAWS = 600


def documents(count: int = DRAWS, **options) -> list[list[translation.Sentence]]:
    return [
        document(np.random.default_rng(seed), **{"length": 6} | options) for seed in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", [1, 3, 5])
def test_the_last_sentence_has_two_translations_and_the_oracle_knows_which(
    kind: str, distance: int
) -> None:
    for told in documents(60, kind=kind, distance=distance):
        last = told[-1]
        assert len(told) == 6
        assert (last.kind, last.setter) == (kind, 5 - distance)
        assert last.target != last.contrast
        different = [
            pair
            for pair in zip(last.target.split(), last.contrast.split(), strict=True)
            if len(set(pair)) > 1
        ]
        assert 1 <= len(different) <= 2
        for choices in ((last.target, last.contrast), (last.contrast, last.target)):
            assert oracle([sentence.source for sentence in told], choices) == last.target


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_sentence_that_tells_the_oracle_knows_nothing(kind: str) -> None:
    for told in documents(60, kind=kind):
        last = told[-1]
        hidden = [sentence.source for number, sentence in enumerate(told) if number != last.setter]
        assert oracle(hidden, (last.target, last.contrast)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_guess_from_the_last_sentence_alone_is_right_in_one_case_of_two(kind: str) -> None:
    """The best guesser sees one half of the documents' last sentences.

    It is scored on the other half.
    """
    told = documents(2 * DRAWS, kind=kind)

    def seen(last: translation.Sentence) -> str:
        return last.source.split(" ", 3)[3] if kind == "gender" else last.source.split()[-1]

    def end(text: str) -> str:
        return text.rsplit(maxsplit=1)[-1]

    counts: dict[str, Counter] = {}
    for sentences in told[:DRAWS]:
        counts.setdefault(seen(sentences[-1]), Counter())[end(sentences[-1].target)] += 1
    hits = [
        counts[seen(last)][end(last.target)] > counts[seen(last)][end(last.contrast)]
        for last in (s[-1] for s in told[DRAWS:])
    ]
    assert abs(np.mean(hits) - 0.5) <= 3 * 0.5 / np.sqrt(DRAWS)


def test_a_leak_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        translation, "THINGS", {thing: noun for thing, noun in THINGS.items() if noun.endswith("a")}
    )
    with pytest.raises(ValueError, match="high <= 0"):
        documents(60, kind="gender")


def test_every_noun_has_one_of_two_endings_and_every_term_two_meanings() -> None:
    nouns = [*THINGS.values(), *(noun for meanings in TERMS.values() for _, noun in meanings)]
    assert {noun[-1] for noun in nouns} == {"a", "o"}
    assert Counter(noun[-1] for noun in THINGS.values()) == {"a": 6, "o": 6}
    for meanings in TERMS.values():
        assert len({noun for _, noun in meanings}) == len({topic for topic, _ in meanings}) == 2


def test_people_of_a_split_are_its_own_and_a_seed_repeats_a_document() -> None:
    for split in ("train", "test"):
        known = {" ".join(name) for name in world.full_names(split)}
        told = [
            sentence.source for sentences in documents(40, split=split) for sentence in sentences
        ]
        found = {match for text in told for match in re.findall(world.NAME, text)}
        assert found and found <= known
    assert documents(20) == documents(20)


def test_all_kinds_and_distances_come() -> None:
    told = [sentences[-1] for sentences in documents(200)]
    assert {last.kind for last in told} == set(KINDS)
    assert {last.setter for last in told} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    "bad", [{"length": 1}, {"length": 4, "distance": 4}, {"length": 4, "distance": -1}]
)
def test_a_distance_that_does_not_fit_is_named(bad: dict) -> None:
    with pytest.raises(ValueError, match="expected 1 ≤ distance < length"):
        document(np.random.default_rng(0), **bad)
