"""Training-free remapping: far keys get relative positions that training has seen.

B batch, T tokens (queries and keys), N heads, G key/value heads, R = N/G, H head width, F = H/2.

RoPE's scores depend on i − j alone, so giving queries and keys other positions in each region of
(i, j) pairs bounds every distance by the trained length L, without touching weights or frequencies.
Each region's scores are computed, and one softmax goes over all: plain, and made to be read.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from farcontext.nn.layers import Attention, Cache, Rotation
from farcontext.nn.masks import Pattern
from farcontext.nn.rotation import rotate
from farcontext.nn.transformer import Decoder


class Region(NamedTuple):
    """Pairs (i, j) whose relative position is `queries[i] − keys[j]`."""

    visible: Bool[Tensor, "T T"]
    queries: Int[Tensor, " T"]
    keys: Int[Tensor, " T"]


Regions = Callable[[int], list[Region]]  # The regions of a row of T tokens.


def _distances(length: int) -> tuple[Int[Tensor, " T"], Int[Tensor, "T T"]]:
    at = torch.arange(length)
    return at, at[:, None] - at


def _as_trained(length: int) -> list[Region]:
    """Return the one region of a row that fits the trained length."""
    at, distance = _distances(length)
    return [Region(distance >= 0, at, at)]


def self_extend(length: int, *, trained: int, window: int) -> list[Region]:
    """Return SelfExtend's two regions (Jin et al. 2024, algorithm 1).

    Neighbours keep their distance; beyond `window` positions are floored to groups, whose size is
    the least that keeps every distance below the trained length.

    Args:
        length: T.
        trained: L.
        window: the neighbours' distance from which on groups count.

    Raises:
        ValueError: a window of the trained length or more.
    """
    if window >= trained:
        raise ValueError(f"window = {window}: expected less than the trained length {trained}")
    if length <= trained:
        return _as_trained(length)
    at, distance = _distances(length)
    group = next(
        g for g in itertools.count(1) if (length - 1) // g + window - window // g < trained
    )
    near = (distance >= 0) & (distance < window)
    far = distance >= window
    return [Region(near, at, at), Region(far, at // group + window - window // group, at // group)]


def dual_chunk(length: int, *, trained: int, chunk: int) -> list[Region]:
    """Return dual chunk attention's three regions (An et al. 2024, §3).

    Within a chunk distances are true; keys of the chunk before are true up to L − `chunk`; all
    earlier keys seem as far as training allows.

    Args:
        length: T.
        trained: L.
        chunk: tokens of a chunk, at most L.

    Raises:
        ValueError: a chunk longer than the trained length.
    """
    if chunk > trained:
        raise ValueError(f"chunk = {chunk}: expected at most the trained length {trained}")
    if length <= trained:
        return _as_trained(length)
    at, distance = _distances(length)
    inside, number = at % chunk, at // chunk
    back = number[:, None] - number
    causal, last = distance >= 0, torch.full_like(at, trained - 1)
    return [
        Region(causal & (back == 0), inside, inside),
        Region(causal & (back == 1), (inside + chunk).clamp(max=trained - 1), inside),
        Region(causal & (back > 1), last, inside),
    ]


def lm_infinite(length: int, *, trained: int, sinks: int) -> list[Region]:
    """Return LM-Infinite's two regions (Han et al. 2023, §3): a Λ-shaped mask.

    The last L keys keep their distance; the first `sinks` keys beyond them seem L − 1 away, the
    furthest that training has seen. What stands between is not visible.

    Args:
        length: T.
        trained: L.
        sinks: first keys that stay visible.
    """
    if length <= trained:
        return _as_trained(length)
    at, distance = _distances(length)
    near = (distance >= 0) & (distance < trained)
    first = (distance >= trained) & (at < sinks)
    return [
        Region(near, at, at),
        Region(first, torch.full_like(at, trained - 1), torch.zeros_like(at)),
    ]


def attend_regions(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BTGH: Float[Tensor, "B T G H"],
    v_BTGH: Float[Tensor, "B T G H"],
    rotation: Rotation,
    regions: list[Region],
    last: int | None = None,
) -> Float[Tensor, "B t N H"]:
    """Return attention whose positions differ by region.

    Args:
        q_BTNH: queries before they are turned, channels interleaved.
        k_BTGH: keys, alike.
        v_BTGH: values.
        rotation: cos and sin of the positions 0 … at least L − 1, (P, F).
        regions: they are disjoint, and every query sees a key.
        last: only the last queries are answered; None: all.
    """
    cos, sin = rotation
    T, G = k_BTGH.shape[1], k_BTGH.shape[2]
    asked = slice(T - (last or T), T)
    turned = []
    for region in regions:
        at = region.queries[asked]
        q = rotate(q_BTNH[:, asked], cos[at], sin[at], "interleaved") * q_BTNH.shape[-1] ** -0.5
        k = rotate(k_BTGH, cos[region.keys], sin[region.keys], "interleaved")
        q_BGRTH = q.unflatten(2, (G, -1)).permute(0, 2, 3, 1, 4)
        k_BGHT = k.permute(0, 2, 3, 1)
        turned.append((q_BGRTH, k_BGHT, region.visible[asked].to(q.device)))
    v_BGTH = v_BTGH.transpose(1, 2)
    rows = []
    # One row's scores stay in the processor's cache, those of a batch do not: a third of the time.
    for row, v_GTH in enumerate(v_BGTH):
        scores_GRTS = q_BTNH.new_full((), -torch.inf)
        for q_BGRTH, k_BGHT, visible in turned:
            scores_GRTS = torch.where(visible, q_BGRTH[row] @ k_BGHT[row, :, None], scores_GRTS)
        rows.append(scores_GRTS.softmax(-1) @ v_GTH[:, None])
    return torch.stack(rows).flatten(1, 2).transpose(1, 2)


class _Remapped(Attention):
    """Self-attention of a decoder with RoPE, with other positions in each region."""

    regions: Regions

    def forward(
        self,
        x_BTD: Tensor,
        pattern: Pattern,
        rotation: Rotation | None = None,
        memory_BSD: Tensor | None = None,
        last: int | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return (B, T, D), or the output of the `last` tokens alone.

        Raises:
            ValueError: a cache, documents or a mask, which no region knows.
        """
        plain = pattern.after == 0 and pattern.before is None and pattern.documents is None
        if rotation is None or cache is not None or not plain:
            raise ValueError("remap: expected whole rows of a causal decoder with RoPE")
        still = torch.ones_like(rotation[0]), torch.zeros_like(rotation[1])
        qk_BTKH, v_BTGH = self._rotated(x_BTD, still, pattern)
        q_BTNH, k_BTGH = qk_BTKH.split((self.heads, self.kv_heads), 2)
        regions = self.regions(x_BTD.shape[1])
        answered = attend_regions(q_BTNH, k_BTGH, v_BTGH, rotation, regions, last)
        return self.out(answered.flatten(2))


def remapped(model: Decoder, regions: Regions) -> Decoder:
    """Change a decoder's attention, in place, to see regions; return it.

    Args:
        model: with RoPE and no local layers.
        regions: the regions of a row of so many tokens, such as
            `functools.partial(self_extend, trained=64, window=32)`.

    Raises:
        ValueError: a model without RoPE, or with local layers.
    """
    if model.config.positions != "rope" or model.config.window is not None:
        raise ValueError("remap: expected a decoder with RoPE and no local layers")
    for module in model.modules():
        if type(module) is Attention:
            module.__class__ = _Remapped
            module.regions = regions
    return model
