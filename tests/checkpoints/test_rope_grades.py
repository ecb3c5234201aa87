"""The check grades what public configurations say: fault, note or ok; no weights are needed."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_rope_check import plants
from transformers import AutoConfig, AutoModelForCausalLM

from farcontext.checkpoints import load, rope_check
from farcontext.checkpoints.rope.finding import Finding
from farcontext.checkpoints.rope.sections import parse
from farcontext.files import UserError

# Shapes of 8B, as published; keys are facts of real models.
SHAPE = {
    **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}
QWEN25 = {"model_type": "qwen2", "rope_theta": 1e6, "max_position_embeddings": 32768, **SHAPE}
QWEN3 = QWEN25 | {"model_type": "qwen3", "head_dim": 128, "max_position_embeddings": 40960}
LLAMA2 = {"model_type": "llama", "max_position_embeddings": 4096, **SHAPE}
LLAMA = LLAMA2 | {"rope_theta": 500_000.0, "max_position_embeddings": 16384}
Y4 = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
OWN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
R1 = Y4 | {"attn_factor": 0.8782488562869419}
DUAL = {"chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144}
PHI3 = SHAPE | {"model_type": "phi3", "rope_theta": 1e4, "max_position_embeddings": 131072}
PHI3 |= {"original_max_position_embeddings": 4096}
LISTS = {"short_factor": [1.0] * 64, "long_factor": [1.5] * 64}
L31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
L31 |= {"original_max_position_embeddings": 8192}


def graded(raw: dict[str, Any], tokenizer_length: float | None = None) -> dict[str, Finding]:
    """Return the findings that are not ok, by name, and check that a fault is printed as one."""
    found = rope_check.check_configuration(raw, tokenizer_length)
    lines = rope_check.lines(found)
    assert sum(line.startswith("FAULT") for line in lines) == sum(f.grade == "fault" for f in found)
    return {f.name: f for f in found if f.grade != "ok"}


FIT = "original_max_position_embeddings × factor"
GEMMA3 = SHAPE | {"model_type": "gemma3_text", "head_dim": 128, "query_pre_attn_scalar": 128}
GEMMA3 |= {"max_position_embeddings": 131072}
NOTES = {
    "Qwen2.5 as its card says": (QWEN25 | {"rope_scaling": Y4}, FIT, "131072"),
    "Qwen3 as its card says": (QWEN3 | {"rope_scaling": Y4}, FIT, "131072"),
    "SmolLM3 as its card says": (
        LLAMA
        | {"model_type": "smollm3", "max_position_embeddings": 65536}
        | {"rope_scaling": {**Y4, "factor": 2.0, "original_max_position_embeddings": 65536}},
        FIT,
        "131072",
    ),
    "Yarn-Mistral: the window was left": (
        LLAMA
        | {"model_type": "mistral", "max_position_embeddings": 32768}
        | {"rope_scaling": {**OWN, "factor": 16.0, "original_max_position_embeddings": 8192}},
        FIT,
        "131072",
    ),
    "LLaMA-2-7B-32K: no rope_theta in its day": (
        LLAMA2
        | {"max_position_embeddings": 32768, "rope_scaling": {"type": "linear", "factor": 8.0}},
        "rope_theta given",
        "a number",
    ),
    "XGen: no rope_theta in its day": (
        LLAMA2 | {"max_position_embeddings": 8192, "transformers_version": "4.30.0"},
        "rope_theta given",
        "a number",
    ),
    "an amplitude set on purpose": (
        LLAMA | {"rope_scaling": OWN | {"attention_factor": 1.05}},
        "attention_factor given",
        "1.1386",
    ),
    "a pair of mscales": (
        LLAMA | {"rope_scaling": OWN | {"mscale": 0.707, "mscale_all_dim": 1.0}},
        "mscale",
        "1.1386",
    ),
    "Granite scales its scores": (
        LLAMA | {"model_type": "granite", "attention_multiplier": 0.0078125},
        "logit scale",
        "0.0884/√H",
    ),
    "Gemma 2 scales its scores": (
        LLAMA | {"model_type": "gemma2", "head_dim": 256, "query_pre_attn_scalar": 224},
        "logit scale",
        "1.0690/√H",
    ),
    "su is longrope": (PHI3 | {"rope_scaling": {"type": "su", **LISTS}}, "rope_type", "longrope"),
    "no local base, the family's own": (
        GEMMA3 | {"rope_theta": 1e6},
        "sliding_attention: rope_theta given",
        "a number",
    ),
    "no base at all, the family's own two": (
        GEMMA3 | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        "sliding_attention: rope_theta given",
        "a number",
    ),
}
FAULTS = {
    "R1-0528-Qwen3-8B": (
        QWEN3 | {"max_position_embeddings": 131072, "rope_scaling": R1},
        "attn_factor",
        "amplitude 1.0000",
    ),
    "Qwen2.5-1M": (
        QWEN25 | {"max_position_embeddings": 1010000, "dual_chunk_attention_config": DUAL},
        "dual_chunk_attention_config",
        "262,144",
    ),
    "a part of each head, whole in llama": (
        LLAMA | {"partial_rotary_factor": 0.5},
        "partial_rotary_factor",
        "1 or no such key",
    ),
    "half a pair of mscales": (
        LLAMA | {"rope_scaling": OWN | {"mscale": 0.707}},
        "mscale",
        "both, or neither",
    ),
    "an unknown key": (
        LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0, "betafast": 8}},
        "keys of another scheme",
        "none",
    ),
    "two sections that differ": (
        LLAMA
        | {"rope_scaling": OWN}
        | {"rope_parameters": {**OWN, "factor": 8.0, "rope_theta": 500_000.0}},
        "rope_scaling and rope_parameters",
        "equal values",
    ),
    "an original length overwritten": (
        LLAMA | {"rope_scaling": OWN | {"original_max_position_embeddings": 16384}},
        FIT,
        "65536",
    ),
    "a lost base": (
        LLAMA2 | {"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "default"}},
        "rope_theta given",
        "a number",
    ),
    "an amplitude of 1": (
        LLAMA | {"rope_scaling": OWN | {"attention_factor": 1.0}},
        "attention_factor given",
        "1.1386",
    ),
}
SOUND = {
    "Llama 3.1": LLAMA | {"max_position_embeddings": 131072, "rope_scaling": L31},
    "Gemma 3": GEMMA3
    | {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
    | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "OLMo 3": LLAMA
    | {"model_type": "olmo3", "max_position_embeddings": 65536, "sliding_window": 4096}
    | {"rope_scaling": {**OWN, "factor": 8.0, "original_max_position_embeddings": 8192}},
    "a trained length at the top": LLAMA
    | {"rope_scaling": {"type": "longrope", **LISTS}, "original_max_position_embeddings": 4096},
    "Phi-3": PHI3 | {"rope_scaling": {"type": "longrope", **LISTS}},
    "StableLM 2": LLAMA2
    | {"model_type": "stablelm", "partial_rotary_factor": 0.25, "rope_theta": 1e4},
    "finetuned is harmless": LLAMA | {"rope_scaling": OWN | {"finetuned": True}},
}


@pytest.mark.parametrize("name", NOTES)
def test_what_works_and_should_be_known_is_a_note(name: str) -> None:
    raw, finding, expected = NOTES[name]
    found = graded(raw)
    assert found[finding].grade == "note" and expected in found[finding].expected
    assert all(f.grade == "note" for f in found.values())


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_computed_is_a_fault(name: str) -> None:
    raw, finding, expected = FAULTS[name]
    found = graded(raw)
    assert found[finding].grade == "fault" and expected in found[finding].expected
    assert [f.name for f in found.values() if f.grade == "fault"] == [finding]


@pytest.mark.parametrize("name", SOUND)
def test_a_published_configuration_of_any_family_is_sound(name: str) -> None:
    assert graded(SOUND[name]) == {}


def test_the_unread_amplitude_says_what_it_does() -> None:
    found = graded(FAULTS["R1-0528-Qwen3-8B"][0])["attn_factor"]
    assert found.found == "amplitude 1.1386" and "1.296 times" in found.says


def test_a_tokenizers_limit_below_the_window_is_a_note() -> None:
    assert graded(SOUND["Llama 3.1"], 8192)["tokenizer limit"].grade == "note"
    assert graded(SOUND["Llama 3.1"], 131072) == {} == graded(SOUND["Llama 3.1"], 1e30)


def test_the_tokenizers_limit_tells_a_recipe_from_a_mistake() -> None:
    raw = FAULTS["an original length overwritten"][0]
    assert graded(raw, 65536)[FIT].grade == "note" and graded(raw)[FIT].grade == "fault"


def test_an_unknown_scheme_is_named_with_those_that_are_known() -> None:
    for kind in ("ntk", "yarm"):
        with pytest.raises(UserError, match=rf"type = '{kind}': expected one of default, linear"):
            rope_check.check_configuration(LLAMA | {"rope_scaling": {"type": kind, "factor": 2.0}})


# --------------------------------------------------------------------------------------- in memory


def test_a_model_in_memory_is_checked_against_any_configuration(tmp_path: Path) -> None:
    folder = plants.save_sound(tmp_path / "sound", "qwen3", "yarn", random.Random(1))
    model = AutoModelForCausalLM.from_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for config in (None, raw, AutoConfig.from_pretrained(folder)):
        assert all(f.ok for f in rope_check.check(model, config))
    raw["rope_parameters"]["factor"] *= 2
    assert any(not f.ok and "frequencies" in f.name for f in rope_check.check(model, raw))
    plain = AutoConfig.from_pretrained(folder)
    plain.rope_parameters["rope_theta"] *= 2
    assert any(not f.ok for f in rope_check.check(model, plain))


def test_a_model_cast_as_a_whole_says_so(tmp_path: Path) -> None:
    folder = plants.save_sound(tmp_path / "sound", "llama", "default", random.Random(1))
    model = load.load(folder).model
    assert all(f.ok for f in rope_check.check(model))
    bad = [f for f in rope_check.check(model.to(torch.bfloat16)) if not f.ok]
    assert "was cast to bfloat16" in bad[0].says


def test_every_kind_of_layer_is_looked_at() -> None:
    """A buffer may be named after its kind of layer, as in Gemma 3."""
    config = parse(SOUND["Gemma 3"])
    model = rope_check.skeleton(config)
    (module,) = rope_check.rotary_modules(model).values()
    names = {f.name for f in rope_check.check(model, config)}
    for kind in ("full_attention", "sliding_attention"):
        assert any(kind in name for name in names)
        held = getattr(module, f"{kind}_inv_freq")
        held[3] *= 1.01
        bad = [f.name for f in rope_check.check(model, config) if not f.ok]
        assert bad and all(kind in name for name in bad)
        held[3] /= 1.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_frequencies_of_another_base_in_the_weights_are_found(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = plants.save_sound(tmp_path / "sound", "llama", "default", random.Random(1))
    plants.edit(folder, lambda config: config["rope_parameters"].update(rope_theta=5e5))
    weights = load_file(folder / "model.safetensors")
    pairs = len(plants.rotary(load.load(folder)).inv_freq)
    for base, grade in ((5e5, "ok"), (1e4, "fault")):
        kept = base ** -(torch.arange(pairs) / pairs)
        kept = {"model.layers.0.self_attn.rotary_emb.inv_freq": kept.to(dtype)}
        save_file(weights | kept, folder / "model.safetensors", metadata={"format": "pt"})
        findings = {f.name: f for f in rope_check.check(load.load(folder))}
        assert findings["stored inv_freq"].grade == grade
    assert 9e3 < float(findings["stored inv_freq"].found.split()[1].rstrip(",")) < 1.1e4
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "stored inv_freq" not in {f.name for f in rope_check.check(load.load(folder))}
