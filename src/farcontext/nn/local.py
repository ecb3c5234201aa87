"""Attention within a band: blocks of queries meet neighbouring keys only.

B batch, T query tokens, N heads, G key/value heads, H head width, C blocks, c queries a block,
W keys a block may see.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farcontext.nn.masks import Pattern
from farcontext.nn.sdpa import fused


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
        raise ValueError(
            f"T = {T}, S = {k_BSGH.shape[1]}, {pattern}: expected T = S and a plain band"
        )
    c = block_size(pattern)
    q_bcNH = _pad(q_BTNH, 0, -T % c).unflatten(1, (-1, c)).flatten(0, 1)
    k_bWGH, v_bWGH = (_neighbours(x, pattern, c).flatten(0, 1) for x in (k_BSGH, v_BSGH))
    allowed_bcW = _local_allowed(pattern, T, c, q_BTNH.device).expand(B, -1, -1, -1).flatten(0, 1)
    out_bcNH = fused(q_bcNH, k_bWGH, v_bWGH, allowed_bcW[:, None])
    return out_bcNH.unflatten(0, (B, -1)).flatten(1, 2)[:, :T]


def _pad(x_BT: Tensor, left: int, right: int, value: int = 0) -> Tensor:
    """Pad axis 1."""
    return F.pad(x_BT, (0, 0) * (x_BT.ndim - 2) + (left, right), value=value)


def _neighbours(x_BT: Tensor, pattern: Pattern, c: int, value: int = 0) -> Tensor:
    """Return each block's span of keys, (B, C, W, …).

    A block has c queries. Beyond both ends stands `value`.
    """
    right = pattern.after + -x_BT.shape[1] % c
    windows = _pad(x_BT, pattern.before, right, value).unfold(
        1, c + pattern.before + pattern.after, c
    )
    return windows.movedim(-1, 2)


def _local_allowed(
    pattern: Pattern, T: int, c: int, device: torch.device
) -> Bool[Tensor, "#B C c W"]:
    """Return the mask of `sdpa_local`, built once a pattern and length."""
    key = ("local", T, c, str(device))
    if key not in pattern.built:
        pattern.built[key] = _local_mask(pattern, T, c, device)
    return pattern.built[key]


def _local_mask(pattern: Pattern, T: int, c: int, device: torch.device) -> Bool[Tensor, "#B C c W"]:
    keys_1CW = _neighbours(torch.arange(T, device=device)[None], pattern, c, value=-1)
    queries_1Cc = torch.arange(T + -T % c, device=device).view(1, -1, c)
    offset = keys_1CW[:, :, None, :] - queries_1Cc[..., None]
    allowed = (
        (keys_1CW >= 0)[:, :, None, :] & (offset >= -pattern.before) & (offset <= pattern.after)
    )
    if pattern.documents is None:
        return allowed
    theirs_BCW = _neighbours(pattern.documents, pattern, c, value=-1)
    mine_BCc = _pad(pattern.documents, 0, -T % c, value=-1).unflatten(1, (-1, c))
    same = (mine_BCc[..., None] == theirs_BCW[:, :, None, :]) & (theirs_BCW >= 0)[:, :, None, :]
    return allowed & same.to(device)
