"""positions, rotation and buckets against published arrays, in fp64, and transformers."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert import everything_in_fp64
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

from farcontext.nn.buckets import t5_bucket
from farcontext.nn.positions import (
    OPTIONS,
    SCHEME_NOTES,
    SCHEMES,
    alibi_slopes,
    attention_factor,
    inverse_frequencies,
    sinusoidal,
)
from farcontext.nn.rotation import pairs_together, rotate, rotation_table

GOLDENS = Path(__file__).parent.parent / "goldens"
fast = settings(derandomize=True, deadline=None, max_examples=30)


def cases(name: str) -> list[dict]:
    return json.loads((GOLDENS / f"{name}.json").read_text())["cases"]


def array(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# -------------------------------------------------------------------------------------- frequencies

# What differs a little from each scheme, and has to miss its published values.
PLANTED = {
    "rope": {"theta": 20_000.0},
    "linear": {"scale": 4.1},
    "ntk": {"scheme": "linear"},
    "dynamic_ntk": {"scheme": "dynamic_ntk_hf", "scale": 4.0, "length": 4096},
    "dynamic_ntk_hf": {"scheme": "dynamic_ntk"},
    "yarn": {"beta_fast": 16.0},
    "yarn_untruncated": {"scheme": "yarn"},
    "yarn_rotations": {"scheme": "yarn"},
    "llama3": {"low_freq_factor": 2.0},
    "p_rope": {"scheme": "partial_rotary", "p": 1.0},
    "partial_rotary": {"p": 0.75},
    "longrope": {"short_factor": [1.1] * 32, "length": 100},
}


def frequencies(case: dict, **changes) -> torch.Tensor:
    """Call ours with a case's own settings."""
    notes = ("function", "attention_factor", "inv_freq")
    settings = {name: value for name, value in case.items() if name not in notes}
    return inverse_frequencies(**{"trained_length": 2048} | settings | changes)


