"""Position encodings as pure functions.

T tokens, H head width, F = H/2 frequencies, D model width, N heads. Angles are computed in fp64 and only their cosine
and sine are cast: near position 2**20 an fp32 angle is off by up to 0.06 rad.
"""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor

SCHEMES = ("rope",)


def inverse_frequencies(
    scheme: str,
    *,
    head_dim: int,
    theta: float = 10_000.0,
    scale: float = 1.0,
    trained_length: int,
    length: int | None = None,
) -> Float[Tensor, " F"]:
    """Return RoPE's inverse frequencies, fp64, radians a token: pair i at position p turns by p * result[i].

    "rope" (RoFormer, eq. 15 and 34): theta ** (-2i/H), i from 0. It extends nothing, so it ignores `scale`,
    `trained_length` and `length` (the current one), which the schemes that do take in the same call.
    Not applied: attention factors, partial rotation.

    Raises:
        ValueError: unknown scheme, or an odd `head_dim`.
    """
    if head_dim % 2:
        raise ValueError(f"head_dim = {head_dim}: expected an even number, RoPE turns channels in pairs")
    match scheme:
        case "rope":
            return theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        case _:
            raise ValueError(f"scheme = {scheme!r}: expected one of {', '.join(SCHEMES)}")


def rotation_table(
    inv_freq: Float[Tensor, " F"], positions: Num[Tensor, "*t"], dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "*t F"], Float[Tensor, "*t F"]]:
    """Return cos and sin of position * frequency: angles in fp64, then cast to `dtype`. Positions may be fractions."""
    angles = positions.double()[..., None] * inv_freq.double()
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    x_BTNH: Float[Tensor, "B T N H"],
    cos: Float[Tensor, "*t F"],
    sin: Float[Tensor, "*t F"],
    pairing: Literal["half", "interleaved"] = "half",
) -> Float[Tensor, "B T N H"]:
    """Turn each channel pair by its angle (RoFormer eq. 34). `cos` and `sin` are (T, F) or (B, T, F).

    "half" pairs channels (i, i+F): GPT-NeoX, Hugging Face. "interleaved" pairs (2i, 2i+1): RoFormer, GPT-J, Meta's own
    Llama weights. They differ by the permutation of `pairs_together`; mixing them is silent and wrong.

    Raises:
        ValueError: unknown pairing, or tables that do not fit the head width.
    """
    if 2 * cos.shape[-1] != x_BTNH.shape[-1]:
        raise ValueError(f"F = {cos.shape[-1]}, H = {x_BTNH.shape[-1]}: expected H = 2F")
    cos, sin = cos[..., None, :], sin[..., None, :]  # one angle for all heads
    wide_BTNH = x_BTNH.to(torch.promote_types(x_BTNH.dtype, cos.dtype))
    match pairing:
        case "half":  # x·(cos, cos) + (second half, first half)·(−sin, sin)
            swapped_BTNH = wide_BTNH.roll(cos.shape[-1], -1)
            turned = torch.addcmul(wide_BTNH * torch.cat((cos, cos), -1), swapped_BTNH, torch.cat((-sin, sin), -1))
        case "interleaved":  # two neighbours are a complex number: one pass over memory, four times faster than "half"
            turned = torch.view_as_complex(wide_BTNH.unflatten(-1, (-1, 2))) * torch.complex(cos, sin)
            turned = torch.view_as_real(turned).flatten(-2)
        case _:
            raise ValueError(f"pairing = {pairing!r}: expected half or interleaved")
    return turned.to(x_BTNH.dtype)


def pairs_together(head_dim: int) -> list[int]:
    """Return the channel order 0, F, 1, F+1, … that puts the pairs of "half" side by side.

    Taken on q and k alike it leaves every q·k as it was, and "half" becomes "interleaved".
    """
    return [channel for i in range(head_dim // 2) for channel in (i, i + head_dim // 2)]


def sinusoidal(length: int, width: int) -> Float[Tensor, "T D"]:
    """Return Vaswani et al. 2017 (§3.5), fp64: PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos of the same.

    Interleaved as printed; GPT-J and fairseq put all sines first. Not applied: any scale.
    """
    inv_freq = inverse_frequencies("rope", head_dim=width + width % 2, trained_length=length)
    if width % 2:  # the exponent is over D, not D + 1
        inv_freq = 10_000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    cos, sin = rotation_table(inv_freq, torch.arange(length), torch.float64)
    return torch.stack((sin, cos), -1).flatten(-2)[:, :width]


def smear(
    k_BSGH: Float[Tensor, "B S G H"],
    mix_G: Float[Tensor, " G"] | None,
    documents_BS: Int[Tensor, "B S"] | None = None,
    causal: bool = True,
) -> Float[Tensor, "B S G H"]:
    """Return (1 − σ(mix))·k_j + σ(mix)·k_{j−1} for each head: a key that also says what stands before its token.

    Smeared keys (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits") let one layer do what takes
    an induction head two. Without `causal`, odd heads look at the next key instead. Before the first token of a
    document stands nothing: that neighbour counts as 0. Apply before any rotation. Without a mix, keys stay as they are.
    """
    if mix_G is None:
        return k_BSGH
    before = F.pad(k_BSGH[:, :-1], (0, 0, 0, 0, 1, 0))
    after = F.pad(k_BSGH[:, 1:], (0, 0, 0, 0, 0, 1))
    if documents_BS is not None:
        same = (documents_BS[:, 1:] == documents_BS[:, :-1])[..., None, None].to(k_BSGH.dtype)
        before = before * F.pad(same, (0, 0, 0, 0, 1, 0))
        after = after * F.pad(same, (0, 0, 0, 0, 0, 1))
    if not causal:
        odd = (torch.arange(len(mix_G), device=k_BSGH.device) % 2 == 1)[:, None]
        before = torch.where(odd, after, before)
    share = mix_G.sigmoid()[:, None]
    return torch.lerp(k_BSGH, before, share.to(k_BSGH.dtype))


@lru_cache(maxsize=16)
def rotation_table_of(
    head_width: int, theta: float, length: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """One table for all layers and steps of a length."""
    inv_freq = inverse_frequencies("rope", head_dim=head_width, theta=theta, trained_length=length)
    cos, sin = rotation_table(inv_freq, torch.arange(length), dtype)
    return cos.to(device), sin.to(device)


def positions_within(tokens_BT: Tensor, documents_BT: Tensor | None) -> Int[Tensor, "*B T"]:
    """Return each token's position, from 0 at the start of its document (a run of equal ids)."""
    at_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    if documents_BT is None:
        return at_T
    starts_BT = F.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0), value=True)
    return at_T - (at_T * starts_BT).cummax(-1).values
