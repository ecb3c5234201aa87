"""Attention by xformers' `memory_efficient_attention`.

A pattern is told to it as one of its `attn_bias` types.

B batch, T query tokens, S key tokens, N heads, G key/value heads, H head width, n tokens packed
into one row. xformers is imported when it is first asked for: that takes seconds, and it has wheels
for Linux alone. Its masks can be made on any device, its kernels run on CUDA.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farcontext.nn.masks import Pattern


class Packed(NamedTuple):
    """A pattern as it is told to xformers.

    With `rows`, the tokens of all rows stand in one: flat positions b·T + i.
    """

    # It is one of xformers' attn_bias types, a tensor (#B, #N, T, S), or None if everything is
    # visible.
    bias: Any
    rows: bool = False
    # These positions take part, and None means all; a query that takes no part gets 0.
    queries: Tensor | None = None
    keys: Tensor | None = None
    # (#B, T, 1, 1): beside a tensor it marks the queries that see nothing; None marks none.
    keyless: Tensor | None = None


def xformers(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern,
) -> Float[Tensor, "B T N H"]:
    """Return attention by xformers' `memory_efficient_attention`.

    Its dispatcher takes flash or cutlass kernels.

    Raises:
        ValueError: no CUDA, no xformers, a relative bias that is being learned, or inputs that no
            kernel of it takes.
    """
    if q_BTNH.device.type != "cuda":
        where = q_BTNH.device.type
        raise ValueError(
            f"backend = xformers: expected CUDA tensors on Linux, not {where}; sdpa runs everywhere"
        )
    try:
        return packed(q_BTNH, k_BSGH, v_BSGH, pattern, fmha().memory_efficient_attention)
    except NotImplementedError as error:
        reasons = " ".join(str(error).split())
        raise ValueError(
            f"backend = xformers: no kernel of it takes this: {reasons[:1000]}"
        ) from error


def packed(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern,
    attention: Callable[..., Tensor],
) -> Float[Tensor, "B T N H"]:
    """Return `attention(q, k, v, attn_bias)` of the packed tokens, in their rows.

    The output is 0 where no key is visible.
    """
    (B, T, N, _), S, G = q_BTNH.shape, k_BSGH.shape[1], k_BSGH.shape[2]
    plan = xformers_bias(pattern, B, T, S, q_BTNH.device, q_BTNH.dtype)
    q, k, v = q_BTNH, k_BSGH, v_BSGH
    if plan.rows:
        q, k, v = _flat(q, plan.queries), _flat(k, plan.keys), _flat(v, plan.keys)
    dense = isinstance(plan.bias, Tensor)
    bias = plan.bias.expand(B, N, T, S) if dense else plan.bias
    grows = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if G == N:
        out = attention(q, k, v, attn_bias=bias)
    elif dense or grows:  # xformers' grouped layout has no backward pass.
        k, v = (x.repeat_interleave(N // G, dim=2) for x in (k, v))
        out = attention(q, k, v, attn_bias=bias)
    else:
        k, v = (x[:, :, :, None].expand(-1, -1, -1, N // G, -1) for x in (k, v))
        out = attention(q.unflatten(2, (G, N // G)), k, v, attn_bias=bias).flatten(2, 3)
    if plan.keyless is not None:
        return out.masked_fill(plan.keyless, 0.0)
    if plan.queries is not None:
        out = out.new_zeros(1, B * T, *out.shape[2:]).index_copy(1, plan.queries, out)
    return out.unflatten(1, (B, T)).squeeze(0) if plan.rows else out


def xformers_bias(
    pattern: Pattern,
    B: int,
    T: int,
    S: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Packed:
    """Return the `attn_bias` that says what the pattern says.

    It is made once a pattern and shape; `dtype` is a tensor's. xformers' types know bands (aligned
    at the bottom right) and, for documents packed into one row, blocks that see all of themselves,
    or causally, or a causal window. What has no type goes in as a dense tensor, O(T·S) memory:
    ALiBi and relative biases, sinks beside a window, any other band within documents. No kernel
    sees a query without a key.

    Raises:
        ValueError: a relative bias that is being learned; documents that are not in one run of
            tokens each, or, in a causal pattern, whose last query is not at their last key.
    """
    if pattern.relative is not None and pattern.relative.requires_grad:
        raise ValueError(
            "backend = xformers: expected a relative bias without gradient; "
            "sdpa and reference learn it"
        )
    key = ("xformers", B, T, S, str(device), dtype)
    if key not in pattern.built:
        with torch.inference_mode(False):
            pattern.built[key] = _xformers_bias(pattern, B, T, S, torch.device(device), dtype)
    return pattern.built[key]


def _xformers_bias(
    pattern: Pattern, B: int, T: int, S: int, device: torch.device, dtype: torch.dtype
) -> Packed:
    before, after = pattern.before, pattern.after
    typed = pattern.plain and not (pattern.sinks and before is not None)
    early = after is not None and S + after < T  # The first queries stand before every key.
    if typed and pattern.documents is None and not early:
        return Packed(_band_bias(before, after, T, S))
    if typed and (after == 0 or (before, after) == (None, None)):
        queries, keys, spans = _blocks(pattern, B, T, S)
        if spans:
            bias = _block_bias(before, after, *map(list, zip(*spans, strict=True)), device)
            if torch.equal(queries, torch.arange(B * T)) and torch.equal(keys, torch.arange(B * S)):
                return Packed(bias, rows=True)
            return Packed(bias, True, queries.to(device), keys.to(device))
    return _dense(pattern, T, S, device, dtype)


def _band_bias(before: int | None, after: int | None, T: int, S: int) -> Any:
    masks = fmha().attn_bias
    match before, after:
        case None, None:
            return None
        case None, 0:
            return (
                masks.LowerTriangularMask()
                if T == S
                else masks.LowerTriangularFromBottomRightMask()
            )
        case _, 0:
            return masks.LowerTriangularFromBottomRightLocalAttentionMask(before + 1)
    left, right = (T + S if limit is None else limit for limit in (before, after))
    return masks.LocalAttentionFromBottomRightMask(left, right)


def _block_bias(
    before: int | None, after: int | None, queries: list[int], keys: list[int], device: torch.device
) -> Any:
    masks = fmha().attn_bias
    if after is None:
        return masks.BlockDiagonalMask.from_seqlens(queries, keys, device=device)
    if queries == keys:
        causal = masks.BlockDiagonalCausalMask.from_seqlens(queries, keys, device=device)
        return causal if before is None else causal.make_local_attention(before + 1)
    causal = masks.BlockDiagonalCausalFromBottomRightMask.from_seqlens(queries, keys, device=device)
    return causal if before is None else causal.make_local_attention_from_bottomright(before + 1)


def _blocks(
    pattern: Pattern, B: int, T: int, S: int
) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Return flat query and key positions, document by document, and their numbers.

    The numbers say how many of each a document has.
    """
    theirs, mine = torch.zeros(B, S, dtype=torch.long), torch.zeros(B, T, dtype=torch.long)
    if pattern.documents is not None:
        theirs, mine = (
            x.cpu().expand(B, -1) for x in (pattern.documents, pattern.query_documents(T))
        )
    queries, keys, spans = [], [], []
    for b in range(B):
        key_runs = _runs(theirs[b])
        for document, (start, stop) in _runs(mine[b]).items():
            if document not in key_runs:
                continue
            first, end = key_runs[document]
            if pattern.after is not None and stop + S - T != end:
                raise ValueError(
                    f"document {document}: expected its last query at its last key for xformers; "
                    "use sdpa"
                )
            # Queries before the document's first key see none.
            seen = (
                start if pattern.after is None else max(start, stop - (end - first) - pattern.after)
            )
            queries.append(torch.arange(b * T + seen, b * T + stop))
            keys.append(torch.arange(b * S + first, b * S + end))
            spans.append((stop - seen, end - first))
    none = torch.zeros(0, dtype=torch.long)
    return torch.cat([none, *queries]), torch.cat([none, *keys]), spans


