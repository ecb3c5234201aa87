"""The real tier of notebook 07: a pretrained checkpoint on real text.

Rows fit the study's table: kind = real, seed = number of the document or context, arm = the RoPE
scheme or "needles"; what the text before is worth stands in `real_far`.
"""

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
from farcontext.studies.context_extension import real_apart, real_far
from farcontext.studies.context_extension.params import Params
from farcontext.studies.real_tier import known, loaded
from farcontext.tasks import needles
from farcontext.train.runs import EvalConfig, sweep

DOMAIN = "plays"
FACTOR = 2.0  # The screen extends every scheme by this factor.
NEEDLES = 10


def run(params: Params) -> list[Row]:
    """Return the real tier's rows; none without a checkpoint.

    metric: gap_loss (nats a token behind a jump in the positions; length = the jump) · needle
    (share of needles whose word is the likeliest) · and those of `real_far.run` and
    `real_apart.run`.
    """
    if params.checkpoint is None:
        return []
    same = known(params.checkpoint)
    jobs = {}
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
    return rows + real_far.run(params) + real_apart.run(params)


def gap_loss(
    *, checkpoint: str, weights: str, scheme: str, gaps: list[int], half: int, plays: list[int]
) -> list[Row]:
    """Return `far_context.position_gap` under one scheme at FACTOR."""
    pretrained = loaded(checkpoint)
    skip = real_far.SKIP[DOMAIN]
    documents = real_far.stretches(pretrained, real_far.texts(DOMAIN), plays, 2 * half, skip)
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
