"""Fast paths over torch's fused attention, and flex.

B batch, T query tokens, S key tokens, N heads, G key/value heads, H head width, C blocks, c queries a block,
W keys a block may see.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farcontext.nn.masks import Pattern


def sdpa(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern,
) -> Float[Tensor, "B T N H"]:
    """Return attention by torch's fused kernel, scores scaled by 1/√H.

    It takes O(T·S) work, and memory linear in T and S. The mask is dense (boolean, or additive with
    ALiBi) unless the pattern is full, or causal with T = S. A mask and `is_causal` are never given
    at once: the flash path would combine them and the math path refuse. A query without a visible
    key gets 0. A NaN in a hidden value still spreads: 0 · NaN.
    """
    T, S = q_BTNH.shape[1], k_BSGH.shape[1]
    # `is_causal` is aligned at the top left, which is our alignment only where T = S.
    is_causal = pattern.is_causal() and T == S
    mask = None if is_causal or pattern.is_full() else _mask(pattern, q_BTNH, S)
    return _fused(q_BTNH, k_BSGH, v_BSGH, mask, is_causal)


def _fused(q_BTNH: Tensor, k_BSGH: Tensor, v_BSGH: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
    out_BNTH = F.scaled_dot_product_attention(
        q_BTNH.transpose(1, 2),
        k_BSGH.transpose(1, 2),
        v_BSGH.transpose(1, 2),
        attn_mask=mask,
        is_causal=is_causal,
        enable_gqa=q_BTNH.shape[2] != k_BSGH.shape[2],
    )
    return out_BNTH.transpose(1, 2)


def _mask(pattern: Pattern, q_BTNH: Tensor, S: int) -> Tensor:
    T, device = q_BTNH.shape[1], q_BTNH.device
    key = ("dense", T, S, str(device), q_BTNH.dtype)
    if key not in pattern.built:
        with torch.inference_mode(False):  # A mask first made in evaluation must serve training too.
            mask, bias = pattern.allowed(T, S, device), pattern.bias(T, S, device)
            if bias is not None:
                mask = bias.to(q_BTNH.dtype).masked_fill(~mask, float("-inf"))
        pattern.built[key] = mask
    return pattern.built[key]


def block_size(pattern: Pattern) -> int:
    """Return c, the number of queries a block.

    It is half of what a query sees, in steps of 32 (measured on CPU: ±1 step costs < 15 %).
    """
    return min(max((pattern.before + pattern.after) // 64 * 32, 32), 128)


def is_local(pattern: Pattern, T: int, S: int) -> bool:
    """Return whether `sdpa_local` computes this pattern faster.

    It does (measured) for a band where T = S and T is at least 2.5 key spans.
    """
    if not pattern.banded or T != S or pattern.queries is not None:
        return False
    return 5 * (block_size(pattern) + pattern.before + pattern.after) <= 2 * T


def sdpa_local(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B T G H"],
    v_BSGH: Float[Tensor, "B T G H"],
    pattern: Pattern,
) -> Float[Tensor, "B T N H"]:
    """Return the same as `sdpa` for a band.

    Each block of queries meets its neighbouring keys only, which takes O(T·W) work. Block b holds
    queries [b·c, b·c + c); its keys are [b·c − before, b·c + c + after), W = c + before + after of
    them.

    Raises:
        ValueError: not a plain band, or T ≠ S.
    """
    B, T = q_BTNH.shape[:2]
    if not pattern.banded or k_BSGH.shape[1] != T or pattern.queries is not None:
        raise ValueError(f"T = {T}, S = {k_BSGH.shape[1]}, {pattern}: expected T = S and a plain band")
    c = block_size(pattern)
    q_bcNH = _pad(q_BTNH, 0, -T % c).unflatten(1, (-1, c)).flatten(0, 1)
    k_bWGH, v_bWGH = (_neighbours(x, pattern, c).flatten(0, 1) for x in (k_BSGH, v_BSGH))
    allowed_bcW = _local_allowed(pattern, T, c, q_BTNH.device).expand(B, -1, -1, -1).flatten(0, 1)
    out_bcNH = _fused(q_bcNH, k_bWGH, v_bWGH, allowed_bcW[:, None])
    return out_bcNH.unflatten(0, (B, -1)).flatten(1, 2)[:, :T]


def _pad(x_BT: Tensor, left: int, right: int, value: int = 0) -> Tensor:
    """Pad axis 1."""
    return F.pad(x_BT, (0, 0) * (x_BT.ndim - 2) + (left, right), value=value)


def _neighbours(x_BT: Tensor, pattern: Pattern, c: int, value: int = 0) -> Tensor:
    """Return (B, C, W, …): for each block of c queries its span of keys, `value` beyond both ends."""
    right = pattern.after + -x_BT.shape[1] % c
    windows = _pad(x_BT, pattern.before, right, value).unfold(1, c + pattern.before + pattern.after, c)
    return windows.movedim(-1, 2)


def _local_allowed(pattern: Pattern, T: int, c: int, device: torch.device) -> Bool[Tensor, "#B C c W"]:
    """Return the mask of `sdpa_local`, built once a pattern and length."""
    key = ("local", T, c, str(device))
    if key not in pattern.built:
        pattern.built[key] = _local_mask(pattern, T, c, device)
    return pattern.built[key]


def _local_mask(pattern: Pattern, T: int, c: int, device: torch.device) -> Bool[Tensor, "#B C c W"]:
    keys_1CW = _neighbours(torch.arange(T, device=device)[None], pattern, c, value=-1)
    queries_1Cc = torch.arange(T + -T % c, device=device).view(1, -1, c)
    offset = keys_1CW[:, :, None, :] - queries_1Cc[..., None]
    allowed = (keys_1CW >= 0)[:, :, None, :] & (offset >= -pattern.before) & (offset <= pattern.after)
    if pattern.documents is None:
        return allowed
    theirs_BCW = _neighbours(pattern.documents, pattern, c, value=-1)
    mine_BCc = _pad(pattern.documents, 0, -T % c, value=-1).unflatten(1, (-1, c))
    same = (mine_BCc[..., None] == theirs_BCW[:, :, None, :]) & (theirs_BCW >= 0)[:, :, None, :]
    return allowed & same.to(device)


# ------------------------------------------------------------------------------------------------------------ flex


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
    if not fused and torch.is_grad_enabled() and any(x.requires_grad for x in (q_BTNH, k_BSGH, v_BSGH)):
        raise ValueError("backend = flex: its backward pass needs CUDA; on the CPU use sdpa, or torch.no_grad()")
    if pattern.relative is not None and pattern.relative.requires_grad:
        raise ValueError("backend = flex: expected a relative bias without gradient; sdpa and reference learn it")
    q_BNTH, k_BGSH, v_BGSH = (x.transpose(1, 2) for x in one_dtype(q_BTNH, k_BSGH, v_BSGH))
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
    from torch.nn.attention import flex_attention as module  # noqa: PLC0415 (brings in torch's compiler)

    functions = module.flex_attention, module.create_block_mask
    return tuple(torch.compile(function, dynamic=False) for function in functions) if fused else functions


def _score_mod(pattern: Pattern, q_BNTH: Tensor, S: int) -> Callable[..., Tensor] | None:
    """Return what changes a scaled score; the same sums as `Pattern.bias`."""
    shift, dtype = S - q_BNTH.shape[2], torch.promote_types(q_BNTH.dtype, torch.float32)
    if pattern.relative is not None:
        table, furthest = pattern.relative.to(q_BNTH.device, dtype), pattern.relative.shape[1] // 2
        return lambda score, b, n, i, j: score + table[n, (j - i - shift).clamp(-furthest, furthest) + furthest]
    if pattern.slopes is not None:
        slopes = pattern.slopes.to(q_BNTH.device, dtype)
        return lambda score, b, n, i, j: score - slopes[n] * (j - i - shift).abs()
    return None


def _block_mask(pattern: Pattern, q_BNTH: Tensor, S: int, blocks_of: Callable[..., Any]) -> Any:
    """Return flex's block mask of the pattern, None where every key is visible."""
    (B, _, T, _), device = q_BNTH.shape, q_BNTH.device
    if pattern.before is None and pattern.after is None and pattern.documents is None:
        return None
    key = ("flex", B, T, S, str(device))
    if key not in pattern.built:
        with torch.inference_mode(False):
            rows = None if pattern.documents is None else B
            pattern.built[key] = blocks_of(_mask_mod(pattern, B, T, S, device), rows, None, T, S, device=str(device))
    return pattern.built[key]


def _mask_mod(pattern: Pattern, B: int, T: int, S: int, device: torch.device) -> Callable[..., Tensor]:
    """Return the same test of a query i and a key j as `Pattern.allowed`."""
    shift, sinks = S - T, pattern.sinks
    before, after = (T + S if limit is None else limit for limit in (pattern.before, pattern.after))

    def in_band(b: Tensor, n: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return ((j - i - shift >= -before) | (j < sinks)) & (j - i - shift <= after)

    if pattern.documents is None:
        return in_band
    theirs, mine = (x.to(device).expand(B, -1) for x in (pattern.documents, pattern.query_documents(T)))

    def in_document(b: Tensor, n: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return in_band(b, n, i, j) & (mine[b, i] == theirs[b, j]) & (theirs[b, j] >= 0)

    return in_document


def one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return q, k and v in the dtype that autocast wants.

    Autocast knows torch's own attention, but not flex and xformers.
    """
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(kind)) for x in tensors)
