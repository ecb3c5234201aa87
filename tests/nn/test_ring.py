"""Ring attention is the reference's attention: in one process by shares, and in two."""

from collections.abc import Iterator
from pathlib import Path

import children
import pytest
import torch
from torch import Tensor

from farcontext.nn.attention import reference
from farcontext.nn.masks import Pattern
from farcontext.nn.ring import over_shares, ring

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


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", PATTERNS)
def test_shares_in_any_order_give_the_reference(name: str, count: int) -> None:
    q, k, v = (x.chunk(count, 1) for x in drawn())
    shares = [(number, k[number], v[number]) for number in range(count)]
    for order in (shares, shares[::-1]):
        out = {i: over_shares(q[i], order, PATTERNS[name], i, count) for i in range(count)}
        assert difference(name, out, count) < 1e-12


def test_a_share_that_is_left_out_or_stands_at_another_place_is_seen() -> None:
    q, k, v = (x.chunk(2, 1) for x in drawn())
    for shares in ([(1, k[1], v[1])], [(1, k[0], v[0]), (0, k[1], v[1])]):
        out = over_shares(q[1], shares, PATTERNS["causal"], 1, 2)
        assert difference("causal", {1: out}, 2) > 0.1


def go_round() -> None:
    """A process of a ring: it says how far each pattern's output is from the reference."""
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mine = [x.chunk(count, 1)[rank] for x in drawn()]
    for name, pattern in PATTERNS.items():
        assert difference(name, {rank: ring(*mine, pattern)}, count) < 1e-12, name


@pytest.mark.parametrize("count", [2, 3])
def test_processes_that_pass_keys_and_values_round_give_the_reference(
    count: int, tmp_path: Path
) -> None:
    group = children.start_group(go_round, tmp_path, tmp_path, count=count)
    codes = [child.wait() for child in group]
    assert (codes, "".join(child.said() for child in group)) == ([0] * count, "")
