"""A tiny configuration of every family that `load` takes, with what makes it special."""

from typing import Any

IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 4,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
WIDE = {"head_dim": 16}
LOCAL = {"sliding_window": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LATENT = {
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
}
QWEN_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": WIDE,
    "mistral": {},
    "gpt2": {},
    "gpt_neox": {},
    "phi3": {
        "original_max_position_embeddings": 128,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [1.0, 1.1, 1.3, 1.7, 2.5, 3.0, 4.0, 4.0],
        },
    },
    "gemma": WIDE,
    "gemma2": WIDE | LOCAL | {"query_pre_attn_scalar": 16, "final_logit_softcapping": 1.0},
    "gemma3_text": WIDE | LOCAL | {"query_pre_attn_scalar": 16},
    "olmo": {},
    "olmo2": {},
    "olmo3": LOCAL | {"rope_theta": 500_000.0, "rope_scaling": YARN},
    "smollm3": {},
    "ministral3": WIDE
    | {"rope_parameters": YARN | {"rope_theta": 1e6, "llama_4_scaling_beta": 0.1}},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.1, "residual_multiplier": 0.5},
    "granitemoe": EXPERTS | {"logits_scaling": 4.0},
    "cohere": {},
    "cohere2": WIDE | LOCAL | {"logit_scale": 0.5},
    "stablelm": {},
    "phi": {},
    "phimoe": EXPERTS,
    "falcon": {"alibi": False, "multi_query": True},
    "falcon, ALiBi": {
        "alibi": True,
        "multi_query": False,
        "new_decoder_architecture": False,
        "parallel_attn": False,
        "bias": True,
    },
    "mixtral": EXPERTS,
    "qwen2_moe": QWEN_EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": QWEN_EXPERTS | WIDE,
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT | {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    "glm": WIDE,
    "glm4": WIDE,
    "llama4_text": WIDE
    | {
        "num_local_experts": 2,
        "intermediate_size_mlp": 48,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 64,
    },
    "starcoder2": {},
    "gpt_oss": EXPERTS | WIDE | LOCAL | {"rope_scaling": YARN | {"truncate": False}},
    "exaone4": LOCAL,
    "nemotron": {},
    "seed_oss": WIDE,
    "hunyuan_v1_dense": WIDE,
    "ernie4_5": WIDE,
    "arcee": {},
    "apertus": {
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    },
    "helium": WIDE,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {},
    "mpt": {},
}
# These name their shape otherwise.
NAMES = {
    "gpt2": {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 512},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
}
UNGROUPED = ("gpt_neox", "falcon", "opt")
WITHOUT_ROPE = ("gpt2", "opt", "bloom", "mpt")


def configuration(name: str, vocab_size: int) -> dict[str, Any]:
    """Return a config.json of a family, of tiny shape."""
    family = name.partition(",")[0]
    shape = NAMES.get(family, SHAPE)
    if family in UNGROUPED:
        shape = {key: value for key, value in shape.items() if key != "num_key_value_heads"}
    return {"model_type": family, "vocab_size": vocab_size} | shape | IDS | FAMILIES[name]
