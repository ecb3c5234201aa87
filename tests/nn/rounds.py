"""Rows that several processes share, for test_ring: the processes import this module."""

from collections.abc import Iterator

import torch
from torch import Tensor

from farcontext.nn.attention import reference
from farcontext.nn.masks import Pattern
from farcontext.nn.ring import ring

T = 24
PADDED = torch.tensor([[0] * 20 + [-1] * 4, [0] * 7 + [1] * 17])
PATTERNS = {
    "full": Pattern(),
    "causal": Pattern.causal(),
    "window": Pattern.window(5),
    "window of both sides": Pattern.local(3),
    "sinks": Pattern(before=4, after=0, sinks=2),
    "alibi": Pattern(after=0, slopes=torch.tensor([0.5, 0.25, 0.125, 0.0625])),
    "padding and documents": Pattern.causal().within(PADDED),
}


def drawn() -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(2, T, heads, 8, generator=draw, dtype=torch.float64) for heads in (4, 2, 2))


def difference(name: str, shares: dict[int, Tensor], count: int) -> float:
    """Return how far the outputs of some shares are from the reference."""
    whole = reference(*drawn(), PATTERNS[name]).chunk(count, 1)
    return max(float((out - whole[number]).abs().max()) for number, out in shares.items())


def go_round() -> None:
    """A process of a ring: it says how far each pattern's output is from the reference."""
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mine = [x.chunk(count, 1)[rank] for x in drawn()]
    for name, pattern in PATTERNS.items():
        assert difference(name, {rank: ring(*mine, pattern)}, count) < 1e-12, name
