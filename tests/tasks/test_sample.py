"""Every task keeps exact length, and spans that hold the evidence.

Its oracle needs the evidence, and its controls remove it.
"""

import re
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from toys import (
    BOS,
    BYTES,
    CASE,
    CASES,
    FILLER,
    TEXT_CASE,
    Case,
    Toy,
    narrowed,
    same,
    size,
    smallest,
    word_toy,
)

from farcontext.data.corpus import load_documents
from farcontext.data.tokenizer import load_tokenizer
from farcontext.tasks import common_words, world
from farcontext.tasks.sample import (
    Ask,
    Sample,
    accuracy,
    assemble,
    closed_book,
    evidence_removed,
    follower,
    prose,
    shuffled,
)

LENGTHS = (64, 256, 1024, 8192)


@pytest.fixture(scope="module")
def bpe(tokenizer_folder: Path) -> Toy:
    """The project's own tokenizer."""
    tokenizer = load_tokenizer(tokenizer_folder)
    return Toy("bpe", lambda text: tokenizer.encode(text).ids, tokenizer.decode)


@pytest.fixture(params=["words", "bytes", "bpe"])
def toy(request: pytest.FixtureRequest) -> Toy:
    """Any tokenizer."""
    match request.param:
        case "words":
            return word_toy()
        case "bytes":
            return BYTES
        case _:
            return request.getfixturevalue("bpe")


def evidence_texts(sample: Sample, toy: Toy) -> list[str]:
    return [
        toy.decode(sample.context[a:b].tolist())
        for query in sample.queries
        for a, b in query.evidence
    ]


# --------------------------------------------------------------------------------------- every task


@CASE
@pytest.mark.parametrize("length", LENGTHS)
def test_length_is_exact_and_the_oracle_answers_all(case: Case, length: int, toy: Toy) -> None:
    make = partial(case.sample, toy, **case.small if length == 64 else {})
    try:
        made = make(length)
    except ValueError:
        fits = smallest(make, length)
        assert fits > length
        assert smallest(make, fits - 1) == fits
        made, length = make(fits), fits
    assert size(made) == made.length == length
    assert accuracy(made, case.oracle(made, toy)) == 1
    assert made.chance == pytest.approx(np.mean([1 / len(query.choices) for query in made.queries]))


@CASE
def test_64_tokens_are_enough_for_words_and_a_small_bpe(case: Case, bpe: Toy) -> None:
    for toy in (word_toy(), bpe):
        if case is not CASES["single_needle"] or toy is not bpe:
            assert size(case.sample(toy, 64, **case.small)) == 64


@CASE
def test_a_seed_decides_all(case: Case, toy: Toy) -> None:
    one = case.sample(toy, 1024)
    assert same(one, case.sample(toy, 1024))
    other = case.sample(toy, 1024, seed=1)
    assert not same(one, other)
    assert (
        one.queries[0].answer != other.queries[0].answer
        or one.queries[0].question != other.queries[0].question
    )


@CASE
def test_bos_comes_first_and_stays_there(case: Case) -> None:
    toy = word_toy()
    made = case.sample(toy, 512, bos=BOS)
    assert size(made) == 512
    for control in (made, closed_book(made), evidence_removed(made), shuffled(made, 0)):
        assert tuple(control.context[: len(BOS)]) == BOS


@CASE
def test_spans_hold_the_evidence_and_it_is_enough(case: Case, toy: Toy) -> None:
    made = case.sample(toy, 1024)
    if case.text:
        assert all(re.fullmatch(case.evidence, text) for text in evidence_texts(made, toy))
    for query in made.queries:
        assert case.oracle(narrowed(made, query), toy) == [query.answer]


