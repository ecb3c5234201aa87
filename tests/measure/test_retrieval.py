"""Retrieval, then reading: BM25 is as published, a budget is kept.

The contexts are shorter, but of the same questions.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from farcontext.data.corpus import load_documents
from farcontext.measure.retrieval import PASSAGE, WORD, passages, ranking, retrieved, spaced
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


# ---------------------------------------------------------------------- scripts without spaces


@pytest.mark.parametrize(
    ("texts", "question"),
    [
        (
            (
                "赵云在长坂坡救出阿斗，七进七出，曹军无人能挡。",
                "诸葛亮借东风，火烧赤壁，曹操败走华容道。",
                "关羽过五关斩六将，千里寻兄，终与刘备相会。",
            ),
            "谁在长坂坡救了阿斗？",
        ),
        (
            (
                "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。",
                "メロスは激怒した。必ず、かの邪智暴虐の王を除かねばならぬ。",
                "国境の長いトンネルを抜けると雪国であった。夜の底が白くなった。",
            ),
            "猫の名前は何ですか？",
        ),
        (
            (
                "แมวสีดำนอนอยู่ใต้ต้นมะม่วงทุกวัน",
                "เด็กผู้ชายเดินไปโรงเรียนกับพี่สาว",
                "ฝนตกหนักในกรุงเทพเมื่อวานนี้",
            ),
            "ใครนอนอยู่ใต้ต้นมะม่วง",
        ),
    ],
    ids=["Chinese", "Japanese", "Thai"],
)
def test_a_script_without_spaces_ranks_by_what_stands_together(
    texts: tuple[str, ...], question: str
) -> None:
    """The text that shares words with the question is first, wherever it stands."""
    for turn in range(3):
        turned = [*texts[turn:], *texts[:turn]]
        assert ranking(turned, question)[0] == turned.index(texts[0])


def test_a_spaced_text_stays_as_it_is_and_a_mixed_one_is_ranked_by_both() -> None:
    for text in (
        *TEXTS,
        "naïve café, don't – 3rd",
        "Кто взял ключ?",
        "열쇠는 어디에 있습니까",
        "血",
    ):
        assert spaced(text) == text
    assert spaced("A型血液x").split() == ["A", "型血", "血液", "x"]
    assert ranking(["GPU很快", "CPU很慢", "the GPU"], "哪个很慢") == [1]
    assert ranking(["GPU很快", "CPU很慢", "the key"], "which CPU?") == [1]


def test_the_words_of_a_spaced_text_are_the_librarys_own(corpus_folder: Path) -> None:
    """So no score of an English study moves by a bit."""
    for document in list(load_documents(corpus_folder, "validation")):
        if document.domain in ("plays", "manuals"):
            assert spaced(document.text) == document.text
            default = re.findall(r"(?u)\b\w\w+\b", document.text.lower())
            assert re.findall(WORD, document.text.lower()) == default


QUESTIONS = 40


@pytest.mark.parametrize(
    "ask",
    [
        lambda said: f"{said[: len(said) // 3]}什么{said[2 * len(said) // 3 :]}",
        lambda said: f"谁{said[len(said) // 3 : 2 * len(said) // 3]}？",
        lambda said: "".join(said[start : start + 3] for start in range(0, len(said), 6)),
    ],
    ids=["its middle third masked", "its middle third alone", "every other three characters"],
)
def test_questions_about_a_chinese_novel_find_their_passage(ask, corpus_folder: Path) -> None:
    """Of 40 sentences, evenly spread, as questions, 36 have their own passage among the first 5."""
    novel = "".join(
        document.text
        for document in load_documents(corpus_folder, "train")
        if document.domain == "sanguo"
    )[:40_000]
    pieces = [passage.text for passage in passages(novel)]
    sentences = re.findall(r"[^。！？\n]{20,80}[。！？]", novel)
    asked = sentences[len(sentences) // (2 * QUESTIONS) :: len(sentences) // QUESTIONS][:QUESTIONS]
    hits = [
        any(
            said[:10] in pieces[n] or said[-10:] in pieces[n]
            for n in ranking(pieces, ask(said))[:5]
        )
        for said in asked
    ]
    assert len(hits) == QUESTIONS and sum(hits) >= 36 and len(pieces) > 100


@pytest.mark.parametrize("text", ["谁在长坂坡救了阿斗？" * 2000, "แมวสีดำ" * 2000, "x" * 50_000])
def test_a_long_line_without_spaces_is_cut_and_nothing_of_it_is_lost(text: str) -> None:
    found = passages(f"Start.\n\n{text}\n")
    assert "".join(passage.text for passage in found[1:]) == text
    assert len(found) > 4 and all(len(passage.text) <= 100 * PASSAGE for passage in found)
    if text[0] != "x":
        assert all(len(passage.text) <= 2 * PASSAGE for passage in found)
    assert {(passage.first, passage.last) for passage in found[1:]} == {(3, 3)}
