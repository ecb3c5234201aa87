"""xformers is told of a pattern what `materialize()` says.

The way in and out of its rows is held on any machine.
"""

import logging
import math
import re
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention import random_inputs, run
from torch import Tensor

from farcontext.nn import attention, xformers
from farcontext.nn.masks import Pattern
from farcontext.nn.xformers import Packed, xformers_bias

pytestmark = pytest.mark.skipif(
    find_spec("xformers") is None, reason="xformers has wheels for Linux alone"
)
B, N = 2, 4
SLOPES, RELATIVE = torch.linspace(0.1, 0.5, N), torch.linspace(-1, 1, N * 5).view(N, 5)
PACKED = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])
PADDED = torch.tensor([[-1, 3, 3, 3, 8, 8, -1], [-1] * 4 + [0] * 3])


def cases() -> dict[str, tuple[Pattern, int, int, str]]:
    """Return pattern, T, S and the type that must stand for it, by name."""
    causal, queries = Pattern.causal(), torch.tensor([[1, 1, 0, 0], [0, 0, 7, -1]])
    return {
        "full": (Pattern(), 7, 7, "NoneType"),
        "causal": (causal, 7, 7, "LowerTriangularMask"),
        "causal, T < S": (causal, 3, 7, "LowerTriangularFromBottomRightMask"),
        "causal, T > S": (causal, 7, 3, "BlockDiagonalCausalMask"),
        "window": (Pattern.window(3), 7, 7, "LowerTriangularFromBottomRightLocalAttentionMask"),
        "window, T < S": (
            Pattern.window(3),
            4,
            7,
            "LowerTriangularFromBottomRightLocalAttentionMask",
        ),
        "window, T > S": (Pattern.window(2), 7, 4, "BlockDiagonalCausalLocalAttentionMask"),
        "band": (Pattern.local(2), 7, 7, "LocalAttentionFromBottomRightMask"),
        "band, T < S": (Pattern(before=3, after=1), 4, 7, "LocalAttentionFromBottomRightMask"),
        "band, T > S": (Pattern.local(1), 7, 4, "Tensor"),
        "backward open": (Pattern(after=2), 7, 7, "LocalAttentionFromBottomRightMask"),
        "forward open": (Pattern(before=2), 5, 7, "LocalAttentionFromBottomRightMask"),
        "sinks": (Pattern(before=1, after=0, sinks=2), 7, 7, "Tensor"),
        "sinks that nothing cuts off": (Pattern(after=0, sinks=2), 7, 7, "LowerTriangularMask"),
        "alibi": (Pattern(after=0, slopes=SLOPES), 7, 7, "Tensor"),
        "alibi, symmetric, T < S": (Pattern(slopes=SLOPES), 5, 7, "Tensor"),
        "relative": (Pattern(relative=RELATIVE), 6, 7, "Tensor"),
        "documents": (Pattern().within(PACKED), 7, 7, "BlockDiagonalMask"),
        "documents, causal": (causal.within(PACKED), 7, 7, "BlockDiagonalCausalMask"),
        "documents, window": (
            Pattern.window(2).within(PACKED),
            7,
            7,
            "BlockDiagonalCausalLocalAttentionMask",
        ),
        "documents, band": (Pattern.local(1).within(PADDED), 7, 7, "Tensor"),
        "documents, T < S": (causal.within(PACKED), 3, 7, "BlockDiagonalCausalFromBottomRightMask"),
        "documents, window, T < S": (
            Pattern.window(3).within(PACKED),
            4,
            7,
            "BlockDiagonalCausalLocalAttentionFromBottomRightMask",
        ),
        "padding": (Pattern().within(PADDED), 7, 7, "BlockDiagonalMask"),
        "padding, causal": (causal.within(PADDED), 7, 7, "BlockDiagonalCausalMask"),
        "padding alone": (causal.within(torch.full((B, 7), -1)), 7, 7, "Tensor"),
        "across": (Pattern().within(PACKED, queries), 4, 7, "BlockDiagonalMask"),
        "alibi, padding": (Pattern(slopes=SLOPES).within(PADDED), 7, 7, "Tensor"),
    }


