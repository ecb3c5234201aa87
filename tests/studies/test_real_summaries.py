"""The real tier of notebook 10 scores every arm alike.

The abstract stands in no body, and exchanged arms are noticed.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farcontext import files
from farcontext.app.profiles import params_of
from farcontext.checkpoints.load import Pretrained, load
from farcontext.checkpoints.questions import encoder
from farcontext.data import corpus
from farcontext.measure import metrics
from farcontext.measure.retrieval import EXTRACTS
from farcontext.schema import Row
from farcontext.studies.summarization import real as study
from farcontext.studies.summarization.params import Params as Summarization

ABSTRACT = (
    "Tide is a service that keeps the hours of the sea for every harbour that a client registers.\n"
    "With Tide you can list the harbours, read their hours, and be told when one of them changes."
)
BODY = "\n".join(
    f"Operation {number} returns thing {number} of the harbour to its caller."
    for number in range(60)
)


@pytest.fixture(scope="module")
def params(root: Path) -> Iterator[Summarization]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield params_of(root, "smoke").summarization


@pytest.fixture(scope="module")
def pretrained(params: Summarization) -> Pretrained:
    return load(files.project() / params.checkpoint)


@pytest.fixture(scope="module")
def smoke(params: Summarization) -> list[Row]:
    return study.run(params)


def scores(rows: list[Row], metric: str) -> dict[tuple[str, int], float]:
    return {(row["arm"], row["seed"]): row["value"] for row in rows if row["metric"] == metric}


def losses(
    pretrained: Pretrained, own: study.Summarized, other: study.Summarized
) -> dict[str, float]:
    encode = encoder(pretrained.tokenizer)
    asked = {"cue": tuple(encode(study.CUE)), "scored": tuple(encode(f" {own.abstract}"))}
    return study.losses_of(pretrained.model, own.body, other.body, before=(), **asked)


def test_every_arm_has_its_rows(smoke: list[Row], params: Summarization) -> None:
    numbers = range(params.real_documents)
    for metric in (f"{name}{suffix}" for name in metrics.ROUGE for suffix in ("", "_wrong")):
        found = scores(smoke, metric)
        assert set(found) == {(arm, number) for arm in EXTRACTS for number in numbers}
        assert all(0 <= value < 1 for value in found.values())
    found = scores(smoke, "loss")
    assert set(found) == {(arm, number) for arm in study.CONTEXTS for number in numbers}
    assert all(math.isfinite(value) and value > 0 for value in found.values())
    assert study.run(params.model_copy(update={"checkpoint": None})) == []


def test_no_sentence_of_an_abstract_stands_in_its_body(root: Path) -> None:
    for document in corpus.load_documents(root / "build" / "corpus", "test", "manuals"):
        abstract, body = study.parted(document.text, len(document.text))
        assert body
        for line in abstract.split("\n"):
            assert all(
                sentence not in body
                for sentence in study.ENDS.split(line)
                if len(sentence.split()) > 4
            )


def test_a_planted_copy_is_left_out_and_nothing_else_is() -> None:
    first, second = ABSTRACT.split("\n")
    for leak in (
        first,
        second.replace("list", "show"),
        f"harbour (string, required): {first}",
        first[20:],
    ):
        text = (
            f"Tide\n\nTide\n{ABSTRACT}\n\nOPERATIONS\n\nListHarbours\n"
            f"Lists them. {leak} Not paged.\n{BODY}\n"
        )
        abstract, body = study.parted(text, len(text))
        assert abstract == ABSTRACT  # without the heading
        assert body == f"\nListHarbours\nLists them. Not paged.\n{BODY}\n"


def test_other_is_of_another_family_and_what_is_missing_is_named(pretrained: Pretrained) -> None:
    encode = encoder(pretrained.tokenizer)
    for number in range(6):
        own, other = study.pair(number, 192, encode)
        assert own.family != other.family and len(own.body) == len(other.body) == 192
        assert study.FEWEST <= len(own.abstract.split()) <= study.MOST
    with pytest.raises(ValueError, match="documents: expected 100 or more, of two families"):
        study.pair(99, 192, encode)


def test_baselines_are_deterministic_and_drawn_by_seed() -> None:
    found = study.copied(BODY, 3, 0)
    assert found == study.copied(BODY, 3, 0)
    assert found["lead"] == " ".join(BODY.split("\n")[:3])
    again = study.copied(BODY, 3, 1)
    assert again["random"] != found["random"]
    assert all(again[arm] == found[arm] for arm in ("lead", "bm25"))
    assert all(text.count(".") == 3 for text in found.values())


def test_bm25_takes_the_sentence_whose_words_recur() -> None:
    text = (
        "Grey gulls sleep over there.\nThe harbour lists every harbour it knows.\n"
        "A harbour lists boats it knows."
    )
    assert "gulls" not in study.copied(text, 2, 0)["bm25"]


def test_an_abstract_against_itself_scores_1() -> None:
    assert metrics.rouge(ABSTRACT, ABSTRACT) == pytest.approx(dict.fromkeys(metrics.ROUGE, 1))


def test_every_arm_scores_the_same_tokens_and_exchanged_bodies_are_noticed(
    pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, rows, honest = encoder(pretrained.tokenizer), [], study.token_losses
    own, other = study.pair(1, 192, encode)

    def noted(model, row, last):
        rows.append((row, last))
        return honest(model, row, last)

    monkeypatch.setattr(study, "token_losses", noted)
    # own body given away: an abstract that leaks must be cheap in the arm that reads it, and there
    # alone
    leaking = replace(own, body=tuple(encode(own.abstract)) + own.body[:40])
    found = losses(pretrained, leaking, other)
    assert found["true"] < 0.5 * min(found["other"], found["none"])
    exchanged = losses(pretrained, own, leaking)
    assert exchanged["other"] == pytest.approx(found["true"], abs=1e-4)
    tails = {(row[-last - len(encode(study.CUE)) :], last) for row, last in rows}
    assert len(tails) == 1 and len({row for row, _ in rows}) == 4  # own, other, leaking, none
    ((tail, last),) = tails
    assert pretrained.tokenizer.decode(tail) == f"{study.CUE} {own.abstract}" and last == len(
        encode(f" {own.abstract}")
    )


def test_the_tables_losses_are_of_the_pair(
    pretrained: Pretrained, smoke: list[Row], params: Summarization
) -> None:
    expected = losses(pretrained, *study.pair(1, params.real_length, encoder(pretrained.tokenizer)))
    found = scores(smoke, "loss")
    assert {arm: found[arm, 1] for arm in study.CONTEXTS} == pytest.approx(expected, abs=1e-4)
