"""Every backend against published arrays and against the reference, outputs and gradients."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor

from farcontext.nn import attention, local, online
from farcontext.nn.masks import Pattern

GROUPS = json.loads(
    (Path(__file__).parent.parent / "goldens" / "attention_small.json").read_text()
)["groups"]
CASES = [(group["inputs"], case) for group in GROUPS for case in group["cases"]]
fast = settings(derandomize=True, deadline=None, max_examples=40)
Attention = Callable[..., Tensor]


def small_local(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    """Run `sdpa_local` in blocks of 3 queries.

    Short rows so have many blocks and an incomplete last one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "block_size", lambda pattern: 3)
        return local.sdpa_local(q, k, v, pattern)


BACKENDS: dict[str, Attention] = {
    "reference": attention.reference,
    "online": lambda *args: online.online(*args, block=3),
    "sdpa": attention.sdpa,
    "sdpa_local": small_local,
}


def fits(backend: str, pattern: Pattern, T: int, S: int) -> bool:
    return backend != "sdpa_local" or (pattern.banded and T == S and pattern.queries is None)


def run(
    attend: Attention, inputs: tuple[Tensor, ...], pattern: Pattern, d_out: Tensor
) -> list[Tensor]:
    """Return the output and the gradients of q, k and v."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = attend(*leaves, pattern)
    return [out.detach(), *torch.autograd.grad(out, leaves, d_out)]


def random_inputs(
    T: int, S: int, N: int = 2, G: int = 2, H: int = 4, *, seed: int = 0, dtype=torch.float64
):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, T, N, H), (2, S, G, H), (2, S, G, H), (2, T, N, H))
    *inputs, d_out = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    )
    return tuple(inputs), d_out


def array(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def golden_pattern(case: dict) -> Pattern:
    documents = torch.tensor([[0, 0, 1, 1]])
    slopes = array(case["slopes"]) if "slopes" in case else None
    return {
        "full": Pattern(),
        "causal": Pattern.causal(),
        "causal_window_2": Pattern.window(2),
        "bidirectional_window_1": Pattern.local(1),
        "sinks_1_window_2": Pattern(before=1, after=0, sinks=1),
        "documents_causal": Pattern.causal().within(documents),
        "documents_full": Pattern().within(documents),
        "alibi_causal": Pattern(after=0, slopes=slopes),
        "alibi_symmetric": Pattern(slopes=slopes),
        "ssmax_causal": Pattern.causal(),
        "causal_lower_right": Pattern.causal(),
    }[case["pattern"]]


def golden_scaled(attend: Attention, case: dict) -> Attention:
    """Scalable softmax multiplies row i's scores by s·ln(i+1): the same as scaling its query."""
    if case["pattern"] != "ssmax_causal":
        return attend
    factor_T11 = 0.43 * torch.arange(1, 5, dtype=torch.float64).log()[:, None, None]
    return lambda q, k, v, pattern: attend(q * factor_T11, k, v, pattern)


PUBLISHED = [
    pytest.param(backend, inputs, case, id=f"{backend}-{case['pattern']}")
    for backend in BACKENDS
    for inputs, case in CASES
    if fits(backend, golden_pattern(case), len(inputs["q"][0]), len(inputs["k"][0]))
]


