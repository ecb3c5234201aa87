"""What notebook 09 caches: training rows, and every arm's scored translations."""

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from farcontext.measure import metrics
from farcontext.nn.generation import generate
from farcontext.nn.transformer import Decoder
from farcontext.schema import EOS, PAD, Row
from farcontext.studies.translation.reading import FOUND, ranked, read_by, size_of
from farcontext.studies.translation.words import (
    LAST,
    asked_of,
    decode,
    read_of,
    row_length,
    target_of,
)
from farcontext.tasks import translation
from farcontext.tasks.second_language import KINDS, tokens_in
from farcontext.tasks.translation import Sentence
from farcontext.train.curriculum import keep_rows

PARTS = 4  # The distance of the sentence that decides is told in so many parts of a document.
SCORES = ("contrast", "exact", "well_formed", "found", "tokens")
# Half of the training rows have all sentences; the others what an arm with a share of them reads.
READ_IN_TRAINING = ("last", "last", "last", *FOUND, "bm25")
# Training documents have the first seed; the second and a run's own are those of tested ones.
ROWS_SEED, TEST_SEED = 0, 1


def make_rows(
    *,
    length: int,
    tellings: Sequence[int],
    shares: Sequence[float],
    asked: int,
    single: float,
    rows: int,
) -> list[Row]:
    """Keep rows of training documents and return their digest.

    A share `single` of them asks for one sentence, as tests do, and every second of these has a
    part of its document only. The others ask for `asked` at once, and have all of it.
    """
    size = row_length(length, asked)
    tokens, scored = np.full((rows, size), PAD), np.zeros((rows, size), dtype=bool)
    for number in range(rows):
        rng = np.random.default_rng((ROWS_SEED, length, number))
        many = asked if rng.random() >= single else 1
        told = translation.document(
            rng,
            length=length,
            tellings=tellings[rng.integers(len(tellings))],
            asked=many,
            split="train",
        )
        lasts = [sentence for sentence in told if sentence.contrast]
        part = many == 1 and rng.integers(2)
        row = read_of(_part(rng, told, shares) if part else told[: -len(lasts)])
        for last in lasts:
            row += asked_of(last)
            target = target_of(last.target)
            scored[number, len(row) : len(row) + len(target)] = True
            row += target
        tokens[number, : len(row)] = row
    return [{"digest": keep_rows(tokens, scored)}]


def _part(
    rng: np.random.Generator, told: Sequence[Sentence], shares: Sequence[float]
) -> list[Sentence]:
    """Return what an arm reads of a training document."""
    arm = READ_IN_TRAINING[rng.integers(len(READ_IN_TRAINING))]
    share = shares[rng.integers(len(shares))]
    return read_by(arm, told, share, other=(), order=ranked(told) if arm in FOUND else ())


# -------------------------------------------------------------------------------------- translating


