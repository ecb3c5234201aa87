"""Ours against theirs, each comparison with a planted error that it must see."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    PreTrainedModel,
)

from farcontext.checkpoints.convert import from_hf, from_torch, to_hf
from farcontext.nn.config import Extension, ModelConfig
from farcontext.nn.transformer import Decoder, Encoder, num_parameters

COUNTS = {
    row["name"]: row
    for row in json.loads(
        (Path(__file__).parent.parent / "goldens" / "parameter_counts.json").read_text()
    )["models"]
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 80, "num_attention_heads": 4}


def modernbert(**changes) -> ModernBertForMaskedLM:
    torch.manual_seed(0)
    options = {
        "num_hidden_layers": 5,
        "local_attention": 12,
        "cls_token_id": 1,
        "sep_token_id": 2,
        **IDS,
        **SMALL,
    }
    return loud(ModernBertForMaskedLM(ModernBertConfig(**options | changes)))


def llama(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    options = {"num_hidden_layers": 3, "num_key_value_heads": 2, **IDS, **SMALL}
    return loud(LlamaForCausalLM(LlamaConfig(**options | changes)))


def loud(hf_model: PreTrainedModel) -> PreTrainedModel:
    """Draw every weight anew, large, norms and biases too, so that none can be lost unnoticed."""
    with torch.no_grad():
        for parameter in hf_model.parameters():
            parameter.normal_(mean=float(parameter.ndim == 1), std=0.1)
    return hf_model.eval()


THEIRS: dict[str, Callable[..., PreTrainedModel]] = {"modernbert": modernbert, "llama": llama}
TOKENS = torch.randint(3, 97, (2, 50), generator=torch.Generator().manual_seed(0))


@contextmanager
def everything_in_fp64() -> Iterator[None]:
    """Let transformers compute in fp64 where it asks for fp32 by name: rotation angles, RMSNorm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(Tensor, "float", Tensor.double)
        yield


@torch.no_grad()
def gap(ours: nn.Module, theirs: PreTrainedModel) -> float:
    """Return the largest difference of logits."""
    wanted = theirs(input_ids=TOKENS).logits
    assert wanted.std() > 0.3
    return (ours(TOKENS) - wanted).abs().max().item()


@pytest.mark.parametrize("family", THEIRS)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_agree_both_ways(family, tied):
    theirs = THEIRS[family](tie_word_embeddings=tied)
    ours = from_hf(theirs)
    assert gap(ours, theirs) < 1e-5
    back = to_hf(ours)
    with torch.no_grad():
        assert torch.equal(back(input_ids=TOKENS).logits, theirs(input_ids=TOKENS).logits)
    again = from_hf(back)
    assert again.config == ours.config
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("family", THEIRS)
def test_logits_agree_to_fp64(family):
    with everything_in_fp64():
        theirs = THEIRS[family]().double()
        ours = from_hf(theirs)
        assert next(ours.parameters()).dtype == torch.float64
        assert gap(ours, theirs) < 1e-10


def twisted(ours: Encoder | Decoder, **changes) -> Encoder | Decoder:
    """Return a model of a slightly different configuration with the same weights."""
    other = type(ours)(ours.config.model_copy(update=changes))
    other.load_state_dict(ours.state_dict())
    return other


@pytest.mark.parametrize(
    ("family", "error"),
    [
        ("modernbert", {"pairing": "interleaved"}),
        ("modernbert", {"window": 5}),
        ("modernbert", {"window": 12}),
        ("modernbert", {"theta": 10_000.0}),
        ("modernbert", {"local_theta": 160_000.0}),
        ("modernbert", {"global_every": 2}),
        ("modernbert", {"positions": "none"}),
        ("modernbert", {"mlp": "swiglu"}),
        ("llama", {"pairing": "interleaved"}),
        ("llama", {"theta": 20_000.0}),
        ("llama", {"window": 12, "global_every": 2}),
        ("llama", {"mlp": "geglu"}),
        ("llama", {"norm": "layer"}),
        ("llama", {"norm_eps": 1e-2}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.items())),
)
def test_planted_errors_are_seen(family, error):
    theirs = THEIRS[family]()
    ours = from_hf(theirs)
    assert gap(twisted(ours), theirs) < 1e-5
    assert gap(twisted(ours, **error), theirs) > 1e-3