@pytest.mark.parametrize(("backend", "inputs", "case"), PUBLISHED)
def test_published_outputs_and_gradients(backend, inputs, case):
    q, k, v, d_out = (array(inputs[name]) for name in ("q", "k", "v", "do"))
    pattern = golden_pattern(case)
    attend = golden_scaled(BACKENDS[backend], case)
    wanted = [array(case[name]) for name in ("out", "dq", "dk", "dv")]
    for ours, theirs in zip(run(attend, (q, k, v), pattern, d_out), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    # twin: 1/√H forgotten
    unscaled = run(attend, (q * math.sqrt(q.shape[-1]), k, v), pattern, d_out)
    assert (unscaled[0] - wanted[0]).abs().max() > 0.01
    assert (unscaled[2] - wanted[2]).abs().max() > 0.01


@pytest.mark.parametrize(("inputs", "case"), CASES, ids=[case["pattern"] for _, case in CASES])
def test_published_logsumexp_and_weights(inputs, case):
    q, k, v = (array(inputs[name]) for name in ("q", "k", "v"))
    if case["pattern"] == "ssmax_causal":
        q = q * 0.43 * torch.arange(1, 5, dtype=torch.float64).log()[:, None, None]
    pattern = golden_pattern(case)
    for block in (1, 3, 64):
        _, logsumexp = online.online_with_logsumexp(q, k, v, pattern, block)
        torch.testing.assert_close(logsumexp, array(case["logsumexp_BNT"]), rtol=0, atol=1e-12)
    if "weights_BNTS" in case:
        torch.testing.assert_close(
            attention.weights(q, k, pattern), array(case["weights_BNTS"]), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_planted_errors_miss_the_published_output(backend):
    by_name = {case["pattern"]: (inputs, case) for inputs, case in CASES}
    errors = [
        ("causal_window_2", Pattern.window(3)),
        ("causal_window_2", Pattern.window(1)),
        ("bidirectional_window_1", Pattern.local(2)),
        ("causal", Pattern()),
        ("documents_causal", Pattern.causal()),
        ("sinks_1_window_2", Pattern.window(2)),
        ("causal_lower_right", Pattern(after=2)),
        ("alibi_causal", Pattern(after=0, slopes=array([1 / 256, 1 / 16]))),
    ]
    for name, wrong in errors:
        inputs, case = by_name[name]
        q, k, v = (array(inputs[x]) for x in ("q", "k", "v"))
        if fits(backend, wrong, q.shape[1], k.shape[1]):
            assert (BACKENDS[backend](q, k, v, wrong) - array(case["out"])).abs().max() > 0.01, name


limits = st.none() | st.integers(0, 6)


@st.composite
def problems(draw):
    T = draw(st.integers(1, 11))
    S = draw(st.just(T) | st.integers(T, 13))
    N, G = draw(st.sampled_from([(1, 1), (2, 2), (2, 1), (4, 2), (6, 2)]))
    pattern = Pattern(draw(limits), draw(limits), draw(st.integers(0, 2)))
    if draw(st.booleans()):
        pattern = Pattern(pattern.before, pattern.after, slopes=torch.linspace(0.1, 0.5, N))
    if draw(st.booleans()):
        ids = draw(st.lists(st.integers(-1, 2), min_size=2 * S, max_size=2 * S))
        pattern = pattern.within(torch.tensor(ids).view(2, S))
    return pattern, random_inputs(
        T, S, N, G, draw(st.sampled_from([2, 3, 8])), seed=draw(st.integers(0, 9))
    )


@fast
@given(problems())
def test_backends_agree_on_random_problems(problem):
    pattern, (inputs, d_out) = problem
    T, S = d_out.shape[1], inputs[1].shape[1]
    wanted = run(attention.reference, inputs, pattern, d_out)
    dead = ~pattern.allowed(T, S).any(-1).expand(2, 1, T)[:, 0]
    for name, backend in BACKENDS.items():
        if not fits(name, pattern, T, S):
            continue
        found = run(backend, inputs, pattern, d_out)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, msg=f"{name} {pattern}")
        assert (found[0][dead] == 0).all() and (found[1][dead] == 0).all(), name


BANDS = [Pattern.local(2), Pattern.local(0), Pattern.window(4), Pattern(before=1, after=5)]


@pytest.mark.parametrize("T", [5, 7, 12, 31])
@pytest.mark.parametrize("band", BANDS, ids=lambda band: f"{band.before}-{band.after}")
@pytest.mark.parametrize("packed", [False, True])
def test_local_blocks_agree_with_the_dense_mask(T, band, packed):
    inputs, d_out = random_inputs(T, T, 4, 2)
    pattern = band.within((torch.arange(2 * T) * 7 // 29).view(2, T) - 1) if packed else band
    wanted = run(attention.reference, inputs, pattern, d_out)
    for found in (
        run(small_local, inputs, pattern, d_out),
        run(local.sdpa_local, inputs, pattern, d_out),
    ):
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    off_by_one = run(small_local, inputs, Pattern(band.before + 1, band.after), d_out)
    assert (off_by_one[0] - wanted[0]).abs().max() > 0.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.05)])
def test_lower_precision_stays_near_fp64(backend, dtype, tolerance):
    pattern = Pattern.window(5)
    inputs, d_out = random_inputs(40, 40, 4, 2, 16)
    wanted = run(attention.reference, inputs, pattern, d_out)
    found = run(BACKENDS[backend], tuple(x.to(dtype) for x in inputs), pattern, d_out.to(dtype))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).abs().max() < tolerance * theirs.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_without_a_key_gets_zero_and_finite_gradients(backend, dtype):
    documents = torch.tensor([[-1, 0, 0, -1, 1, 1, -1], [-1] * 7])
    inputs, d_out = random_inputs(7, 7, dtype=dtype)
    out, *gradients = run(BACKENDS[backend], inputs, Pattern.local(3).within(documents), d_out)
    assert (out[documents < 0] == 0).all() and (out[documents >= 0] != 0).all()
    for gradient in gradients:
        assert gradient.isfinite().all() and (gradient[documents < 0] == 0).all()
    assert (gradients[2][documents >= 0] != 0).all()


