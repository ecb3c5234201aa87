"""Questions behind a context score as a plain forward pass of each whole row.

The schemes, families and windows are those of real checkpoints, at tiny size.
"""

from typing import Any

import pytest
import torch
from rows import DYNAMIC, LLAMA, LONGROPE, plain, tiny_model

from farcontext.checkpoints import questions, turning
from farcontext.checkpoints.token_losses import token_losses

MISTRAL = {"model_type": "mistral", "max_position_embeddings": 32768}
QWEN = {"model_type": "qwen2", "sliding_window": 32, "use_sliding_window": True}
NTK = LLAMA | {"max_position_embeddings": 64, "rope_parameters": DYNAMIC}
LONG = LLAMA | {"max_position_embeddings": 256, "rope_parameters": LONGROPE}
GEMMA = {"model_type": "gemma3_text", "sliding_window": 32, "head_dim": 16}
GEMMA2 = {"model_type": "gemma2", "head_dim": 16, "attn_implementation": "eager"}
LINEAR = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
CASES = {
    "llama": (LLAMA, 120),
    "qwen3": ({"model_type": "qwen3", "head_dim": 16}, 120),
    "gpt_neox": ({"model_type": "gpt_neox", "rotary_pct": 0.25}, 120),
    "gpt2": (
        {"model_type": "gpt2", "n_positions": 512, "n_embd": 64, "n_head": 4, "n_layer": 2},
        90,
    ),
    "mistral, window 32": (MISTRAL | {"sliding_window": 32}, 120),
    "mistral, window 32, not reached": (MISTRAL | {"sliding_window": 32}, 30),
    "mistral, window 32, crossed": (MISTRAL | {"sliding_window": 32}, 26),
    "mistral, window 8": (MISTRAL | {"sliding_window": 8}, 120),
    "qwen2, half sliding": (QWEN | {"max_window_layers": 1}, 120),
    "gemma3": (GEMMA | {"layer_types": ["sliding_attention", "full_attention"]}, 120),
    "gemma2, written out": (GEMMA2 | {"sliding_window": 32}, 120),
    "llama, written out": (LLAMA | {"attn_implementation": "eager"}, 120),
    "dynamic, within": (NTK, 40),
    "dynamic, crossed": (NTK, 60),
    "dynamic, beyond": (NTK, 200),
    "longrope, crossed": (LONG, 60),
    "longrope, just within": (LONG, 52),
    "longrope, beyond": (LONG, 100),
    "linear": (LLAMA | {"rope_parameters": LINEAR}, 120),
}


def drawn(count: int, seed: int = 1) -> list[int]:
    return torch.randint(3, 490, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", CASES)
def test_a_suffix_scores_as_in_a_plain_forward_of_its_row(name: str) -> None:
    raw, size = CASES[name]
    context, shared = drawn(size), tuple(drawn(3, 9))
    suffixes = [tuple(drawn(5, 2)), (*shared, *drawn(9, 3)), (*shared, *drawn(5, 4)), shared]
    found = questions.suffix_scores(tiny_model(raw), context, suffixes)
    for suffix, scores in zip(suffixes, found, strict=True):
        wanted = plain(raw, [*context, *suffix])[-len(suffix) :]
        assert (scores - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["llama", "mistral, window 32", "longrope, beyond"])
def test_a_long_context_is_read_in_parts(name: str) -> None:
    raw, size = CASES[name]
    context, suffixes = drawn(size), [tuple(drawn(5, 2)), tuple(drawn(7, 3))]
    for suffix, scores in zip(
        suffixes, questions.suffix_scores(tiny_model(raw), context, suffixes, 50), strict=True
    ):
        wanted = plain(raw, [*context, *suffix])[-len(suffix) :]
        assert (scores - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("raw", [NTK, LONG], ids=["dynamic", "longrope"])
def test_what_was_read_before_changes_no_loss(raw: dict[str, Any]) -> None:
    model, long, short = tiny_model(raw), drawn(200), drawn(80, 5)
    token_losses(model, long)
    wanted = -plain(raw, short)[:-1].gather(1, torch.tensor(short)[1:, None])[:, 0]
    torch.testing.assert_close(token_losses(model, short), wanted, rtol=0, atol=1e-5)
    # twin: transformers' own module remembers the longest row
    used = tiny_model(raw)
    with torch.inference_mode():
        before = used(input_ids=torch.tensor([short]), use_cache=False).logits
        used(input_ids=torch.tensor([long]), use_cache=False)
        after = used(input_ids=torch.tensor([short]), use_cache=False).logits
    assert ((before - after).abs().max() > 0.1) == (raw is NTK)


def test_a_model_turns_as_before_when_its_rows_are_read() -> None:
    model = tiny_model(NTK)
    (module, _), *_ = turning.moving(model)
    with turning.turned(model, 200):
        turned = module.inv_freq.clone()
    assert module.rope_type == "dynamic"
    torch.testing.assert_close(module.inv_freq, module.original_inv_freq, rtol=0, atol=0)
    assert not torch.equal(turned, module.inv_freq)
    assert turning.turn_of(model, 64) == turning.turn_of(model, 10) == (0,)
    assert turning.turn_of(model, 65) == (65,)
    assert turning.turn_of(tiny_model(LONG), 65) == turning.turn_of(tiny_model(LONG), 200) == (1,)
    assert turning.moving(tiny_model(LLAMA)) == [] and turning.turn_of(tiny_model(LLAMA), 9) == ()


@pytest.mark.parametrize(
    "raw",
    [
        LLAMA,
        {"model_type": "granite", "logits_scaling": 8.0},
        {"model_type": "cohere2", "logit_scale": 0.25, "head_dim": 16},
        GEMMA2 | {"final_logit_softcapping": 3.0},
    ],
    ids=lambda raw: raw["model_type"],
)
def test_losses_are_those_of_the_models_own_scores(raw: dict[str, Any]) -> None:
    row = drawn(60)
    wanted = -plain(raw, row)[:-1].gather(1, torch.tensor(row)[1:, None])[:, 0]
    torch.testing.assert_close(token_losses(tiny_model(raw), row), wanted, rtol=0, atol=1e-5)