@CASE
def test_an_off_by_one_span_is_caught(case: Case, toy: Toy) -> None:
    """Spans that no block of the context has are caught.

    Twin: spans and blocks are wrong together, which only the text shows.
    """
    made = case.sample(toy, 1024)
    for step in (-1, 1):
        spans = [tuple((a + step, b + step) for a, b in query.evidence) for query in made.queries]
        moved = tuple(
            replace(query, evidence=s) for query, s in zip(made.queries, spans, strict=True)
        )
        with pytest.raises(ValueError, match="expected blocks"):
            replace(made, queries=moved)
        ends = {end for query in moved for _, end in query.evidence}
        if made.blocks[0] + step < 0 or max(ends) > len(made.context):
            continue
        narrow = narrowed(made, moved[0])
        if case.module in (
            common_words,
            world,
        ):  # counts survive, and so do events; the lines do not
            assert not any(
                re.fullmatch(case.evidence, text) for text in evidence_texts(replace(narrow), toy)
            )
        else:
            assert case.oracle(narrow, toy) != [made.queries[0].answer]


@CASE
def test_the_oracle_needs_the_evidence(case: Case, toy: Toy) -> None:
    made = case.sample(toy, 1024)
    for control in (evidence_removed(made), closed_book(made)):
        assert size(control) == 1024
        assert case.oracle(control, toy) == [()] * len(made.queries)
        assert not any(query.evidence for query in control.queries)
    kept = np.ones(len(made.context), bool)
    for start, end in (span for query in made.queries for span in query.evidence):
        kept[start:end] = False
    assert (evidence_removed(made).context[kept] == made.context[kept]).all()


@CASE
def test_shuffled_moves_the_evidence_whole(case: Case, toy: Toy) -> None:
    made = case.sample(toy, 1024)
    other = shuffled(made, seed=0)
    assert size(other) == 1024
    assert sorted(other.context) == sorted(made.context) and (other.context != made.context).any()
    assert case.oracle(other, toy) == [query.answer for query in made.queries]
    for query in other.queries:
        assert case.oracle(narrowed(other, query), toy) == [query.answer]
    assert not same(other, shuffled(made, seed=1))


@CASE
def test_guesses_are_right_at_chance(case: Case) -> None:
    """A random choice, and always the first one: the order of choices says nothing."""
    toy, rng = word_toy(), np.random.default_rng(0)
    made = [case.sample(toy, 200, seed=seed) for seed in range(300)]
    for guess in (
        lambda query: query.choices[rng.integers(len(query.choices))],
        lambda query: query.choices[0],
    ):
        right = [
            accuracy(one, [guess(query) for query in one.queries]) - one.chance for one in made
        ]
        assert abs(np.mean(right)) <= 3 * np.std(right, ddof=1) / np.sqrt(len(right)) + 1e-12


@CASE
def test_the_oracle_never_looks_at_the_answer(case: Case, toy: Toy) -> None:
    made = case.sample(toy, 1024)
    wrong = tuple(
        replace(q, answer=next(c for c in q.choices if c != q.answer)) for q in made.queries
    )
    lied = replace(made, queries=wrong)
    assert case.oracle(lied, toy) == [query.answer for query in made.queries]
    assert accuracy(lied, case.oracle(lied, toy)) == 0


@TEXT_CASE
def test_real_prose(case: Case, bpe: Toy, corpus_folder: Path) -> None:
    for domain in ("plays", "sanguo"):
        filler = max(
            (d.text for d in load_documents(corpus_folder, "test") if d.domain == domain), key=len
        )
        made = case.sample(bpe, 2048, filler=filler[:200_000])
        assert size(made) == 2048
        assert accuracy(made, case.oracle(made, bpe)) == 1
        assert accuracy(shuffled(made, 0), case.oracle(shuffled(made, 0), bpe)) == 1
        assert accuracy(evidence_removed(made), case.oracle(evidence_removed(made), bpe)) == 0


# ------------------------------------------------------------------------------------ the machinery


def test_a_sample_that_contradicts_itself_is_refused() -> None:
    made = CASES["needles"].sample(word_toy(), 256)
    query = made.queries[0]

    def changed(**parts: object) -> Sample:
        return replace(made, queries=(replace(query, **parts), *made.queries[1:]))

    assert same(changed(), made)
    with pytest.raises(
        ValueError, match="expected not to contain its answer"
    ):  # a question that leaks
        changed(question=(*query.question[1:], *query.answer))
    with pytest.raises(ValueError, match="the answer among them"):
        changed(answer=(10**6,))
    with pytest.raises(ValueError, match="expected different ones"):
        changed(choices=(query.answer, query.answer))
    with pytest.raises(
        ValueError, match="length = 257: expected context, question and choice of so many, not 256"
    ):
        replace(made, length=257)
    with pytest.raises(ValueError, match="read-only"):
        made.context[0] = 0


