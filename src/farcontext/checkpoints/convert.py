"""Weights to and from ModernBERT and Llama, and from torch's Transformer.

The first two are Hugging Face's. The architectures are the same function; only names differ and
Llama's q, k, v and gate, up, which are one matrix each here. Whatever a configuration asks for that
these models do not do is refused, never ignored.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from farcontext.checkpoints.rope_parameters import _require, extension_of, rope_parameters
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder, Encoder, EncoderDecoder

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import LlamaConfig, ModernBertConfig, PreTrainedModel

MODERNBERT = {  # Keys are our names, values are theirs.
    "attention_norm.weight": "attn_norm.weight",
    "attention.qkv.weight": "attn.Wqkv.weight",
    "attention.out.weight": "attn.Wo.weight",
    "mlp_norm.weight": "mlp_norm.weight",
    "mlp.inward.weight": "mlp.Wi.weight",
    "mlp.out.weight": "mlp.Wo.weight",
}
MODERNBERT_ENDS = {
    "embedding.weight": "model.embeddings.tok_embeddings.weight",
    "embedding.norm.weight": "model.embeddings.norm.weight",
    "stack.norm.weight": "model.final_norm.weight",
    "head.weight": "head.dense.weight",
    "head_norm.weight": "head.norm.weight",
    "output": "decoder.weight",
    "output_bias": "decoder.bias",
}
LLAMA = {
    "attention_norm.weight": ("input_layernorm",),
    "attention.qkv.weight": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out.weight": ("self_attn.o_proj",),
    "mlp_norm.weight": ("post_attention_layernorm",),
    "mlp.inward.weight": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.out.weight": ("mlp.down_proj",),
}
LLAMA_ENDS = {
    "embedding.weight": "model.embed_tokens.weight",
    "stack.norm.weight": "model.norm.weight",
    "output": "lm_head.weight",
}

# Neither architecture has these settings of ours.
PLAIN = {"smear": False, "short_conv": None, "random_positions": None, "log_n": None}


def from_hf(hf_model: "PreTrainedModel") -> Encoder | Decoder:
    """Return our model with a copy of the weights, in their dtype.

    Raises:
        ValueError: another architecture, or a setting that our models do not have; the line names
            it.
    """
    from transformers import LlamaForCausalLM, ModernBertForMaskedLM

    match hf_model:
        case ModernBertForMaskedLM():
            model = Encoder(_modernbert_to_ours(hf_model.config))
        case LlamaForCausalLM():
            model = Decoder(_llama_to_ours(hf_model.config))
        case _:
            name = type(hf_model).__name__
            raise ValueError(f"model = {name}: expected ModernBertForMaskedLM or LlamaForCausalLM")
    theirs = hf_model.state_dict()
    model = model.to(next(hf_model.parameters()).dtype)
    model.load_state_dict(
        {name: torch.cat([theirs[part] for part in parts]) for name, parts in _pairs(model)}
    )
    return model.train(hf_model.training)


def to_hf(model: Encoder | Decoder) -> "PreTrainedModel":
    """Return the Hugging Face model with a copy of the weights.

    The weights keep their dtype; rotary frequencies are fp32 whatever it is, as from_pretrained
    leaves them. Attention is sdpa, and there is no dropout. Special token ids are left unset: the
    configuration of a model here names none.

    Raises:
        ValueError: a configuration that Hugging Face's ModernBERT or Llama cannot express; the line
            names it.
    """
    from transformers import LlamaForCausalLM, ModernBertForMaskedLM

    config = model.config
    if model.logit_scale != 1:
        raise ValueError(
            f"embedding_std = {config.embedding_std}: expected logits that are not scaled"
        )
    hf_model = (
        ModernBertForMaskedLM(_ours_to_modernbert(config))
        if isinstance(model, Encoder)
        else LlamaForCausalLM(_ours_to_llama(config))
    )
    for parameter in hf_model.parameters():  # Module.to would cast the frequencies as well.
        parameter.data = parameter.data.to(next(model.parameters()).dtype)
    theirs, ours = hf_model.state_dict(), model.state_dict()
    with torch.no_grad():
        for name, parts in _pairs(model):
            for part, piece in zip(
                parts, ours[name].split([len(theirs[p]) for p in parts]), strict=True
            ):
                theirs[part].copy_(piece)
    return hf_model.train(model.training)


def _pairs(model: Encoder | Decoder) -> list[tuple[str, tuple[str, ...]]]:
    """Return our tensors' names, each with theirs that make it.

    Several of theirs are stacked.
    """
    pairs = []
    for name in model.state_dict():
        if not name.startswith("stack.blocks."):
            end = (MODERNBERT_ENDS if isinstance(model, Encoder) else LLAMA_ENDS)[name]
            pairs.append((name, (end,)))
            continue
        layer, inner = name.removeprefix("stack.blocks.").split(".", 1)
        inside = (
            (MODERNBERT[inner],)
            if isinstance(model, Encoder)
            else tuple(f"{p}.weight" for p in LLAMA[inner])
        )
        pairs.append((name, tuple(f"model.layers.{layer}.{part}" for part in inside)))
    return pairs


# ----------------------------------------------------------------------------------- configurations


def _modernbert_to_ours(hf: "ModernBertConfig") -> ModelConfig:
    plain = {
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "norm_bias": False,
        "mlp_bias": False,
    }
    plain |= {"attention_bias": False, "classifier_bias": False, "decoder_bias": True}
    _require(vars(hf), plain)
    local = [kind == "sliding_attention" for kind in hf.layer_types]
    every = next((i for i, is_local in enumerate(local[1:], 1) if not is_local), len(local))
    if local != [layer % every != 0 for layer in range(len(local))]:
        raise ValueError(
            f"layer_types = {hf.layer_types}: expected full attention in layers 0, g, 2g, …"
        )
    wide, narrow = (hf.rope_parameters[kind] for kind in ("full_attention", "sliding_attention"))
    for rope in (wide, narrow):
        _require(rope, {"rope_type": "default"})
    return ModelConfig(
        kind="encoder",
        vocab_size=hf.vocab_size,
        width=hf.hidden_size,
        layers=hf.num_hidden_layers,
        heads=hf.num_attention_heads,
        mlp_width=hf.intermediate_size,
        norm="layer",
        mlp="geglu",
        theta=float(wide["rope_theta"]),
        local_theta=float(narrow["rope_theta"]),
        max_length=hf.max_position_embeddings,
        # local_attention = 128 means |i − j| ≤ 64.
        window=hf.local_attention // 2 + 1 if any(local) else None,
        global_every=every if any(local) else 1,
        embedding_norm=True,
        tied=hf.tie_word_embeddings,
        init_std=hf.initializer_range,
        norm_eps=hf.norm_eps,
    )


def _llama_to_ours(hf: "LlamaConfig") -> ModelConfig:
    _require(vars(hf), {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False})
    _require(vars(hf), {"head_dim": hf.hidden_size // hf.num_attention_heads})
    return ModelConfig(
        kind="decoder",
        vocab_size=hf.vocab_size,
        width=hf.hidden_size,
        layers=hf.num_hidden_layers,
        heads=hf.num_attention_heads,
        kv_heads=hf.num_key_value_heads,
        mlp_width=hf.intermediate_size,
        theta=float(hf.rope_parameters["rope_theta"]),
        extension=extension_of(hf.rope_parameters, hf.max_position_embeddings),
        max_length=hf.max_position_embeddings,
        tied=hf.tie_word_embeddings,
        init_std=hf.initializer_range,
        norm_eps=hf.rms_norm_eps,
    )


def _shared(config: ModelConfig) -> dict[str, object]:
    no_tokens = {f"{name}_token_id": None for name in ("pad", "bos", "eos")}
    return no_tokens | {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.max_length,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
        "attn_implementation": "sdpa",
    }


def _ours_to_modernbert(config: ModelConfig) -> "ModernBertConfig":
    from transformers import ModernBertConfig

    wanted = {
        "norm": "layer",
        "mlp": "geglu",
        "positions": "rope",
        "pairing": "half",
        "embedding_norm": True,
    }
    wanted |= PLAIN | {"extension": None}
    _require(
        vars(config) | {"kv_heads": config.kv_heads or config.heads},
        wanted | {"kv_heads": config.heads},
    )
    kinds = [
        "full_attention" if config.is_global(layer) else "sliding_attention"
        for layer in range(config.layers)
    ]
    thetas = {"full_attention": config.theta, "sliding_attention": config.local_theta}
    return ModernBertConfig(
        **_shared(config),
        cls_token_id=None,
        sep_token_id=None,
        layer_types=kinds,
        local_attention=2 * (config.window - 1 if config.window else 64),
        rope_parameters={
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()
        },
        norm_eps=config.norm_eps,
    )


def _ours_to_llama(config: ModelConfig) -> "LlamaConfig":
    from transformers import LlamaConfig

    wanted = {
        "kind": "decoder",
        "norm": "rms",
        "mlp": "swiglu",
        "positions": "rope",
        "pairing": "half",
    }
    _require(vars(config), wanted | PLAIN | {"window": None, "embedding_norm": False})
    shared = _shared(config)
    if config.extension and config.extension.scheme in ("dynamic_ntk", "dynamic_ntk_hf"):
        # transformers counts from this L.
        shared["max_position_embeddings"] = config.extension.trained_length
    return LlamaConfig(
        **shared,
        num_key_value_heads=config.kv_heads or config.heads,
        rope_parameters=rope_parameters(config.extension, config.theta, config.head_width),
        rms_norm_eps=config.norm_eps,
    )


# -------------------------------------------------------------------------------------------- torch


def from_torch(transformer: nn.Transformer, vocab_size: int, max_length: int) -> EncoderDecoder:
    """Return an EncoderDecoder with a copy of torch's weights.

    Its embedding is its own. torch's model has neither embedding nor output; compare final hidden
    states. Positions are left out.

    Raises:
        ValueError: not pre-norm, with biases, sides of different depth, or an activation other than
            GELU and ReLU.
    """
    layers = transformer.decoder.layers
    first, sides = layers[0], (transformer.encoder.layers, layers)
    found = {
        "norm_first": first.norm_first,
        "bias": first.linear1.bias is not None,
        "encoder layers": len(sides[0]),
        "batch_first": transformer.batch_first,
    }
    wanted = {"norm_first": True, "bias": False, "encoder layers": len(layers), "batch_first": True}
    _require(found, wanted)
    activation: Callable[[Tensor], Tensor] = first.activation
    names = {nn.functional.gelu: "gelu", nn.functional.relu: "relu"}
    if activation not in names:
        raise ValueError(f"activation = {activation}: expected gelu or relu")
    config = ModelConfig(
        kind="encoder_decoder",
        vocab_size=vocab_size,
        width=transformer.d_model,
        layers=len(layers),
        heads=transformer.nhead,
        mlp_width=first.linear1.out_features,
        norm="layer",
        mlp=names[activation],
        positions="none",
        max_length=max_length,
        norm_eps=first.norm1.eps,
    )
    model = EncoderDecoder(config).to(first.linear1.weight.dtype)
    with torch.no_grad():
        model.stack.norm.weight.copy_(transformer.encoder.norm.weight)
        model.decoder.norm.weight.copy_(transformer.decoder.norm.weight)
        for blocks, theirs in zip((model.stack.blocks, model.decoder.blocks), sides, strict=True):
            for block, layer in zip(blocks, theirs, strict=True):
                _copy_layer(block, layer)
    return model


def _copy_layer(block: nn.Module, layer: nn.Module) -> None:
    pairs = [
        (block.attention, layer.self_attn),
        (block.cross, getattr(layer, "multihead_attn", None)),
    ]
    for ours, theirs in pairs:
        if ours is not None:
            ours.qkv.weight.copy_(theirs.in_proj_weight)
            ours.out.weight.copy_(theirs.out_proj.weight)
    norms = [block.attention_norm, *([block.cross_norm] if block.cross else []), block.mlp_norm]
    for position, norm in enumerate(norms, 1):
        norm.weight.copy_(getattr(layer, f"norm{position}").weight)
    block.mlp.inward.weight.copy_(layer.linear1.weight)
    block.mlp.out.weight.copy_(layer.linear2.weight)
