"""Labelled passages: the label can be known, nothing leaks, and draws are even."""

from collections import Counter

import numpy as np
import pytest

from farcontext.tasks import passages
from farcontext.tasks.passages import BLANK, Passage

RNG = np.random.default_rng(0)
WORKS = ["".join(RNG.choice(list("abcdefgh "), 4000)) for _ in range(3)]
NAMES = ["曹操", "孔明"]
CHAPTERS = ["".join(RNG.choice([*"山水风月人", *NAMES], 900)) for _ in range(4)]


def cut(seed: int = 0) -> passages.Labelled:
    rng = np.random.default_rng(seed)
    return passages.works(WORKS, rng, characters=50, share=0.35)


def test_who_knows_the_texts_by_heart_knows_every_label() -> None:
    found = cut()
    texts = {label: [text] for label, text in enumerate(WORKS)}
    for passage in (*found.train, *found.test):
        assert passages.oracle(texts, passage) == passage.label
    named = passages.names(CHAPTERS[:2], CHAPTERS[2:], NAMES, characters=20)
    texts = dict.fromkeys(range(len(NAMES)), CHAPTERS)
    for passage in (*named.train, *named.test):
        assert passages.oracle(texts, passage, NAMES) == passage.label


def test_a_guess_is_right_as_often_as_labels_are_many() -> None:
    tested = passages.drawn(cut().test, np.random.default_rng(1), 60)
    guessed = np.random.default_rng(2).integers(3, size=(400, 60))
    right = (guessed == [x.label for x in tested]).mean()
    assert right == pytest.approx(1 / 3, abs=0.02)


def test_no_text_is_both_learned_and_tested() -> None:
    found = cut()
    for text in (x.text for x in found.train):
        for other in (x.text for x in found.test):
            assert text[:10] not in other and text[-10:] not in other
    learned = np.array([WORKS[x.label].index(x.text) for x in found.train])
    tested = np.array([WORKS[x.label].index(x.text) for x in found.test])
    same = np.array([[a.label == b.label for b in found.test] for a in found.train])
    # A whole passage lies between them, unless both are at the ends of the text.
    assert np.abs(learned[:, None] - tested)[same].min() >= 100


def test_the_tested_stretch_depends_on_the_seed() -> None:
    assert {x.text for x in cut(1).test} != {x.text for x in cut(2).test}


def test_a_name_is_blanked_wherever_it_stands() -> None:
    found = passages.names(CHAPTERS[:2], CHAPTERS[2:], NAMES, characters=20)
    for passage in (*found.train, *found.test):
        assert BLANK in passage.text and NAMES[passage.label] not in passage.text
    counts = Counter(x.label for x in found.train)
    assert counts == {i: sum(t.count(name) for t in CHAPTERS[:2]) for i, name in enumerate(NAMES)}


def test_people_are_chosen_by_their_rarer_count() -> None:
    splits = (["曹操曹操曹操孔明", "孔明"], ["曹操孔明孔明赵云"])
    assert passages.most_named(["赵云", "曹操", "孔明"], splits, 2) == ["孔明", "曹操"]


def test_drawn_passages_are_even_different_and_nested() -> None:
    pool = [Passage(str(i), i % 4 if i % 8 else 0) for i in range(400)]
    few, many = (passages.drawn(pool, np.random.default_rng(3), n) for n in (8, 40))
    assert few == many[:8]
    assert set(Counter(x.label for x in many).values()) == {10}
    assert len({x.text for x in many}) == 40
    scarce = [Passage("only", 1), *(Passage(str(i), 0) for i in range(9))]
    assert Counter(x.label for x in passages.drawn(scarce, np.random.default_rng(4), 6)) == {
        0: 5,
        1: 1,
    }
