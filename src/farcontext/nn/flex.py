"""Attention by torch's `flex_attention`, with the pattern as functions of positions.

B batch, T query tokens, S key tokens, N heads, G key/value heads, H head width.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from farcontext.nn.masks import Pattern


def flex(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern,
) -> Float[Tensor, "B T N H"]:
    """Return attention by torch's `flex_attention`.

    It is compiled on CUDA; elsewhere it is unfused, takes O(T·S) memory and runs forward only.
    Hidden blocks of 128 queries and keys are skipped; the block mask is built once a pattern and
    shape.

    Raises:
        ValueError: gradients wanted without CUDA, or a relative bias that is being learned.
    """
    fused = q_BTNH.device.type == "cuda"
    if (
        not fused
        and torch.is_grad_enabled()
        and any(x.requires_grad for x in (q_BTNH, k_BSGH, v_BSGH))
    ):
        raise ValueError(
            "backend = flex: its backward pass needs CUDA; on the CPU use sdpa, or torch.no_grad()"
        )
    if pattern.relative is not None and pattern.relative.requires_grad:
        raise ValueError(
            "backend = flex: expected a relative bias without gradient; sdpa and reference learn it"
        )
    q_BNTH, k_BGSH, v_BGSH = (x.transpose(1, 2) for x in (q_BTNH, k_BSGH, v_BSGH))
    attention, blocks_of = _flex(fused)
    options = {
        "score_mod": _score_mod(pattern, q_BNTH, k_BGSH.shape[2]),
        "block_mask": _block_mask(pattern, q_BNTH, k_BGSH.shape[2], blocks_of),
        "enable_gqa": q_BNTH.shape[1] != k_BGSH.shape[1],
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without")
        return attention(q_BNTH, k_BGSH, v_BGSH, **options).transpose(1, 2)


@lru_cache
def _flex(fused: bool) -> tuple[Callable[..., Tensor], Callable[..., Any]]:
    """Return `flex_attention` and `create_block_mask`."""
    # This brings in torch's compiler.
    from torch.nn.attention import flex_attention as module  # noqa: PLC0415

    functions = module.flex_attention, module.create_block_mask
    return (
        tuple(torch.compile(function, dynamic=False) for function in functions)
        if fused
        else functions
    )


def _score_mod(pattern: Pattern, q_BNTH: Tensor, S: int) -> Callable[..., Tensor] | None:
    """Return what changes a scaled score; the same sums as `Pattern.bias`."""
    shift, dtype = S - q_BNTH.shape[2], torch.promote_types(q_BNTH.dtype, torch.float32)
    if pattern.relative is not None:
        table, furthest = pattern.relative.to(q_BNTH.device, dtype), pattern.relative.shape[1] // 2
        return lambda score, b, n, i, j: (
            score + table[n, (j - i - shift).clamp(-furthest, furthest) + furthest]
        )
    if pattern.slopes is not None:
        slopes = pattern.slopes.to(q_BNTH.device, dtype)
        return lambda score, b, n, i, j: score - slopes[n] * (j - i - shift).abs()
    return None


def _block_mask(pattern: Pattern, q_BNTH: Tensor, S: int, blocks_of: Callable[..., Any]) -> Any:
    """Return flex's block mask of the pattern.

    It is None where every key is visible.
    """
    (B, _, T, _), device = q_BNTH.shape, q_BNTH.device
    if pattern.before is None and pattern.after is None and pattern.documents is None:
        return None
    key = ("flex", B, T, S, str(device))
    if key not in pattern.built:
        with torch.inference_mode(False):
            rows = None if pattern.documents is None else B
            pattern.built[key] = blocks_of(
                _mask_mod(pattern, B, T, S, device), rows, None, T, S, device=str(device)
            )
    return pattern.built[key]


def _mask_mod(
    pattern: Pattern, B: int, T: int, S: int, device: torch.device
) -> Callable[..., Tensor]:
    """Return `Pattern.allowed` as a test of query i and key j."""
    shift, sinks = S - T, pattern.sinks
    before, after = (T + S if limit is None else limit for limit in (pattern.before, pattern.after))

    def in_band(b: Tensor, n: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return ((j - i - shift >= -before) | (j < sinks)) & (j - i - shift <= after)

    if pattern.documents is None:
        return in_band
    theirs, mine = (
        x.to(device).expand(B, -1) for x in (pattern.documents, pattern.query_documents(T))
    )

    def in_document(b: Tensor, n: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return in_band(b, n, i, j) & (mine[b, i] == theirs[b, j]) & (theirs[b, j] >= 0)

    return in_document