def _runs(documents_T: Tensor) -> dict[int, tuple[int, int]]:
    """Return where each document starts and stops, padding left out."""
    ids, counts = torch.unique_consecutive(documents_T, return_counts=True)
    stops = counts.cumsum(0)
    runs = zip(ids.tolist(), (stops - counts).tolist(), stops.tolist(), strict=True)
    runs = [(document, (start, stop)) for document, start, stop in runs if document >= 0]
    if len(dict(runs)) < len(runs):
        raise ValueError(
            "documents: expected each in one run of tokens for xformers' block-diagonal masks; "
            "use sdpa"
        )
    return dict(runs)


def _dense(pattern: Pattern, T: int, S: int, device: torch.device, dtype: torch.dtype) -> Packed:
    """Return a tensor that is −inf where a key is hidden.

    A row without a key is 0. The output of such a row is then set to 0.
    """
    allowed, bias = pattern.allowed(T, S, device), pattern.bias(T, S, device)
    bias = torch.zeros((), device=device) if bias is None else bias.detach()
    seeing = allowed.any(-1, keepdim=True)
    bias_BNTS = torch.where(~allowed & seeing, float("-inf"), bias.to(dtype))
    # cutlass wants rows of a multiple of 8 elements.
    bias_BNTS = F.pad(bias_BNTS, (0, -S % 8))[..., :S]
    return Packed(bias_BNTS, keyless=None if seeing.all() else ~seeing.transpose(1, 2))


def _flat(x_BTNH: Tensor, positions_n: Tensor | None) -> Tensor:
    """Return all tokens in one row, or some: (1, n, N, H)."""
    x_nNH = x_BTNH.flatten(0, 1)
    return (x_nNH if positions_n is None else x_nNH.index_select(0, positions_n))[None]


@lru_cache
def fmha() -> ModuleType:
    """Return `xformers.ops.fmha` without a log on stderr.

    Its import would log what it was built without.
    """
    logging.getLogger("xformers").setLevel(logging.ERROR)
    try:
        # This takes seconds, and is not everywhere.
        from xformers.ops import fmha as module  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            f"backend = xformers: {error}; it has wheels for Linux, and kernels for CUDA"
        ) from error
    return module