def worst(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest relative difference; what is 0 has to be 0."""
    if ours.shape != theirs.shape:
        return math.inf
    return (
        (ours / theirs - 1)
        .abs()
        .where((ours != 0) | (theirs != 0), torch.tensor(0.0).double())
        .max()
        .item()
    )


def named(case: dict) -> str:
    return "-".join(
        str(case[key])
        for key in ("scheme", "head_dim", "theta", "scale", "p", "length")
        if key in case
    )


@pytest.mark.parametrize("case", cases("rope_inv_freq"), ids=named)
def test_frequencies_are_the_published_ones(case):
    golden = array(case["inv_freq"])
    assert worst(frequencies(case), golden) < 1e-12
    planted = {"rope": 0.4}.get(case["scheme"], 1e-3)
    assert worst(frequencies(case, **PLANTED[case["scheme"]]), golden) > planted
    scale, trained = case.get("scale", 1.0), case.get("trained_length", 2048)
    ours = attention_factor(case["scheme"], scale=scale, trained_length=trained)
    assert ours == pytest.approx(case["attention_factor"], abs=1e-12)


@pytest.mark.parametrize("case", cases("rope_five_digits"), ids=named)
def test_frequencies_are_those_that_others_typed(case):
    golden = array(case["inv_freq"])
    assert worst(frequencies(case), golden) < 1e-4
    planted = {"dynamic_ntk_hf": {"scale": 9.9}, "rope": {"theta": 10_100.0}}
    assert (
        worst(frequencies(case, **planted.get(case["scheme"], PLANTED[case["scheme"]])), golden)
        > 1e-3
    )


@pytest.mark.parametrize(
    "case", cases("yarn_range"), ids=lambda c: f"{c['head_dim']}-{c['theta']}-{c['trained_length']}"
)
def test_yarn_ramps_over_the_published_pairs(case):
    common = {key: case[key] for key in ("head_dim", "theta", "trained_length")}

    def interpolated(scheme: str, **options: float) -> torch.Tensor:
        """Read the ramp back from the frequencies.

        It is 0 where a pair is kept, and 1 where it is divided by s = 4.
        """
        ratio = inverse_frequencies(scheme, scale=4.0, **common, **options) / inverse_frequencies(
            "rope", **common
        )
        return (1 - ratio) / (1 - 1 / 4)

    def ends(scheme: str, **options: float) -> tuple[float, float]:
        """Continue the ramp through two inner pairs to 0 and 1."""
        share = interpolated(scheme, **options)
        first = int(((share > 1e-9) & (share < 1 - 1e-9)).nonzero()[0])
        slope = float(share[first + 1] - share[first])
        return first - float(share[first]) / slope, first + (1 - float(share[first])) / slope

    share = interpolated("yarn")
    assert (share.abs() < 1e-12).sum() == case["pairs_kept"]
    assert ((share - 1).abs() < 1e-12).sum() == case["pairs_fully_interpolated"]
    assert ends("yarn") == pytest.approx((case["low"], case["high"]), abs=1e-9)
    exact = pytest.approx((case["low_exact"], case["high_exact"]), abs=1e-9)
    assert ends("yarn_untruncated") == exact
    assert ends("yarn_untruncated", beta_fast=31.0) != exact  # twin


@pytest.mark.parametrize("scheme", ["yarn", "yarn_untruncated"])
def test_a_ramp_without_width_is_a_step(scheme):
    common = {"head_dim": 16, "trained_length": 6}  # less than one turn of the fastest pair
    plain = inverse_frequencies("rope", **common)
    ours = inverse_frequencies(scheme, scale=2.0, **common)
    torch.testing.assert_close(ours, torch.cat((plain[:1], plain[1:] / 2)), rtol=1e-12, atol=0)


def test_attention_factors_are_the_published_ones():
    golden = json.loads((GOLDENS / "attention_factors.json").read_text())
    for case in golden["yarn"]:
        for scheme in ("yarn", "yarn_untruncated", "yarn_rotations"):
            ours = attention_factor(scheme, scale=case["scale"], trained_length=512)
            assert ours == pytest.approx(case["attention_factor"], abs=1e-12)
    for case in golden["longrope"]:
        ours = attention_factor(
            "longrope", scale=case["scale"], trained_length=case["trained_length"]
        )
        assert ours == pytest.approx(case["attention_factor"], abs=1e-12)
    others = set(SCHEMES) - {"yarn", "yarn_untruncated", "yarn_rotations", "longrope"}
    assert {attention_factor(scheme, scale=8.0, trained_length=512) for scheme in others} == {1.0}
    assert attention_factor("yarn", scale=0.5, trained_length=512) == 1.0
    assert attention_factor("longrope", scale=0.5, trained_length=512) == 1.0


def options_of(scheme: str, head_dim: int) -> dict:
    """Give what a scheme cannot do without."""
    match scheme:
        case "longrope":
            rising = [1 + 3 * i / (head_dim // 2) for i in range(head_dim // 2)]
            return {"short_factor": [1.0] * (head_dim // 2), "long_factor": rising}
        case "p_rope" | "partial_rotary":
            return {"p": 0.5}
    return {}


@settings(fast, max_examples=200)
@given(
    scheme=st.sampled_from(SCHEMES),
    head_dim=st.sampled_from([8, 32, 64, 128]),
    theta=st.sampled_from([500.0, 10_000.0, 500_000.0]),
    scale=st.floats(1.0, 64.0),
    trained=st.integers(7, 100_000),
    longer=st.floats(0.1, 64.0),
)
def test_frequencies_fall_and_never_exceed_plain_rope(
    scheme, head_dim, theta, scale, trained, longer
):
    common = {"head_dim": head_dim, "theta": theta, "trained_length": trained}
    length = max(1, int(longer * trained))
    ours = inverse_frequencies(
        scheme, scale=scale, length=length, **common, **options_of(scheme, head_dim)
    )
    assert ours.dtype == torch.float64
    assert ours.isfinite().all() and (ours >= 0).all() and ours[0] <= 1
    assert (ours.diff() <= 1e-15).all()
    plain = inverse_frequencies("rope", **common)
    assert (ours <= plain[: len(ours)] * (1 + 1e-12)).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("trained", [7, 512, 8192])
def test_nothing_to_extend_is_plain_rope(scheme, trained):
    none = {"longrope": {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}}
    none |= {"p_rope": {"p": 1.0}, "partial_rotary": {"p": 1.0}}
    common = {"head_dim": 64, "trained_length": trained, **none.get(scheme, {})}
    plain = inverse_frequencies("rope", head_dim=64, trained_length=trained)
    assert worst(inverse_frequencies(scheme, **common), plain) < 1e-15
    assert worst(inverse_frequencies(scheme, length=trained, **common), plain) < 1e-15
    if scheme not in (
        "rope",
        "p_rope",
        "partial_rotary",
    ):  # twin: with something to extend it is another
        assert (
            worst(inverse_frequencies(scheme, scale=4.0, length=4 * trained, **common), plain) > 0.1
        )


@pytest.mark.parametrize(
    ("head_dim", "theta", "scale"), [(64, 10_000.0, 4.0), (128, 500_000.0, 8.0), (16, 100.0, 2.5)]
)
def test_ntk_divides_the_last_frequency_by_the_scale_and_keeps_the_first(head_dim, theta, scale):
    common = {"head_dim": head_dim, "theta": theta, "trained_length": 512}
    plain = inverse_frequencies("rope", **common)
    for scheme in ("ntk", "dynamic_ntk"):
        ours = inverse_frequencies(scheme, scale=scale, length=int(scale * 512), **common)
        assert float(ours[0]) == 1
        assert float(ours[-1]) == pytest.approx(float(plain[-1]) / scale, rel=1e-13)
    theirs = inverse_frequencies("dynamic_ntk_hf", scale=scale, length=int(scale * 512), **common)
    # goes further
    assert float(theirs[-1]) == pytest.approx(
        float(plain[-1]) / (1 + scale * (scale - 1)), rel=1e-13
    )


def test_a_larger_base_reaches_further_by_its_rule():
    common = {"head_dim": 64, "trained_length": 512}
    ours = inverse_frequencies("abf", scale=4.0, **common)
    base = float(ours[1]) ** -32
    assert f"{base:.1e}" == "1.8e+05"  # as printed
    # a pair that completes its turn within L: its share of the width is the same for (new base, sL)
    # as for (base, L)
    assert math.log(2048 / (2 * math.pi)) / math.log(base) == pytest.approx(
        math.log(512 / (2 * math.pi)) / math.log(1e4)
    )
    assert worst(inverse_frequencies("abf", new_theta=base, **common), ours) < 1e-12
    assert worst(inverse_frequencies("abf", new_theta=5e5, **common), ours) > 0.1


def test_every_scheme_has_its_note():
    assert set(OPTIONS) <= set(SCHEMES) == set(SCHEME_NOTES)
    for note in SCHEME_NOTES.values():
        assert "\n" not in note and 20 < len(note) < 120


# ------------------------------------------------------------------------------------- transformers

SETTINGS = [
    (16, 10_000.0, 2.0, 64),
    (32, 500_000.0, 8.0, 256),
    (48, 10_000.0, 2.5, 100),
    (128, 160_000.0, 4.0, 1024),
]
# every pair turns within L, so YaRN's ramp is cut off at H − 1
SETTINGS.append((16, 10.0, 2.0, 1024))
THEIR_NAMES = {
    "ntk": "dynamic",
    "dynamic_ntk": "dynamic",
    "dynamic_ntk_hf": "dynamic",
    "p_rope": "proportional",
}
THEIR_NAMES |= {"rope": "default", "abf": "default", "linear": "linear", "partial_rotary": "linear"}
THEIR_NAMES |= {
    "yarn": "yarn",
    "yarn_untruncated": "yarn",
    "llama3": "llama3",
    "longrope": "longrope",
}
MORE_OPTIONS = [
    ("yarn", {"beta_fast": 20, "beta_slow": 2}),
    ("llama3", {"low_freq_factor": 2, "high_freq_factor": 9}),
]


def their_table(scheme: str, setting: tuple, options: dict) -> LlamaRotaryEmbedding:
    """Build transformers' own table of a scheme."""
    head_dim, theta, scale, trained = setting
    kind = THEIR_NAMES[scheme]
    rope = {"rope_type": kind, "rope_theta": options.get("new_theta", theta), "factor": scale}
    rope |= {name: value for name, value in options.items() if name not in ("p", "new_theta")}
    if scheme in ("ntk", "dynamic_ntk", "partial_rotary", "p_rope"):
        rope["factor"] = 1.0
    if kind == "default":
        del rope["factor"]
    if "p" in options:
        rope["partial_rotary_factor"] = options["p"]
    if kind in ("yarn", "llama3", "longrope"):
        rope["original_max_position_embeddings"] = trained
    if kind == "llama3":
        rope = OPTIONS["llama3"] | rope
    if scheme == "yarn_untruncated":
        rope["truncate"] = False
    longest = trained if kind == "dynamic" else int(scale * trained)
    return LlamaRotaryEmbedding(
        LlamaConfig(head_dim=head_dim, max_position_embeddings=longest, rope_parameters=rope)
    )


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(
    ("scheme", "given"), [*((name, {}) for name in THEIR_NAMES), *MORE_OPTIONS]
)
def test_tables_and_rotated_vectors_are_those_of_transformers(scheme, given, setting, within):
    head_dim, theta, scale, trained = setting
    options = (
        options_of(scheme, head_dim) | given | ({"new_theta": 7 * theta} if scheme == "abf" else {})
    )
    # theirs has no static NTK
    length = trained - 3 if within and scheme != "ntk" else int(scale * trained)
    common = {
        "head_dim": head_dim,
        "theta": theta,
        "scale": scale,
        "trained_length": trained,
        "length": length,
    }
    ours = inverse_frequencies(scheme, **common, **options)
    factor = attention_factor(scheme, scale=scale, trained_length=trained)
    x = torch.randn(
        1, length, 2, 2 * len(ours), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    cos, sin = rotation_table(ours, torch.arange(length), torch.float64)
    turned_1TNH = rotate(x, factor * cos, factor * sin)

    shipped = their_table(scheme, setting, options)
    at_1T = torch.arange(length)[None]
    theirs_1TNH = apply_rotary_pos_emb(x, x, *shipped(x.float(), at_1T), unsqueeze_dim=2)[0]
    assert shipped.inv_freq.dtype == torch.float32
    assert worst(ours, shipped.inv_freq.double()) < 1e-6
    assert shipped.attention_scaling == pytest.approx(factor, abs=1e-12)
    off_T = (turned_1TNH - theirs_1TNH).abs().amax((0, 2, 3))
    assert (
        off_T < 2e-6 * (1 + torch.arange(length))
    ).all()  # their angles are fp32: off in proportion to the position

    with everything_in_fp64():
        exact = their_table(scheme, setting, options)
        theirs_1TNH = apply_rotary_pos_emb(x, x, *exact(x, at_1T.double()), unsqueeze_dim=2)[0]
    assert worst(ours, exact.inv_freq) < 1e-12
    torch.testing.assert_close(turned_1TNH, theirs_1TNH, rtol=0, atol=1e-9)
    cos, sin = rotation_table(1.01 * ours, torch.arange(length), torch.float64)
    assert (rotate(x, factor * cos, factor * sin) - theirs_1TNH).abs().max() > 0.01  # twin


# ----------------------------------------------------------------------------------------- rotation


def turned(case: dict, pairing: str, dtype=torch.float64) -> torch.Tensor:
    """Rotate the case's rows by the case's own frequencies, one row a position."""
    cos, sin = rotation_table(array(case["inv_freq"]), torch.tensor(case["positions"]), dtype)
    factor = case["attention_factor"]
    x_1T1H = array(case["x"]).to(dtype)[None, :, None]
    return rotate(x_1T1H, cos * factor, sin * factor, pairing)[0, :, 0].double()


@pytest.mark.parametrize(
    "case", cases("rope_rotation"), ids=lambda c: f"{c['scheme']}-{c['head_dim']}"
)
@pytest.mark.parametrize(
    ("pairing", "theirs", "wrong"),
    [("half", "half_split", "interleaved"), ("interleaved", "interleaved", "half")],
)
def test_rotation_is_the_published_one(case, pairing, theirs, wrong):
    torch.testing.assert_close(turned(case, pairing), array(case[theirs]), rtol=0, atol=1e-12)
    assert (
        turned(case, wrong) - array(case[theirs])
    ).abs().max() > 0.1  # twin: the pairings do differ


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_angles_survive_far_positions_only_in_fp64(pairing):
    case = cases("rope_rotation")[0]
    assert max(case["positions"]) == 65536
    golden = array(case["half_split" if pairing == "half" else "interleaved"])
    assert (turned(case, pairing, torch.float32) - golden).abs().max() < 5e-7
    # twin: fp32 angles
    angles = torch.tensor(case["positions"])[:, None] * array(case["inv_freq"]).float()
    x = array(case["x"]).float()[None, :, None]
    assert (rotate(x, angles.cos(), angles.sin(), pairing)[0, :, 0] - golden).abs().max() > 2e-5


@fast
@given(
    m=st.integers(0, 5000),
    n=st.integers(0, 5000),
    shift=st.integers(0, 60_000),
    seed=st.integers(0, 99),
)
def test_scores_depend_on_the_distance_alone(m, n, shift, seed):
    q, k = torch.randn(
        2, 1, 1, 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    inv_freq = inverse_frequencies("rope", head_dim=16, trained_length=64)

    def score(at_q: int, at_k: int) -> float:
        tables = [
            rotation_table(inv_freq, torch.tensor([at]), torch.float64) for at in (at_q, at_k)
        ]
        return float((rotate(q, *tables[0]) * rotate(k, *tables[1])).sum())

    assert score(m, n) == pytest.approx(score(m + shift, n + shift), abs=1e-9)
    assert abs(score(m, n) - score(m + 1, n)) > 1e-12  # twin: one token further is another score


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_is_interleaved_in_another_channel_order(dtype):
    x = torch.randn(2, 5, 3, 12, dtype=dtype)
    cos, sin = rotation_table(
        inverse_frequencies("rope", head_dim=12, trained_length=8), torch.arange(5), dtype
    )
    order = pairs_together(12)
    half, other = (
        rotate(x, cos, sin, "half")[..., order],
        rotate(x[..., order], cos, sin, "interleaved"),
    )
    torch.testing.assert_close(half, other, rtol=1e-6, atol=1e-6)
    assert (half - rotate(x, cos, sin, "interleaved")).abs().max() > 0.1


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_rotation_keeps_lengths_dtype_and_gradients(pairing):
    x = torch.randn(2, 7, 3, 8, dtype=torch.float64, requires_grad=True)
    tables = rotation_table(
        inverse_frequencies("rope", head_dim=8, trained_length=8), torch.arange(7), torch.float64
    )
    torch.testing.assert_close(
        rotate(x, *tables, pairing).norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0
    )
    assert torch.autograd.gradcheck(lambda x: rotate(x, *tables, pairing), x)
    low = rotate(x.detach().bfloat16(), *(table.float() for table in tables), pairing)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(
        low.double(), rotate(x, *tables, pairing).detach(), rtol=0.02, atol=0.02
    )


def test_rows_of_a_batch_may_stand_at_other_positions():
    x = torch.randn(2, 4, 1, 8, dtype=torch.float64)
    inv_freq = inverse_frequencies("rope", head_dim=8, trained_length=8)
    at_BT = torch.tensor([[0, 1, 2, 3], [9, 8, 7, 6]])
    both = rotate(x, *rotation_table(inv_freq, at_BT, torch.float64))
    alone = rotate(x[1:], *rotation_table(inv_freq, at_BT[1], torch.float64))
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-14)


def test_sinusoidal_is_the_published_one():
    (case,) = cases("sinusoidal")
    table = sinusoidal(512, case["width"])
    torch.testing.assert_close(
        table[case["positions"]], array(case["interleaved"]), rtol=0, atol=1e-12
    )
    assert (
        table[case["positions"]][:, ::2] - array(case["interleaved"])[:, 1::2]
    ).abs().max() > 0.5


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoidal_is_sine_and_cosine_of_one_angle(width):
    table = sinusoidal(20, width)
    assert table.shape == (20, width)
    for channel in range(width):
        angle = 13 / 10_000 ** (2 * (channel // 2) / width)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert table[13, channel].item() == pytest.approx(expected, abs=1e-14)


def test_sinusoidal_shift_is_a_rotation():
    table = sinusoidal(64, 8)
    tables = rotation_table(
        inverse_frequencies("rope", head_dim=8, trained_length=64), torch.tensor([5]), torch.float64
    )
    # (sin, cos) is a complex number turned by −angle, so going forward turns back
    moved = rotate(table[:59, None, None], tables[0], -tables[1], "interleaved")[:, 0, 0]
    torch.testing.assert_close(moved, table[5:], rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------- biases


@pytest.mark.parametrize("case", cases("alibi_slopes"), ids=lambda c: str(c["heads"]))
def test_slopes_are_the_published_ones(case):
    ours = alibi_slopes(case["heads"])
    torch.testing.assert_close(ours, array(case["slopes"]), rtol=1e-12, atol=0)
    papers = 2.0 ** (-8 / case["heads"] * torch.arange(1, case["heads"] + 1, dtype=torch.float64))
    same = case["heads"] & (case["heads"] - 1) == 0
    assert (
        worst(papers, ours) < 1e-12
    ) == same  # twin: the paper's sentence, which the code does not follow at N = 12


@pytest.mark.parametrize("heads", [1, 3, 6, 14, 20, 25, 32, 40])
def test_slopes_are_those_of_transformers(heads):
    theirs = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), heads, torch.float32)[:, 0, 1]
    assert worst(alibi_slopes(heads), theirs.double()) < 1e-6


@pytest.mark.parametrize(
    "case", cases("t5_buckets"), ids=lambda c: "both" if c["bidirectional"] else "causal"
)
def test_buckets_are_the_published_ones(case):
    relative = torch.arange(case["relative_position_first"], case["relative_position_last"] + 1)
    causal = not case["bidirectional"]
    options = {"buckets": case["num_buckets"], "max_distance": case["max_distance"]}
    assert t5_bucket(relative, causal=causal, **options).tolist() == case["buckets"]
    # twin: query − key
    assert t5_bucket(-relative, causal=causal, **options).tolist() != case["buckets"]
    assert t5_bucket(relative, causal=not causal, **options).tolist() != case["buckets"]


@pytest.mark.parametrize(
    ("buckets", "max_distance"), [(32, 128), (16, 50), (8, 20), (64, 1000), (320, 800)]
)
@pytest.mark.parametrize("causal", [True, False])
def test_buckets_are_those_of_transformers(buckets, max_distance, causal):
    at = torch.arange(300)
    relative = torch.cat((at[None] - at[:, None], 11 * (at[None] - at[:, None])))
    ours = t5_bucket(relative, causal=causal, buckets=buckets, max_distance=max_distance)
    theirs = T5Attention._relative_position_bucket(relative, not causal, buckets, max_distance)
    assert torch.equal(ours, theirs)
    assert ours.min() == 0 and ours.max() == buckets - 1


def settled(scheme: str, **changes) -> torch.Tensor:
    return inverse_frequencies(scheme, **{"head_dim": 8, "trained_length": 64} | changes)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: inverse_frequencies("ropes", head_dim=8, trained_length=8),
            "scheme = 'ropes': expected one of rope",
        ),
        (
            lambda: inverse_frequencies("rope", head_dim=7, trained_length=8),
            "head_dim = 7: expected an even number",
        ),
        (lambda: settled("yarns"), "scheme = 'yarns': expected one of rope, linear, ntk, "),
        (lambda: settled("rope", p=0.5), r"p = 0.5: expected an option of rope \(it takes none\)"),
        (
            lambda: settled("yarn", beta=3),
            r"beta = 3: expected an option of yarn \(beta_fast, beta_slow\)",
        ),
        (
            lambda: settled("yarn", beta_fast=1, beta_slow=32),
            "beta_slow = 32: expected a number between 0 and beta_fast",
        ),
        (
            lambda: settled("llama3", high_freq_factor=1),
            "low_freq_factor = 1.0: expected a number between 0 and",
        ),
        (lambda: settled("longrope"), "short_factor = None: expected 4 positive numbers"),
        (
            lambda: settled("longrope", short_factor=[1.0] * 3),
            r"short_factor = \[1.0, 1.0, 1.0\]: expected 4 positive",
        ),
        (
            lambda: settled("longrope", short_factor=[1.0, 0, 1, 1]),
            "short_factor = .*: expected 4 positive numbers",
        ),
        (lambda: settled("p_rope"), "p = None: expected a share from 0 to 1"),
        (lambda: settled("partial_rotary", p=1.5), "p = 1.5: expected a share from 0 to 1"),
        (
            lambda: settled("partial_rotary", p=0.4),
            "p = 0.4: expected an even number of channels, not 3",
        ),
        (lambda: settled("abf", new_theta=0.0), "new_theta = 0.0: expected a number above 1"),
        (lambda: settled("abf", trained_length=6), "trained_length = 6: expected 7 tokens or more"),
        (lambda: settled("ntk", head_dim=2), "head_dim = 2: expected 4 or more"),
        (lambda: settled("linear", scale=0.0), "scale = 0.0: expected a positive number"),
        (lambda: settled("linear", scale=math.nan), "scale = nan: expected a positive number"),
        (lambda: settled("yarn", theta=1.0), "theta = 1.0: expected a number above 1"),
        (
            lambda: settled("yarn", trained_length=0),
            "trained_length = 0: expected a positive number of tokens",
        ),
        (
            lambda: settled("dynamic_ntk", length=0),
            "length = 0: expected a positive number of tokens",
        ),
        (
            lambda: attention_factor("yarns", scale=2.0, trained_length=8),
            "scheme = 'yarns': expected one of rope",
        ),
        (
            lambda: attention_factor("longrope", scale=2.0, trained_length=1),
            "trained_length = 1: expected 2 tokens",
        ),
        (lambda: alibi_slopes(0), "heads = 0: expected a positive number"),
        (
            lambda: t5_bucket(torch.arange(3), causal=False, buckets=7),
            "buckets = 7: expected 2 or more, or an even 4",
        ),
        (
            lambda: t5_bucket(torch.arange(3), causal=True, max_distance=16),
            "max_distance = 16: expected more than 16",
        ),
        (
            lambda: rotate(torch.zeros(1, 1, 1, 8), torch.zeros(1, 3), torch.zeros(1, 3)),
            "F = 3, H = 8: expected H = 2F",
        ),
    ],
)
def test_bad_arguments_are_named(call, line):
    with pytest.raises(ValueError, match=line) as raised:
        call()
    assert "\n" not in str(raised.value)
