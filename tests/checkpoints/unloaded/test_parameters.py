"""What a configuration alone says a model holds is what transformers' own class holds."""

import json
import math
from pathlib import Path

import pytest
import torch
from observe import refuses
from transformers import AutoConfig, AutoModelForCausalLM

from farcontext.app import cli
from farcontext.checkpoints.unloaded import built, counts, parameters, places
from farcontext.measure import formulas

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 131,
    "pad_token_id": 0,
}
OWN = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 2,
    },
}
VARIANTS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {
        "tie_word_embeddings": False,
        "attention_bias": True,
        "mlp_bias": True,
        "use_qkv_bias": True,
        "use_bias": False,
        "use_qk_norm": True,
    },
    "other head width": {"head_dim": 24},
}
# The shapes of published models: name, configuration, millions of parameters.
PUBLISHED = {
    "Llama-3.1-8B": (
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128_256,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "max_position_embeddings": 131_072,
        },
        8_030,
        14.96,
    ),
    "Qwen2.5-7B": (
        {
            "model_type": "qwen2",
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152_064,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "max_position_embeddings": 32_768,
            "use_sliding_window": False,
            "sliding_window": 131_072,
        },
        7_616,
        14.19,
    ),
    "Mixtral-8x7B": (
        {
            "model_type": "mixtral",
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "vocab_size": 32_000,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "max_position_embeddings": 32_768,
        },
        46_703,
        86.99,
    ),
}


def on_their_class(config: dict) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", parameters.FAMILIES)
def test_every_family_counts_as_transformers_class_does(family: str) -> None:
    for variant, changes in VARIANTS.items():
        if family in ("gpt_neox", "stablelm") and "head_dim" in changes:
            continue  # Their classes have no such key.
        config = {"model_type": family} | SMALL | OWN.get(family, {}) | changes
        if family == "gpt_neox":
            del config["num_key_value_heads"]
        found = parameters.shape_of(config)
        assert found is not None
        assert found.size.parameters == on_their_class(config), variant
        less = parameters.shape_of(config | {"intermediate_size": 95, "moe_intermediate_size": 31})
        assert less is not None and less.size != found.size  # twin: another width is seen


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_moe", "gemma2", "phi"])
def test_formula_and_class_agree_on_what_a_token_passes_through(family: str) -> None:
    config = {"model_type": family} | SMALL | OWN.get(family, {})
    formula, model = parameters.shape_of(config), built.shape_of(Path("config.json"), config)
    assert formula is not None and formula.size == model.size
    assert (formula.width, formula.heads, formula.kv_heads, formula.head_width) == (
        model.width,
        model.heads,
        model.kv_heads,
        model.head_width,
    )


def test_layers_that_see_a_window_are_those_of_transformers() -> None:
    for family in ("gemma2", "gemma3_text", "mistral"):
        config = {"model_type": family, "sliding_window": 512} | SMALL
        config |= {"num_hidden_layers": 12}
        theirs = getattr(AutoConfig.for_model(**config), "layer_types", None)
        wanted = [kind == "sliding_attention" for kind in theirs or ["sliding_attention"] * 12]
        found = parameters.shape_of(config)
        assert found is not None and list(found.local) == wanted and found.window == 512


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_sizes(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config, millions, gib = PUBLISHED[name]
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # No checkout is here.
    monkeypatch.setattr("sys.argv", ["farcontext", "cost", name, "8192", "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0 and round(said["parameters"] / 1e6) == millions
    assert said["weights"] == "bfloat16" and round(said["weights_bytes"] / 2**30, 2) == gib
    row = said["lengths"][0]
    layers, groups = config["num_hidden_layers"], config["num_key_value_heads"]
    assert row["kv_cache_bytes"] == 2 * layers * groups * 128 * 8192 * 2


def test_a_window_ends_the_cache_of_its_layers() -> None:
    config = {"model_type": "gemma2", "sliding_window": 512} | SMALL
    found = parameters.shape_of(config)
    assert found is not None
    each = 2 * found.kv_heads * found.head_width * 2
    assert formulas.kv_cache_bytes(found, 512) == 4 * each * 512
    assert formulas.kv_cache_bytes(found, 2048) == 2 * each * (512 + 2048)


def test_other_families_are_counted_on_their_class() -> None:
    falcon = {"model_type": "falcon", "hidden_size": 64, "num_attention_heads": 4}
    falcon |= {"num_hidden_layers": 2, "vocab_size": 131, "multi_query": True}
    assert parameters.shape_of(falcon) is None
    found = built.shape_of(Path("config.json"), falcon)
    assert found.size.parameters == on_their_class(falcon) and found.kv_heads == 1
    latent = {"model_type": "deepseek_v3", "num_experts_per_tok": 2, "n_routed_experts": 4} | SMALL
    latent |= {"moe_intermediate_size": 32, "kv_lora_rank": 16, "first_k_dense_replace": 1}
    latent |= {"n_group": 1, "topk_group": 1}
    found = built.shape_of(Path("config.json"), latent)
    assert found.cached == 16 + 64 and found.size.matrices < found.size.parameters
    bert = {"model_type": "bert"} | SMALL
    assert built.shape_of(Path("config.json"), bert).kind == "encoder"


def test_numbers_that_are_no_shape_are_one_line() -> None:
    for key, value in (("hidden_size", -4), ("num_attention_heads", 0), ("vocab_size", "many")):
        with refuses(f"config.json: {key} = {value!r}: expected an integer from 1 to 1e9"):
            counts.expect_counts("config.json", SMALL | {key: value})
    with refuses("num_hidden_layers = 20000: expected at most 10000"):
        counts.expect_counts("config.json", {"num_hidden_layers": 20_000})
    counts.expect_counts("config.json", SMALL | {"num_hidden_layers": None})
    with refuses("config.json: no model can be made of it: "):
        built.shape_of(Path("config.json"), {"model_type": "nothing-known"})


def test_usual_lengths_end_with_the_window() -> None:
    assert parameters.usual_lengths({"max_position_embeddings": 40_960})[-2:] == [32_768, 40_960]
    assert parameters.usual_lengths({"n_positions": 512}) == [512]
    assert math.isclose(parameters.usual_lengths({})[-1], 8192)


def test_the_text_part_of_a_model_with_images_is_what_is_read(tmp_path: Path) -> None:
    whole = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
    (tmp_path / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    assert places.text_config(tmp_path / "config.json") == {"model_type": "gemma3_text"}
