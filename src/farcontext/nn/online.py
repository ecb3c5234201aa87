"""Attention block by block, by an online softmax.

It is FlashAttention in plain torch, made to be read.

B batch, T query tokens, S key tokens, N heads, G key/value heads, R = N/G query heads a group,
H head width.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from farcontext.nn.masks import Pattern

BLOCK = 256


def online(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern,
    block: int = BLOCK,
) -> Float[Tensor, "B T N H"]:
    """Return attention block by block, by an online softmax.

    Forward and backward take memory linear in T and S. It is slow, and made to be read. It does the
    online softmax (Milakov & Gimelshein 2018) in the loop order of FlashAttention-2, Alg. 1 (Dao
    2023).
    """
    return online_with_logsumexp(q_BTNH, k_BSGH, v_BSGH, pattern, block)[0]


def online_with_logsumexp(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern,
    block: int = BLOCK,
) -> tuple[Float[Tensor, "B T N H"], Float[Tensor, "B N T"]]:
    """Return `online` and each row's ln Σ exp(score).

    The latter is −inf for a row without a key; no gradient flows through it.

    Raises:
        ValueError: a relative bias that is being learned: the blockwise backward does not reach it.
    """
    if pattern.relative is not None and pattern.relative.requires_grad:
        raise ValueError(
            "backend = online: expected a relative bias without gradient; "
            "sdpa and reference learn it"
        )
    G = k_BSGH.shape[2]
    q_BGRTH = q_BTNH.unflatten(2, (G, -1)).permute(0, 2, 3, 1, 4)
    k_BG1SH, v_BG1SH = (x.transpose(1, 2)[:, :, None] for x in (k_BSGH, v_BSGH))
    out_BGRTH, logsumexp_BGRT = _Online.apply(q_BGRTH, k_BG1SH, v_BG1SH, pattern, block)
    return out_BGRTH.permute(0, 3, 1, 2, 4).flatten(2, 3), logsumexp_BGRT.flatten(1, 2)


def blocks(length: int, block: int, start: int = 0) -> Iterator[slice]:
    return (slice(i, min(i + block, length)) for i in range(start, length, block))


class Sums(NamedTuple):
    """Each query's softmax over the keys so far, before the division."""

    top_BGRt: Tensor  # This is m, the largest score so far.
    total_BGRt: Tensor  # They are ℓ and o, both relative to exp(m).
    mixed_BGRtH: Tensor

    @classmethod
    def none(cls, q_BGRtH: Tensor) -> "Sums":
        """Return the sums over no key."""
        top = q_BGRtH.new_full(q_BGRtH.shape[:-1], float("-inf"))
        return cls(top, torch.zeros_like(top), torch.zeros_like(q_BGRtH))

    def add(self, scores_BGRts: Tensor, v_BG1sH: Tensor) -> "Sums":
        """Return the sums with a block of keys more."""
        higher = torch.maximum(self.top_BGRt, scores_BGRts.amax(-1))
        finite = higher.masked_fill(higher == -math.inf, 0.0)  # This avoids −inf − (−inf).
        # The sums so far are still worth this share, ≤ 1.
        faded = torch.exp(self.top_BGRt - finite)
        p = torch.exp(scores_BGRts - finite[..., None])
        mixed = faded[..., None] * self.mixed_BGRtH + p @ v_BG1sH
        return Sums(higher, faded * self.total_BGRt + p.sum(-1), mixed)

    def attention(self) -> Tensor:
        """Return o/ℓ, 0 for a query that saw no key."""
        return self.mixed_BGRtH / self.total_BGRt.masked_fill(self.total_BGRt == 0, 1.0)[..., None]


def scores_of(
    q_BGRtH: Tensor, k_BG1sH: Tensor, pattern: Pattern, lengths: tuple[int, int], at: tuple
) -> Tensor:
    """Return one block of scaled scores, bias added, −inf where hidden."""
    scores_BGRts = q_BGRtH @ k_BG1sH.mT / math.sqrt(q_BGRtH.shape[-1])
    bias = pattern.bias(*lengths, q_BGRtH.device, *at)
    if bias is not None:
        scores_BGRts = scores_BGRts + bias.to(scores_BGRts.dtype).unflatten(1, q_BGRtH.shape[1:3])
    allowed = pattern.allowed(*lengths, q_BGRtH.device, *at)
    return scores_BGRts.masked_fill(~allowed[:, None], float("-inf"))


class _Online(torch.autograd.Function):
    """Forward keeps the output and one logsumexp a row.

    Backward computes the weights again from it, block by block.
    """

    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, block: int
    ) -> tuple[Tensor, Tensor]:
        T, S = q.shape[-2], k.shape[-2]
        out, logsumexp = torch.zeros_like(q), q.new_full(q.shape[:-1], float("-inf"))
        for rows in blocks(T, block):
            q_t = q[..., rows, :]
            sums = Sums.none(q_t)
            seen = pattern.keys_of(rows, T, S)
            for columns in blocks(seen.stop, block, seen.start):
                scores = scores_of(q_t, k[..., columns, :], pattern, (T, S), (rows, columns))
                sums = sums.add(scores, v[..., columns, :])
            out[..., rows, :] = sums.attention()
            logsumexp[..., rows] = sums.top_BGRt + sums.total_BGRt.log()
        ctx.save_for_backward(q, k, v, out, logsumexp)
        ctx.pattern, ctx.block = pattern, block
        ctx.mark_non_differentiable(logsumexp)
        return out, logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Return the gradients of q, k and v.

        FlashAttention, app. B, eq. 3–6, has dV = PᵀdO, dS = P∘(dOVᵀ − D), D = Σ_h dO∘O, dQ = c·dS
        K, dK = c·dSᵀQ.
        """
        q, k, v, out, logsumexp = ctx.saved_tensors
        T, S, scale = q.shape[-2], k.shape[-2], 1 / math.sqrt(q.shape[-1])
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        D = (d_out * out).sum(-1, keepdim=True)
        finite = logsumexp.masked_fill(logsumexp == -math.inf, 0.0)[..., None]
        for rows in blocks(T, ctx.block):
            q_t, d_t = q[..., rows, :], d_out[..., rows, :]
            seen = ctx.pattern.keys_of(rows, T, S)
            for columns in blocks(seen.stop, ctx.block, seen.start):
                k_s, v_s = k[..., columns, :], v[..., columns, :]
                p = torch.exp(
                    scores_of(q_t, k_s, ctx.pattern, (T, S), (rows, columns)) - finite[..., rows, :]
                )
                d_scores = p * (d_t @ v_s.mT - D[..., rows, :]) * scale
                dq[..., rows, :] += d_scores @ k_s
                # A key/value head serves R query heads, so its gradient is their sum.
                dk[..., columns, :] += (d_scores.mT @ q_t).sum(2, keepdim=True)
                dv[..., columns, :] += (p.mT @ d_t).sum(2, keepdim=True)
        return dq, dk, dv, None, None
