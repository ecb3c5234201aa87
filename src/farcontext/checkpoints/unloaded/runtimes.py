"""What public runtimes make of the same config.json.

Each runtime is a few facts: which keys it reads, how it fills in those that are left out, and which
window it derives. They were read in its public code, named in SOURCES with the version. Nothing of
a runtime is run or copied here. The reader of reference is the transformers that is installed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import transformers
from transformers import PreTrainedConfig

from farcontext.checkpoints.rope.sections import Section, head_width, sections
from farcontext.checkpoints.unloaded.rotation import (
    ORIGINAL,
    Rotation,
    rotation_of,
    yarn_amplitude,
)

Raw = Mapping[str, Any]
SOURCES = {
    "transformers 5": f"transformers {transformers.__version__}, as installed here",
    "transformers 4": "transformers 4.57.6, modeling_rope_utils.py and each family's configuration",
    "vLLM": "vllm-project/vllm 0cd57848, rotary_embedding/; 0052a5b8, config/model.py",
    "llama.cpp": "ggml-org/llama.cpp 00bd27a6, conversion/base.py, llama.py, phi.py; "
    "src/llama-context.cpp",
    "sglang": "sgl-project/sglang 108c36c0, rotary_embedding/factory.py; 0b1fd02d, yarn.py; "
    "009fffb3, hf_transformers_utils.py",
}
VERSIONS = {
    "transformers 5": transformers.__version__,
    "transformers 4": "4.57.6",
    "vLLM": "0cd57848",
    "llama.cpp": "00bd27a6",
    "sglang": "108c36c0",
}
# transformers 4.57.6 takes these where config.json gives none; others are those of transformers 5.
THETA_4 = {"cohere": 10_000.0, "olmo3": 10_000.0, "persimmon": 25_000.0}
ABSENT_4 = ("ministral3",)
# llama.cpp writes llama3's factors for families of its Llama class, and longrope's for Phi-3's.
LLAMA_CLASS = ("llama", "mistral", "mixtral", "smollm3", "granite", "granitemoe", "arcee", "llama4")
LLAMA_CLASS += ("llama4_text",)
PHI_CLASS = ("phi3", "phimoe")
LATENT = ("deepseek_v2", "deepseek_v3", "mistral3", "ministral3")  # They get yarn_log_multiplier.
LLAMA3_ORIGINAL = 8192  # llama.cpp looks for it at the top of config.json alone.


@dataclass(frozen=True)
class Reading:
    """What a runtime computes from a configuration.

    `rotations` is by kind of layer, "" where all share one. A runtime that refuses the file has
    none, and `refusal` says why.
    """

    runtime: str
    window: int
    rotations: Mapping[str, Rotation] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refusal: str = ""


def read_all(
    raw: Raw, config: PreTrainedConfig, tokenizer_length: float | None = None
) -> list[Reading]:
    """Return what each runtime makes of a configuration, that of reference first.

    Args:
        raw: the content of config.json.
        config: what the installed transformers makes of it (`rope.sections.parse`).
        tokenizer_length: model_max_length of tokenizer_config.json, which vLLM reads.

    Raises:
        ValueError: a value that the installed transformers does not take either.
    """
    five = transformers_5(config)
    found = [five, _tried("transformers 4", lambda: transformers_4(raw, config), five)]
    found.append(_tried("vLLM", lambda: vllm(raw, config, tokenizer_length), five))
    found.append(_tried("llama.cpp", lambda: llama_cpp(raw, config), five))
    found.append(_tried("sglang", lambda: sglang(raw, config), five))
    return found


def _tried(runtime: str, reader: Callable[[], Reading], five: Reading) -> Reading:
    try:
        return reader()
    except (ValueError, KeyError, TypeError) as error:
        said = f"expected {error}" if isinstance(error, KeyError) else str(error)
        return Reading(runtime, five.window, refusal=said)


def _each(config: PreTrainedConfig, edit: Callable[[Section], Section]) -> dict[str, Rotation]:
    """Return the rotations of all kinds of layers, each section edited first.

    There are none with ALiBi: Falcon's class has a rotary module then too, and does not use it.
    """
    if getattr(config, "alibi", False):
        return {}
    config.standardize_rope_params()  # So do transformers' functions, whenever they compute.
    head, limit = head_width(config), config.max_position_embeddings
    return {
        kind: rotation_of(edit(dict(section)), head=head, limit=limit)
        for kind, section in sections(config).items()
    }


def _main(config: PreTrainedConfig) -> Section:
    """Return the section of the layers that see everything."""
    found = sections(config)
    return found.get("full_attention") or next(iter(found.values()), {"rope_type": "default"})


# ------------------------------------------------------------------------------------- transformers


def transformers_5(config: PreTrainedConfig) -> Reading:
    """Return what the installed transformers computes."""
    rotations = _each(config, lambda section: section)
    return Reading("transformers 5", config.max_position_embeddings, rotations)


def meant(config: PreTrainedConfig) -> Reading:
    """Return what a configuration means.

    A runtime that misses a key does not compute it. attn_factor is the amplitude beside YaRN's own.
    YaRN on a window that was left as trained, as model cards print it, means the stretched window.
    """

    def edit(section: Section) -> Section:
        own = section.get("attn_factor")
        if section["rope_type"] != "yarn" or not own or section.get("attention_factor") is not None:
            return section
        return section | {"attention_factor": own * yarn_amplitude(section.get("factor") or 1.0)}

    limit, main = config.max_position_embeddings, _main(config)
    if main["rope_type"] == "yarn" and main.get(ORIGINAL) == limit:
        limit = round(limit * (main.get("factor") or 1.0))
    return Reading("config.json", limit, _each(config, edit))


def transformers_4(raw: Raw, config: PreTrainedConfig) -> Reading:
    """Return what transformers 4.57.6 computes.

    It reads `rope_scaling` and the base at the top of the file; `rope_parameters` it does not know.
    """
    family, limit = config.model_type, config.max_position_embeddings
    if family in ABSENT_4:
        raise ValueError(f"model_type = {family}: it has no such family")
    scaling = raw.get("rope_scaling")
    scaling = dict(scaling) if isinstance(scaling, dict) else {}
    rope_type = scaling.get("rope_type") or scaling.get("type") or "default"
    if family == "phi3" and rope_type in ("su", "yarn"):
        rope_type = "longrope"
    share = raw.get("partial_rotary_factor", raw.get("rotary_pct"))
    base = raw.get("global_rope_theta") or raw.get("rope_theta") or raw.get("rotary_emb_base")
    # Of an outline, whose class is not imported, the base and the share are the class's too.
    whole = isinstance(config, PreTrainedConfig)
    plain = type(config)() if whole else config
    default = _main(plain) if whole else {"rope_theta": 10_000.0}
    if not whole and family == "gpt_neox":
        default["partial_rotary_factor"] = 0.25
    share = default.get("partial_rotary_factor") if share is None else share
    theta = base or THETA_4.get(family) or default["rope_theta"]
    section = {**scaling, "rope_type": "default" if rope_type == "mrope" else rope_type}
    section |= {"rope_theta": theta, "partial_rotary_factor": share}
    if section["rope_type"] == "longrope":  # The key in the section is not read.
        top = raw.get(ORIGINAL, 4096 if family == "phi3" else None)
        section[ORIGINAL] = top or limit
        section["factor"] = limit / top if top else scaling.get("factor")
    head, rotations = head_width(config), {}
    for kind in () if getattr(config, "alibi", False) else sections(config):
        local = "sliding" in kind
        own = {"rope_type": "default", "rope_theta": _local_theta(raw, plain, theta)}
        rotations[kind] = rotation_of(own if local else section, head=head, limit=limit)
    notes = []
    if "rope_parameters" in raw and not scaling and "rope_scaling" not in raw:
        notes.append("rope_parameters is not read: it is a key of transformers 5")
    return Reading("transformers 4", limit, rotations, tuple(notes))


def _local_theta(raw: Raw, plain: PreTrainedConfig, theta: float) -> float:
    """Return the base of local layers.

    It is a key of its own, the family's, or that of all.
    """
    given = raw.get("rope_local_base_freq") or raw.get("local_rope_theta")
    if given or plain.model_type == "olmo3" or not isinstance(plain, PreTrainedConfig):
        return given or theta
    return sections(plain).get("sliding_attention", {}).get("rope_theta", theta)


# --------------------------------------------------------------------------------------------- vLLM


def vllm(raw: Raw, config: PreTrainedConfig, tokenizer_length: float | None = None) -> Reading:
    """Return what vLLM computes.

    It reads configurations with transformers 5.
    """
    limit, main = config.max_position_embeddings, _main(config)
    window, notes = min(limit, tokenizer_length or limit), []
    rope_type = main["rope_type"]
    if rope_type == "yarn":
        window = main[ORIGINAL] * main["factor"]
    elif rope_type not in ("longrope", "llama3") and "gemma3" not in config.model_type:
        window *= main.get("factor") or 1.0
    rotations = _each(config, lambda section: section | {"truncate": section.get("truncate", True)})
    for kind, rotation in rotations.items():
        if rotation.scheme == "dynamic_ntk_hf":  # One table, made for the whole window.
            rotations[kind] = replace(rotation, frozen=int(limit * rotation.scale))
        if rotation.scheme == "longrope":
            window = min(raw.get(ORIGINAL) or limit, limit)
            ratio = limit / rotation.trained
            amplitude = math.sqrt(1 + math.log(max(ratio, 1)) / math.log(rotation.trained))
            long = int(window) > rotation.trained
            rotations[kind] = replace(rotation, amplitude=amplitude, frozen=rotation.trained + long)
            notes.append(
                f"one list of factors for every text: the short one up to --max-model-len "
                f"{rotation.trained}, else the long one"
            )
    if isinstance(raw.get("dual_chunk_attention_config"), dict):
        notes.append("dual chunk attention is applied")
    return Reading("vLLM", int(window), rotations, tuple(notes))


# ---------------------------------------------------------------------------------------- llama.cpp


def llama_cpp(raw: Raw, config: PreTrainedConfig) -> Reading:
    """Return what llama.cpp computes of the GGUF file that its converter writes."""
    family, limit, notes = config.model_type, config.max_position_embeddings, []

    def edit(section: Section) -> Section:
        kept = {k: section[k] for k in ("rope_theta", "partial_rotary_factor") if k in section}
        plain = kept | {"rope_type": "default"}
        match section["rope_type"]:
            case "yarn":
                dropped = ("attention_factor", "truncate")
                dropped += () if family in LATENT else ("mscale", "mscale_all_dim")
                if lost := [k for k in (*dropped, "attn_factor") if section.get(k) is not None]:
                    notes.append(f"{', '.join(lost)}: without effect")
                return {k: v for k, v in section.items() if k not in dropped}
            case "linear":
                return section
            case "llama3" if family in LLAMA_CLASS:
                return section | {ORIGINAL: raw.get(ORIGINAL) or LLAMA3_ORIGINAL}
            case "longrope" if family in PHI_CLASS:
                return section | {"attention_factor": None, "factor": None}
            case "default":
                return plain
            case other:
                notes.append(f"{other} is dropped for {family}: plain RoPE")
                return plain

    rotations = _each(config, edit)
    for kind, rotation in rotations.items():
        if rotation.scheme == "longrope":  # The list is chosen once, by the context size.
            rotations[kind] = replace(rotation, frozen=limit)
            notes.append(f"the long factors for every text where -c is above {rotation.trained}")
    return Reading("llama.cpp", limit, rotations, tuple(notes))


# ------------------------------------------------------------------------------------------- sglang


def sglang(raw: Raw, config: PreTrainedConfig) -> Reading:
    """Return what sglang computes."""
    limit, main, notes = config.max_position_embeddings, _main(config), []

    def edit(section: Section) -> Section:
        if section["rope_type"] != "yarn":
            return section
        factor, pair = section["factor"], (section.get("mscale"), section.get("mscale_all_dim"))
        amplitude = yarn_amplitude(factor)
        if None not in pair:
            amplitude = yarn_amplitude(factor, pair[0]) / yarn_amplitude(factor, pair[1])
        if section.get("attention_factor") is not None:
            notes.append("attention_factor is not read: its key is attn_factor")
        return section | {"attention_factor": amplitude * (section.get("attn_factor") or 1.0)}

    rotations = _each(config, edit)
    for kind, rotation in rotations.items():
        if rotation.scheme == "dynamic_ntk_hf":
            rotations[kind] = replace(rotation, frozen=int(limit * rotation.scale))
        if rotation.scheme == "longrope":  # Its amplitude is from the lengths alone.
            ratio = max(limit / rotation.trained, 1)
            amplitude = math.sqrt(1 + math.log(ratio) / math.log(rotation.trained))
            rotations[kind] = replace(rotation, amplitude=amplitude)
    nested = "" not in sections(config)  # There it looks for a factor beside the kinds of layers.
    counted = nested or ORIGINAL in main or main["rope_type"] == "llama3"
    window = limit * (1 if counted else main.get("factor") or 1)
    if isinstance(raw.get("dual_chunk_attention_config"), dict):
        notes.append("dual chunk attention is applied")
    return Reading("sglang", int(window), rotations, tuple(notes))
