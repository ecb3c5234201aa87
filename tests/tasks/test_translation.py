"""In the second language only an earlier sentence tells.

Both choices are as likely, others compete or are overruled, and the oracle knows which counts.
"""

import re
from collections import Counter

import numpy as np
import pytest

from farcontext.tasks import translation, world
from farcontext.tasks.translation import (
    ASKED,
    KINDS,
    SUBJECTS,
    TERMS,
    THINGS,
    Sentence,
    document,
    oracle,
    tokens_in,
)

DRAWS = 400


def documents(count: int = DRAWS, **options) -> list[list[Sentence]]:
    sizes = {"length": 120, "tellings": 8}
    return [document(np.random.default_rng(seed), **sizes | options) for seed in range(count)]


def choice(told: list[Sentence], last: Sentence) -> str | None:
    """Return what the oracle says of a last sentence, whichever choice stands first."""
    sources = [sentence.source for sentence in told if not sentence.contrast] + [last.source]
    answers = {
        oracle(sources, pair)
        for pair in ((last.target, last.contrast), (last.contrast, last.target))
    }
    (answer,) = answers
    return answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("length", "tellings"), [(60, 4), (120, 12), (400, 8)])
def test_the_oracle_knows_which_translation_is_right(kind: str, length: int, tellings: int) -> None:
    for told in documents(60, kind=kind, length=length, tellings=tellings):
        last = told[-1]
        assert last.kind == kind and told[last.setter].tells
        pairs = zip(last.target.split(), last.contrast.split(), strict=True)
        assert 1 <= sum(len(set(pair)) > 1 for pair in pairs) <= 2
        assert choice(told, last) == last.target


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_overruled_says_the_opposite_of_what_counts(kind: str) -> None:
    """Without the sentence that decides, the one before it misleads whoever reads on."""
    for told in documents(60, kind=kind):
        last = told[-1]
        hidden = [one for number, one in enumerate(told) if number != last.setter]
        assert choice(hidden, last) == last.contrast


@pytest.mark.parametrize("kind", KINDS)
def test_told_once_and_not_read_the_oracle_knows_nothing(kind: str) -> None:
    for told in documents(60, kind=kind, tellings=4):
        last = told[-1]
        hidden = [one for number, one in enumerate(told) if number != last.setter]
        assert choice(hidden, last) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_subject_is_told_as_often_and_competes(kind: str) -> None:
    for told in documents(60, kind=kind, tellings=12):
        assert sum(sentence.tells for sentence in told) == 12
        assert not told[-1].tells
    with pytest.raises(ValueError, match=f"tellings = 6: expected a multiple of {SUBJECTS}"):
        documents(1, tellings=6)


@pytest.mark.parametrize("kind", KINDS)
def test_several_may_be_asked_for_and_each_has_its_own_sentence(kind: str) -> None:
    for told in documents(60, kind=kind, asked=4):
        lasts = [sentence for sentence in told if sentence.contrast]
        assert len(lasts) == len(ASKED[kind]) == len({last.setter for last in lasts})
        assert told[-len(lasts) :] == lasts
        assert all(choice(told, last) == last.target for last in lasts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tellings", [4, 8])
def test_a_guess_from_the_last_sentence_is_right_in_one_case_of_two(
    kind: str, tellings: int
) -> None:
    """The best guesser sees one half of the documents' last sentences.

    It is scored on the other half.
    """
    told = [one[-1] for one in documents(2 * DRAWS, kind=kind, tellings=tellings, length=120)]

    def seen(last: Sentence) -> str:
        return last.source.split()[-1]

    def end(text: str) -> str:
        return text.rsplit(maxsplit=1)[-1]

    counts: dict[str, Counter] = {}
    for last in told[:DRAWS]:
        counts.setdefault(seen(last), Counter())[end(last.target)] += 1
    hits = [
        counts[seen(last)][end(last.target)] > counts[seen(last)][end(last.contrast)]
        for last in told[DRAWS:]
    ]
    assert abs(np.mean(hits) - 0.5) <= 3 * 0.5 / np.sqrt(DRAWS)


@pytest.mark.parametrize("kind", ["gender", "formality"])
def test_what_competes_says_nothing_of_the_choice(kind: str) -> None:
    """The first telling of another subject agrees with the right choice in one case of two."""
    agree, size = [], {"gender": 2, "formality": 7}[kind]  # The noun's ending, or how they stand.
    for told in documents(2 * DRAWS, kind=kind, tellings=4, length=120):
        last = told[-1]
        others = [n for n, one in enumerate(told) if one.tells and n != last.setter]
        first, decides = (told[number].target[-size:] for number in (others[0], last.setter))
        agree.append(first == decides)
    assert abs(np.mean(agree) - 0.5) <= 3 * 0.5 / np.sqrt(2 * DRAWS)


def test_a_leak_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        translation, "THINGS", {thing: noun for thing, noun in THINGS.items() if noun.endswith("a")}
    )
    with pytest.raises(ValueError, match="high <= 0"):
        documents(60, kind="gender")


def test_every_noun_has_one_of_two_endings_and_every_term_two_meanings() -> None:
    nouns = [*THINGS.values(), *(noun for meanings in TERMS.values() for _, noun in meanings)]
    nouns += translation.PLACES.values()
    assert {noun[-1] for noun in nouns} == {"a", "o"}
    assert Counter(noun[-1] for noun in THINGS.values()) == {"a": 6, "o": 6}
    for meanings in TERMS.values():
        assert len({noun for _, noun in meanings}) == len({topic for topic, _ in meanings}) == 2


def test_sentences_are_varied_and_a_document_fills_its_length() -> None:
    told = documents(100, length=400)
    sizes = [sum(tokens_in(one.source) for one in sentences) for sentences in told]
    assert min(sizes) >= 385 and max(sizes) <= 400
    frames = Counter(re.sub(world.NAME, "N", one.source) for sentences in told for one in sentences)
    assert len(frames) > 150 and max(frames.values()) < 0.05 * sum(frames.values())
    with pytest.raises(ValueError, match="length = 20: expected at least"):
        documents(1, length=20)


def test_people_of_a_split_are_its_own_and_share_no_name() -> None:
    for split in ("train", "test"):
        known = {" ".join(name) for name in world.full_names(split)}
        for sentences in documents(40, split=split, length=400):
            text = "".join(one.source for one in sentences)
            found = set(re.findall(world.NAME, text))
            words = [word for name in found for word in name.split()]
            assert found <= known and len(found) == 4 and len(words) == len(set(words))
    assert documents(20) == documents(20)


def test_all_kinds_come_and_what_decides_stands_anywhere() -> None:
    told = [sentences[-1] for sentences in documents(200, tellings=4, length=200)]
    assert {last.kind for last in told} == set(KINDS)
    assert len({last.setter for last in told}) > 15
