"""The formula of attention by hand: forward, backward, and in blocks.

Sizes: T tokens (queries), S key tokens, N heads, H head width, D model width, V vocabulary.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def three_steps(
    embedding_VD: Float[Tensor, "V D"], tokens: list[int], *projections_DH: Float[Tensor, "D H"]
) -> Float[Tensor, "T H"]:
    """Return one head's attention in the article's three steps (§3.2), pairwise.

    Args:
        projections_DH: the matrices that make queries, keys and values.
    """
    x_TD = [embedding_VD[token] for token in tokens]  # Step 1 turns text into vectors.
    q_TH, k_TH, v_TH = ([x_D @ w_DH for x_D in x_TD] for w_DH in projections_DH)
    out_TH = []
    for q_H in q_TH:
        raw = [math.exp(float(q_H @ k_H) / math.sqrt(len(q_H))) for k_H in k_TH]
        weights = [
            number / sum(raw) for number in raw
        ]  # Step 2: the weights are positive and sum to 1.
        out_TH.append(
            sum(weight * v_H for weight, v_H in zip(weights, v_TH, strict=True))
        )  # Step 3 mixes values.
    return torch.stack(out_TH)


def softmax_jacobian(p_S: Float[Tensor, " S"]) -> Float[Tensor, "S S"]:
    """Return ∂p_i/∂z_j = p_i(δ_ij − p_j) of p = softmax(z)."""
    return torch.diag(p_S) - torch.outer(p_S, p_S)


def hand_gradients(
    q_NTH: Float[Tensor, "N T H"],
    k_NSH: Float[Tensor, "N S H"],
    v_NSH: Float[Tensor, "N S H"],
    d_out_NTH: Float[Tensor, "N T H"],
    allowed_TS: Bool[Tensor, "T S"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dQ, dK, dV given dO (FlashAttention, app. B, eq. 3–6)."""
    c = 1 / math.sqrt(q_NTH.shape[-1])
    p_NTS = (c * q_NTH @ k_NSH.mT).masked_fill(~allowed_TS, -math.inf).softmax(-1)
    d_v = p_NTS.mT @ d_out_NTH
    d_p = d_out_NTH @ v_NSH.mT
    d_scores = p_NTS * (d_p - (p_NTS * d_p).sum(-1, keepdim=True))
    return c * d_scores @ k_NSH, c * d_scores.mT @ q_NTH, d_v


class Partial(NamedTuple):
    """The state of one query after some of its keys."""

    m: Float[Tensor, ""]  # m is the largest score.
    l: Float[Tensor, ""]  # ℓ is Σ e^{z−m}.
    o: Float[Tensor, " H"]  # o is Σ e^{z−m} v, and the output is o/ℓ.


def partial(z_S: Float[Tensor, " S"], v_SH: Float[Tensor, "S H"]) -> Partial:
    """Return the state after one block of scores z and values v."""
    m = z_S.max()
    e_S = torch.exp(z_S - m)
    return Partial(m, e_S.sum(), e_S @ v_SH)


def merge(a: Partial, b: Partial) -> Partial:
    """Merge two states, in either order (Milakov & Gimelshein 2018, eq. 4)."""
    m = torch.maximum(a.m, b.m)
    worth_a, worth_b = (
        torch.exp(a.m - m),
        torch.exp(b.m - m),
    )  # Each is at most 1, so nothing overflows.
    return Partial(m, worth_a * a.l + worth_b * b.l, worth_a * a.o + worth_b * b.o)
