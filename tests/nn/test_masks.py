"""patterns.py against loops over the definition, and against transformers' mask functions."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import masking_utils

from farcontext.nn.masks import Pattern

GOLDENS = Path(__file__).parent.parent / "goldens"
fast = settings(derandomize=True, deadline=None, max_examples=60)
limits = st.none() | st.integers(0, 9)


def by_definition(pattern: Pattern, T: int, S: int) -> torch.Tensor:
    """Build the mask pair by pair."""
    rows = 1 if pattern.documents is None else len(pattern.documents)
    mask = torch.zeros(rows, 1, T, S, dtype=torch.bool)
    for b, i, j in itertools.product(range(rows), range(T), range(S)):
        offset = j - (i + S - T)
        visible = pattern.before is None or offset >= -pattern.before or j < pattern.sinks
        visible &= pattern.after is None or offset <= pattern.after
        if pattern.documents is not None:
            mine = (pattern.documents[:, S - T :] if pattern.queries is None else pattern.queries)[
                b, i
            ]
            visible &= bool(mine == pattern.documents[b, j] and mine >= 0)
        mask[b, 0, i, j] = visible
    return mask


@st.composite
def patterns(draw) -> tuple[Pattern, int, int]:
    T, S = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    pattern = Pattern(draw(limits), draw(limits), draw(st.integers(0, 3)))
    if draw(st.booleans()):
        ids = st.integers(-1, 2)
        keys, queries = (draw(st.lists(ids, min_size=2 * n, max_size=2 * n)) for n in (S, T))
        given_queries = torch.tensor(queries).view(2, T) if S < T or draw(st.booleans()) else None
        pattern = pattern.within(torch.tensor(keys).view(2, S), given_queries)
    return pattern, T, S


@fast
@given(patterns())
def test_mask_and_count_follow_the_definition(drawn):
    pattern, T, S = drawn
    mask = by_definition(pattern, T, S)
    assert torch.equal(pattern.allowed(T, S), mask)
    assert pattern.count(T, S) == mask.sum()


@fast
@given(patterns(), st.data())
def test_a_block_is_a_piece_of_the_mask_and_no_key_is_outside_the_span(drawn, data):
    pattern, T, S = drawn
    start = data.draw(st.integers(0, T - 1))
    rows, columns = slice(start, data.draw(st.integers(start + 1, T))), slice(S // 3, S)
    mask = by_definition(pattern, T, S)
    assert torch.equal(pattern.allowed(T, S, "cpu", rows, columns), mask[:, :, rows, columns])
    span = pattern.keys_of(rows, T, S)
    outside = mask[:, :, rows].clone()
    outside[..., span] = False
    assert not outside.any()


def test_published_masks():
    groups = json.loads((GOLDENS / "attention_small.json").read_text())["groups"]
    documents = torch.tensor([[0, 0, 1, 1]])
    ours = {
        "full": Pattern(),
        "causal": Pattern.causal(),
        "causal_window_2": Pattern.window(2),
        "bidirectional_window_1": Pattern.local(1),
        "sinks_1_window_2": Pattern(before=1, after=0, sinks=1),
        "documents_causal": Pattern.causal().within(documents),
        "documents_full": Pattern().within(documents),
        "causal_lower_right": Pattern.causal(),
    }
    checked = 0
    for case in (case for group in groups for case in group["cases"] if case["pattern"] in ours):
        allowed = torch.tensor(case["allowed"], dtype=torch.bool)
        assert torch.equal(ours[case["pattern"]].allowed(*allowed.shape)[0, 0], allowed), case[
            "pattern"
        ]
        checked += 1
    assert checked == 9
    assert not torch.equal(Pattern.window(3).allowed(4, 4), Pattern.window(2).allowed(4, 4))


@pytest.mark.parametrize("w", [1, 2, 5, 40])
def test_windows_are_those_of_transformers(w):
    i, j = torch.arange(20)[:, None], torch.arange(20)[None, :]
    causal = masking_utils.sliding_window_causal_mask_function(w)(0, 0, i, j)
    both = masking_utils.sliding_window_bidirectional_mask_function(w)(0, 0, i, j)
    assert torch.equal(Pattern.window(w).allowed(20, 20)[0, 0], causal)
    assert torch.equal(Pattern.local(w).allowed(20, 20)[0, 0], both)
    assert torch.equal(Pattern.window(w + 1, causal=False).allowed(20, 20)[0, 0], both)
    if w < 19:  # twin: one off is seen
        assert not torch.equal(Pattern.window(w + 1).allowed(20, 20)[0, 0], causal)
        assert not torch.equal(Pattern.local(w + 1).allowed(20, 20)[0, 0], both)


@pytest.mark.parametrize(
    "pattern", [Pattern.window(3), Pattern.local(2), Pattern(before=1, after=3)]
)
@pytest.mark.parametrize("layers", [1, 4])
def test_receptive_field_is_what_stacked_masks_reach(pattern, layers):
    step = pattern.allowed(41, 41)[0, 0].double()
    reached = torch.linalg.matrix_power(step, layers)[20].count_nonzero()
    assert pattern.receptive_field(layers) == reached


def test_receptive_fields_in_papers():
    assert Pattern.window(32).receptive_field(4) == 125
    assert Pattern.local(64).receptive_field(22) == 2817
    assert Pattern.causal().receptive_field(2) is None
    assert Pattern(before=1, after=0, sinks=1).receptive_field(2) is None


def test_counts_are_the_sums_of_masks():
    sizes, befores, afters = range(1, 7), (None, 0, 1, 4), (None, 0, 2)
    for T, S, before, after, sinks in itertools.product(sizes, sizes, befores, afters, (0, 1, 3)):
        pattern = Pattern(before, after, sinks)
        assert pattern.count(T, S) == pattern.allowed(T, S).sum(), (T, S, pattern)


def test_counts_at_lengths_no_mask_could_hold():
    n = 1 << 20
    assert Pattern().count(n, n) == n * n
    assert Pattern.causal().count(n, n) == n * (n + 1) // 2
    assert Pattern.window(128).count(n, n) == 128 * n - 128 * 127 // 2
    assert Pattern.causal().count(1, n) == n


def test_bias_is_slope_times_distance_from_the_bottom_right():
    slopes = torch.tensor([0.5, 0.25])
    bias = Pattern(slopes=slopes).bias(2, 4)
    assert bias.shape == (1, 2, 2, 4)
    assert bias[0, 0].tolist() == [[-1.0, -0.5, 0.0, -0.5], [-1.5, -1.0, -0.5, 0.0]]
    assert torch.equal(bias[0, 1], bias[0, 0] / 2)
    assert Pattern().bias(2, 4) is None


def test_within_leaves_the_original_alone():
    plain = Pattern.local(2)
    plain.built["mask"] = "of the plain pattern"
    restricted = plain.within(torch.tensor([[0, 0, 1]]))
    assert plain.documents is None and not restricted.built
    assert restricted.banded and not Pattern.causal().banded


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: Pattern(before=-1), "before = -1: expected at least 0"),
        (lambda: Pattern.window(0), "keys = 0: expected at least 1"),
        (
            lambda: Pattern().within(torch.zeros(1, 2, dtype=torch.long)).allowed(3, 2),
            "expected `queries`",
        ),
    ],
)
def test_bad_arguments_are_named(call, line):
    with pytest.raises(ValueError, match=line):
        call()
