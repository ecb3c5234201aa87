"""A configuration that every reader understands alike.

transformers 5 reads `rope_parameters`; transformers 4, vLLM, sglang and llama.cpp's converter read
`rope_scaling` and `rope_theta`, some families names of their own. Whoever finds only the other
spelling takes plain RoPE with base 10,000, without a word. So both are written. Not written:
`type`, the name of rope_type before transformers 4.43.
"""

import copy
from pathlib import Path
from typing import Any

from farcontext import files
from farcontext.checkpoints.rope.outline import outline
from farcontext.checkpoints.rope.sections import Section, sections

# transformers 4 takes just these keys of rope_scaling, and just these schemes, of some families.
STRICT = {
    "olmo": {"linear": ("factor",), "dynamic": ("factor",)},
    "olmo2": {"linear": ("factor",), "dynamic": ("factor",)},
    "phi3": {"longrope": ("short_factor", "long_factor")},
}
NEOX = ("gpt_neox", "gpt_neox_japanese")  # These have names of their own.
ORIGINAL = "original_max_position_embeddings"
# Of LongRoPE transformers 4 reads the trained length at the top of config.json alone, and of llama3
# llama.cpp's converter: it takes 8,192 where it finds none.
AT_THE_TOP = ("longrope", "llama3")


def for_every_reader(
    raw: dict[str, Any], section: Section | None = None, window: int | None = None
) -> dict[str, Any]:
    """Return a config.json's rotary settings in all spellings.

    They stand in its JSON.

    Args:
        raw: the JSON; it stays as it is.
        section: new settings, of the layers with full attention where kinds of layers differ; None:
            those that the JSON has.
        window: the new max_position_embeddings; None: as it is.
    """
    config, stored = outline(raw), copy.deepcopy(raw)
    found = copy.deepcopy(sections(config))
    if window is not None:
        stored["max_position_embeddings"] = window
    for old, new in (("torch_dtype", "dtype"), ("dtype", "torch_dtype")):
        if stored.get(old) is not None:  # Readers before transformers 4.56 know the first alone.
            stored.setdefault(new, stored[old])
    if not found:
        return stored
    wide = "full_attention" if "full_attention" in found else next(iter(found))
    found[wide] = _plain(section or found[wide])
    if section and ORIGINAL not in section and not config.model_type.startswith("phi"):
        stored.pop(ORIGINAL, None)  # It is of the scheme before; Phi's class has it in any case.
    stored["rope_parameters"] = found if wide else found[wide]
    stored["rope_scaling"] = _scaling(config.model_type, found[wide])
    stored["rope_theta"] = found[wide]["rope_theta"]
    local = found.get("sliding_attention", {}).get("rope_theta")
    if local and ("rope_local_base_freq" in stored or local != stored["rope_theta"]):
        stored["rope_local_base_freq"] = local
    return stored | _own_names(config.model_type, found[wide], stored)


def _scaling(family: str, section: Section) -> Section | None:
    """Return what stands under the older name.

    It is the same section, None for plain RoPE.
    """
    scheme = section["rope_type"]
    if scheme == "default":
        return None
    if scheme not in STRICT.get(family, {}):
        return copy.deepcopy(section)
    return {"type": scheme} | {key: section[key] for key in STRICT[family][scheme]}


def refused_by_transformers_4(family: str, scheme: str) -> bool:
    """Return whether transformers 4 ends with an error at a family's rope_type."""
    return family in STRICT and scheme not in ("default", *STRICT[family])


def _plain(section: Section) -> Section:
    """Return a section without keys that say nothing new.

    The old name of rope_type is one.
    """
    return {key: value for key, value in section.items() if key != "type" and value is not None}


def _own_names(family: str, section: Section, stored: dict[str, Any]) -> dict[str, Any]:
    share = section.get("partial_rotary_factor")
    if family in NEOX:
        top = {"rotary_emb_base": section["rope_theta"], "rotary_pct": share or 1.0}
    else:
        top = {"partial_rotary_factor": share} if share not in (None, 1, 1.0) else {}
    if ORIGINAL in section and (section["rope_type"] in AT_THE_TOP or ORIGINAL in stored):
        top |= {ORIGINAL: section[ORIGINAL]}
    return {key: value for key, value in top.items() if stored.get(key) != value}


def write_window(folder: Path, window: int) -> None:
    """Give a folder's other files the window.

    They are its tokenizer's and generation's configurations, where they are there. vLLM and others
    stop at the tokenizer's `model_max_length`.
    """
    changes = {
        "tokenizer_config.json": {"model_max_length": window},
        "generation_config.json": {"max_length": window},
    }
    for name, change in changes.items():
        if (folder / name).is_file():
            kept = files.read_json(folder / name)
            kept.pop("_from_model_config", None)  # Such a file would be made anew, without it.
            files.write_json(folder / name, kept | change)