CASES = cases()
every = pytest.mark.parametrize("name", CASES)


def told(plan: Packed, T: int, S: int) -> Tensor:
    """Return what xformers adds to the scores, −inf where hidden.

    The scores are of all B·T queries and B·S keys, (N, B·T, B·S).
    """
    whole = torch.full((N, B, T, B, S), -math.inf)
    if not plan.rows:
        added = torch.zeros(B, N, T, S)
        if isinstance(plan.bias, Tensor):
            added = plan.bias.expand(B, N, T, S).masked_fill(
                torch.zeros(1, 1, 1, 1, dtype=torch.bool)
                if plan.keyless is None
                else plan.keyless.mT.transpose(1, 2),
                -math.inf,
            )
        elif plan.bias is not None:
            added = plan.bias.materialize((B, N, T, S))
        for b in range(B):
            whole[:, b, :, b] = added[b]
        return whole.view(N, B * T, B * S)
    queries = torch.arange(B * T) if plan.queries is None else plan.queries
    keys = torch.arange(B * S) if plan.keys is None else plan.keys
    whole = whole.view(N, B * T, B * S)
    whole[:, queries[:, None], keys] = plan.bias.materialize((N, len(queries), len(keys)))
    return whole


def ours(pattern: Pattern, T: int, S: int) -> Tensor:
    """Return the same by `Pattern.allowed` and `Pattern.bias`."""
    whole = torch.full((N, B, T, B, S), -math.inf)
    allowed, bias = pattern.allowed(T, S).expand(B, 1, T, S), pattern.bias(T, S)
    bias = torch.zeros(1, N, T, S) if bias is None else bias.float().expand(1, N, T, S)
    for b in range(B):
        whole[:, b, :, b] = bias[0].masked_fill(~allowed[b], -math.inf)
    return whole.view(N, B * T, B * S)


@every
def test_xformers_is_told_the_pattern_by_the_type_made_for_it(name):
    pattern, T, S, kind = CASES[name]
    plan = xformers_bias(pattern, B, T, S)
    assert type(plan.bias).__name__ == kind
    torch.testing.assert_close(told(plan, T, S), ours(pattern, T, S), rtol=0, atol=1e-6)
    assert xformers_bias(pattern, B, T, S) is plan  # made once


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("causal", Pattern()),
        ("causal, T < S", Pattern(after=1)),
        ("window", Pattern.window(4)),
        ("band", Pattern.local(3)),
        ("sinks", Pattern.window(2)),
        ("alibi", Pattern(after=0, slopes=SLOPES * 2)),
        ("documents, causal", Pattern.causal()),
        ("documents, window", Pattern.causal().within(PACKED)),
        ("padding", Pattern().within(PADDED.abs())),
    ],
)
def test_another_pattern_tells_something_else(name, wrong):
    _, T, S, _ = CASES[name]
    plan = xformers_bias(CASES[name][0], B, T, S)
    assert not torch.equal(told(plan, T, S), ours(wrong, T, S))


def plain(q: Tensor, k: Tensor, v: Tensor, attn_bias=None) -> Tensor:
    """Stand in for the CUDA kernels, in plain algebra.

    The result is what their documentation says they return, NaN without a key.
    """
    shape = q.shape
    q, k, v = (x.flatten(2, 3) if x.ndim == 5 else x for x in (q, k, v))
    scores = torch.einsum("btnh,bsnh->bnts", q, k) / math.sqrt(q.shape[-1])
    if isinstance(attn_bias, Tensor):
        assert (
            attn_bias.shape == scores.shape
            and attn_bias.dtype == q.dtype
            and attn_bias.stride(-2) % 8 == 0
        )
        scores = scores + attn_bias
    elif attn_bias is not None:
        scores = scores + attn_bias.materialize(scores.shape, scores.dtype)
    weights = scores.softmax(-1)
    assert weights.isfinite().all(), "a query without a key reached the kernel"
    return torch.einsum("bnts,bsnh->btnh", weights, v).reshape(shape)


