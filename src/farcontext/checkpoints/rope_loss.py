"""A check of a checkpoint's rotary base by losses.

They are of text under other bases. The weights are asked: they predict best with the angles that
they were trained with, so text costs more under any other base.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.rope.finding import Finding
from farcontext.checkpoints.rope.frequencies import rotary_modules
from farcontext.checkpoints.rope.sections import Section, sections
from farcontext.checkpoints.token_losses import token_losses

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig, PreTrainedModel

CANDIDATE_THETAS = (1e4, 1e5, 5e5, 1e6)
MARGIN = 0.02  # Another base must predict better by so many nats a token.
STANDARD_ERRORS = 3.0  # It must also do so by so many standard errors of the paired difference.
BLOCK = 64  # Neighbouring tokens are correlated: the losses of so many count as one observation.


@dataclass(frozen=True)
class Candidate:
    """The cost of text under another base than the loaded one.

    `loss` is in nats a token. `difference` is that loss minus the one as loaded: where it is
    negative, the other base predicts better.
    """

    theta: float
    loss: float
    difference: float
    standard_error: float
    better: bool


def widest(config: "PreTrainedConfig") -> Section:
    """Return the rotary settings of the layers that see farthest, in place."""
    found = sections(config)
    return found.get("full_attention") or next(iter(found.values()))


@contextmanager
def rebuilt(model: "PreTrainedModel", **changes: object) -> Iterator["PreTrainedModel"]:
    """Give a model rotary modules with other `rope_parameters` for a while.

    They are built from its configuration; the old ones are put back at the end. Where kinds of
    layers have settings of their own, those of full attention change.
    """
    config = copy.deepcopy(model.config)
    widest(config).update(changes)
    held = rotary_modules(model)
    try:
        for name, module in held.items():
            device = next(iter(module.buffers())).device
            model.set_submodule(name, type(module)(config).to(device))
        yield model
    finally:
        for name, module in held.items():
            model.set_submodule(name, module)


def confirm(
    pretrained: Pretrained,
    tokens_BT: Int[Tensor, "B T"],
    thetas: Sequence[float] = CANDIDATE_THETAS,
) -> list[Candidate]:
    """Compare the loss as loaded with that under other bases.

    The scheme is kept. Losses are paired by token, and standard errors are over blocks. About 2,000
    tokens of the model's own kind of text are enough for a base that is wrong by a factor of ten. A
    base that predicts better by 0.02 nats a token and 3 standard errors says that the configured
    one is not the trained one. Other schemes are no candidates: an untrained one may predict better
    than the right one without.
    """
    if not rotary_modules(pretrained.model):
        return []
    used = float(widest(pretrained.model.config)["rope_theta"])
    base = _losses(pretrained.model, tokens_BT)
    rows = []
    for theta in thetas:
        if math.isclose(theta, used, rel_tol=1e-6):
            continue
        with rebuilt(pretrained.model, rope_theta=theta) as other:
            losses = _losses(other, tokens_BT)
        difference, error = paired(losses - base)
        better = difference < -MARGIN and difference < -STANDARD_ERRORS * error
        rows.append(Candidate(theta, losses.mean().item(), difference, error, better))
    return rows


def _losses(model: "PreTrainedModel", tokens_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B T-1"]:
    return torch.stack([token_losses(model, row_T) for row_T in tokens_BT])


def paired(difference_BT: Float[Tensor, "B T"]) -> tuple[float, float]:
    """Return the mean and its standard error over blocks of neighbours.

    The error is infinite with fewer than two blocks.
    """
    blocks = torch.cat(
        [part.mean(-1) for part in difference_BT.split(BLOCK, dim=-1) if part.shape[-1] == BLOCK]
        or [difference_BT.mean(-1)]
    )
    error = float(blocks.std() / math.sqrt(len(blocks))) if len(blocks) > 1 else math.inf
    return float(difference_BT.mean()), error


def confirmed(rows: Sequence[Candidate], used: float) -> Finding:
    """Return the finding that `confirm`'s rows amount to."""
    best = min(rows, key=lambda row: row.difference)
    bad = any(row.better for row in rows)
    found = (
        f"{best.theta:g} predicts {best.difference:+.3f} ± {best.standard_error:.3f} nats a token "
        f"against {used:g}"
    )
    says = (
        "no other base predicts the text better"
        if not bad
        else "the weights were trained with another base"
    )
    return Finding("rope_theta by loss", not bad, found, "no base that predicts better", says)
