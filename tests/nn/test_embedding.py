"""Positions enter a model in several places.

They are tables read between rows, schemes at scale 1, biases on the scores, and drawn positions.
"""

import math

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention, T5Config

from farcontext.nn import attention
from farcontext.nn.config import Extension, ModelConfig
from farcontext.nn.embedding import Embedding, RelativeBias, frequencies, on_scores, rotation_of
from farcontext.nn.masks import Pattern
from farcontext.nn.positions import SCHEMES, alibi_slopes, attention_factor, inverse_frequencies
from farcontext.nn.transformer import Decoder, Encoder

L = 32
FACTORS = {
    "longrope": {"short_factor": (1.0,) * 4, "long_factor": (2.0,) * 4},
    "p_rope": {"p": 0.5},
}
FACTORS["partial_rotary"] = FACTORS["p_rope"]


def config_of(kind: str = "decoder", **changes) -> ModelConfig:
    shape = {
        "vocab_size": 50,
        "width": 32,
        "layers": 2,
        "heads": 4,
        "mlp_width": 48,
        "max_length": L,
    }
    return ModelConfig(**{"kind": kind, "init_std": 0.3, **shape, **changes})


def build(kind: str = "decoder", seed: int = 0, **changes) -> Decoder | Encoder:
    torch.manual_seed(seed)
    return (
        {"decoder": Decoder, "encoder": Encoder}[kind](config_of(kind, **changes)).double().eval()
    )


def tokens_of(length: int, rows: int = 2) -> torch.Tensor:
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(1))


def with_weights_of(model: Decoder, **changes) -> Decoder:
    other = build(model.config.kind, seed=9, **changes)
    other.load_state_dict(model.state_dict())
    return other


# -------------------------------------------------------------------------------- short convolution


def test_a_short_convolution_is_torchs_depthwise_one_on_the_embedded_tokens() -> None:
    model, tokens = build(short_conv=3), tokens_of(12)
    weight = model.embedding.before
    assert weight.shape == (3, 32)
    e_BDT = torch.nn.functional.embedding(tokens, model.embedding.weight).mT
    kernel = torch.cat((weight.flip(0), torch.ones_like(weight[:1]))).T[:, None]
    expected = torch.nn.functional.conv1d(
        torch.nn.functional.pad(e_BDT, (3, 0)), kernel, groups=32
    ).mT
    assert torch.allclose(model.embedding(tokens, None), expected, atol=1e-12)


def test_a_short_convolution_starts_with_torchs_spread_and_reaches_no_further() -> None:
    torch.manual_seed(0)
    wide = Embedding(config_of(width=4096, heads=64, short_conv=4))
    model = build(short_conv=2)
    assert wide.before.shape == (4, 4096)
    drawn = Decoder(
        config_of(width=1024, heads=16, layers=1, short_conv=4)
    ).embedding.before.detach()
    ours, torchs = drawn.std(), torch.nn.Conv1d(1024, 1024, 4, groups=1024).weight.std()
    assert abs(float(ours / torchs) - 1) < 0.05
    tokens = tokens_of(8, rows=1)
    other = tokens.clone()
    other[0, 2] = (tokens[0, 2] + 1) % 50
    moved = (model.embedding(tokens, None) != model.embedding(other, None)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [2, 3, 4]


def test_a_short_convolution_looks_into_no_other_document_and_no_padding() -> None:
    model, tokens = build(short_conv=3), tokens_of(10, rows=1)
    documents = torch.tensor([[0] * 4 + [1] * 4 + [-1] * 2])
    together = model.embedding(tokens, documents)
    assert torch.allclose(together[:, :4], model.embedding(tokens[:, :4], None), atol=1e-12)
    assert torch.allclose(together[:, 4:8], model.embedding(tokens[:, 4:8], None), atol=1e-12)


# ------------------------------------------------------------------------------------------- tables


def test_a_learned_table_read_at_half_steps_gives_the_mean_of_two_rows() -> None:
    config = config_of(
        positions="learned", extension=Extension(scheme="linear", scale=2.0, trained_length=L)
    )
    embedding = Embedding(config)
    torch.nn.init.normal_(embedding.positions)
    torch.nn.init.zeros_(embedding.weight)
    out = embedding(torch.zeros(1, 2 * L, dtype=torch.long), None)[0]
    assert embedding.positions.shape == (L, 32)
    assert torch.allclose(out[::2], embedding.positions)
    assert torch.allclose(
        out[1:-1:2], (embedding.positions[1:] + embedding.positions[:-1]) / 2, atol=1e-6
    )


def test_a_learned_table_ends_where_its_extension_ends() -> None:
    table = {
        "positions": "learned",
        "extension": Extension(scheme="linear", scale=2.0, trained_length=L),
    }
    build(**table)(tokens_of(2 * L))
    with pytest.raises(ValueError, match="length = 65: expected at most max_length = 64"):
        build(**table)(tokens_of(2 * L + 1))
    with pytest.raises(ValueError, match="length = 33: expected at most max_length = 32"):
        build(positions="learned")(tokens_of(L + 1))


# ------------------------------------------------------------------------------------------- rotary


@pytest.mark.parametrize("scheme", SCHEMES)
def test_frequencies_are_the_schemes_own_padded_with_pairs_that_do_not_turn(scheme: str) -> None:
    options = FACTORS.get(scheme, {})
    config = config_of(extension=Extension(scheme=scheme, scale=4.0, trained_length=L, **options))
    found, factor = frequencies(config, 4 * L)
    own = inverse_frequencies(
        scheme, head_dim=8, scale=4.0, trained_length=L, length=4 * L, **options
    )
    assert torch.equal(found[: len(own)], own) and not found[len(own) :].any() and len(found) == 4
    assert factor == attention_factor(scheme, scale=4.0, trained_length=L)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s not in FACTORS])