def test_online_gradients_are_the_derivative():
    inputs, _ = random_inputs(3, 4, 2, 1, 2)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(
        lambda *x: online.online(*x, Pattern.window(4), block=2), leaves
    )


def saved_bytes(attend: Attention, T: int) -> int:
    """Count what autograd keeps from the forward to the backward pass."""
    inputs, _ = random_inputs(T, T)
    total = 0

    def pack(x: Tensor) -> Tensor:
        nonlocal total
        total += x.numel() * x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        attend(*(x.requires_grad_() for x in inputs), Pattern.causal())
    return total


def test_memory_is_linear_but_for_the_reference():
    for name in ("online", "sdpa"):
        assert saved_bytes(BACKENDS[name], 400) == pytest.approx(
            2 * saved_bytes(BACKENDS[name], 200), rel=0.05
        )
    assert saved_bytes(attention.reference, 400) > 3.5 * saved_bytes(attention.reference, 200)


def test_what_ran_is_reported():
    inputs, _ = random_inputs(96, 96)
    with attention.recorded() as ran:
        attention.attend(*inputs)
        attention.attend(*inputs, Pattern.local(2))
        attention.attend(*inputs, Pattern.local(2), backend="online")
        with attention.recorded() as inner:
            attention.attend(*inputs, Pattern.causal(), backend="reference")
    attention.attend(*inputs)
    assert ran == ["sdpa", "sdpa_local", "online"] and inner == ["reference"]
    # too wide a band to pay
    assert attention.choose(*inputs[:2], Pattern.local(40)).backend == "sdpa"
    assert "5 keys in 96" in attention.choose(*inputs[:2], Pattern.local(2)).reason


def test_no_mask_where_none_is_needed(monkeypatch):
    seen = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, **options):
        seen.append((options["attn_mask"] is not None, options["is_causal"]))
        return fused(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    square, _ = random_inputs(4, 4)
    oblong, _ = random_inputs(2, 4)
    for inputs, pattern in (
        (square, Pattern()),
        (square, Pattern.causal()),
        (oblong, Pattern.causal()),
    ):
        attention.sdpa(*inputs, pattern)
    attention.sdpa(*square, Pattern.causal().within(torch.zeros(2, 4, dtype=torch.long)))
    assert seen == [(False, False), (False, True), (True, False), (True, False)]


def test_a_mask_is_built_once_a_pattern():
    inputs, _ = random_inputs(96, 96)
    pattern = Pattern.local(2).within(torch.zeros(2, 96, dtype=torch.long))
    for backend in ("sdpa", "sdpa_local"):
        attention.attend(*inputs, pattern, backend=backend)
    built = dict(pattern.built)
    assert len(built) == 2
    for backend in ("sdpa", "sdpa_local"):
        attention.attend(*inputs, pattern, backend=backend)
    assert all(pattern.built[key] is mask for key, mask in built.items())
    plain = Pattern()
    attention.attend(*inputs, plain)
    assert not plain.built  # the default argument must not collect masks


@pytest.mark.parametrize(
    ("q", "k", "options", "line"),
    [
        (
            (1, 3, 2, 4),
            (1, 3, 2, 4),
            {"backend": "flash"},
            "backend = 'flash': expected one of auto, reference",
        ),
        ((1, 3, 3, 4), (1, 3, 2, 4), {}, "G dividing N"),
        ((1, 3, 2, 6), (1, 3, 2, 4), {}, r"q, k, v = \(1, 3, 2, 6\)"),
        (
            (1, 3, 2, 4),
            (1, 4, 2, 4),
            {"pattern": Pattern.local(1), "backend": "sdpa_local"},
            "T = 3, S = 4",
        ),
        (
            (1, 3, 2, 4),
            (1, 3, 2, 4),
            {"pattern": Pattern.causal(), "backend": "sdpa_local"},
            "a plain band",
        ),
    ],
)
def test_bad_arguments_are_named(q, k, options, line):
    with pytest.raises((ValueError, TypeCheckError)) as caught:
        attention.attend(torch.zeros(q), torch.zeros(k), torch.zeros(k), **options)
    if not isinstance(caught.value, TypeCheckError):  # an import hook may see it first
        assert re.search(line, str(caught.value))


def test_shapes_are_checked_under_beartype():
    checked = jaxtyped(typechecker=beartype)(attention.attend)
    (q, k, v), _ = random_inputs(3, 4)
    assert checked(q, k, v).shape == q.shape
    with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
        checked(q, k, v[:, :3])


def test_autocast_gives_one_dtype():
    q, k = torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)
    assert [x.dtype for x in attention.autocast(q, k)] == [torch.float32, torch.bfloat16]
    with torch.autocast("cpu", torch.bfloat16):
        assert [x.dtype for x in attention.autocast(q, k)] == [torch.bfloat16] * 2
