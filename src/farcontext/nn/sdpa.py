"""Attention by torch's fused `scaled_dot_product_attention`.

B batch, T query tokens, S key tokens, N heads, G key/value heads, H head width.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from farcontext.nn.masks import Pattern

# cuDNN gives a query without a key another output than 0 (seen on an H200, torch 2.11), and flash
# takes no mask.
MASKED = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


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
    return fused(q_BTNH, k_BSGH, v_BSGH, mask, is_causal)


def fused(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    mask: Tensor | None,
    is_causal: bool = False,
) -> Float[Tensor, "B T N H"]:
    """Return torch's own attention.

    It is under a mask, or causal from the top left, or neither.
    """
    masked_on_card = q_BTNH.device.type == "cuda" and mask is not None
    with sdpa_kernel(MASKED) if masked_on_card else nullcontext():
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
        # A mask first made in evaluation must serve training too.
        with torch.inference_mode(False):
            mask, bias = pattern.allowed(T, S, device), pattern.bias(T, S, device)
            if bias is not None:
                mask = bias.to(q_BTNH.dtype).masked_fill(~mask, float("-inf"))
        pattern.built[key] = mask
    return pattern.built[key]
