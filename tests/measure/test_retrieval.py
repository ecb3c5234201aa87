"""Retrieval, then reading: BM25 is as published, a budget is kept.

The contexts are shorter, but of the same questions.
"""

import numpy as np
import pytest

from farcontext.measure.retrieval import ranking, retrieved
from farcontext.tasks.sample import Query, Sample, reading

TEXTS = (
    " The cat sat.",
    " A dog ran in Paris.",
    " The grey cat lives in Paris.",
    " Nothing happened.",
)


def encode(text: str) -> list[int]:
    return list(text.encode())


def decode(ids: list[int]) -> str:
    return bytes(ids).decode()


def sample_of(texts: tuple[str, ...] = TEXTS, question: str = "\nWhere is the cat?") -> Sample:
    context, blocks = [0], []
    for text in texts:
        blocks.append(len(context))
        context += encode(text)
    asked = Query(tuple(encode(question)), (65,), ((65,), (66,)), ((blocks[0], blocks[1]),), 0.1)
    whole = len(context) + len(question) + 1
    return Sample(np.array(context), (asked,), 0.5, whole, tuple(blocks), np.zeros(whole, np.int64))


def test_texts_are_ranked_by_the_words_they_share_rare_ones_first() -> None:
    assert ranking(TEXTS, "Where does the cat live in Paris?")[0] == 2
    assert ranking(TEXTS, "a dog")[0] == 1
    assert ranking(TEXTS, "Where is Zorro?") == []


def test_scores_are_the_formula_s() -> None:
    """BM25 is worked out by hand (Robertson; Lucene's idf).

    The text that has the rarer word wins, and a longer one loses.
    """
    texts = ["cat", "cat cat dog", "dog bird bird bird bird", "dog"]

    def score(words: list[str], asked: str) -> float:
        found = [text.split() for text in texts]
        mean = np.mean([len(text) for text in found])
        having = sum(asked in text for text in found)
        idf = np.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        count = words.count(asked)
        return idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(words) / mean))

    for question in ("cat", "dog", "bird", "cat dog"):
        expected = [sum(score(text.split(), asked) for asked in question.split()) for text in texts]
        order = np.argsort(-np.array(expected), kind="stable").tolist()
        assert ranking(texts, question) == [number for number in order if expected[number] > 0]


@pytest.mark.parametrize("window", [20, 35, 60, 200])
def test_what_is_retrieved_keeps_the_budget_and_the_order(window: int) -> None:
    sample = sample_of()
    found = retrieved(sample, sample.queries[0], decode, window)
    assert len(found) <= window
    assert found[0] == 0
    text = decode(found[1:].tolist())
    parts = [part for part in TEXTS if part in text]
    assert "".join(parts) == text
    assert TEXTS[0] in text
    assert TEXTS[3] not in text  # it shares no word with the question


def test_reading_keeps_the_questions_and_takes_the_evidence_spans_away() -> None:
    sample = sample_of()
    short = reading(sample, sample.queries, sample.context[-20:])
    assert short.context.tolist() == sample.context[-20:].tolist()
    assert short.queries[0].question == sample.queries[0].question
    assert short.queries[0].evidence == ()
    assert short.length == 20 + len(sample.queries[0].question) + 1


@pytest.mark.parametrize(
    ("texts", "question"),
    [
        (["the lamp is here"], "???"),
        (["the lamp is here"], "谁？"),
        (["? !", "a"], "lamp"),
        ([], "lamp"),
        (["the"], "the"),
    ],
)
def test_what_shares_no_word_ranks_nothing(texts: list[str], question: str) -> None:
    assert ranking(texts, question) == []
    assert ranking([*texts, "a lamp 谁在这里"], "lamp 谁在这里") != []