def packed(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    return xformers.packed(q, k, v, pattern, plain)


@every
@pytest.mark.parametrize("G", [4, 2, 1])
def test_rows_go_in_and_come_out_with_their_gradients(name, G):
    pattern, T, S, _ = CASES[name]
    inputs, d_out = random_inputs(T, S, N, G)
    wanted = run(attention.reference, inputs, pattern, d_out)
    for found, expected in zip(run(packed, inputs, pattern, d_out), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    with torch.no_grad():  # grouped heads then go in without being copied
        torch.testing.assert_close(packed(*inputs, pattern), wanted[0], rtol=0, atol=1e-12)
    dead = ~pattern.allowed(T, S).any(-1).expand(B, 1, T)[:, 0]
    assert (wanted[0][dead] == 0).all() and (packed(*inputs, pattern)[dead] == 0).all()


def test_what_goes_in_wrongly_comes_out_wrongly():
    inputs, d_out = random_inputs(7, 7, N, 2)
    wanted = run(attention.reference, inputs, Pattern.causal().within(PADDED), d_out)
    # one token early
    found = run(packed, inputs, Pattern.causal().within(PADDED.roll(-1, 1)), d_out)
    assert all(
        (ours - theirs).abs().max() > 0.01 for ours, theirs in zip(found, wanted, strict=True)
    )


limits = st.none() | st.integers(0, 5)


@st.composite
def packings(draw):
    """Draw a pattern over documents in runs, some of them padding, with T ≤ S."""
    S = draw(st.integers(1, 12))
    T = draw(st.just(S) | st.integers(1, S))
    rows = []
    for _ in range(B):
        cuts = sorted(draw(st.sets(st.integers(0, S), max_size=4)) | {0, S})
        ids = draw(st.permutations([-1, 0, 3, 4, 9]))
        rows.append([ids[n] for n, (a, b) in enumerate(pairwise(cuts)) for _ in range(b - a)])
    after = draw(st.sampled_from([0, 0, None, 2]))
    pattern = Pattern(draw(limits), after, draw(st.integers(0, 1))).within(torch.tensor(rows))
    return pattern, T, S, draw(st.integers(0, 9))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(packings())
def test_random_packings(problem):
    pattern, T, S, seed = problem
    torch.testing.assert_close(
        told(xformers_bias(pattern, B, T, S), T, S), ours(pattern, T, S), rtol=0, atol=0
    )
    inputs, d_out = random_inputs(T, S, 2, 1, seed=seed)
    wanted = run(attention.reference, inputs, pattern, d_out)
    for found, expected in zip(run(packed, inputs, pattern, d_out), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("pattern", "T", "line"),
    [
        (Pattern().within(torch.tensor([[0, 1, 0, 2]])), 4, "documents: expected each in one run"),
        (
            Pattern.causal().within(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1]])),
            2,
            "document 0: expected its",
        ),
        (
            Pattern(relative=RELATIVE.clone().requires_grad_()),
            4,
            "expected a relative bias without gradient",
        ),
    ],
)
def test_what_no_type_can_say_is_named(pattern, T, line):
    with pytest.raises(ValueError, match=line):
        xformers_bias(pattern, 1, T, 4)


def test_without_cuda_the_backend_says_so_in_one_line():
    inputs, _ = random_inputs(4, 4)
    with pytest.raises(
        ValueError, match="backend = xformers: expected CUDA tensors on Linux, not cpu"
    ) as caught:
        attention.attend(*inputs, backend="xformers")
    assert not re.search("\n", str(caught.value))


def test_xformers_is_quiet_when_it_is_imported():
    xformers.xformers_bias(Pattern.causal(), 1, 4, 4)
    assert logging.getLogger("xformers").level == logging.ERROR
