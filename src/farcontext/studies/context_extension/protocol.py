"""What notebook 07 caches: recall by layout, and a model's logits."""

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from farcontext.measure import losses
from farcontext.nn.remap import dual_chunk, lm_infinite, remapped, self_extend
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.schema import Row
from farcontext.tasks import recall

SINKS = 4  # So many tokens stay visible beside a window (Xiao et al. 2023).
# SelfExtend's neighbours and the chunks of dual chunk attention take these shares of L: those that
# the papers' own settings have (1,024 of 4,096 and 3,072 of 4,096).
NEIGHBOURS, CHUNK = 1 / 4, 3 / 4


def recall_by_layout(
    model: Encoder | Decoder,
    *,
    lengths: list[int],
    depths: list[float],
    pairs: int,
    span: int,
    rows: int,
    items: int,
    window: int | None = None,
) -> list[Row]:
    """Return recall with the evidence packed and with it spread.

    Packed evidence stands in `span` tokens at each depth; spread evidence stands anywhere in the
    row. `items` draws the test rows.
    """
    same = {"lengths": lengths, "rows": rows, "items": items}
    same |= {"window": window, "sinks": SINKS if window else 0}
    packed = losses.task_accuracy(
        model, task={"name": "recall", "pairs": pairs, "span": span}, depths=depths, **same
    )
    spread = losses.task_accuracy(model, task={"name": "recall", "pairs": pairs}, **same)
    return [{"layout": "packed"} | row for row in packed] + [
        {"layout": "spread"} | row for row in spread
    ]


def recall_remapped(model: Decoder, *, remap: str, trained: int, **options: Any) -> list[Row]:
    """Return `recall_by_layout` of a model with remapped positions.

    Its far keys get positions that it knows.

    Args:
        model: a decoder with RoPE.
        remap: self_extend, dual_chunk or lm_infinite.
        trained: L.
        options: those of `recall_by_layout`.
    """
    regions = {
        "self_extend": partial(self_extend, trained=trained, window=int(NEIGHBOURS * trained)),
        "dual_chunk": partial(dual_chunk, trained=trained, chunk=int(CHUNK * trained)),
        "lm_infinite": partial(lm_infinite, trained=trained, sinks=SINKS),
    }
    return recall_by_layout(remapped(model, regions[remap]), **options)


def answers_apart(model: Decoder, *, length: int, pairs: int, rows: int, items: int) -> list[Row]:
    """Return loss (nats an answer) and recall in five surroundings.

    The pairs and questions are the same in all of them (`recall.apart`). `items` draws them.
    """
    rng = np.random.default_rng((losses.EVALUATION_SEED, length, items))
    found = []
    for name, made in recall.apart(rng, rows, length, pairs=pairs).items():
        tokens, scored, hidden = map(torch.from_numpy, made)
        asked = scored.roll(-1, 1)  # An answer is predicted from the key before it.
        logits_nV = model(tokens, documents=hidden.long(), select=asked)
        answers_n = tokens[scored]
        loss = F.cross_entropy(logits_nV.float(), answers_n).item()
        right = (logits_nV.argmax(-1) == answers_n).double().mean().item()
        found.append({"surrounding": name, "loss": loss, "recall": right})
    return found


def logits_at(model: Decoder, *, length: int) -> list[Row]:
    """Return a model's logits after one row of recall, for comparisons."""
    tokens, _ = recall.recall(np.random.default_rng(0), 1, length, pairs=2)
    return [{"logits": model(torch.from_numpy(tokens))[0, -1].tolist()}]
