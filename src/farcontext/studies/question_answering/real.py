"""The real tier of notebook 08: look-ups in manuals and plays.

A pretrained checkpoint looks things up in real documents; this measures retrieval, no more.

Rows fit the study's table: tier = real, recipe = the domain, arm = what was read, seed = number of
the document.
"""

from collections.abc import Sequence

import numpy as np

from farcontext import files
from farcontext.checkpoints.questions import encoder, first_tokens, observe
from farcontext.data import corpus
from farcontext.measure.retrieval import retrieved
from farcontext.schema import Row
from farcontext.studies.question_answering.params import Params
from farcontext.studies.real_tier import known, loaded
from farcontext.tasks import documents
from farcontext.tasks.sample import Decode, Encode, Sample, closed_book, reading
from farcontext.train.runs import EvalConfig, sweep

READS = {"manuals": documents.members, "plays": documents.verses}
ARMS = ("full", "window", "retrieved", "closed_book")
STARTS = {
    "manuals": "OPERATIONS",
    "plays": "SCENE",
}  # A stretch begins at the first of these words in a document.
CHARACTERS = 12  # Each wanted token gets so many characters of text, more than any stretch needs.


def run(params: Params) -> list[Row]:
    """Return the real tier's rows; none without a checkpoint.

    metric: choice, exact (share of a document's questions) · chance (of a choice).
    """
    if params.checkpoint is None:
        return []
    same = known(params.checkpoint) | {
        "window": params.real_window,
        "questions": params.real_questions,
    }
    jobs = [
        EvalConfig(look_up, None, same | {"domain": domain, "number": n, "length": length})
        for length in sorted(params.real_lengths, reverse=True)
        for domain in params.real_domains
        for n in range(params.real_documents)
    ]
    return [
        {"tier": "real"} | row
        for result in sweep(dict(enumerate(jobs))).values()
        for row in result.rows
    ]


def look_up(
    *,
    checkpoint: str,
    weights: str,
    domain: str,
    number: int,
    length: int,
    window: int,
    questions: int,
) -> list[Row]:
    """Return the scores of one document's questions, by what was read.

    `weights` only names the evaluation in the cache.
    """
    pretrained = loaded(checkpoint)
    tokenizer, same = pretrained.tokenizer, {"recipe": domain, "seed": number, "length": length}
    made = stretch(domain, number, length, questions, encoder(tokenizer), first_tokens(tokenizer))
    rows = [same | {"arm": "full", "metric": "chance", "value": made.chance}]
    for arm in ARMS:
        read = _read(arm, made, window, tokenizer.decode)
        found = [row for sample in read for row in observe(pretrained.model, sample)]
        for metric in ("choice", "exact"):
            rows.append(
                same
                | {
                    "arm": arm,
                    "metric": metric,
                    "value": float(np.mean([row[metric] for row in found])),
                }
            )
    return rows


def stretch(
    domain: str, number: int, length: int, questions: int, encode: Encode, bos: Sequence[int]
) -> Sample:
    """Return a stretch of a domain's test document and its questions.

    Documents with too little to ask do not count.

    Raises:
        ValueError: the corpus has fewer documents.
    """
    folder, size = files.project() / "build" / "corpus", CHARACTERS * length
    texts = [document.text for document in corpus.load_documents(folder, "test", domain)]
    usable = 0
    for text, other in zip(texts, [*texts[1:], texts[0]], strict=True):
        part = text[max(0, text.find(STARTS[domain])) :][:size]
        spare = other[len(other) // 2 :][:size]
        same = {
            "length": length,
            "encode": encode,
            "read": READS[domain],
            "queries": questions,
            "bos": bos,
        }
        made = documents.sample(part, spare, seed=number, **same)
        if made is not None and usable == number:
            return made
        usable += made is not None
    raise ValueError(
        f"{domain}: {usable} documents: expected {number + 1} with two values to ask for in "
        f"{length} tokens"
    )


def _read(arm: str, sample: Sample, window: int, decode: Decode) -> list[Sample]:
    """Return what an arm reads.

    It is one context for all questions, or each with its own.
    """
    match arm:
        case "full":
            return [sample]
        case "closed_book":
            return [closed_book(sample)]
        case "window":
            return [reading(sample, sample.queries, sample.context[-window:])]
        case "retrieved":
            found = ((query, retrieved(sample, query, decode, window)) for query in sample.queries)
            return [reading(sample, [query], context) for query, context in found]
    raise ValueError(f"arm = {arm}: expected one of {', '.join(ARMS)}")
