"""Relative positions fall into T5's buckets."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from farcontext.nn.positions import _expect


def t5_bucket(
    relative: Int[Tensor, "*shape"], *, causal: bool, buckets: int = 32, max_distance: int = 128
) -> Int[Tensor, "*shape"]:
    """Return T5's bucket of each relative position, key − query.

    It follows Raffel et al. 2020 in transformers' convention. Half of the buckets hold one distance
    each, the others grow by one ratio up to `max_distance`; the last holds all beyond. Without
    `causal`, the upper half of the numbers is for keys after the query; with it, all those share
    bucket 0. The learned bias of a bucket is not applied; T5 shares its table among layers and does
    not divide logits by √H.

    Raises:
        ValueError: too few buckets, an odd number without `causal`, or a `max_distance` within the
            single ones.
    """
    half = buckets if causal else buckets // 2
    single = half // 2
    _expect(
        half > 1 and (causal or buckets % 2 == 0),
        "buckets",
        buckets,
        "2 or more, or an even 4 if not causal",
    )
    _expect(
        max_distance > single,
        "max_distance",
        max_distance,
        f"more than {single}, the distances of one bucket each",
    )
    distance = (-relative).clamp(min=0) if causal else relative.abs()
    steps = (
        (distance.double().clamp(min=single) / single).log()
        / math.log(max_distance / single)
        * (half - single)
    )
    grown = single + (steps + 1e-9).long()  # An exact power may come out a rounding error too low.
    bucket = torch.where(distance < single, distance, grown.clamp(max=half - 1))
    return bucket if causal else bucket + half * (relative > 0)
