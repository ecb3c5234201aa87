"""What transformers 4 makes of the configurations that extending writes.

The newest 4.x release stands in a folder of its own; farcontext itself needs transformers 5. So
configurations are written here, and read there:

    python tests/transformers4.py write FOLDER
    pip install --target T4 --no-deps transformers==4.57.6 \\
        tokenizers==0.22.1 huggingface-hub==0.36.0
    PYTHONPATH=T4 python tests/transformers4.py record FOLDER tests/goldens/transformers4.json

Weights are no file: they are a formula of a parameter's name, the same in both. A recorded folder
holds the rotary keys that were read, frequencies, the factor on cos and sin, and 16 logits of the
last of 96 and of the last of 16 tokens; trained are 32. `test_readers.py` compares.
"""

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

TRAINED, LONG, SHORT, SHOWN = 32, 96, 16, 16
VOCABULARY = 128
TOKENS = [(7 * n * n + 3 * n) % VOCABULARY for n in range(LONG)]
KEYS = ("rope_scaling", "rope_theta", "rotary_emb_base", "rotary_pct", "partial_rotary_factor")
KEYS += ("rope_local_base_freq", "max_position_embeddings", "original_max_position_embeddings")
SHAPE = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": False},
    **{"max_position_embeddings": TRAINED, "rope_theta": 10_000.0},
}
# Keys of config.json beside the shape, as published models of the family spell them.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False, "rope_scaling": None},
    "qwen3": {"use_sliding_window": False, "rope_theta": 1_000_000},
    "gpt_neox": {"rotary_pct": 0.25, "rotary_emb_base": 10_000, "rope_theta": None},
    "olmo2": {"rope_theta": 500_000},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 16, "sliding_window": 4096},
    "gemma3_text": {"rope_local_base_freq": 5_000.0, "sliding_window": 8, "rope_theta": 1e6},
    "olmo3": {"sliding_window": 8, "rope_theta": 500_000},
    "granite": {"attention_multiplier": 0.1},
    "phi": {"partial_rotary_factor": 0.5},
    "stablelm": {"partial_rotary_factor": 0.25},
    "glm4": {"partial_rotary_factor": 0.5},
    "smollm3": {"no_rope_layers": [1, 0], "rope_theta": 5_000_000.0},
    "cohere": {"rope_theta": 75_000.0},
}
# Extensions of what ships scaled, counted from the original length.
FURTHER = {
    "llama31": (
        "llama",
        "llama3",
        {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ),
    "qwen-yarn": ("qwen2", "yarn", {"factor": 4.0}),
    "linear": ("llama", "linear", {"factor": 4.0}),
}


def raw_of(family: str, **changes: Any) -> dict[str, Any]:
    """Return the JSON of a small config.json of a family."""
    wide = {} if family not in ("phi", "gpt_neox") else {"head_dim": None}
    found = {"model_type": family, **SHAPE, **wide, **FAMILIES[family], **changes}
    layers = {"layer_types": ["sliding_attention", "full_attention"]}
    found |= layers if family in ("gemma3_text", "olmo3") else {}
    return {key: value for key, value in found.items() if value is not None}


def folders() -> dict[str, dict[str, Any]]:
    """Return the JSON of every extended configuration, by name (needs farcontext)."""
    # ruff: noqa: PLC0415 (transformers 4 cannot import them)
    from farcontext.checkpoints.extension.edit import ADVICE
    from farcontext.checkpoints.extension.plan import origin_of, plan
    from farcontext.checkpoints.rope.readers import for_every_reader
    from farcontext.checkpoints.rope.sections import parse
    from farcontext.files import UserError

    def extended(raw: dict[str, Any], scheme: str) -> dict[str, Any]:
        where, config = Path("nowhere"), parse(raw)
        planned = plan(where, config, origin_of(where, config), scheme, 4.0)
        return for_every_reader(raw, planned.section, planned.limit)

    found = {f"{family}-plain": for_every_reader(raw_of(family)) for family in FAMILIES}
    for family in FAMILIES:
        for scheme in ADVICE:
            try:
                found[f"{family}-{scheme}"] = extended(raw_of(family), scheme)
            except UserError as error:
                assert "one base for all layers" in str(error), error
    for name, (family, kind, scaled) in FURTHER.items():
        window = 4 * TRAINED
        section = {"rope_type": kind, "original_max_position_embeddings": TRAINED} | scaled
        if kind == "linear":
            del section["original_max_position_embeddings"]
        raw = raw_of(family, rope_scaling=section, max_position_embeddings=window)
        found[f"{name}-further"] = extended(raw, kind)
    return found


def weight(name: str, shape: torch.Size) -> torch.Tensor:
    """Return the numbers of a parameter, from its name alone."""
    name = name.replace("embed_out", "lm_head")  # GPT-NeoX's older name.
    count = torch.Size(shape).numel()
    phase = torch.arange(count, dtype=torch.float64) * 0.7390851332151607
    wave = torch.sin(phase + zlib.crc32(name.encode()) % 6283 / 1000)
    spread = 0.3 if len(shape) > 1 else 0.1
    centre = 1.0 if len(shape) == 1 and not name.endswith("bias") else 0.0
    return (centre + spread * wave).view(shape).float()


def observed(folder: Path) -> dict[str, Any]:
    """Return what the transformers at hand makes of a folder's config.json."""
    logging.set_verbosity_error()
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weight(name, parameter.shape))
        logits = [
            model(input_ids=torch.tensor([TOKENS[:length]]), use_cache=False).logits[0, -1, :SHOWN]
            for length in (LONG, SHORT)
        ]
    return {"logits": [[round(x, 7) for x in row.tolist()] for row in logits]}


def frequencies(folder: Path) -> dict[str, Any]:
    """Return the frequencies and the factor of the transformers at hand, as built."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    # Olmo 3 had one module a kind of layer.
    ends = ("rotary_emb", "rotary_embs.full_attention")
    module = next(module for name, module in model.named_modules() if name.endswith(ends))
    names = ("inv_freq", "full_attention_inv_freq")
    held = next(getattr(module, name) for name in names if hasattr(module, name))
    scales = ("attention_scaling", "full_attention_attention_scaling")
    scale = next(getattr(module, name) for name in scales if hasattr(module, name))
    return {
        "inv_freq": [float(f"{x:.8g}") for x in held.tolist()],
        "factor": round(float(scale), 7),
    }


def main() -> None:
    """Write the configurations, or record what is made of them."""
    folder = Path(sys.argv[2])
    if sys.argv[1] == "write":
        for name, raw in folders().items():
            (folder / name).mkdir(parents=True)
            (folder / name / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        return
    found: dict[str, Any] = {"transformers": transformers.__version__, "torch": torch.__version__}
    found["source"] = "tests/transformers4.py"
    found["folders"] = {}
    for path in sorted(folder.iterdir()):
        raw = json.loads((path / "config.json").read_text(encoding="utf-8"))
        read = {key: raw[key] for key in KEYS if raw.get(key) is not None}
        try:
            row = observed(path) | frequencies(path)
        except ValueError as error:  # Of some families it takes two schemes alone.
            row = {"refused": str(error)[:120]}
        found["folders"][path.name] = {"read": read} | row
    lines = [f'  "{name}": {json.dumps(row)}' for name, row in found.pop("folders").items()]
    head = json.dumps(found)[:-1]
    text = head + ',\n "folders": {\n' + ",\n".join(lines) + "\n }\n}\n"
    Path(sys.argv[3]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
