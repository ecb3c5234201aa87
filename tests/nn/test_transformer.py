"""model.py: its parts against formulas, its sizes, and what may and may not influence an output."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from farcontext.nn import attention, layers
from farcontext.nn.config import ModelConfig
from farcontext.nn.embedding import rotation_of
from farcontext.nn.layers import MLP, Attention, Norm
from farcontext.nn.masks import Pattern
from farcontext.nn.positions import (
    inverse_frequencies,
    positions_within,
    sinusoidal,
    smear,
)
from farcontext.nn.rotation import rotate, rotation_table
from farcontext.nn.transformer import (
    Decoder,
    Encoder,
    EncoderDecoder,
    LanguageModel,
    num_parameters,
)

fast = settings(derandomize=True, deadline=None, max_examples=15)
V = 50
KINDS = {"encoder": Encoder, "decoder": Decoder, "encoder_decoder": EncoderDecoder}


def config_of(kind: str = "encoder", **changes) -> ModelConfig:
    shape = {
        "vocab_size": V,
        "width": 32,
        "layers": 3,
        "heads": 4,
        "mlp_width": 48,
        "max_length": 64,
    }
    return ModelConfig(**{"kind": kind, "init_std": 0.3, **shape, **changes})


def build(kind: str = "encoder", seed: int = 0, **changes) -> LanguageModel:
    """Return a model in fp64 whose weights are large enough that every part matters."""
    torch.manual_seed(seed)
    return KINDS[kind](config_of(kind, **changes)).double()


def tokens_of(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def same(ours: Tensor, theirs: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def apart(ours: Tensor, theirs: Tensor, margin: float = 1e-3) -> None:
    assert (ours - theirs).abs().max() > margin


# -------------------------------------------------------------------------------------------- parts


def test_norms_are_their_formulas():
    x = torch.randn(2, 3, 32, dtype=torch.float64) + 1
    centred = x - x.mean(-1, keepdim=True)
    wanted = {
        "layer": centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt(),
        "rms": x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt(),
    }
    for kind, value in wanted.items():
        norm = Norm(config_of(norm=kind)).double()
        norm.weight.data.uniform_(0.5, 2)
        same(norm(x), value * norm.weight)
    apart(wanted["layer"], wanted["rms"])


def test_mlps_are_their_formulas():
    x = torch.randn(2, 3, 32, dtype=torch.float64)
    results = []
    for kind, activation in (
        ("geglu", F.gelu),
        ("swiglu", F.silu),
        ("gelu", F.gelu),
        ("relu", F.relu),
    ):
        torch.manual_seed(0)
        mlp = MLP(config_of(mlp=kind)).double()
        gated = kind in ("geglu", "swiglu")
        inner = x @ mlp.inward.weight.T
        assert inner.shape[-1] == (96 if gated else 48)
        inner = activation(inner[..., :48]) * inner[..., 48:] if gated else activation(inner)
        same(mlp(x), inner @ mlp.out.weight.T)
        results.append(mlp(x))
    for one, other in itertools.combinations(results, 2):
        apart(one, other)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_projection_rotation_softmax(pairing, kv_heads):
    layer = Attention(config_of(kv_heads=kv_heads, pairing=pairing)).double()
    x = torch.randn(2, 9, 32, dtype=torch.float64, requires_grad=True)
    inv_freq = inverse_frequencies("rope", head_dim=8, trained_length=64)
    tables = rotation_table(inv_freq, torch.arange(9), torch.float64)

    def plain(pairing: str) -> Tensor:
        q, k, v = (x @ layer.qkv.weight.T).unflatten(-1, (-1, 8)).split((4, kv_heads, kv_heads), 2)
        q, k = rotate(q, *tables, pairing), rotate(k, *tables, pairing)
        return attention.reference(q, k, v, Pattern.causal()).flatten(2) @ layer.out.weight.T

    ours = layer(x, Pattern.causal(), tables)
    same(ours, plain(pairing))
    apart(ours, plain("interleaved" if pairing == "half" else "half"), 1e-4)
    for one, other in zip(
        torch.autograd.grad(ours.square().sum(), [x, layer.qkv.weight]),
        torch.autograd.grad(plain(pairing).square().sum(), [x, layer.qkv.weight]),
        strict=True,
    ):
        same(one, other)


@pytest.mark.parametrize("positions", ["rope", "none", "learned", "sinusoidal"])
def test_embeddings_are_their_formulas(positions):
    embedding = build(positions=positions).embedding
    tokens, documents = tokens_of(1, 6), torch.tensor([[0, 0, 0, 0, 1, 1]])
    rows = embedding.weight[tokens]
    wanted = {
        "rope": rows,
        "none": rows,
        "learned": rows + embedding.positions[[0, 1, 2, 3, 0, 1]]
        if positions == "learned"
        else None,
        "sinusoidal": rows * math.sqrt(32) + sinusoidal(4, 32)[[0, 1, 2, 3, 0, 1]],
    }
    same(embedding(tokens, documents), wanted[positions])


def test_positions_start_anew_in_each_document():
    documents = torch.tensor([[5, 5, 5, 2, 2, 7], [0, 1, 1, 1, -1, -1]])
    assert positions_within(documents, documents).tolist() == [
        [0, 1, 2, 0, 1, 0],
        [0, 0, 1, 2, 0, 1],
    ]
    assert positions_within(documents, None).tolist() == [0, 1, 2, 3, 4, 5]


# -------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("kind", "changes", "closed_form"),
    [
        (
            "encoder",
            {"embedding_norm": True},
            "V*D + D + L*(4*D*D + 3*D*M + 2*D) - D + D + D*D + D + V",
        ),
        ("encoder", {"mlp": "gelu"}, "V*D + L*(4*D*D + 2*D*M + 2*D) + D + D*D + D + V"),
        (
            "encoder",
            {"positions": "learned"},
            "V*D + 64*D + L*(4*D*D + 3*D*M + 2*D) + D + D*D + D + V",
        ),
        ("decoder", {"kv_heads": 2}, "V*D + L*(2*D*D + 2*D*D//2 + 3*D*M + 2*D) + D"),
        ("decoder", {"tied": False}, "2*V*D + L*(4*D*D + 3*D*M + 2*D) + D"),
        (
            "encoder_decoder",
            {"mlp": "relu"},
            "V*D + L*(4*D*D + 2*D*M + 2*D) + L*(8*D*D + 2*D*M + 3*D) + 2*D",
        ),
    ],
)
def test_parameters_follow_the_closed_form(kind, changes, closed_form):
    model = build(kind, **changes)
    values = {"V": V, "D": 32, "L": 3, "M": 48}
    assert num_parameters(model) == eval(closed_form, values)
    # no buffer is saved
    assert num_parameters(model) == sum(t.numel() for t in model.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_first_loss_is_nearly_ln_v(kind, tied):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 2048,
        "width": 128,
        "layers": 4,
        "heads": 4,
        "mlp_width": 192,
        "max_length": 128,
    }
    tokens = torch.randint(2048, (4, 128))
    inputs = (tokens, tokens) if kind == "encoder_decoder" else (tokens,)

    def first_loss(**changes) -> float:
        model = KINDS[kind](ModelConfig(kind=kind, tied=tied, **shape, **changes))
        return F.cross_entropy(model(*inputs).flatten(0, 1), torch.randint(2048, (512,))).item()

    assert first_loss() == pytest.approx(math.log(2048), rel=0.1)
    assert first_loss(init_std=0.5) > 1.2 * math.log(2048)  # twin: it depends on the scale


def test_large_tied_embeddings_scale_the_logits():
    torch.manual_seed(0)
    shape = {
        "vocab_size": 2048,
        "width": 128,
        "layers": 2,
        "heads": 4,
        "mlp_width": 192,
        "max_length": 128,
    }
    tokens = torch.randint(2048, (4, 128))
    for std in (0.1, 1.0, 3.0):
        model = Encoder(ModelConfig(kind="encoder", embedding_std=std, **shape))
        logits = model(tokens).flatten(0, 1)
        assert logits.std().item() == pytest.approx(1, rel=0.15)
        assert F.cross_entropy(logits, torch.randint(2048, (512,))).item() == pytest.approx(
            math.log(2048), rel=0.1
        )
    assert Encoder(ModelConfig(kind="encoder", embedding_std=0.02, **shape)).logit_scale == 1
    assert (
        Encoder(ModelConfig(kind="encoder", embedding_std=1.0, tied=False, **shape)).logit_scale
        == 1
    )


def test_initial_scales():
    torch.manual_seed(0)
    shape = {
        "vocab_size": 999,
        "width": 128,
        "layers": 8,
        "heads": 4,
        "mlp_width": 256,
        "max_length": 128,
    }
    model = Encoder(ModelConfig(kind="encoder", init_std=0.1, embedding_std=0.7, **shape))
    block = model.stack.blocks[3]
    wanted = [
        (model.embedding.weight, 0.7),
        (block.attention.qkv.weight, 0.1),
        (block.mlp.inward.weight, 0.1),
    ]
    wanted += [
        (block.attention.out.weight, 0.025),
        (block.mlp.out.weight, 0.025),
        (model.head.weight, 0.1),
    ]
    for weight, std in wanted:
        assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert (block.mlp_norm.weight == 1).all() and (model.output_bias == 0).all()
    torch.manual_seed(0)
    again = Encoder(model.config)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


# --------------------------------------------------------------------------- what reaches an output


POSITIONS = ["rope", "learned", "sinusoidal", "none"]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("window", [None, 3])
def test_documents_of_a_row_do_not_meet(kind, positions, window):
    model = build(kind, positions=positions, window=window, global_every=2)
    tokens, documents = tokens_of(1, 31), torch.tensor([[0] * 11 + [1] * 13 + [2] * 7])
    packed = model(tokens, documents)
    for part in (slice(0, 11), slice(11, 24), slice(24, 31)):
        same(packed[:, part], model(tokens[:, part]), 1e-10)
    apart(packed[:, 11:24], model(tokens)[:, 11:24], 0.01)  # twin: without ids they do meet


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_padding_changes_nothing_and_trains_nothing(kind):
    model = build(kind)
    tokens = tokens_of(2, 20)
    documents = torch.tensor([[0] * 12 + [-1] * 8, [0] * 20])
    select = documents >= 0
    logits = model(tokens, documents, select)
    same(logits[:12], model(tokens[:1, :12])[0], 1e-10)
    F.cross_entropy(logits, tokens[select]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    apart(model(tokens)[0, :12], logits[:12], 0.01) if kind == "encoder" else None


@fast
@given(seed=st.integers(0, 999), window=st.none() | st.just(40))
def test_an_encoder_without_positions_is_permutation_equivariant(seed, window):
    model, tokens = build(positions="none", window=window), tokens_of(2, 17, seed)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(seed))
    same(model(tokens[:, order]), model(tokens)[:, order], 1e-10)
    if seed % 5 == 0:  # twins: with positions, or a narrow window, order matters
        for other in (build(positions="rope"), build(positions="none", window=2, global_every=3)):
            apart(other(tokens[:, order]), other(tokens)[:, order], 0.01)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_decoder_sees_no_future_and_an_encoder_does(positions):
    tokens = tokens_of(1, 20)
    other = tokens.clone()
    other[0, 12] = (other[0, 12] + 1) % V
    causal, both = (build(kind, positions=positions) for kind in ("decoder", "encoder"))
    same(causal(tokens)[:, :12], causal(other)[:, :12])
    apart(causal(tokens)[:, 12:], causal(other)[:, 12:], 0.01)
    apart(both(tokens)[:, :12], both(other)[:, :12], 0.01)


def reach(model: LanguageModel, length: int, at: int) -> list[int]:
    """Return which input positions have a gradient at one output position."""
    seen = []
    model.embedding.register_forward_hook(
        lambda *args: seen.append(args[2].requires_grad_()) or args[2]
    )
    hidden = model.hidden(tokens_of(1, length))
    (gradient,) = torch.autograd.grad(hidden[0, at].square().sum() + hidden[0, at].sum(), seen[0])
    return gradient[0].abs().amax(-1).nonzero().flatten().tolist()


def test_local_layers_reach_as_far_as_they_should():
    # layer 0 is global
    assert reach(build(window=3, global_every=9, layers=1), 64, 30) == list(range(64))
    assert reach(build(window=3, global_every=0, layers=3), 64, 30) == list(range(30 - 6, 30 + 7))
    assert reach(build("decoder", window=3, global_every=0, layers=3), 64, 30) == list(
        range(30 - 6, 31)
    )


def test_window_layers_alternate_and_turn_by_their_own_theta():
    model = build(window=3, global_every=3, layers=7)
    assert [layer for layer in range(7) if model.config.is_global(layer)] == [0, 3, 6]
    with attention.recorded() as ran:
        model(tokens_of(1, 150))
    assert ran == ["sdpa", "sdpa_local", "sdpa_local"] * 2 + ["sdpa"]
    tokens = tokens_of(1, 30)
    other = build(window=3, global_every=3, layers=7, local_theta=50.0)
    apart(model(tokens), other(tokens))
    alike = build(window=3, global_every=3, layers=7, theta=50.0)
    apart(other(tokens), alike(tokens))


def test_a_pattern_limits_the_context_at_unchanged_positions():
    model = build("decoder", layers=1)
    tokens = tokens_of(1, 30)
    limited = model(tokens, pattern=Pattern.window(8))
    same(limited[:, -1], model(tokens[:, -8:])[:, -1], 1e-10)  # RoPE: only distances count
    apart(limited[:, -1], model(tokens)[:, -1], 0.01)
    learned = build("decoder", layers=1, positions="learned")
    moved = learned(tokens[:, -8:])[:, -1]
    apart(learned(tokens, pattern=Pattern.window(8))[:, -1], moved, 0.01)  # positions did not move
    documents = torch.tensor([[0] * 26 + [1] * 4])
    inside = model(tokens, documents, pattern=Pattern.window(8))
    same(inside[:, -1], model(tokens[:, -4:])[:, -1], 1e-10)  # the override keeps to documents


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize(
    "change", [{"positions": p} for p in POSITIONS] + [{"log_n": 8}, {"smear": True}, {"window": 4}]
)
def test_the_last_block_computes_selected_positions_as_if_all_were(kind, change, monkeypatch):
    model, tokens = build(kind, **change), tokens_of(2, 40)
    documents = torch.tensor([[0] * 25 + [1] * 15, [0] * 40])
    late = torch.zeros(2, 40, dtype=torch.bool)
    late[0, 31], late[1, 36:] = True, True  # in the second half: its queries are cut to the last 9
    for packed in (None, documents):
        every = model(tokens, packed)
        for select in (late, late.flip(1)):
            same(model(tokens, packed, select=select), every[select], 1e-10)
    # twin: one query too few
    monkeypatch.setattr(layers, "trailing_queries", lambda select: None if select is None else 8)
    assert len(model(tokens, select=late)) < late.sum()


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_select_scores_the_chosen_positions_only(kind):
    model, tokens = build(kind), tokens_of(2, 10)
    every = model(tokens)
    mask = torch.rand(2, 10) < 0.4
    same(model(tokens, select=mask), every[mask])
    indices = torch.tensor([19, 3, 3, 0])
    same(model(tokens, select=indices), every.flatten(0, 1)[indices])
    assert model(tokens, select=torch.zeros(2, 10, dtype=torch.bool)).shape == (0, V)


def test_source_padding_changes_nothing_in_an_encoder_decoder():
    model = build("encoder_decoder")
    source, target = tokens_of(2, 14), tokens_of(2, 9, seed=1)
    documents = torch.tensor([[0] * 10 + [-1] * 4, [0] * 14])
    padded = model(source, target, documents)
    assert padded.shape == (2, 9, V)
    same(padded[:1], model(source[:1, :10], target[:1]), 1e-10)
    same(padded[1:], model(source[1:], target[1:]), 1e-10)
    apart(padded[:1], model(source[:1], target[:1]), 0.01)
    other = target.clone()
    other[:, 5] = (other[:, 5] + 1) % V
    same(model(source, other)[:, :5], model(source, target)[:, :5])
    mask = torch.rand(2, 9) < 0.5
    same(model(source, target, select=mask), model(source, target)[mask])


def test_a_learned_table_is_not_read_beyond_its_end():
    model = build(positions="learned", max_length=16)
    assert model(tokens_of(1, 16)).shape == (1, 16, V)
    with pytest.raises(ValueError, match="length = 17: expected at most max_length = 16"):
        model(tokens_of(1, 17))
    model(tokens_of(1, 30), torch.arange(30)[None] // 15)  # two documents that fit
    assert build(positions="rope", max_length=16)(tokens_of(1, 17)).shape == (1, 17, V)


def test_evaluation_in_inference_mode_leaves_training_possible():
    model, tokens = build(window=2, global_every=2), tokens_of(1, 61)
    pattern = Pattern(before=9, after=9, slopes=torch.linspace(0.1, 0.5, 4))
    rotation_of.cache_clear()  # tables and masks made here must serve training too
    with torch.inference_mode():
        before = model(tokens, pattern=pattern)
    after = model(tokens, pattern=pattern)
    after.sum().backward()
    assert torch.equal(before, after)


def test_bfloat16_stays_near():
    model, tokens = build(), tokens_of(2, 20)
    low = model.bfloat16()(tokens).double()
    assert low.isfinite().all()
    near = F.cosine_similarity(low.flatten(), build()(tokens).flatten(), 0)
    assert near > 0.99
    with torch.autocast("cpu", torch.bfloat16):
        assert model.float()(tokens).isfinite().all()


# ------------------------------------------------------------------------------------- smeared keys


def test_smear_mixes_each_key_with_the_one_before_it() -> None:
    k_BSGH = torch.randn(1, 5, 2, 4, dtype=torch.float64)
    # shares 1/2 and 3/4
    mixed = smear(k_BSGH, torch.tensor([0.0, math.log(3.0)], dtype=torch.float64))
    torch.testing.assert_close(mixed[0, 3, 0], (k_BSGH[0, 3, 0] + k_BSGH[0, 2, 0]) / 2)
    torch.testing.assert_close(mixed[0, 3, 1], 0.25 * k_BSGH[0, 3, 1] + 0.75 * k_BSGH[0, 2, 1])
    torch.testing.assert_close(mixed[0, 0, 0], k_BSGH[0, 0, 0] / 2)


def test_smear_without_causality_gives_odd_heads_the_next_key() -> None:
    k_BSGH = torch.randn(1, 5, 2, 4, dtype=torch.float64)
    mixed = smear(k_BSGH, torch.zeros(2, dtype=torch.float64), causal=False)
    torch.testing.assert_close(mixed[0, 2, 0], (k_BSGH[0, 2, 0] + k_BSGH[0, 1, 0]) / 2)
    torch.testing.assert_close(mixed[0, 2, 1], (k_BSGH[0, 2, 1] + k_BSGH[0, 3, 1]) / 2)
    torch.testing.assert_close(mixed[0, 4, 1], k_BSGH[0, 4, 1] / 2)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_smeared_model_keeps_documents_apart(kind: str) -> None:
    model = build(kind, smear=True).double().eval()
    tokens = torch.randint(4, V, (2, 24))
    documents = (torch.arange(24) >= 10).long().expand(2, -1)
    alone, packed = model(tokens[:, 10:]), model(tokens, documents=documents)[:, 10:]
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-11)
    leaky = model(tokens)[:, 10:]  # the twin: one document
    assert (leaky - alone).abs().max() > 1e-3


def test_a_smeared_decoder_is_causal_and_its_mix_learns() -> None:
    model = build("decoder", smear=True).double()
    tokens = torch.randint(4, V, (2, 24))
    changed = tokens.clone()
    changed[:, 15] = (tokens[:, 15] + 1 - 4) % (V - 4) + 4
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :15], after[:, :15], rtol=0, atol=0)
    assert (before[:, 15:] - after[:, 15:]).abs().max() > 1e-3
    before.logsumexp(-1).sum().backward()
    assert all(
        p.grad.abs().sum() > 0 for name, p in model.named_parameters() if name.endswith("mix")
    )
