"""How far back a model's loss still has a gradient.

The measure is the norm at each token's embedding, by distance in tokens.

B rows, T tokens, D width. The chain rule multiplies one Jacobian a step along a recurrence, so that
the norm shrinks or grows like a power of the distance (Bengio et al. 1994; Pascanu et al. 2013);
attention links any two tokens directly.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from farcontext.measure.losses import EVALUATION_SEED
from farcontext.nn.layers import select_rows
from farcontext.nn.recurrent import Recurrent
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.train.batches import IGNORE
from farcontext.train.config import Task
from farcontext.train.curriculum import task_rows, to_predict
from farcontext.train.keys import device
from farcontext.train.loop import build_model


def gradient_by_distance(
    model: Decoder | Recurrent,
    *,
    task: Mapping[str, Any],
    length: int,
    distances: Sequence[int],
    rows: int,
    items: int = 0,
) -> list[Row]:
    """Return the log norm of the loss's gradient, by distance.

    The value is ln of the norm of the gradient of the last scored token's loss at the embedding
    `distance` tokens earlier.

    Args:
        task: fields of `config.Task`.
        length: T, tokens in a row.
        distances: d ≥ 0, counted from the token that makes the prediction.
        rows: test rows.
        items: which test rows are drawn, as in `losses.task_accuracy`.

    The mean over rows is one of logarithms (`log_norm`), so that a row's own scale, its error, does
    not decide: the least-squares slope of log_norm on distance is the mean of the rows' slopes.
    A gradient of exactly 0 gives −∞.

    Raises:
        ValueError: a distance that reaches before the first token.
    """
    rng = np.random.default_rng([EVALUATION_SEED, length, *([items] if items else [])])
    tokens, scored = task_rows(Task(**task), rng, rows, length)
    batch = to_predict(tokens, scored, causal=True, mask=model.config.vocab_size - 1)
    marked = (batch.targets != IGNORE).int()
    # This position is the last that predicts a scored token.
    last_B = length - 1 - marked.flip(1).argmax(1)
    if not 0 <= min(distances) <= max(distances) <= int(last_B.min()):
        raise ValueError(
            f"distances = {list(distances)}: expected 0 to {int(last_B.min())}, the first token"
        )
    target_B = batch.targets.gather(1, last_B[:, None]).squeeze(1)
    norm_BT = gradient_norms(
        model, batch.tokens.to(device()), last_B.to(device()), target_B.to(device())
    )
    log_BT = norm_BT.log().cpu()
    means = [float(log_BT.gather(1, (last_B - d)[:, None]).mean()) for d in distances]
    return [
        {"distance": int(d), "log_norm": mean} for d, mean in zip(distances, means, strict=True)
    ]


def gradient_before_training(model: Decoder | Recurrent, *, seed: int, **options: Any) -> list[Row]:
    """Return `gradient_by_distance` of a model with fresh weights.

    The model has the same configuration, and its weights are drawn with `seed`.
    """
    torch.manual_seed(seed)
    return gradient_by_distance(build_model(model.config).to(device()).eval(), **options)


def gradient_norms(
    model: Decoder | Recurrent,
    tokens: Int[Tensor, "B T"],
    at: Int[Tensor, " B"],
    target: Int[Tensor, " B"],
) -> Float[Tensor, "B T"]:
    """Return ‖∂loss/∂x_t‖ for every token t, where x is its embedding.

    The loss is that of each row's `target` after token `at`.

    A copy of the model computes in fp64: 256 steps that each shrink a gradient by e are far below
    what fp32 can hold (1e-45), and weights loaded in inference mode cannot be differentiated
    through.
    """
    with torch.inference_mode(False), torch.enable_grad():
        twin = copy.deepcopy(model).double().requires_grad_(requires_grad=False)
        tokens, at, target = tokens.clone(), at.clone(), target.clone()
        if isinstance(twin, Recurrent):
            # cuDNN has no backward in evaluation mode; nothing here differs between the two.
            twin.train()
            x_BTD = F.embedding(tokens, twin.embedding).requires_grad_()
            hidden_BTD = twin.from_embedded(x_BTD)
        else:
            x_BTD = twin.embedding(tokens, None).requires_grad_()
            hidden_BTD = twin.stack(x_BTD)
        first_B = torch.arange(len(tokens), device=tokens.device) * tokens.shape[1]
        logits_BV = twin.logits(select_rows(hidden_BTD, first_B + at))
        # Rows are independent, so each keeps its own gradient.
        loss = F.cross_entropy(logits_BV, target, reduction="sum")
        (gradient_BTD,) = torch.autograd.grad(loss, x_BTD)
    return gradient_BTD.norm(dim=-1)
