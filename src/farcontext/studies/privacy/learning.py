"""How the models of notebook 13 learn: one loop, with DP-SGD or without.

R rows of T tokens; B of them are expected in a step, drawn one by one (Poisson sampling), as the
accountant of DP-SGD asks for.
"""

import numpy as np
import torch
import torch.nn.functional as F
from opacus.optimizers import DPOptimizer
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from farcontext.nn.transformer import Decoder
from farcontext.schema import Frozen
from farcontext.train.config import OptimizerConfig
from farcontext.train.keys import device
from farcontext.train.loop import build_model
from farcontext.train.optimizer import learning_rate


class Recipe(Frozen):
    """How a model learns."""

    steps: int
    step_tokens: int  # B · T.
    lr: float
    warmup: int
    clip: float = 0.0  # DP-SGD's; 0 means neither clipping nor noise.
    noise: float = 0.0


def row_losses(model: Decoder, rows_RT: Tensor, scored_RT: Tensor) -> Tensor:
    """Return each row's loss, its mean over the scored tokens in nats, (R,)."""
    logits_nV = model(rows_RT)[:, :-1].flatten(0, 1)
    # Vocabulary last: any other axis takes twice the time.
    losses_n = F.cross_entropy(logits_nV, rows_RT[:, 1:].flatten(), reduction="none")
    scored_RT = scored_RT[:, 1:].float()
    return (losses_n.reshape(scored_RT.shape) * scored_RT).sum(1) / scored_RT.sum(1).clamp(min=1)


def learned(
    public: Decoder, rows: np.ndarray, scored: np.ndarray, recipe: Recipe, seed: int
) -> Decoder:
    """Return a copy of a public model that has learned some rows.

    Args:
        public: where it starts.
        rows: (R, T) ids.
        scored: (R, T), the tokens that are learned.
        recipe: how.
        seed: draws the rows of each step, and the noise.
    """
    with torch.inference_mode(False), torch.enable_grad():
        model = build_model(public.config).to(device())
        model.load_state_dict({name: x.clone() for name, x in public.state_dict().items()})
        rng = np.random.default_rng(seed)
        expected = recipe.step_tokens // rows.shape[1]
        given = OptimizerConfig(lr=recipe.lr, warmup=min(recipe.warmup, recipe.steps // 4))
        optimizer = torch.optim.AdamW(model.parameters(), betas=given.betas)
        if recipe.clip:
            optimizer = _private(optimizer, recipe, expected, seed)
        for step in range(recipe.steps):
            chosen = rng.random(len(rows)) < expected / len(rows)
            batch = [torch.from_numpy(x[chosen]).to(device()) for x in (rows, scored)]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(given, step, recipe.steps)
            if recipe.clip:
                _gradient_of_each_row(model, *batch)
            else:
                (row_losses(model, *batch).sum() / expected).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def _private(
    optimizer: torch.optim.Optimizer, recipe: Recipe, expected: int, seed: int
) -> DPOptimizer:
    """Return an optimizer that clips each row's gradient and adds noise (Abadi et al. 2016)."""
    return DPOptimizer(
        optimizer,
        noise_multiplier=recipe.noise,
        max_grad_norm=recipe.clip,
        expected_batch_size=expected,
        generator=torch.Generator(device()).manual_seed(seed),
    )


def _gradient_of_each_row(model: Decoder, rows_RT: Tensor, scored_RT: Tensor) -> None:
    """Write the gradient of each row, (R, *), where Opacus looks for it.

    Its hooks need every parameter in a layer that they know, and our embedding is the output matrix
    as well; so torch.func computes what the hooks would.
    """
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], row_T: Tensor, scored_T: Tensor) -> Tensor:
        whole = _RowLoss(model)
        called = {f"model.{name}": x for name, x in weights.items()}
        return functional_call(whole, called, (row_T[None], scored_T[None]))

    with sdpa_kernel(SDPBackend.MATH):  # torch.func has rules for this one.
        found = (
            vmap(grad(loss), (None, 0, 0))(weights, rows_RT, scored_RT)
            if len(rows_RT)
            else {name: p.new_zeros(0, *p.shape) for name, p in weights.items()}
        )
    for name, parameter in model.named_parameters():
        parameter.grad_sample = found[name]


class _RowLoss(torch.nn.Module):
    """A model's loss of one row, as a module."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows_RT: Tensor, scored_RT: Tensor) -> Tensor:
        return row_losses(self.model, rows_RT, scored_RT)[0]
