"""Tiny checkpoints with the configuration keys of real models, and plain forward passes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
LONG = [1.0, 1.2, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0]
LLAMA = {"model_type": "llama"}
DYNAMIC = {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 4.0}
LONGROPE = {
    "rope_theta": 10000.0,
    "rope_type": "longrope",
    "short_factor": [1.0] * 8,
    "long_factor": LONG,
    "original_max_position_embeddings": 64,
}


def tiny_model(raw: dict[str, Any], std: float = 0.15) -> PreTrainedModel:
    """Return a random model of a family; the same one for the same keys."""
    given = {**SHAPE, "max_position_embeddings": 4096, **raw}
    family = given.pop("model_type")
    how = given.pop("attn_implementation", "sdpa")
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **given)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=how).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(float(parameter.ndim == 1 and "bias" not in name), std)
    return model.requires_grad_(False)


def plain(raw: dict[str, Any], row: Sequence[int]) -> torch.Tensor:
    """Return log-probabilities (T, V) of one forward pass by a model that has read nothing."""
    with torch.inference_mode():
        found = tiny_model(raw)(input_ids=torch.tensor([[*row]]), use_cache=False).logits[0]
    return found.float().log_softmax(-1)


def saved(raw: dict[str, Any], folder: Path) -> Path:
    """Write a tiny model as a folder, without a tokenizer."""
    tiny_model(raw).save_pretrained(folder)
    return folder
