"""The change of a text's loss by extending a checkpoint, by position."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from farcontext.checkpoints import load
from farcontext.checkpoints.token_losses import token_losses
from farcontext.train.keys import device


def before_after(
    before: Path | str, after: Path | str, tokens: Int[Tensor, " T"], lengths: Sequence[int]
) -> list[dict[str, float]]:
    """Return the loss of two checkpoints on one text, by position.

    There is a row for each stretch between two lengths. The columns are `from`, `to` (positions,
    the first exclusive), `before`, `after` (nats a token) and `standard_error` of the difference,
    over blocks of 64 tokens. One pass over max(lengths) tokens is made, so `after` turns as it does
    at that length.
    """
    row = tokens[: max(lengths)]
    losses = [token_losses(load.load(path).model.to(device()), row) for path in (before, after)]
    rows = []
    for low, high in pairwise([1, *sorted(lengths)]):
        old, new = (loss[low - 1 : high - 1] for loss in losses)
        blocks = torch.stack([block.mean() for block in (new - old).split(64)])
        error = blocks.std().item() / math.sqrt(len(blocks)) if len(blocks) > 1 else None
        mean = {"before": old.mean().item(), "after": new.mean().item()}
        rows.append({"from": low, "to": high, **mean, "standard_error": error})
    return rows


def table(report: dict[str, Any]) -> list[str]:
    """Return a report's lines to print: loss by position, before and after."""
    lines = [
        f"{'position':>15}{'before':>10}{'after':>10}{'after − before':>24}   (loss, nats a token)"
    ]
    for row in report["loss"]:
        error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.3f}"
        change = f"{row['after'] - row['before']:+.3f}{error}"
        beyond = "   beyond the trained length" if row["from"] >= report["trained_length"] else ""
        span = f"{row['from']}–{row['to'] - 1}"
        lines.append(f"{span:>15}{row['before']:>10.3f}{row['after']:>10.3f}{change:>24}{beyond}")
    return lines if report["loss"] else []
