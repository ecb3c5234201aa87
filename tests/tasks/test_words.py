"""Words of few tokens, and one spelling of a set."""

import re

import numpy as np
import pytest
from toys import BYTES, CASES, word_toy

from farcontext.tasks.words import NAMES, NOUNS, WordTokenizer, draw_words, listing


def drawn(encode, count: int, seed: int = 0, **options) -> list[str]:
    return draw_words(np.random.default_rng(seed), encode, count, **options)


def test_lists_hold_different_plain_words() -> None:
    assert len(set(NOUNS)) == len(NOUNS) and len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch("[a-z]+", noun) for noun in NOUNS)
    assert all(re.fullmatch("[A-Z][a-z]+", name) for name in NAMES)


def test_no_question_contains_a_word_that_may_be_its_answer() -> None:
    for case in (case for case in CASES.values() if case.text):
        toy = word_toy()
        texts = [
            toy.decode(query.question)
            for seed in range(5)
            for query in case.sample(toy, 512, seed).queries
        ]
        if case.module.__name__.rpartition(".")[2] in ("needles", "tracking", "common_words"):
            assert not {word for text in texts for word in re.findall(r"\w+", text)} & set(NOUNS)


def test_words_are_of_equal_length_and_few_tokens() -> None:
    # in bytes, with the space: 3, 5, 2, 4, 3, 5, 5
    words = (
        "aa",
        "bbbb",
        "c",
        "ddd",
        "ee",
        "ffff",
        "gggg",
    )
    assert drawn(BYTES.encode, 1, words=words) == ["c"]
    assert {tuple(drawn(BYTES.encode, 2, seed, words=words)) for seed in range(20)} == {
        ("aa", "ee"),
        ("ee", "aa"),
    }
    assert set(drawn(BYTES.encode, 3, words=words)) == {"bbbb", "ffff", "gggg"}
    assert set(drawn(BYTES.encode, 4, words=words)) == {"c", "aa", "ee", "ddd"}
    with pytest.raises(ValueError, match="count = 8: expected at most 7 words"):
        drawn(BYTES.encode, 8, words=words)


def test_words_of_equal_ids_count_once() -> None:
    def unknown(text: str) -> list[int]:
        return [1] if text == " c" else [0]

    assert set(drawn(unknown, 2, words=("aa", "bb", "c"))) == {"aa", "c"}
    with pytest.raises(ValueError, match="expected at most 2 words"):
        drawn(unknown, 3, words=("aa", "bb", "c"))


def test_a_set_has_one_spelling() -> None:
    assert BYTES.decode(listing(BYTES.encode, ["stone", "lamp"])) == " lamp, stone"
    assert listing(BYTES.encode, ["lamp", "stone"]) == listing(BYTES.encode, ["stone", "lamp"])


def test_toy_tokenizer_gives_the_text_back() -> None:
    toy = WordTokenizer()
    text = "\nX12 = lamp.  One, two!\n\nThree"
    assert toy.decode(toy.encode(text)) == text
    assert len(toy.encode(" lamp")) == 1
