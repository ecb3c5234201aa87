"""Metrics of texts have the values that somebody else published.

They agree with the libraries that compute them.
"""

import json
import math
from pathlib import Path

import pytest

from farcontext.measure import metrics
from farcontext.tasks.events import Fact

GOLDENS = json.loads(
    (Path(__file__).parent.parent / "goldens" / "text_metrics.json").read_text(encoding="utf-8")
)
ANNA, BORIS, LAMP = (
    Fact("place", "Anna Baker", "mill"),
    Fact("place", "Boris Carter", "mill"),
    Fact("holder", "lamp", "x"),
)


@pytest.mark.parametrize(
    "golden", GOLDENS["squad"], ids=lambda golden: golden["prediction"] or "empty"
)
def test_answers_are_scored_as_squad_scores_them(golden: dict) -> None:
    assert metrics.normalised(golden["prediction"]) == golden["normalised"]
    assert metrics.exact_match(golden["prediction"], golden["answers"]) == golden["exact_match"]
    assert metrics.token_f1(golden["prediction"], golden["answers"]) == pytest.approx(
        golden["f1"], abs=1e-12
    )


@pytest.mark.parametrize("golden", GOLDENS["rouge"], ids=lambda golden: golden["candidate"][:30])
def test_rouge_is_the_published_one(golden: dict) -> None:
    for stemmed, name in ((False, "unstemmed"), (True, "stemmed")):
        if name in golden:
            found = metrics.rouge(golden["candidate"], golden["reference"], stemmed=stemmed)
            assert found == pytest.approx(
                {kind: golden[name][kind]["fmeasure"] for kind in metrics.ROUGE}, abs=1e-12
            )


@pytest.mark.parametrize("golden", GOLDENS["bleu"], ids=lambda golden: golden["hypotheses"][0])
def test_bleu_and_chrf_are_the_published_ones_with_their_signatures(golden: dict) -> None:
    texts = golden["hypotheses"], golden["references"]
    score, signature = metrics.bleu(
        *texts, tokenize=golden["bleu_signature"].split("tok:")[1].split("|")[0]
    )
    assert score == pytest.approx(golden["bleu"], abs=1e-9)
    assert signature == golden["bleu_signature"]
    for words, name in ((0, "chrf"), (2, "chrfpp")):
        key = {"chrf": "chrf2", "chrfpp": "chrf2pp"}[name]
        if key in golden:
            score, signature = metrics.chrf(*texts, words=words)
            assert score == pytest.approx(golden[key], abs=1e-9)
            assert signature == golden[f"{name}_signature"]


@pytest.mark.parametrize(
    "golden", GOLDENS["text_statistics"], ids=lambda golden: golden["tokens_whitespace"]
)
def test_distinct_and_repetition_are_the_closed_forms(golden: dict) -> None:
    words = golden["tokens_whitespace"].split()
    for n, value in golden["distinct"].items():
        assert metrics.distinct([words], int(n)) == pytest.approx(value, abs=1e-12)
    for n, value in golden["seq_rep"].items():
        assert metrics.repetition(words, int(n)) == pytest.approx(value, abs=1e-12)


def test_distinct_pools_texts_and_no_ngram_runs_over_their_ends() -> None:
    assert metrics.distinct([["a", "b"], ["a", "b"], ["b", "c"]], 2) == pytest.approx(2 / 3)
    assert math.isnan(metrics.distinct([["a"]], 2))


def test_a_word_said_twice_counts_twice_in_f1() -> None:
    assert metrics.token_f1("sea sea", ["sea sea port"]) == pytest.approx(0.8)


def test_facts_stated_twice_count_once_for_recall_and_twice_for_precision() -> None:
    assert metrics.fact_recall([ANNA, ANNA, LAMP], [ANNA, BORIS]) == 0.5
    assert metrics.fact_recall([ANNA], [ANNA, BORIS]) == 0.5
    assert metrics.fact_precision([ANNA, ANNA, LAMP], [ANNA, BORIS]) == pytest.approx(2 / 3)
    assert math.isnan(metrics.fact_precision([], [ANNA]))
