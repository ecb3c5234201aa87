"""The optimizer of a run and its learning rate by step."""

import math
from typing import Any

import torch
from torch import Tensor, nn

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


def optimizer(model: nn.Module, config: OptimizerConfig) -> "torch.optim.AdamW | MuonAndAdamW":
    """Return AdamW with weight decay on matrices only.

    Norms and biases have no weight decay, as usual. With a rate for Muon, the blocks' matrices
    follow that.
    """
    if config.muon:
        return MuonAndAdamW(model, config)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


class MuonAndAdamW:
    """Muon for the blocks' matrices, AdamW for the rest.

    Muon makes a matrix's step orthogonal (Jordan 2024), and is scaled as in Liu et al. 2025, so
    that its rate compares with AdamW's. Embeddings, heads, norms and biases stay with AdamW.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        blocks = [p for name, p in model.named_parameters() if _in_blocks(name, p)]
        chosen = {id(p) for p in blocks}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        decay = config.weight_decay
        self.adamw = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim >= 2], "weight_decay": decay},
                {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )
        self.muon = torch.optim.Muon(
            blocks, lr=config.muon, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )
        self.ratio = config.muon / config.lr

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of both, AdamW's first."""
        return [*self.adamw.param_groups, *self.muon.param_groups]

    def step(self) -> None:
        """Update all weights; the loop has set AdamW's rate on every group."""
        for group in self.muon.param_groups:
            group["lr"] *= self.ratio
        self.adamw.step()
        self.muon.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self.adamw.zero_grad(set_to_none=set_to_none)
        self.muon.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return both states as one.

        Parameters count in the order of the groups.
        """
        first, second = self.adamw.state_dict()["state"], self.muon.state_dict()["state"]
        return {"state": first | {self._adamws + i: state for i, state in second.items()}}

    def load_state_dict(self, told: dict[str, Any]) -> None:
        """Take both states back from one."""
        parts: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
        for i, state in told["state"].items():
            late = i >= self._adamws
            parts[late][i - late * self._adamws] = state
        for one, state in zip((self.adamw, self.muon), parts, strict=True):
            one.load_state_dict(one.state_dict() | {"state": state})

    @property
    def _adamws(self) -> int:
        return sum(len(group["params"]) for group in self.adamw.param_groups)


def _in_blocks(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and name.startswith(("stack.", "decoder."))
