"""Ring attention is the reference's attention: in one process by shares, and in two."""

from pathlib import Path

import children
import pytest
from rounds import PATTERNS, difference, drawn, go_round

from farcontext.nn.ring import over_shares


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


@pytest.mark.parametrize("count", [2, 3])
def test_processes_that_pass_keys_and_values_round_give_the_reference(
    count: int, tmp_path: Path
) -> None:
    group = children.start_group(go_round, tmp_path, tmp_path, count=count)
    codes = [child.wait() for child in group]
    assert (codes, "".join(child.said() for child in group)) == ([0] * count, "")
