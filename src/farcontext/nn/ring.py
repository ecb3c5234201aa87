"""Ring attention over rows that no single process holds, forward only.

Each of P processes holds the next T/P tokens of every row. Keys and values go round the ring, and
each process adds every share to the online softmax of its own queries (Liu et al. 2023).

B batch, T tokens of a row, t = T/P of a share, N heads, G key/value heads, H head width.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from farcontext.nn.masks import Pattern
from farcontext.nn.online import BLOCK, Sums, blocks, scores_of

Share = tuple[int, Tensor, Tensor]  # It has a number, keys and values, both (B, t, G, H).


def over_shares(
    q_BtNH: Float[Tensor, "B t N H"],
    shares: Iterable[Share],
    pattern: Pattern,
    mine: int,
    count: int,
) -> Float[Tensor, "B t N H"]:
    """Return attention of one share's queries over all shares, in any order.

    Args:
        q_BtNH: the queries of share `mine`, without log-n scaling, which `attend` applies.
        shares: keys and values of each share, once.
        pattern: that of the whole rows, with the documents of all T tokens.
        mine: the share of the queries, 0 first.
        count: P, how many shares there are.
    """
    t = q_BtNH.shape[1]
    T, rows, sums = count * t, slice(mine * t, (mine + 1) * t), None
    seen = pattern.keys_of(rows, T, T)
    for number, k_BtGH, v_BtGH in shares:
        q_BGRtH = q_BtNH.unflatten(2, (k_BtGH.shape[2], -1)).permute(0, 2, 3, 1, 4)
        sums = sums or Sums.none(q_BGRtH)
        k_BG1tH, v_BG1tH = (x.transpose(1, 2)[:, :, None] for x in (k_BtGH, v_BtGH))
        start = number * t
        # A share that lies outside what the pattern shows is passed on and costs nothing.
        for here in blocks(min(t, seen.stop - start), BLOCK, max(0, seen.start - start)):
            at = rows, slice(start + here.start, start + here.stop)
            scores = scores_of(q_BGRtH, k_BG1tH[..., here, :], pattern, (T, T), at)
            sums = sums.add(scores, v_BG1tH[..., here, :])
    return sums.attention().permute(0, 3, 1, 2, 4).flatten(2, 3)


def ring(
    q_BtNH: Float[Tensor, "B t N H"],
    k_BtGH: Float[Tensor, "B t G H"],
    v_BtGH: Float[Tensor, "B t G H"],
    pattern: Pattern,
) -> Float[Tensor, "B t N H"]:
    """Return attention of this process's queries over the tokens of all processes.

    A process holds two shares of keys and values at a time. No gradient flows through it.
    """
    mine, count = dist.get_rank(), dist.get_world_size()
    with torch.no_grad():
        shares = _round(k_BtGH, v_BtGH, mine, count)
        return over_shares(q_BtNH, shares, pattern, mine, count)


def _round(k_BtGH: Tensor, v_BtGH: Tensor, mine: int, count: int) -> Iterator[Share]:
    """Yield each share as it comes by, this process's own first."""
    share = torch.stack((k_BtGH, v_BtGH))
    for turn in range(count):
        yield (mine - turn) % count, *share
        if turn == count - 1:
            return
        after = torch.empty_like(share)
        sent = dist.P2POp(dist.isend, share, (mine + 1) % count)
        received = dist.P2POp(dist.irecv, after, (mine - 1) % count)
        for work in dist.batch_isend_irecv([sent, received]):
            work.wait()
        share = after
