"""Metrics of answers, translations, summaries and continuations.

What a library can compute, the library computes.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import sacrebleu.metrics

from farcontext.tasks.events import Fact

ROUGE = ("rouge1", "rouge2", "rougeL")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


# ------------------------------------------------------------------------------------------ answers


def normalised(text: str) -> str:
    """Return an answer as SQuAD compares it (Rajpurkar et al. 2016).

    It is in lower case, without punctuation, articles or doubled spaces.
    """
    text = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION))
    return " ".join(text.split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if a prediction equals an answer, both normalised.

    One of the answers is enough.
    """
    return float(any(normalised(prediction) == normalised(answer) for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the best F1 of a prediction's words against an answer's.

    An empty prediction is right only where nothing was asked for.
    """
    return max(
        _f1(normalised(prediction).split(), normalised(answer).split()) for answer in answers
    )


def _f1(found: list[str], true: list[str]) -> float:
    if not found or not true:
        return float(found == true)
    same = (Counter(found) & Counter(true)).total()
    return 2 * same / (len(found) + len(true))


# ----------------------------------------------------------------------- translations and summaries


def bleu(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a"
) -> tuple[float, str]:
    """Return corpus BLEU, 0 to 100, and sacreBLEU's signature.

    BLEU is by Papineni et al. (2002), the signature by Post (2018).
    """
    metric = sacrebleu.metrics.BLEU(tokenize=tokenize)
    return metric.corpus_score(list(hypotheses), [list(references)]).score, str(
        metric.get_signature()
    )


def chrf(hypotheses: Sequence[str], references: Sequence[str], words: int = 0) -> tuple[float, str]:
    """Return corpus chrF2 or chrF++, 0 to 100, and sacreBLEU's signature.

    It is chrF++ with words = 2 (Popović 2015, 2017).
    """
    metric = sacrebleu.metrics.CHRF(word_order=words)
    return metric.corpus_score(list(hypotheses), [list(references)]).score, str(
        metric.get_signature()
    )


def rouge(candidate: str, reference: str, *, stemmed: bool = False) -> dict[str, float]:
    """Return the F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004).

    Google's rouge-score computes them; words have a–z and 0–9 alone.
    """
    from rouge_score import rouge_scorer

    scores = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=stemmed).score(reference, candidate)
    return {name: scores[name].fmeasure for name in ROUGE}


def fact_recall(stated: Sequence[Fact], true: Sequence[Fact]) -> float:
    """Return the share of the true facts that are stated.

    A fact stated twice counts once. There must be a true one.
    """
    return len(set(stated) & set(true)) / len(set(true))


def fact_precision(stated: Sequence[Fact], true: Sequence[Fact]) -> float:
    """Return the share of the stated facts that are true.

    Each fact counts as often as it is stated; the share of none is NaN.
    """
    return sum(fact in set(true) for fact in stated) / len(stated) if stated else float("nan")


def fact_f1(stated: Sequence[Fact], true: Sequence[Fact]) -> float:
    """Return the F1 of stated facts.

    It is the harmonic mean of precision and recall. A fact stated twice counts once. There must be
    a true one.
    """
    return 2 * len(set(stated) & set(true)) / (len(set(stated)) + len(set(true)))


# ------------------------------------------------------------------------------------ continuations


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return distinct-n (Li et al. 2016) of some texts.

    It is the number of different n-grams over that of n-grams, pooled over texts of words; NaN for
    none.
    """
    found = [gram for words in texts for gram in _ngrams(words, n)]
    return len(set(found)) / len(found) if found else float("nan")


def repetition(words: Sequence[str], n: int) -> float:
    """Return seq-rep-n (Welleck et al. 2020) of one continuation.

    It is the share of its n-grams that came before; NaN for none.
    """
    return 1 - distinct([words], n)
