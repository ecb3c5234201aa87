"""The real tier of notebook 07: a pretrained checkpoint on real plays.

Rows fit the study's table: kind = real, seed = number of the document or context, arm = whose text
stood before the targets (own, other), or the RoPE scheme, or "needles".
"""

from itertools import islice
from typing import Any

import numpy as np

from farcontext import files
from farcontext.checkpoints import far_context
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.questions import encoder, first_tokens, observe
from farcontext.checkpoints.rope_parameters import rope_parameters
from farcontext.data import corpus
from farcontext.nn.config import Extension
from farcontext.schema import Row
from farcontext.studies.context_extension import real_apart
from farcontext.studies.context_extension.params import Params
from farcontext.studies.real_tier import known, loaded
from farcontext.tasks import needles
from farcontext.train.runs import EvalConfig, sweep

DOMAIN = "plays"
SKIP = 2000  # So many tokens at the head of a play are its title and cast.
FACTOR = 2.0  # The screen extends every scheme by this factor.
NEEDLES = 10


def run(params: Params) -> list[Row]:
    """Return the real tier's rows; none without a checkpoint.

    metric: far_loss (nats a token of the same last tokens, by length and whose text stands before)
    · gap_loss (nats a token behind a jump in the positions; length = the jump) · needle (share of
    needles whose word is the likeliest) · and those of `real_apart.run`.
    """
    if params.checkpoint is None:
        return []
    same = known(params.checkpoint)
    pairs = [(first, first + 1) for first in range(0, params.real_documents - 1, 2)]
    lengths, targets = list(params.real_lengths), params.real_targets
    jobs = {
        ("far", pair): EvalConfig(
            far_loss, None, same | {"plays": list(pair), "lengths": lengths, "targets": targets}
        )
        for pair in pairs
    }
    for scheme in params.gap_schemes:
        screen = {
            "scheme": scheme,
            "gaps": list(params.gaps),
            "half": params.gap_half,
            "plays": [0, 1],
        }
        jobs["gap", scheme] = EvalConfig(gap_loss, None, same | screen)
    for length in sorted(params.needle_lengths, reverse=True):
        jobs["needle", length] = EvalConfig(
            needle_score, None, same | {"length": length, "contexts": params.contexts}
        )
    rows = [{"kind": "real"} | row for result in sweep(jobs).values() for row in result.rows]
    return rows + real_apart.run(params)


def stretches(pretrained: Pretrained, numbers: list[int], tokens: int) -> list[list[int]]:
    """Return a stretch of so many tokens from each play.

    Plays are named by number in a fixed order; plays that are too short are skipped. The checkpoint
    may have read them in training: true and foreign text differ all the same, absolute losses say
    little.
    """
    folder = files.project() / "build" / "corpus"
    texts = [
        document.text
        for split in corpus.SPLITS
        for document in corpus.load_documents(folder, split, DOMAIN)
    ]
    encode = encoder(pretrained.tokenizer)
    # Eight characters a token are more than any play needs.
    ids = (encode(text[: 8 * (SKIP + tokens)])[SKIP : SKIP + tokens] for text in texts)
    long = list(islice((row for row in ids if len(row) == tokens), max(numbers) + 1))
    return [long[number] for number in numbers]


def far_loss(
    *, checkpoint: str, weights: str, plays: list[int], lengths: list[int], targets: int
) -> list[Row]:
    """Return `far_context.far_context_loss` of two plays, each the other's foreign text."""
    pretrained = loaded(checkpoint)
    documents = stretches(pretrained, plays, max(lengths))
    found = far_context.far_context_loss(pretrained, documents, lengths=lengths, targets=targets)
    return [
        {
            "arm": {"true": "own"}.get(row["far"], row["far"]),
            "length": row["length"],
            "seed": plays[row["document"]],
            "metric": "far_loss",
        }
        | {"value": row["loss"]}
        for row in found
    ]


def gap_loss(
    *, checkpoint: str, weights: str, scheme: str, gaps: list[int], half: int, plays: list[int]
) -> list[Row]:
    """Return `far_context.position_gap` under one scheme at FACTOR."""
    pretrained = loaded(checkpoint)
    documents = stretches(pretrained, plays, 2 * half)
    schemes = {scheme: changes(pretrained, scheme)}
    found = far_context.position_gap(pretrained, documents, gaps=gaps, schemes=schemes, half=half)
    return [
        {
            "arm": scheme,
            "length": row["gap"],
            "seed": plays[row["document"]],
            "metric": "gap_loss",
            "value": row["loss"],
        }
        for row in found
    ]


def changes(pretrained: Pretrained, scheme: str) -> dict[str, Any]:
    """Return what a scheme changes in a checkpoint's `rope_parameters`; nothing for "rope"."""
    config = pretrained.model.config
    if scheme == "rope":
        return {}
    extension = Extension(
        scheme=scheme, scale=FACTOR, trained_length=config.max_position_embeddings
    )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return rope_parameters(extension, config.rope_parameters["rope_theta"], head_dim)


def needle_score(*, checkpoint: str, weights: str, length: int, contexts: int) -> list[Row]:
    """Return the share of needles found at each depth and context.

    The share at a depth is over all contexts; each context also has a row of its own.
    """
    pretrained = loaded(checkpoint)
    folder = files.project() / "build" / "corpus"
    texts = [document.text for document in corpus.load_documents(folder, "test", DOMAIN)]
    same = {
        "encode": encoder(pretrained.tokenizer),
        "keys": NEEDLES,
        "bos": first_tokens(pretrained.tokenizer),
    }
    rows, hits = [], []
    for context in range(contexts):
        filler = texts[context % len(texts)]
        found = observe(
            pretrained.model, needles.sample(length=length, seed=context, filler=filler, **same)
        )
        hits.append([row["exact"] for row in found])
        rows.append({"seed": context, "value": float(np.mean(hits[-1]))})
    depths = [
        {"depth": (n + 0.5) / NEEDLES, "value": float(x)} for n, x in enumerate(np.mean(hits, 0))
    ]
    return [
        {"arm": "needles", "length": length, "metric": "needle"} | row for row in [*rows, *depths]
    ]
