"""What notebook 09 caches: training rows, and an arm's scored translations."""

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from farcontext.measure import metrics
from farcontext.nn.transformer import EncoderDecoder, padding_of
from farcontext.schema import BOS, EOS, PAD, Row
from farcontext.studies.translation.words import T, decode, source_length, source_of, target_of
from farcontext.tasks import translation
from farcontext.tasks.translation import KINDS, Sentence
from farcontext.train.curriculum import keep_rows

# An arm reads its document's sentences or another's; "own" with none reads the last one alone.
ARMS = ("own", "random")

SCORES = ("contrast", "exact", "well_formed")

# The training documents have the first seed, the test documents the second.
ROWS_SEED, TEST_SEED = 0, 1


def make_rows(*, sentences: int, rows: int) -> list[Row]:
    """Keep rows of training documents and return their digest.

    A uniformly drawn number of sentences of each document is read.
    """
    sources, targets = [], []
    for number in range(rows):
        rng = np.random.default_rng((ROWS_SEED, number))
        *before, last = translation.document(rng, length=sentences, split="train")
        read = before[rng.integers(sentences) :]
        sources.append(source_of(read, last, source_length(sentences)))
        targets.append(target_of(last.target))
    target = np.array(targets)
    scored = (target != PAD) & (target != BOS)
    unscored = np.zeros((rows, source_length(sentences)), dtype=bool)
    return [{"digest": keep_rows(np.hstack((sources, target)), np.hstack((unscored, scored)))}]


# ------------------------------------------------------------------------------------- what is read


def tested(*, sentences: int, kind: str, distance: int, documents: int) -> list[list[Sentence]]:
    """Return the test documents of a kind and distance.

    The telling sentence stands `distance` before the last; documents are the same in every arm.
    """
    seeds = [(TEST_SEED, KINDS.index(kind), distance, number) for number in range(documents)]
    same = {"length": sentences, "distance": distance, "kind": kind}
    return [
        translation.document(np.random.default_rng(seed), split="test", **same) for seed in seeds
    ]


def context_of(
    arm: str, document: Sequence[Sentence], context: int, *, other: Sequence[Sentence]
) -> list[Sentence]:
    """Return the `context` sentences that an arm reads before the last.

    The arm "random" takes those of `other`.

    Raises:
        ValueError: an unknown arm, or more sentences than there are.
    """
    if not 0 <= context < len(document):
        raise ValueError(f"context = {context}: expected 0 to {len(document) - 1} sentences")
    match arm:
        case "own":
            read = document
        case "random":
            read = other
        case _:
            raise ValueError(f"arm = {arm}: expected one of {', '.join(ARMS)}")
    return list(read[len(read) - 1 - context : -1])


def log_probability(
    model: EncoderDecoder, source_BS: Int[Tensor, "B S"], target_BT: Int[Tensor, "B T"]
) -> Float[Tensor, " B"]:
    """Return the log-probability, nats, of each translation, EOS included, given its source."""
    logits_BTV = model(source_BS, target_BT[:, :-1], padding_of(source_BS))
    said_BT = logits_BTV.float().log_softmax(-1).gather(-1, target_BT[:, 1:, None]).squeeze(-1)
    return said_BT.masked_fill(target_BT[:, 1:] == PAD, 0).sum(1)


def greedy(model: EncoderDecoder, source_BS: Int[Tensor, "B S"]) -> Int[Tensor, "B n"]:
    """Return the likeliest next tokens one after another.

    It goes on until every row has its EOS; what follows that means nothing.
    """
    said_BT, done_B = (
        torch.full_like(source_BS[:, :1], BOS),
        torch.zeros_like(source_BS[:, 0], dtype=torch.bool),
    )
    while said_BT.shape[1] < T and not done_B.all():
        likeliest_B = model(source_BS, said_BT, padding_of(source_BS))[:, -1].argmax(-1)
        said_BT, done_B = (
            torch.cat((said_BT, likeliest_B[:, None]), 1),
            done_B | (likeliest_B == EOS),
        )
    return said_BT[:, 1:]


def _scored(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], lasts: Sequence[Sentence]
) -> list[Row]:
    """Return each sentence's scores, with its translations.

    `said` is the model's, `reference` the true one.
    """
    both = [(last.target, last.contrast) for last in lasts]
    tensor = functools.partial(torch.tensor, device=model.embedding.weight.device)
    source_BS = tensor(sources)
    source_BS = source_BS[
        :, (source_BS != PAD).any(0)
    ]  # Columns that no row fills change nothing, and take time.
    true_BT, false_BT = (tensor([target_of(choices[i]) for choices in both]) for i in range(2))
    right_B = log_probability(model, source_BS, true_BT) > log_probability(
        model, source_BS, false_BT
    )
    rows = []
    for choices, right, ids in zip(
        both, right_B.tolist(), greedy(model, source_BS).tolist(), strict=True
    ):
        said = decode(ids)
        found = {"contrast": right, "exact": said == choices[0], "well_formed": said in choices}
        rows.append(
            {name: float(x) for name, x in found.items()} | {"said": said, "reference": choices[0]}
        )
    return rows


def translations(
    model: EncoderDecoder,
    *,
    arm: str,
    context: int,
    sentences: int,
    distances: Sequence[int],
    documents: int,
) -> list[Row]:
    """Return an arm's scores by kind and distance, and pooled.

    Shares are means over documents by kind and distance; BLEU and chrF are pooled, and by distance.
    """
    rows = []
    for kind, distance in itertools.product(KINDS, distances):
        told = tested(sentences=sentences, kind=kind, distance=distance, documents=documents + 1)
        pairs = list(itertools.pairwise(told))  # The arm "random" reads the second one.
        read = [context_of(arm, document, context, other=other) for document, other in pairs]
        lasts = [document[-1] for document, _ in pairs]
        sources = [
            source_of(*one, source_length(sentences)) for one in zip(read, lasts, strict=True)
        ]
        rows += [
            {"kind": kind, "distance": distance} | row for row in _scored(model, sources, lasts)
        ]
    scored = pd.DataFrame(rows)
    means = scored.groupby(["kind", "distance"])[list(SCORES)].mean().stack()
    found = [
        {"kind": k, "distance": d, "metric": name, "value": x} for (k, d, name), x in means.items()
    ]
    pooled = text_scores(scored["said"], scored["reference"])
    for distance, part in scored.groupby("distance"):
        at = text_scores(part["said"], part["reference"])
        found += [
            {"distance": distance, "metric": f"{name}_at", "value": x} for name, x in at.items()
        ]
    return found + [{"metric": name, "value": x} for name, x in pooled.items()]


def text_scores(said: Iterable[str], references: Iterable[str]) -> dict[str, float]:
    """Return corpus BLEU and chrF, 0 to 100."""
    texts = [text.strip() for text in said], [text.strip() for text in references]
    return {"bleu": metrics.bleu(*texts)[0], "chrf": metrics.chrf(*texts)[0]}