def test_a_scheme_at_scale_1_within_its_length_changes_nothing_and_at_4_does(scheme: str) -> None:
    plain, tokens = build(), tokens_of(L)
    same = with_weights_of(plain, extension=Extension(scheme=scheme, trained_length=L))
    assert torch.allclose(same(tokens), plain(tokens), atol=1e-9)
    if scheme == "rope":
        return
    other = with_weights_of(plain, extension=Extension(scheme=scheme, scale=4.0, trained_length=L))
    assert not torch.allclose(other(tokens_of(4 * L)), plain(tokens_of(4 * L)), atol=1e-6)


def test_an_attention_factor_multiplies_cos_and_sin_and_can_be_set() -> None:
    yarn = {"scheme": "yarn", "scale": 4.0, "trained_length": 512}
    cos, sin = rotation_of(
        config_of(extension=Extension(**yarn)), 3, True, torch.float64, torch.device("cpu")
    )
    assert (cos.square() + sin.square()).sqrt().max().item() == pytest.approx(0.1 * math.log(4) + 1)
    own = config_of(extension=Extension(**yarn, attention_factor=1.5))
    cos, sin = rotation_of(own, 3, True, torch.float64, torch.device("cpu"))
    assert (cos.square() + sin.square()).sqrt().max().item() == pytest.approx(1.5)


def test_local_layers_keep_their_frequencies() -> None:
    config = config_of(
        extension=Extension(scheme="linear", scale=4.0, trained_length=L), local_theta=100.0
    )
    assert torch.equal(
        frequencies(config, L, wide=False)[0], 100.0 ** -(torch.arange(0, 8, 2).double() / 8)
    )


def test_an_extension_without_positions_to_extend_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"extension.scheme = linear, positions = alibi: expected rope"
    ):
        config_of(positions="alibi", extension=Extension(scheme="linear", trained_length=L))


def test_drawn_positions_are_new_in_training_even_in_tests_and_never_too_many() -> None:
    model, tokens = build(random_positions=128), tokens_of(L)
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    torch.manual_seed(0)
    first, second = model(tokens), model(tokens)
    assert not torch.allclose(first, second)
    torch.manual_seed(0)
    assert torch.equal(model(tokens), first)
    whole = with_weights_of(model, random_positions=L)
    # all of them, in order: plain RoPE
    assert torch.allclose(whole(tokens), with_weights_of(model)(tokens))
    with pytest.raises(ValueError, match="length = 129: expected at most random_positions = 128"):
        model(tokens_of(129))


# ------------------------------------------------------------------------------------ on the scores


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_alibi_is_the_given_slopes_times_the_distance(kind: str) -> None:
    model, tokens = build(kind, positions="alibi"), tokens_of(L)
    plain = with_weights_of(model, positions="none")
    after = 0 if kind == "decoder" else None
    biased = plain(tokens, pattern=Pattern(after=after, slopes=alibi_slopes(4)))
    assert torch.allclose(model(tokens), biased) and not torch.allclose(
        model(tokens), plain(tokens)
    )


@pytest.mark.parametrize("causal", [True, False])
def test_the_relative_bias_is_t5s(causal: bool) -> None:
    bias = RelativeBias(config_of(positions="t5"), causal)
    torch.nn.init.normal_(bias.weight)
    theirs = T5Attention(T5Config(num_heads=4, is_decoder=causal), has_relative_attention_bias=True)
    theirs.relative_attention_bias.weight.data.copy_(bias.weight)
    ours = Pattern(relative=bias()).bias(300, 300)
    assert torch.allclose(ours, theirs.compute_bias(300, 300))


def test_a_relative_bias_is_learned_by_sdpa_and_reference_alike_and_refused_by_online() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 6, 4, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    gradients = []
    for backend in ("reference", "sdpa"):
        table = torch.randn(
            4,
            9,
            generator=torch.Generator().manual_seed(2),
            dtype=torch.float64,
            requires_grad=True,
        )
        out = attention.attend(q, k, v, Pattern(after=0, relative=table), backend)
        gradients.append(torch.autograd.grad(out.square().sum(), table)[0])
    assert torch.allclose(*gradients) and gradients[0].abs().max() > 1e-3
    with pytest.raises(ValueError, match="backend = online"):
        attention.attend(q, k, v, Pattern(after=0, relative=table), "online")
    still = Pattern(after=0, relative=table.detach())
    assert torch.allclose(
        attention.attend(q, k, v, still, "online"), attention.attend(q, k, v, still, "sdpa")
    )


@pytest.mark.parametrize("backend", ["reference", "online", "sdpa"])
def test_log_n_scaling_multiplies_the_scores_of_late_queries(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 64, 2, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    out = attention.attend(q, k, v, Pattern(after=0, log_n=16), backend)
    plain = attention.attend(q, k, v, Pattern.causal(), backend)
    assert torch.allclose(out[:, :16], plain[:, :16]) and not torch.allclose(
        out[:, 17:], plain[:, 17:]
    )
    scaled = q.clone()
    scaled[:, 63] *= math.log(64) / math.log(16)
    assert torch.allclose(
        out[:, 63], attention.attend(scaled, k, v, Pattern.causal(), backend)[:, 63]
    )


def test_positions_on_the_scores_leave_a_plain_pattern_alone() -> None:
    pattern = Pattern.causal()
    assert on_scores(pattern, config_of(), None) is pattern