def test_swapped_projections_are_seen():
    for build in THEIRS.values():
        theirs = build()
        ours = from_hf(theirs)
        weight = ours.stack.blocks[1].mlp.inward.weight
        with torch.no_grad():
            weight.copy_(weight.roll(len(weight) // 2, 0))  # gate and value exchanged
        assert gap(ours, theirs) > 1e-3


def losses(
    model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], lr: float = 2e-3
) -> Tensor:
    """Return the loss of 12 AdamW steps on two batches masked at 30 %."""
    optimizer = torch.optim.AdamW(
        model.train().parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01
    )
    found = []
    for step in range(12):
        generator = torch.Generator().manual_seed(step % 2)
        tokens = torch.randint(3, 97, (4, 40), generator=generator).cumsum(1) % 90 + 3
        masked = torch.rand(tokens.shape, generator=generator) < 0.3
        loss = loss_of(tokens.masked_fill(masked, 1), tokens.masked_fill(~masked, -100))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found)


@pytest.mark.parametrize("family", THEIRS)
def test_loss_curves_agree_step_by_step(family):
    config = {
        "vocab_size": 97,
        "width": 64,
        "layers": 3,
        "heads": 4,
        "mlp_width": 80,
        "max_length": 64,
    }
    config["init_std"] = 0.05
    torch.manual_seed(0)
    if family == "modernbert":
        kind = {
            "kind": "encoder",
            "norm": "layer",
            "mlp": "geglu",
            "embedding_norm": True,
            "window": 6,
        }
        ours = Encoder(ModelConfig(**kind, **config, global_every=3))
    else:
        ours = Decoder(ModelConfig(kind="decoder", kv_heads=2, **config))
    theirs = to_hf(ours)
    faster = from_hf(theirs)

    def loss_of(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        def ours_loss(inputs: Tensor, targets: Tensor) -> Tensor:
            scored = targets != -100
            return F.cross_entropy(model(inputs, select=scored), targets[scored])

        def theirs_loss(inputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), targets.flatten())

        return theirs_loss if isinstance(model, PreTrainedModel) else ours_loss

    curve, wanted = losses(ours, loss_of(ours)), losses(theirs, loss_of(theirs))
    assert wanted[0] - wanted[-1] > 0.1  # there is a curve
    torch.testing.assert_close(curve, wanted, rtol=0, atol=1e-5)
    assert (
        losses(faster, loss_of(faster), lr=2.2e-3) - wanted
    ).abs().max() > 1e-3  # twin: another rate


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name):
    row = COUNTS[name]
    with torch.device("meta"):
        ours = ours_of((LlamaConfig if "Llama" in name else ModernBertConfig)(**row["config"]))
    assert num_parameters(ours) == row["parameters"]


