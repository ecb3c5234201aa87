"""The probe of a masked model.

It tells what far text is worth to masked words, in nats.

    | CLS | far text: own, another's, or none | near text of a target, words masked | SEP |

The same masked targets are predicted behind their own text, behind as much of another document's,
and behind none, at growing lengths. Where own text of twice the length no longer makes them
cheaper, the model's context has ended, whatever its configuration promises. One row is read a
window, length, kind and turn of masks.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from farcontext.checkpoints import encoders
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probe import fingerprint
from farcontext.checkpoints.probing.summary import finite
from farcontext.checkpoints.probing.text import read
from farcontext.checkpoints.token_losses import numbers
from farcontext.files import UserError
from farcontext.measure.stats import t_interval
from farcontext.schema import Row

NEAR = 48  # The targets stand among so many tokens, at the end of a row.
EVERY = 6  # Each sixth of them is masked: with as many turns each is a target once.
WINDOWS = 24  # So many windows of real text are read.
SHORTEST = 64


def lengths_of(pretrained: Pretrained, longest: int | None = None) -> list[int]:
    """Return lengths in tokens, marks included: doubling from SHORTEST, the window last.

    Raises:
        UserError: a window, or a longest length, that is too short or too long.
    """
    most = encoders.window(pretrained)
    wanted = most if longest is None else longest
    if not 2 * SHORTEST <= wanted <= most:
        raise UserError(f"length = {wanted}: expected {2 * SHORTEST} to {most}, the model's tokens")
    return [*(n for n in (SHORTEST * 2**k for k in range(20)) if n < wanted), wanted]


@torch.inference_mode()
def masked_losses(pretrained: Pretrained, before: Sequence[int], near: Sequence[int]) -> Tensor:
    """Return −log p of each token of `near` when masked, nats.

    It stands behind `before`. Each sixth token is masked at a time; the rows of all turns are one
    batch.
    """
    tokenizer, model = pretrained.tokenizer, pretrained.model
    row = [tokenizer.cls_token_id, *before, *near, tokenizer.sep_token_id]
    rows = torch.tensor([row] * EVERY, device=model.device)
    start = 1 + len(before)
    at = torch.arange(start, start + len(near), device=model.device)
    turns = (at - start) % EVERY
    rows[turns, at] = tokenizer.mask_token_id
    scores = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits[turns, at]
    wanted = torch.tensor([*near], device=model.device)
    return numbers(F.cross_entropy(scores.float(), wanted, reduction="none")).cpu()


def measured(pretrained: Pretrained, text: Path | None, longest: int | None = None) -> pd.DataFrame:
    """Return a row a window, length and kind of far text.

    Its columns are window, length, far, loss. far = own: the document's own text. other: as much of
    another document's. none: nothing.

    Raises:
        UserError: as `lengths_of` and `text.read`; fewer than two documents of the length.
    """
    lengths = lengths_of(pretrained, longest)
    documents = read(pretrained, text)
    long = [ids for ids in documents.ids if len(ids) >= lengths[-1]]
    if len(long) < 2:
        raise UserError(
            f"{documents.source}: {len(long)} documents of {lengths[-1]} tokens: expected two, so "
            "that one has another's text before it"
        )
    rounds = max(1, WINDOWS // len(long))
    starts = [(turn + 0.5) / rounds for turn in range(rounds)]
    pieces = [_piece(ids, share, lengths[-1]) for share in starts for ids in long][:WINDOWS]
    rows = []
    for number, piece in enumerate(pieces):
        near, other = piece[-NEAR:], pieces[(number + 1) % len(pieces)]
        alone = float(masked_losses(pretrained, (), near).mean())
        for length in lengths:
            far = length - 2 - NEAR
            found = {"own": piece[-NEAR - far : -NEAR], "other": other[-NEAR - far : -NEAR]}
            same = {"window": number, "length": length}
            rows += [
                same | {"far": kind, "loss": float(masked_losses(pretrained, ids, near).mean())}
                for kind, ids in found.items()
            ]
            rows.append(same | {"far": "none", "loss": alone})
    return pd.DataFrame(rows)


def _piece(ids: Sequence[int], share: float, length: int) -> tuple[int, ...]:
    start = round(share * (len(ids) - length))
    return tuple(ids[start : start + length])


def summarised(pretrained: Pretrained, rows: pd.DataFrame) -> Row:
    """Return the summary: a row a length.

    It also says how far own text still helps. `worth`: the loss behind another's text minus that
    behind the own. `gain`: what this length saves over the one before, behind the own. `helps`: the
    longest length whose gain is above zero with its whole 95 % interval, and so are all before it.
    """
    table = rows.pivot_table(index="window", columns=["length", "far"], values="loss")
    found, helps, before = [], None, None
    for length in sorted(rows["length"].unique()):
        loss = {kind: table[length, kind] for kind in ("own", "other", "none")}
        worth = t_interval(loss["other"] - loss["own"])
        gain = t_interval((loss["none"] if before is None else before) - loss["own"])
        row = {"length": int(length)} | {k: float(v.mean()) for k, v in loss.items()}
        for name, value in (("worth", worth), ("gain", gain)):
            row |= {name: value.estimate, f"{name}_low": finite(value.low)}
            row |= {f"{name}_high": finite(value.high)}
        helped = gain.known and gain.low > 0 and (not found or helps == found[-1]["length"])
        helps = int(length) if helped else helps
        found.append(row)
        before = loss["own"]
    return {
        "checkpoint": pretrained.name,
        "fingerprint": fingerprint(pretrained.path),
        "window": encoders.window(pretrained),
        "windows": int(rows["window"].nunique()),
        "targets": NEAR,
        "helps": helps,
        "lengths": found,
    }


def lines(summary: Row) -> list[str]:
    """Return the summary as printed lines."""
    helps, last = summary["helps"], summary["lengths"][-1]["length"]
    if helps is None:
        headline = "no length of own text makes masked words cheaper for sure"
    elif helps == last:
        headline = f"more of a text helps up to {last:,} tokens, the longest tested"
    else:
        headline = f"more of a text helps up to {helps:,} tokens, and not for sure beyond"
    said = [f"{summary['checkpoint']} (masked): {headline}"]
    said += ["loss of masked tokens, nats: behind own, another's and no text"]
    said += ["length    own  other   none  own text is worth (95 %)"]
    for row in summary["lengths"]:
        said.append(
            f"{row['length']:6d}  {row['own']:.3f}  {row['other']:.3f}  {row['none']:.3f}  "
            f"{row['worth']:+.3f} ({_number(row['worth_low'])} to {_number(row['worth_high'])})"
        )
    return [*said, f"{summary['windows']} windows, {summary['targets']} targets each"]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"
