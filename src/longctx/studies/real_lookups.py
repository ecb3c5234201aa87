"""The real tier of notebook 08: a pretrained checkpoint looks things up in real manuals and plays. Retrieval, no more.

Rows fit the study's table: tier = real, recipe = the domain, arm = what was read, seed = number of the document.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from longctx import corpus, files
from longctx.params import QuestionAnswering as Params
from longctx.pretrained import load
from longctx.questions import encoder, first_tokens, observe
from longctx.retrieval import reading, retrieved
from longctx.runs import EvalConfig, sweep
from longctx.tasks import documents
from longctx.tasks.sample import Decode, Encode, Sample, closed_book
from longctx.training import Row

READS = {"manuals": documents.members, "plays": documents.verses}
ARMS = ("full", "window", "retrieved", "closed_book")
STARTS = {"manuals": "OPERATIONS", "plays": "SCENE"}  # a stretch begins at the first of these words in a document
CHARACTERS = 12  # of text for each token that is wanted: more than any stretch needs


def run(params: Params) -> list[Row]:
    """Return the real tier's rows; none without a checkpoint.

    metric: choice, exact (share of a document's questions) · chance (of a choice).
    """
    if params.checkpoint is None:
        return []
    folder = files.project() / params.checkpoint
    same = {"checkpoint": params.checkpoint, "weights": files.sha256_file(folder / "model.safetensors")}
    jobs = [
        EvalConfig(
            look_up, None, same | {"domain": domain, "number": n, "length": length, "window": params.real_window}
        )
        for length in sorted(params.real_lengths, reverse=True)
        for domain in READS
        for n in range(params.real_contexts)
    ]
    return [{"tier": "real"} | row for result in sweep(jobs) for row in result.rows]


def look_up(*, checkpoint: str, weights: str, domain: str, number: int, length: int, window: int) -> list[Row]:
    """Return the scores of one document's questions, by what was read; `weights` only names the evaluation in the cache."""
    pretrained = load(files.project() / checkpoint, dtype="float32")
    decode = pretrained.tokenizer.decode
    made = stretches(domain, length, number + 1, encoder(pretrained.tokenizer), first_tokens(pretrained.tokenizer))[
        number
    ]
    rows = [{"metric": "chance", "value": made.chance, "arm": "full"}]
    for arm in ARMS:
        found = [row for sample in _read(arm, made, window, decode) for row in observe(pretrained.model, sample)]
        rows += [
            {"metric": m, "value": float(np.mean([row[m] for row in found])), "arm": arm} for m in ("choice", "exact")
        ]
    return [{"recipe": domain, "seed": number, "length": length} | row for row in rows]


def stretches(domain: str, length: int, count: int, encode: Encode, bos: Sequence[int]) -> list[Sample]:
    """Return the first samples of a domain's test documents in a fixed order; those with too little to ask are skipped.

    Raises:
        ValueError: the corpus has fewer of them.
    """
    folder = files.project() / "build" / "corpus"
    texts = [document.text for document in corpus.load_documents(folder, "test", domain)]
    found: list[Sample] = []
    for number, text in enumerate(texts):
        start = max(0, text.find(STARTS[domain]))
        spare = texts[(number + 1) % len(texts)]
        made = documents.sample(
            text[start : start + CHARACTERS * length],
            spare[len(spare) // 2 :][: CHARACTERS * length],
            length=length,
            encode=encode,
            read=READS[domain],
            seed=number,
            bos=bos,
        )
        found += [made] if made is not None else []
        if len(found) == count:
            return found
    raise ValueError(
        f"{domain}: {len(found)} documents: expected {count} with two values to ask for in {length} tokens"
    )


def _read(arm: str, sample: Sample, window: int, decode: Decode) -> list[Sample]:
    """Return what an arm reads: one context for all questions, or each with its own."""
    match arm:
        case "full":
            return [sample]
        case "closed_book":
            return [closed_book(sample)]
        case "window":
            return [reading(sample, sample.context[-window:])]
        case "retrieved":
            return [
                reading(replace(sample, queries=(query,)), retrieved(sample, query, decode, window))
                for query in sample.queries
            ]
    raise ValueError(f"arm = {arm}: expected one of {', '.join(ARMS)}")
