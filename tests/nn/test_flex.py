"""flex agrees with the reference, forward on the CPU.

torch's fused kernel and its blocks stand in test_attention.
"""

import pytest
import torch
from test_attention import CASES, array, golden_pattern, golden_scaled, random_inputs

from farcontext.nn import attention
from farcontext.nn.masks import Pattern

SLOPES, RELATIVE = torch.linspace(0.1, 0.5, 4), torch.linspace(-1, 1, 20).view(4, 5)
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, -1, 2], [-1, 4, 4, 4, 4, 4, 4]])
PATTERNS = {
    "full": (Pattern(), 7, 7),
    "causal": (Pattern.causal(), 7, 7),
    "causal, T < S": (Pattern.causal(), 3, 7),
    "causal, T > S": (Pattern.causal(), 7, 3),
    "window": (Pattern.window(3), 7, 7),
    "band, T < S": (Pattern.local(2), 4, 7),
    "sinks": (Pattern(before=1, after=0, sinks=2), 7, 7),
    "alibi": (Pattern(after=0, slopes=SLOPES), 5, 7),
    "relative": (Pattern(relative=RELATIVE), 6, 7),
    "documents": (Pattern().within(DOCUMENTS), 7, 7),
    "documents, window, T < S": (Pattern.window(2).within(DOCUMENTS), 4, 7),
    "documents, alibi": (Pattern(slopes=SLOPES).within(DOCUMENTS), 7, 7),
    "one row of documents for all": (Pattern.causal().within(DOCUMENTS[:1]), 7, 7),
    "across": (Pattern().within(DOCUMENTS, torch.tensor([[1, 0], [9, 4]])), 2, 7),
    "longer than a block": (Pattern.local(9), 200, 200),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_flex_agrees_with_the_reference(name):
    pattern, T, S = PATTERNS[name]
    inputs, _ = random_inputs(T, S, 4, 2)
    out, wanted = attention.flex(*inputs, pattern), attention.reference(*inputs, pattern)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)
    dead = ~pattern.allowed(T, S).any(-1).expand(2, 1, T)[:, 0]
    assert (out[dead] == 0).all()


@pytest.mark.parametrize(("inputs", "case"), CASES, ids=[case["pattern"] for _, case in CASES])
def test_flex_gives_the_published_output(inputs, case):
    q, k, v = (array(inputs[name]) for name in ("q", "k", "v"))
    out = golden_scaled(attention.flex, case)(q, k, v, golden_pattern(case))
    torch.testing.assert_close(out, array(case["out"]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("causal, T < S", Pattern(after=4)),
        ("window", Pattern.window(4)),
        ("sinks", Pattern.window(2)),
        ("alibi", Pattern(after=0, slopes=SLOPES * 2)),
        ("relative", Pattern(relative=RELATIVE.flip(1))),
        ("documents", Pattern().within(DOCUMENTS.clamp(min=0))),
    ],
)
def test_flex_with_a_planted_error_is_caught(name, wrong):
    pattern, T, S = PATTERNS[name]
    inputs, _ = random_inputs(T, S, 4, 2)
    assert (
        attention.flex(*inputs, wrong) - attention.reference(*inputs, pattern)
    ).abs().max() > 0.01


def test_flex_builds_its_block_mask_once_and_is_quiet(recwarn):
    inputs, _ = random_inputs(7, 7, 4, 2)
    pattern = Pattern.window(3)
    attention.attend(*inputs, pattern, backend="flex")
    (mask,) = pattern.built.values()
    attention.attend(*inputs, pattern, backend="flex")
    assert list(pattern.built.values()) == [mask] and not recwarn.list


@pytest.mark.parametrize(
    ("pattern", "needs_gradient", "line"),
    [
        (Pattern(), True, "backend = flex: its backward pass needs CUDA"),
        (
            Pattern(relative=RELATIVE.clone().requires_grad_()),
            False,
            "backend = flex: expected a relative bias without",
        ),
    ],
)
def test_what_flex_cannot_do_is_named(pattern, needs_gradient, line):
    inputs, _ = random_inputs(7, 7, 4, 2)
    inputs = tuple(x.requires_grad_(needs_gradient) for x in inputs)
    with pytest.raises(ValueError, match=line):
        attention.attend(*inputs, pattern, backend="flex")
