"""What a plain family's config.json says, without the family's class.

Importing such a class brings half of transformers with it, seconds of it. For families whose class
adds no rule to the common ones their keys are read here; a test holds this against the classes.
"""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from farcontext.checkpoints.rope.sections import (
    Section,
    expect_known_types,
    modern,
    parse,
    raw_sections,
)

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig

    Outline = PreTrainedConfig | SimpleNamespace

# These keys have to be there: a default of the class is not known here.
SHAPE = {
    *("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"),
    *("vocab_size", "max_position_embeddings"),
}
FAMILIES = {
    "llama": SHAPE,
    "gpt_neox": SHAPE,
    "qwen2": SHAPE,
    "qwen3": SHAPE | {"head_dim"},
    "mistral": SHAPE | {"sliding_window"},
}
BASE, ORIGINAL = 10_000.0, "original_max_position_embeddings"


def outline(raw: dict[str, Any], where: Path | str = "config.json") -> "Outline":
    """Return a configuration's shape and rotary settings.

    For other families it is what `parse` returns.

    Raises:
        UserError: as `parse`.
    """
    family = raw.get("model_type")
    plain = family in FAMILIES and FAMILIES[family] <= raw.keys()
    nested = any(isinstance(raw.get(key), dict) for key in ("rope_scaling", "rope_parameters"))
    if not plain or raw.get("use_sliding_window") or (nested and not raw_sections(raw)):
        return parse(raw, where)
    expect_known_types(where, raw)
    names = (*SHAPE, "model_type", "head_dim", "layer_types")
    found = {name: raw.get(name) for name in names}
    found["sliding_window"] = raw.get("sliding_window") if family == "mistral" else None
    return SimpleNamespace(**found, rope_parameters=_section(modern(raw)))


def _section(raw: dict[str, Any]) -> Section:
    """Return the rotary settings.

    What stands inside goes before what stands at the top.
    """
    found = copy.deepcopy(next(iter(raw_sections(raw)), {}))
    neox = raw["model_type"] == "gpt_neox"
    base, share = ("rotary_emb_base", "rotary_pct") if neox else ("rope_theta", None)
    found.setdefault("rope_theta", raw.get(base, BASE))
    part = raw.get(share, 0.25) if neox else raw.get("partial_rotary_factor")
    if part is not None:
        found.setdefault("partial_rotary_factor", part)
    found.setdefault("rope_type", found.get("type", "default"))
    if found["rope_type"] in ("llama3", "yarn", "longrope"):
        found.setdefault(ORIGINAL, raw["max_position_embeddings"])
        found |= {ORIGINAL: raw[ORIGINAL]} if raw.get(ORIGINAL) else {}
    return found
