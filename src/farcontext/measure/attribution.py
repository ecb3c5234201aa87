"""Attribution: which parts of a context an answer rests on.

There are several methods. A row is a context and a question; what is explained is the log-odds of
one token after it. Methods score each token of the row; a part's score is the sum over its tokens.
None of them sees the gold.

T tokens of a row, S key tokens, N heads, D model width, U parts, n ablated rows.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from jaxtyping import Float
from sklearn.linear_model import Lasso
from torch import Tensor

from farcontext.measure.heads import Layer
from farcontext.nn.embedding import Embedding
from farcontext.nn.layers import select_rows
from farcontext.nn.transformer import Decoder

TOKENS_AT_ONCE = 32_768  # So many tokens are read at once.
PENALTY = 0.01  # The surrogate's, on standardised values, as in ContextCite.

Span = tuple[int, int]  # The first token, and the one behind the last.


# ------------------------------------------------------------------------------ what is explained


def odds(logits: Float[Tensor, "n V"], answer: int) -> Float[Tensor, " n"]:
    """Return a token's log-odds, ln p − ln(1 − p), in nats."""
    others = logits.index_fill(-1, torch.tensor([answer], device=logits.device), -torch.inf)
    return logits[:, answer] - others.logsumexp(-1)


@torch.inference_mode()
def log_odds(model: Decoder, rows: Sequence[Sequence[int]], answer: int) -> np.ndarray:
    """Return a token's log-odds after each row, (n,).

    Rows of like length are read together, filled up on the right, where a causal model does not
    look.
    """
    found, order = np.empty(len(rows)), sorted(range(len(rows)), key=lambda n: len(rows[n]))
    while order:
        count = max(1, TOKENS_AT_ONCE // len(rows[order[-1]]))
        some, order = order[-count:], order[:-count]
        tokens = torch.zeros(len(some), len(rows[some[-1]]), dtype=torch.long)
        ends = torch.tensor([len(rows[number]) - 1 for number in some])
        for line, number in enumerate(some):
            tokens[line, : len(rows[number])] = torch.tensor(rows[number])
        select = torch.zeros(tokens.shape, dtype=torch.bool).scatter_(1, ends[:, None], value=True)
        found[some] = odds(model(tokens, select=select), answer).numpy()
    return found


# --------------------------------------------------------------------------- methods: token scores


def attention(layers: Sequence[Layer]) -> Float[Tensor, " S"]:
    """Return the last query's weights, averaged over all heads of all layers."""
    return torch.stack([layer.weights[:, -1].mean(0) for layer in layers]).mean(0)


def rollout(layers: Sequence[Layer]) -> Float[Tensor, " S"]:
    """Return attention rollout of the last query (Abnar & Zuidema 2020).

    In each layer half of what arrives comes through attention, averaged over heads, and half
    through the residual stream. The result sums to 1.
    """
    reached_S = F.one_hot(
        torch.tensor(layers[0].weights.shape[-1] - 1), layers[0].weights.shape[-1]
    ).to(layers[0].weights)
    for layer in reversed(layers):
        mean_TS = layer.weights.mean(0)
        reached_S = (reached_S + reached_S[-len(mean_TS) :] @ mean_TS) / 2
    return reached_S


def embedded(embedding: Embedding, e_BTD: Tensor) -> Tensor:
    """Return what the first layer gets for tokens embedded as e.

    It is linear in e, with the neighbours that a short convolution mixes in. Not applied: absolute
    positions.
    """
    x_BTD = e_BTD
    weights = [] if embedding.before is None else embedding.before
    for distance, weight_D in enumerate(weights, 1):
        x_BTD = x_BTD + weight_D * F.pad(e_BTD, (0, 0, distance, 0))[:, : e_BTD.shape[1]]
    return embedding.norm(x_BTD)


def differentiable(model: Decoder) -> Decoder:
    """Return a copy to take gradients through, in inference mode too."""
    with torch.inference_mode(mode=False):
        twin = copy.deepcopy(model)
        twin.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
        return twin.requires_grad_(requires_grad=False)


def odds_of(model: Decoder, answer: int) -> Callable[[Tensor], Tensor]:
    """Return the function from embedded rows to log-odds.

    It takes (B, T, D) and returns the log-odds after each row, (B,).
    """

    def function(e_BTD: Tensor) -> Tensor:
        hidden_BTD = model.stack(embedded(model.embedding, e_BTD))
        ends_B = torch.arange(1, len(e_BTD) + 1) * e_BTD.shape[1] - 1
        return odds(model.logits(select_rows(hidden_BTD, ends_B)), answer)

    return function


def without_words(e_BTD: Tensor) -> Tensor:
    """Return rows whose tokens all have the row's mean embedding."""
    return e_BTD.mean(1, keepdim=True).expand_as(e_BTD)


def gradient_times_input(model: Decoder, row: Sequence[int], answer: int) -> Float[Tensor, " T"]:
    """Return each token's embedding times the gradient of the log-odds there.

    Args:
        model: as `differentiable` returns it.
        row: ids.
        answer: the explained token.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        e_BTD = F.embedding(torch.tensor([row]), model.embedding.weight).requires_grad_()
        (gradient_BTD,) = torch.autograd.grad(odds_of(model, answer)(e_BTD).sum(), e_BTD)
    return (e_BTD.detach() * gradient_BTD)[0].sum(-1)


def integrated_gradients(
    model: Decoder, row: Sequence[int], answer: int, steps: int
) -> Float[Tensor, " T"]:
    """Return integrated gradients from a row without words (Sundararajan et al. 2017).

    By captum, with Gauss–Legendre quadrature. The straight line begins where every token has the
    row's mean embedding: from zero, a model that normalises its input would turn at once, and the
    line would say nothing. Their sum is the difference of the log-odds between the two ends, up to
    the quadrature's error.

    Args:
        model: as `differentiable` returns it.
        row: ids.
        answer: the explained token.
        steps: places on the straight line where the gradient is taken.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        e_BTD = F.embedding(torch.tensor([row]), model.embedding.weight)
        found = IntegratedGradients(odds_of(model, answer)).attribute(
            e_BTD, without_words(e_BTD), n_steps=steps, method="gausslegendre"
        )
    return found.detach()[0].sum(-1)


def by_part(scores: Float[Tensor, " T"], parts: Sequence[Span]) -> np.ndarray:
    """Return each part's score, the sum over its tokens, (U,)."""
    return np.array([float(scores[start:end].sum()) for start, end in parts])


# ---------------------------------------------------------------------------- methods: part scores


def kept_parts(rng: np.random.Generator, parts: int, rows: int) -> np.ndarray:
    """Return which parts each ablated row keeps, (n, U).

    Each part is kept with probability one half.
    """
    return rng.random((rows, parts)) < 0.5


def surrogate(kept: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Return the weights of a sparse linear model of occlusion, (U,).

    It predicts the log-odds from which parts a row keeps: the Lasso on standardised values, as
    ContextCite has it (Cohen-Wang et al. 2024). A weight is in nats.

    Args:
        kept: (n, U), whether a row keeps a part.
        log_odds: (n,), after each row.
    """
    share, spread = kept.mean(0), kept.std(0)
    x = (kept - share) / np.where(spread > 0, spread, 1)
    scale = log_odds.std() or 1.0
    fit = Lasso(alpha=PENALTY).fit(x, (log_odds - log_odds.mean()) / scale)
    return fit.coef_ * scale / np.where(spread > 0, spread, 1)


# ------------------------------------------------------------------------------------ faithfulness


def area(budgets: Sequence[int], values: Sequence[float]) -> float:
    """Return a curve's mean height over the logarithm of budgets.

    It is the area under straight lines, over the width.

    Args:
        budgets: ascending numbers of parts, from 1.
        values: the curve there.
    """
    x = np.log2(budgets)
    if len(x) == 1:
        return float(values[0])
    return float(np.trapezoid(values, x) / (x[-1] - x[0]))


def order_of(scores: Sequence[float]) -> list[int]:
    """Return the parts, the highest score first; ties in the text's order."""
    return np.argsort(-np.asarray(scores), kind="stable").tolist()


def deleted(order: Sequence[int], budgets: Sequence[int]) -> list[list[int]]:
    """Return what is left without an order's first parts, by budget."""
    return [sorted(order[budget:]) for budget in budgets]


def inserted(order: Sequence[int], budgets: Sequence[int]) -> list[list[int]]:
    """Return an order's first parts, by budget, in the text's order."""
    return [sorted(order[:budget]) for budget in budgets]
