"""A checkpoint's shape on transformers' own class, which takes no memory.

This is for families without a formula (`parameters`). Mixtures of experts count with the experts
that one token passes through.
"""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.utils import logging

from farcontext.checkpoints.headers import reading
from farcontext.checkpoints.unloaded.counts import Raw
from farcontext.checkpoints.unloaded.parameters import windows
from farcontext.checkpoints.unloaded.places import Path
from farcontext.files import UserError
from farcontext.measure.formulas import Shape, Size

ENCODERS = ("bert", "roberta", "modernbert", "albert")
# An expert's matrices are stacked in one tensor of three axes, or stand below this name.
EXPERTS = ".experts."


def shape_of(where: Path, config: Raw) -> Shape:
    """Return a model's shape, counted on transformers' class.

    Raises:
        UserError: a family that transformers does not have, or values that make no model.
    """
    logging.set_verbosity_error()
    given = {key: value for key, value in config.items() if key != "auto_map"}
    with reading(where, "no model can be made of it"):
        settings = AutoConfig.for_model(**given)
    encoder = settings.model_type in ENCODERS
    model_class = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
    with reading(where, "no model can be made of it"), torch.device("meta"):
        model = model_class.from_config(settings)
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    experts = next((n for name in names if (n := getattr(settings, name, None))), None)
    share = (getattr(settings, "num_experts_per_tok", None) or 1) / experts if experts else 1.0
    ends = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    head = model.get_output_embeddings()
    ends |= {id(head.weight)} if head is not None else set()
    matrices = sum(
        p.numel() * (share if EXPERTS in f".{name}." and experts else 1.0)
        for name, p in model.named_parameters()
        if p.ndim > 1 and id(p) not in ends
    )
    return _shape(where, settings, Size(sum(p.numel() for p in model.parameters()), int(matrices)))


def _shape(where: Path, settings: object, size: Size) -> Shape:
    """Return the shape of a configuration of transformers'.

    Its names differ by family.
    """
    text = settings.get_text_config()
    D, N, L = (
        getattr(text, k) for k in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    if not all(isinstance(number, int) and number > 0 for number in (D, N, L)):
        raise UserError(f"{where}: expected a hidden_size, heads and layers")
    raw = text.to_dict() | {"num_hidden_layers": L}
    kv_heads, cached = getattr(text, "num_key_value_heads", None) or N, None
    if text.model_type == "falcon":  # Its keys and values have one head unless it says otherwise.
        grouped = text.new_decoder_architecture
        kv_heads = text.num_kv_heads if grouped or not text.multi_query else 1
    if getattr(text, "kv_lora_rank", None):  # Engines keep MLA's latent and its rotated part.
        cached = text.kv_lora_rank + text.qk_rope_head_dim
    return Shape(
        size=size,
        vocab_size=text.vocab_size,
        width=D,
        layers=L,
        heads=N,
        kv_heads=kv_heads,
        head_width=getattr(text, "qk_head_dim", None) or getattr(text, "head_dim", None) or D // N,
        mlp_width=getattr(text, "intermediate_size", None) or 4 * D,
        mlp="gelu"
        if text.model_type in ("bert", "roberta", "albert", "falcon", "gpt2")
        else "swiglu",
        kind="encoder" if text.model_type in ENCODERS else "decoder",
        cached=cached,
        **windows(raw, "all"),
    )
