"""The change of a text's loss by extending a checkpoint, by position."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from farcontext import files
from farcontext.checkpoints import load
from farcontext.checkpoints.rope import sections
from farcontext.checkpoints.token_losses import token_losses
from farcontext.train.keys import device


def before_after(
    before: Path | str, after: Path | str, tokens: Int[Tensor, " T"], lengths: Sequence[int]
) -> list[dict[str, float]]:
    """Return the loss of two checkpoints on one text, by position.

    There is a row for each stretch between two lengths. The columns are `from`, `to` (positions,
    the first exclusive), `before`, `after` (nats a token) and `standard_error` of the difference,
    over blocks of 64 tokens. One pass over max(lengths) tokens is made; where frequencies change
    with the length (dynamic, longrope), one a stretch, which ends with it: so the text turns as it
    does at that length, and what a scheme leaves alone is the same to the last bit.
    """
    stretches = list(pairwise([1, *sorted(lengths)]))
    growing = any(map(_grows, (before, after)))
    losses = [_losses(path, tokens, stretches, growing) for path in (before, after)]
    rows = []
    for (low, high), old, new in zip(stretches, *losses, strict=True):
        blocks = torch.stack([block.mean() for block in (new - old).split(64)])
        error = blocks.std().item() / math.sqrt(len(blocks)) if len(blocks) > 1 else None
        mean = {"before": old.mean().item(), "after": new.mean().item()}
        rows.append({"from": low, "to": high, **mean, "standard_error": error})
    return rows


def _losses(
    path: Path | str, tokens: Int[Tensor, " T"], stretches: Sequence[tuple[int, int]], growing: bool
) -> list[Tensor]:
    """Return the losses of each stretch.

    The checkpoint is let go at the end.
    """
    model = load.load(path).model.to(device())
    whole = None if growing else token_losses(model, tokens[: stretches[-1][1]])
    return [
        (token_losses(model, tokens[:high]) if whole is None else whole)[low - 1 : high - 1]
        for low, high in stretches
    ]


def _grows(path: Path | str) -> bool:
    where = Path(path) / "config.json"
    config = sections.read(Path(path))[0] if _is_hugging_face(where) else None
    kinds = sections.sections(config).values() if config else ()
    return any(section["rope_type"] in ("dynamic", "longrope") for section in kinds)


def _is_hugging_face(where: Path) -> bool:
    return where.is_file() and "model_type" in files.read_json(where)


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