def ours_of(config: LlamaConfig | ModernBertConfig) -> Encoder | Decoder:
    """Return our model of their shape; weights are not copied, a meta tensor has none."""
    shape = {
        "vocab_size": config.vocab_size,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
    }
    shape |= {
        "heads": config.num_attention_heads,
        "mlp_width": config.intermediate_size,
        "max_length": 8192,
    }
    if isinstance(config, LlamaConfig):
        tied, kv_heads = config.tie_word_embeddings, config.num_key_value_heads
        return Decoder(ModelConfig(kind="decoder", kv_heads=kv_heads, tied=tied, **shape))
    return Encoder(
        ModelConfig(kind="encoder", norm="layer", mlp="geglu", embedding_norm=True, **shape)
    )


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_encoder_decoder_agrees_with_torch(activation):
    torch.manual_seed(0)
    options = {
        "norm_first": True,
        "bias": False,
        "batch_first": True,
        "dropout": 0.0,
        "dtype": torch.float64,
    }
    theirs = nn.Transformer(32, 4, 2, 2, 48, activation=activation, **options).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(mean=float(parameter.ndim == 1), std=0.3)
    ours = from_torch(theirs, vocab_size=97, max_length=64).eval()
    embedding = ours.embedding.weight
    source, target = TOKENS[:, :20], TOKENS[:, 20:33]
    mask = nn.Transformer.generate_square_subsequent_mask(13, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs(embedding[source], embedding[target], tgt_mask=mask)
        acausal = theirs(embedding[source], embedding[target])
        found = ours.hidden(source, target)
    assert (found - wanted).abs().max() < 1e-10
    assert (found - acausal).abs().max() > 0.01  # twin: no causal mask
    other = from_torch(theirs, 97, 64).eval()
    with torch.no_grad():
        other.embedding.weight.copy_(embedding)
        cross = other.decoder.blocks[1].cross.qkv.weight
        cross.copy_(cross.roll(32, 0))  # twin: queries, keys and values exchanged
        assert (other.hidden(source, target) - wanted).abs().max() > 0.01


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: from_hf(ModernBertModel(modernbert().config)),
            "model = ModernBertModel: expected",
        ),
        (lambda: from_hf(modernbert(norm_bias=True)), "norm_bias = True: expected False"),
        (
            lambda: from_hf(modernbert(hidden_activation="relu")),
            "hidden_activation = 'relu': expected 'gelu'",
        ),
        (
            lambda: from_hf(modernbert(layer_types=["sliding_attention"] * 5)),
            "expected full attention in layers 0, g, 2g",
        ),
        (lambda: from_hf(llama(attention_bias=True)), "attention_bias = True: expected False"),
        (lambda: from_hf(llama(head_dim=32)), "head_dim = 32: expected 16"),
        (
            lambda: from_hf(extended({"rope_type": "proportional", "partial_rotary_factor": 0.5})),
            "rope_type = 'prop",
        ),
        (
            lambda: from_hf(extended(YARN | {"mscale": 0.7, "mscale_all_dim": 0.7})),
            "mscale = 0.7: expected None",
        ),
        (
            lambda: from_hf(extended(YARN | {"partial_rotary_factor": 0.5})),
            "partial_rotary_factor = 0.5: expected 1.0",
        ),
        (
            lambda: to_hf(reaching("yarn_rotations", scale=4.0)),
            "scheme = 'yarn_rotations': expected one of rope, ntk",
        ),
        (
            lambda: to_hf(reaching("partial_rotary", p=0.5)),
            "extension.scheme = 'partial_rotary': expected one of",
        ),
        (
            lambda: to_hf(reaching("linear", scale=4.0, attention_factor=1.2)),
            "attention_factor = 1.2: expected 1.0",
        ),
        (
            lambda: to_hf(reaching("ntk", scale=4.0, attention_factor=1.2)),
            "attention_factor = 1.2: expected 1.0",
        ),
        (lambda: to_hf(small_decoder(log_n=8)), "log_n = 8: expected None"),
        (lambda: to_hf(small_decoder(random_positions=99)), "random_positions = 99: expected None"),
        (lambda: to_hf(small_decoder(positions="alibi")), "positions = 'alibi': expected 'rope'"),
        (lambda: to_hf(small_decoder(window=4)), "window = 4: expected None"),
        (lambda: to_hf(small_decoder(smear=True)), "smear = True: expected False"),
        (
            lambda: to_hf(small_decoder(pairing="interleaved")),
            "pairing = 'interleaved': expected 'half'",
        ),
        (lambda: to_hf(small_decoder(embedding_std=1.0)), "embedding_std = 1.0: expected logits"),
        (
            lambda: from_torch(nn.Transformer(8, 2, 1, 1, 8, batch_first=True), 9, 9),
            "norm_first = False",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(call, line):
    with pytest.raises(ValueError, match=line):
        call()


def small_decoder(**changes) -> Decoder:
    shape = {"vocab_size": 9, "width": 8, "layers": 1, "heads": 2, "mlp_width": 8, "max_length": 8}
    return Decoder(ModelConfig(kind="decoder", **shape, **changes))


# ------------------------------------------------------------------------------- extended positions

TRAINED = 32  # L, tokens
YARN = {"rope_type": "yarn", "factor": 4.0}
FACTORS = {
    "short_factor": [1.0 + i / 9 for i in range(8)],
    "long_factor": [1.0 + i for i in range(8)],
}
EXTENDED = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": YARN,
    "yarn-betas": YARN | {"beta_fast": 4, "beta_slow": 0.5, "rope_theta": 500.0},
    "yarn-untruncated": YARN | {"truncate": False, "beta_fast": 4.0},
    "yarn-attention": YARN | {"attention_factor": 1.5},
    "yarn-no-factor": YARN | {"factor": None},
    "longrope": {"rope_type": "longrope", "factor": 4.0, **FACTORS},
    "longrope-attention": {
        "rope_type": "longrope",
        "factor": 4.0,
        "attention_factor": 1.3,
        **FACTORS,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}


def extended(rope: dict) -> LlamaForCausalLM:
    """Return a Llama trained for 32 tokens, extended to 128.

    Dynamic NTK counts from its longest position.
    """
    rope = {"rope_theta": 10_000.0} | rope
    if rope["rope_type"] in ("yarn", "longrope", "llama3"):
        rope["original_max_position_embeddings"] = TRAINED
    dynamic = rope["rope_type"] == "dynamic"
    return llama(rope_parameters=rope, max_position_embeddings=TRAINED if dynamic else 4 * TRAINED)


def reaching(scheme: str, **options) -> Decoder:
    return small_decoder(extension=Extension(scheme=scheme, trained_length=8, **options))


@torch.no_grad()
def gap_at(length: int, ours: nn.Module, theirs: PreTrainedModel) -> float:
    """Return the largest difference of logits of a row as long.

    A model of transformers never goes back to a shorter table.
    """
    tokens = torch.randint(3, 97, (1, length), generator=torch.Generator().manual_seed(length))
    return (ours(tokens) - theirs(input_ids=tokens).logits).abs().max().item()


@pytest.mark.parametrize("length", [TRAINED - 8, TRAINED, TRAINED + 1, 3 * TRAINED])
@pytest.mark.parametrize("name", EXTENDED)
def test_extended_logits_agree_both_ways(name, length):
    theirs = extended(EXTENDED[name])
    ours = from_hf(theirs)
    assert gap_at(length, ours, theirs) < 2e-5
    back = to_hf(ours)
    assert gap_at(length, ours, back) < 2e-5
    assert back.config.max_position_embeddings == theirs.config.max_position_embeddings
    assert from_hf(back).config == ours.config


@pytest.mark.parametrize("name", EXTENDED)
def test_extended_logits_agree_to_fp64(name):
    single = torch.get_default_dtype()
    # that of an integer tensor times a float: dynamic NTK's length
    torch.set_default_dtype(torch.float64)
    try:
        with everything_in_fp64():
            theirs = extended(EXTENDED[name]).double()
            ours = from_hf(theirs)
            for length in (TRAINED - 8, TRAINED + 1, 3 * TRAINED):
                assert gap_at(length, ours, theirs) < 1e-9
    finally:
        torch.set_default_dtype(single)


@pytest.mark.parametrize("name", EXTENDED)
def test_a_wrong_factor_is_seen(name):
    theirs = extended(EXTENDED[name])
    ours = from_hf(theirs)
    extension = ours.config.extension
    wrong = {"attention_factor": 1.1} if "longrope" in name else {"scale": extension.scale * 1.1}
    wrong = twisted(ours, extension=extension.model_copy(update=wrong))
    assert gap_at(3 * TRAINED, wrong, theirs) > 1e-3
    assert gap_at(3 * TRAINED, twisted(ours, extension=None), theirs) > 1e-2


@pytest.mark.parametrize(
    ("extension", "rope"),
    [
        ({"scheme": "rope"}, {"rope_type": "default", "rope_theta": 10_000.0}),
        (
            {"scheme": "ntk", "scale": 4.0},
            {"rope_type": "default", "rope_theta": 10_000.0 * 4 ** (16 / 14)},
        ),
        (
            {"scheme": "abf", "scale": 4.0, "new_theta": 5e5},
            {"rope_type": "default", "rope_theta": 5e5},
        ),
        ({"scheme": "dynamic_ntk", "scale": 4.0}, {"rope_type": "dynamic", "factor": 1.0}),
        ({"scheme": "llama3", "scale": 4.0}, {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ],
    ids=lambda value: value.get("scheme"),
)
def test_schemes_without_a_type_of_their_own_are_written_as_another(extension, rope):
    plain = from_hf(llama())
    ours = twisted(plain, extension=Extension(trained_length=TRAINED, **extension))
    theirs = to_hf(ours)
    for name, value in rope.items():
        found = theirs.config.rope_parameters[name]
        assert found == (value if isinstance(value, str) else pytest.approx(value, rel=1e-9))
    for length in (TRAINED - 8, 3 * TRAINED):
        assert gap_at(length, ours, theirs) < 2e-5
    if extension["scheme"] != "rope":
        assert gap_at(3 * TRAINED, plain, theirs) > 1e-3  # twin: not extended


@pytest.mark.parametrize("family", THEIRS)
def test_frequencies_of_a_model_in_bfloat16_stay_fp32(family):
    ours = from_hf(THEIRS[family]())
    whole, cast = to_hf(ours), to_hf(ours.to(torch.bfloat16))
    assert {p.dtype for p in cast.parameters()} == {torch.bfloat16}
    turning = {name: x for name, x in whole.named_buffers() if name.endswith("inv_freq")}
    assert turning
    for name, frequencies in turning.items():
        assert torch.equal(cast.get_buffer(name), frequencies)
    # twin: Module.to casts them, and the base is another
    assert not any(
        torch.equal(whole.to(torch.bfloat16).get_buffer(name).float(), x)
        for name, x in turning.items()
    )


def test_a_saved_model_loads_in_transformers(tmp_path):
    ours = from_hf(modernbert())
    to_hf(ours).save_pretrained(tmp_path)
    assert gap(ours, ModernBertForMaskedLM.from_pretrained(tmp_path).eval()) < 1e-5
