"""What notebook 07 caches: recall by layout, and a model's logits."""

import numpy as np
import torch

from farcontext.measure import losses
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.schema import Row
from farcontext.tasks import recall

SINKS = 4  # So many tokens stay visible beside a window (Xiao et al. 2023).


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


def logits_at(model: Decoder, *, length: int) -> list[Row]:
    """Return a model's logits after one row of recall, for comparisons."""
    tokens, _ = recall.recall(np.random.default_rng(0), 1, length, pairs=2)
    return [{"logits": model(torch.from_numpy(tokens))[0, -1].tolist()}]
