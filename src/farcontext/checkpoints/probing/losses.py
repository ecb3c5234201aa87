"""Losses of real text, by what is read or changed.

They are by position, after foreign text, and under other bases of RoPE.
"""

from dataclasses import asdict, dataclass, field

import torch

from farcontext.checkpoints import rope_loss
from farcontext.checkpoints.far_context import far_context_loss, loss_by_position, remembering
from farcontext.checkpoints.probing.asking import Asking
from farcontext.checkpoints.probing.text import far_lengths, windows
from farcontext.checkpoints.rope.finding import Finding
from farcontext.checkpoints.rope.frequencies import rotary_modules
from farcontext.schema import Row

BUCKETS = 16  # Positions fall into so many buckets.
CONFIRMED = 1024  # Other bases of RoPE are tried on two windows of so many tokens each.


@dataclass(frozen=True)
class Losses:
    """Rows of `far_context`, what weights say of RoPE, what is missing.

    Weights tell about RoPE's base; what was left out is named.
    """

    far: list[Row] = field(default_factory=list)
    position: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measured(asking: Asking, longest: int) -> Losses:
    """Return losses by position, after foreign text, and under other bases."""
    model, found = asking.pretrained, Losses()
    pieces = windows(asking.text.ids, longest)
    if not pieces:
        found.notes.append(f"losses of real text: no document of {longest} tokens or more")
        return found
    bucket = max(2, longest // BUCKETS)
    read = remembering()  # The longest rows behind their own text are the whole pieces.
    within = {"length": longest // bucket * bucket, "bucket": bucket, "read": read}
    work = len(pieces) * asking.work(longest)
    found.position.extend(
        asking.kept(f"position-{longest}", lambda: loss_by_position(model, pieces, **within), work)
    )
    if sum(len(ids) >= longest for ids in asking.text.ids) < 2:
        found.notes.append(
            f"another document's text: needs two documents of {longest} tokens or more"
        )
    else:
        targets, lengths = far_lengths(longest)
        work = len(pieces) * (2 * sum(map(asking.work, lengths)) - asking.work(longest))
        same = {"lengths": lengths, "targets": targets, "read": read}
        found.far.extend(
            asking.kept(f"far-{longest}", lambda: far_context_loss(model, pieces, **same), work)
        )
    _bases(asking, pieces, longest, found)
    return found


def _bases(asking: Asking, pieces: list[tuple[int, ...]], longest: int, found: Losses) -> None:
    """Add what the weights say of RoPE's base."""
    model = asking.pretrained
    tokens_BT = torch.tensor([piece[:CONFIRMED] for piece in pieces[:2]], device=model.model.device)
    if tokens_BT.shape[1] < 4 * rope_loss.BLOCK:
        found.notes.append(
            f"rope_theta by loss: needs lengths of {4 * rope_loss.BLOCK} tokens or more"
        )
    elif rotary_modules(model.model):
        rows = asking.kept(
            f"bases-{longest}", lambda: [asdict(r) for r in rope_loss.confirm(model, tokens_BT)], 0
        )
        candidates = [rope_loss.Candidate(**row) for row in rows]
        used = float(rope_loss.widest(model.model.config)["rope_theta"])
        found.findings.append(rope_loss.confirmed(candidates, used))