def test_pieces_stand_at_their_depth_between_sentences() -> None:
    """The filler is sentences of 10 tokens, 1,000 of them.

    Within SNAP a piece moves to a sentence's start, else it stays.
    """
    stream = iter([tuple(range(10))] * 1000)
    ask = Ask((90,), (91,), ((91,), (92,)), (1,))
    made = assemble([(50, 51)] * 3, [0.0, 0.333, 1.0], [ask], length=1008, filler=stream)
    assert [made.context.tolist().index(50), made.queries[0].evidence] == [0, ((332, 334),)]
    assert made.context[-2:].tolist() == [50, 51]
    assert made.queries[0].depth == pytest.approx(333 / 1006)
    long = iter([tuple(range(40)) * 20] * 10)  # one sentence of 800: its start is too far away
    made = assemble([(50, 51)] * 3, [0.0, 0.333, 1.0], [ask], length=1008, filler=long)
    assert made.queries[0].evidence == ((335, 337),)


@pytest.mark.parametrize("depths", [(0.5,), (0.5, 0.1), (-0.1, 0.5), (0.5, 1.1)])
def test_bad_depths_are_named(depths: tuple[float, ...]) -> None:
    ask = Ask((90,), (91,), ((91,), (92,)), (0,))
    with pytest.raises(ValueError, match="expected 2 ascending numbers from 0 to 1"):
        assemble([(1,), (2,)], depths, [ask], length=64, filler=iter([(3,)] * 200))


@pytest.mark.parametrize(
    "text", ["One. Two! “Three?” Four", "no end at all", "一。二！三", "a\n\nb\n\nc. ", "x" * 1000]
)
def test_sentences_are_the_text_again_from_a_sentence_on(text: str) -> None:
    for seed in range(5):
        pieces = list(islice(prose(text, list, np.random.default_rng(seed)), 40))
        joined = "".join("".join(piece) for piece in pieces)
        assert joined[: len(text)] in f"{text} {text}"
        assert f" {text} " in joined or len(pieces) * 400 < len(text)
    assert max(map(len, pieces)) <= 400


def test_sentences_end_where_they_do() -> None:
    found = {
        "".join(piece)
        for piece in islice(prose('He left. "Why?" 3.14 cm。好', list, np.random.default_rng(0)), 9)
    }
    assert found == {"He left.", ' "Why?"', " 3.14 cm。", "好", " "}


@pytest.mark.parametrize("filler", ["", " \n "])
def test_filler_must_say_something(filler: str) -> None:
    with pytest.raises(ValueError, match="expected prose"):
        next(prose(filler, list, np.random.default_rng(0)))


def test_follower_wants_one_occurrence() -> None:
    made = CASES["associative"].sample(word_toy(), 64)
    query = made.queries[0]
    twice = np.concatenate([made.context, [*query.question, *query.answer]])
    assert follower(made.context, query) == query.answer
    assert follower(twice, query) == ()
    assert follower(np.array([0]), query) == ()


def test_a_row_is_context_question_and_answer() -> None:
    made = CASES["needles"].sample(word_toy(), 256)
    for query in made.queries:
        row = made.sequence(query)
        assert len(row) <= 256 and row.dtype == np.int64
        assert tuple(row[len(made.context) :]) == query.question + query.answer


def test_filler_is_cut_not_encoded_again() -> None:
    """Bytes of the context between needles are the filler's own, in its order."""
    made = CASES["needles"].sample(BYTES, 2048)
    rest, at = [], 0
    for start, end in sorted(span for query in made.queries for span in query.evidence):
        rest += made.context[at:start].tolist()
        at = end
    assert BYTES.decode([*rest, *made.context[at:].tolist()]) in f"{FILLER} {FILLER}"
