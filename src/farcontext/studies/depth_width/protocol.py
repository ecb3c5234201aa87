"""What notebook 06 caches: its models, influence by distance, and plain SGD."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from farcontext.measure.gradients import gradient_norms
from farcontext.measure.losses import EVALUATION_SEED
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.tasks import recall
from farcontext.train.batches import Stream, training_batch
from farcontext.train.config import BatchConfig
from farcontext.train.keys import device, tokens_folder
from farcontext.train.loop import build_model, scored_loss

HEAD_WIDTH = 32  # It is the same at every width, so that RoPE's frequencies are the same too.
LAST = 5  # So many losses at the end tell whether a run diverged.
SPIKE = 1.1  # A step's loss is a spike at so many times the loss before.


def decoder(
    layers: int, width: int, length: int, vocabulary: int, **changes: object
) -> ModelConfig:
    """Return the shape that all models of this study have in common."""
    return ModelConfig(
        kind="decoder",
        vocab_size=vocabulary,
        width=width,
        layers=layers,
        heads=max(1, width // HEAD_WIDTH),
        mlp_width=2 * width,
        mlp="gelu",
        max_length=length,
        init_std=0.1,
        embedding_std=1.0,
        smear=True,
        **changes,
    )


def influence(model: Decoder, *, length: int, rows: int, items: int) -> list[Row]:
    """Return the mean norm of the last loss's gradient by distance.

    The gradient is of a row's last loss at each token; distance is from the predicting token.
    `items` draws the rows.
    """
    rng = np.random.default_rng([EVALUATION_SEED, length, items])
    tokens, _ = recall.dense_recall(rng, rows, length)
    tokens = torch.from_numpy(tokens).to(device())
    at = torch.full((rows,), length - 2, device=device())
    norm_T = gradient_norms(model, tokens, at, tokens[:, -1]).mean(0)[: length - 1].flip(0)
    return [{"distance": d, "influence": float(value)} for d, value in enumerate(norm_T)]


def plain_sgd(
    *, domain: str, length: int, rows: int, lr: float, steps: int, seed: int
) -> list[Row]:
    """Train a small decoder on text with plain SGD.

    The row says what became of it. Plain SGD has no momentum, warm-up or clipping. diverged: see
    there. spikes: share of steps whose loss is a tenth above the one before.
    """
    stream = Stream.load(tokens_folder(), "train", (domain,))
    batches = BatchConfig(objective="clm", length=length, rows=rows, domains=(domain,))
    losses, norms = [], []
    with torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        model = build_model(decoder(2, HEAD_WIDTH, length, stream.vocab_size)).to(device())
        weights = list(model.parameters())
        for step in range(steps):
            batch = training_batch(stream, batches, seed=seed, step=step).to(device())
            total, scored = scored_loss(model, batch)
            gradients = torch.autograd.grad(total / scored, weights)
            losses.append(total.item() / scored)
            norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradients)))
            if not (math.isfinite(losses[-1]) and math.isfinite(norms[-1])):
                break
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.sub_(gradient, alpha=lr)
    known = [loss for loss in losses if math.isfinite(loss)]
    return [{"diverged": float(diverged(losses, norms)), "spikes": spikes(known)}]


def diverged(losses: Sequence[float], norms: Sequence[float]) -> bool:
    """Return whether training diverged, by the definition fixed beforehand.

    A loss or gradient norm is not finite, or the mean of the last losses is above the first one.
    """
    if not np.isfinite([*losses, *norms]).all():
        return True
    return bool(np.mean(losses[-LAST:]) > losses[0])


def spikes(losses: Sequence[float]) -> float:
    """Return the share of steps whose loss is a spike."""
    known = np.asarray(losses, dtype=np.float64)
    return float((known[1:] > SPIKE * known[:-1]).mean()) if len(known) > 1 else 0.0