def followed(
    model: Decoder, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[tuple[float, bool]]:
    """Return how likely targets are, and whether they are written.

    That is its log-probability in nats, and whether each of its tokens is the likeliest. Rows are
    filled up on the right, where a causal model does not look.
    """
    rows = [[*prompt, *target] for prompt, target in zip(prompts, targets, strict=True)]
    device, shape = model.embedding.weight.device, (len(rows), max(map(len, rows)))
    tokens, select = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    for number, (row, target) in enumerate(zip(rows, targets, strict=True)):
        tokens[number, : len(row)] = torch.tensor(row)
        select[number, len(row) - len(target) - 1 : len(row) - 1] = True
    logits_nV = model(tokens.to(device), select=select.to(device)).float()
    said_n = torch.tensor([token for target in targets for token in target], device=device)
    log_p_n = logits_nV.log_softmax(-1).gather(-1, said_n[:, None])[:, 0]
    best_n, sizes = logits_nV.argmax(-1) == said_n, [len(target) for target in targets]
    return [
        (float(log_p.sum()), bool(best.all()))
        for log_p, best in zip(log_p_n.split(sizes), best_n.split(sizes), strict=True)
    ]


def scored(
    model: Decoder, prompts: Sequence[Sequence[int]], lasts: Sequence[Sentence]
) -> list[Row]:
    """Return each sentence's scores, with its translations.

    `said` is what the model writes, the likeliest token each time; `reference` the true one.
    """
    right, wrong = (
        followed(model, prompts, [target_of(text) for text in texts])
        for texts in ([last.target for last in lasts], [last.contrast for last in lasts])
    )
    rows = []
    for prompt, last, (p, is_right), (q, is_wrong) in zip(
        prompts, lasts, right, wrong, strict=True
    ):
        said = last.target if is_right else last.contrast if is_wrong else written(model, prompt)
        shares = {"contrast": p > q, "exact": is_right, "well_formed": is_right or is_wrong}
        rows.append(
            {name: float(share) for name, share in shares.items()}
            | {"said": said, "reference": last.target}
        )
    return rows


def written(model: Decoder, prompt: Sequence[int]) -> str:
    """Return the likeliest tokens behind a prompt, one after another, as text."""
    row = torch.tensor([prompt], device=model.embedding.weight.device)
    return decode(generate(model, row, 2 * LAST, stop=EOS)[0].tolist())


# ------------------------------------------------------------------------------------- what is read


@functools.lru_cache(256)
def tested(
    *, kind: str, tellings: int, length: int, documents: int, items: int
) -> list[list[Sentence]]:
    """Return a run's test documents of one cell.

    `items` draws them; they are the same in every arm.
    """
    place = (TEST_SEED, items, KINDS.index(kind), tellings, length)
    return [
        translation.document(
            np.random.default_rng((*place, number)), length=length, tellings=tellings, kind=kind
        )
        for number in range(documents)
    ]


def translations(
    model: Decoder,
    *,
    arms: Sequence[tuple[str, float]],
    lengths: Sequence[int],
    tellings: Sequence[int],
    documents: int,
    items: int,
) -> list[Row]:
    """Return every arm's scores by cell, and pooled.

    A cell is a kind, a number of tellings and a length.

    Shares are means over documents; BLEU and chrF are pooled.

    Args:
        model: the translator.
        arms: what is read, each with the share of the tellings that sets its tokens.
        lengths: of the documents, in tokens.
        tellings: so many sentences of a document tell.
        documents: of each kind, length and number of tellings.
        items: draws them.
    """
    rows = []
    for kind, number, length in itertools.product(KINDS, tellings, lengths):
        cell = {"kind": kind, "tellings": number, "length": length}
        told = tested(**cell, documents=documents + 1, items=items)
        orders = [ranked(document) for document in told[:-1]]
        for arm, share in arms:
            at = {"arm": arm, "share": share} | cell
            rows += [at | row for row in _cell(model, arm, share, told, orders)]
    return pooled(pd.DataFrame(rows))


def _cell(
    model: Decoder,
    arm: str,
    share: float,
    told: Sequence[Sequence[Sentence]],
    orders: Sequence[Sequence[int]],
) -> list[Row]:
    """Return an arm's scores for each document but the last.

    Each one's other document is the next.

    `found` says whether the sentence that decides is read; `tokens` are those read before the last
    sentence; `back` is how many tokens stand between the two.
    """
    lasts = [document[-1] for document in told[:-1]]
    read = [
        read_by(arm, document, share, other=other, order=order)
        for (document, other), order in zip(itertools.pairwise(told), orders, strict=True)
    ]
    prompts = [[*read_of(seen), *asked_of(last)] for seen, last in zip(read, lasts, strict=True)]
    rows = scored(model, prompts, lasts)
    for document, seen, row in zip(told, read, rows, strict=False):
        setter = document[-1].setter
        row["found"] = float(any(sentence is document[setter] for sentence in seen))
        row["tokens"] = sum(tokens_in(sentence.source) for sentence in seen)
        row["back"] = size_of(document, range(setter + 1, len(document) - 1))
    return rows


def pooled(table: pd.DataFrame) -> list[Row]:
    """Return means by cell and by distance, and scores of texts.

    Args:
        table: rows of one document each, with arm, share, kind, tellings, length and its scores.
    """
    keys = ["arm", "share", "kind", "tellings", "length"]
    means = table.groupby(keys)[list(SCORES)].mean().stack().rename_axis([*keys, "metric"])
    rows = means.rename("value").reset_index().to_dict("records")
    whole = table[(table["arm"] == "last") & (table["share"] == 1)]
    edges = [n * max(table["length"]) // PARTS for n in range(1, PARTS + 1)]
    place = np.array(edges)[np.searchsorted(edges, whole["back"])]
    for (kind, edge), value in whole.groupby(["kind", place])["contrast"].mean().items():
        at = {"arm": "last", "share": 1.0, "kind": kind, "length": int(edge)}
        rows.append(at | {"metric": "contrast_at", "value": value})
    for (arm, share), part in table.groupby(["arm", "share"]):
        texts = text_scores(part["said"], part["reference"])
        rows += [
            {"arm": arm, "share": share, "metric": name, "value": x} for name, x in texts.items()
        ]
    return rows


def text_scores(said: Iterable[str], references: Iterable[str]) -> dict[str, float]:
    """Return corpus BLEU and chrF, 0 to 100."""
    texts = [text.strip() for text in said], [text.strip() for text in references]
    return {"bleu": metrics.bleu(*texts)[0], "chrf": metrics.chrf(*texts)[0]}
