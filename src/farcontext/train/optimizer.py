"""The optimizer of a run and its learning rate by step."""

import math

import torch
from torch import nn

from farcontext.train.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step (0-based).

    It rises linearly in the warm-up, then follows the schedule and ends at `final` of the peak.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    match config.schedule:
        case "constant":
            share = 1.0
        case "cosine":
            done = (step - config.warmup) / max(1, steps - 1 - config.warmup)
            share = config.final + (1 - config.final) * 0.5 * (
                1 + math.cos(math.pi * min(1.0, done))
            )
        case "wsd":
            falling = max(1, round(config.decay * steps))
            left = max(0, steps - 1 - step)
            share = config.final + (1 - config.final) * min(1.0, left / falling)
    return config.lr * share


def optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices only.

    Norms and biases have no weight decay, as usual.
    """
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
