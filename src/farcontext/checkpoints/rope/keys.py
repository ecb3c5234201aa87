"""Keys that nobody reads, and amplitudes that are given.

Both stand in a configuration. A key that no code reads is silently without effect: the model does
not compute what its configuration means. Which keys a scheme reads is from transformers' own
functions; what a family reads beside them is looked up in its code.
"""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from farcontext.checkpoints.rope.finding import Finding, graded
from farcontext.checkpoints.rope.sections import (
    OLD_NAMES,
    Section,
    computes_with,
    family_reads,
    raw_sections,
)

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig

TOLERANCE = 1e-4  # The fp32 frequencies and amplitudes may have this relative difference.
NEUTRAL = (None, False, 0, 1, "", [], {})  # Values with which a key changes nothing.
ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "mrope_section"}
READ = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast"),
        *("beta_slow", "mscale", "mscale_all_dim", "truncate"),
    },
    "llama3": {
        *("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    },
    "longrope": {
        *("factor", "original_max_position_embeddings", "attention_factor", "short_factor"),
        "long_factor",
    },
    "proportional": {"factor"},
}
HARMLESS = {"finetuned"}  # They say how the weights came about.
DEFAULTS = {"beta_fast": 32, "beta_slow": 1}  # A scheme without such a key computes no other.
MEANS = {
    "extrapolation_factor": "vLLM's share of the unscaled frequencies",
    "rope_ratio": "ChatGLM's factor on the base",
    "alpha": "Hunyuan's factor on the base",
}
# At the top of config.json these ask for another computation than RoPE with the section's keys.
ELSEWHERE = {
    "dual_chunk_attention_config": "dual chunk attention",
    "attn_factor": "a factor on the amplitude",
    "rope_ratio": "a factor on the base",
    "use_dynamic_ntk": "dynamic NTK of the first Qwen",
    "use_logn_attn": "log-n scaling of scores",
    "alibi": "a bias by distance",
    "rope_pct": "a rotated share of each head",
    "rotary_pct": "a rotated share of each head",
    "rotary_dim": "a rotated part of each head",
    "rotary_percentage": "a rotated share of each head",
}


def unread(config: "PreTrainedConfig", raw: dict[str, Any]) -> Iterator[Finding]:
    """Yield the keys of config.json that no code reads.

    What that changes is said, too.
    """
    for key in sorted(set(raw) & set(ELSEWHERE)):
        if raw[key] not in NEUTRAL and not _reads(config.model_type, key):
            yield _elsewhere(config, key, raw[key])
    share = raw.get("partial_rotary_factor")
    inner = [section.get("partial_rotary_factor") for section in raw_sections(raw)]
    share = next((value for value in [share, *inner] if value is not None), 1.0)
    if share != 1 and not computes_with(config.model_type, "partial_rotary_factor"):
        says = (
            f"{config.model_type} of transformers rotates whole heads: "
            "partial_rotary_factor is not read"
        )
        yield graded("partial_rotary_factor", "fault", f"{share}", "1 or no such key", says)


def _reads(model_type: str, key: str) -> bool:
    return family_reads(model_type, f"{key}:") or family_reads(model_type, f'"{key}"')


def _elsewhere(config: "PreTrainedConfig", key: str, value: Any) -> Finding:
    says = f"transformers has no {ELSEWHERE[key]} for {config.model_type}: {key} is not read"
    if isinstance(value, dict) and (trained := value.get("original_max_position_embeddings")):
        says += f"; beyond {trained:,} tokens it is plain RoPE, untrained there"
        return graded(
            key, "fault", f"a window of {config.max_position_embeddings:,}", f"{trained:,}", says
        )
    return graded(key, "fault", f"{value!r:.60}", "no such key", says)


def unread_in_section(
    config: "PreTrainedConfig", section: Section, raw: dict[str, Any], kind: str = ""
) -> Iterator[Finding]:
    """Yield the keys of a section that its rope_type does not read."""
    rope_type = section["rope_type"]
    given = {key: value for part in raw_sections(raw, kind)[:1] for key, value in part.items()}
    given = given or section
    known = READ.get(rope_type, set()) | ALWAYS
    extra = {key for key, value in given.items() if key not in known and value is not None}
    extra -= {key for key in extra if family_reads(config.model_type, f'"{key}"')}
    idle = {key for key in extra if key in HARMLESS or _changes_nothing(config, key, given)}
    says = f"rope_type {rope_type} uses nothing but its own keys"
    for key in sorted(extra - idle):
        yield _key_finding(config, section, key, given[key])
    if not extra - idle:
        yield graded(
            "keys of another scheme", "ok", ", ".join(sorted(idle)) or "none", "none", says
        )
    if (written := given.get("rope_type") or given.get("type")) in OLD_NAMES:
        says = f"{written} is the old name of {rope_type}; readers of today may not know it"
        yield graded("rope_type", "note", written, rope_type, says)
    yield from _lone_mscale(config, given, rope_type)


def _changes_nothing(config: "PreTrainedConfig", key: str, given: Section) -> bool:
    """Return whether an unread key agrees with what is computed without it."""
    value, scheme = given[key], given.get("rope_type") or given.get("type")
    if key == "original_max_position_embeddings" and isinstance(value, int | float):
        reach = (given.get("factor") or 1) if scheme == "linear" else 1
        return value * reach == config.max_position_embeddings
    return (key in DEFAULTS and value == DEFAULTS[key]) or (
        value in NEUTRAL and not isinstance(value, list)
    )


def _key_finding(config: "PreTrainedConfig", section: Section, key: str, value: Any) -> Finding:
    """Return the fault of one unread key.

    With `attn_factor` it says what the amplitude should be.
    """
    rope_type, name = section["rope_type"], "keys of another scheme"
    if key == "attn_factor" and isinstance(value, int | float) and rope_type == "yarn":
        used = formula(config, section, given=True)
        meant = value * formula(config, {**section, "mscale": None}, given=False)
        says = (
            "attn_factor is a key of vLLM and llama.cpp, unknown to transformers: scores are "
            f"{(used / meant) ** 2:.3f} times what they should be; attention_factor = {meant:.4f} "
            "would be read"
        )
        return graded(
            "attn_factor", "fault", f"amplitude {used:.4f}", f"amplitude {meant:.4f}", says
        )
    what = f" ({MEANS[key]})" if key in MEANS else ""
    says = f"rope_type {rope_type} does not read {key}{what}: it is without effect"
    return graded(name, "fault", f"{key} = {value!r:.60}", "none", says)


def _lone_mscale(config: "PreTrainedConfig", given: Section, rope_type: str) -> Iterator[Finding]:
    """Yield an mscale that is not read.

    It is half a pair, or stands beside attention_factor.
    """
    if rope_type != "yarn":
        return
    pair = {key: given.get(key) for key in ("mscale", "mscale_all_dim")}
    lone = {key: value for key, value in pair.items() if value not in (None, 0)}
    if computes_with(config.model_type, '"mscale_all_dim"') or not lone:
        return
    beside = given.get("attention_factor") is not None
    if len(lone) == 2 and not beside:
        return
    why = "beside attention_factor" if beside else "without the other of the pair"
    grade = "note" if beside or set(lone.values()) == {1} else "fault"
    found = ", ".join(f"{key} = {value}" for key, value in lone.items())
    says = f"transformers reads mscale and mscale_all_dim as a pair: this is not read, {why}"
    yield graded("mscale", grade, found, "both, or neither", says)


def formula(config: "PreTrainedConfig", section: Section, *, given: bool) -> float:
    """Return the amplitude that transformers computes for a section.

    With `given` what the section sets itself is read, else only its factor and lengths.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = dict(section) if given else {**section, "attention_factor": None}
    if not given:
        plain |= {"mscale": None, "mscale_all_dim": None}
    other = copy.deepcopy(config)
    other.rope_parameters = plain
    return float(ROPE_INIT_FUNCTIONS[section["rope_type"]](other)[1])


def amplitude(config: "PreTrainedConfig", section: Section) -> Iterator[Finding]:
    """Yield whether an amplitude that is given is the scheme's formula.

    The formula is 0.1 ln s + 1, or √(1 + ln s / ln L). Of other values 1 and the square are the two
    usual mistakes; any other was set on purpose.
    """
    rope_type, own = section["rope_type"], section.get("attention_factor")
    if rope_type not in ("yarn", "longrope"):
        return
    pair = rope_type == "yarn" and section.get("mscale") and section.get("mscale_all_dim")
    if own is None and not pair:
        return
    used, plain = formula(config, section, given=True), formula(config, section, given=False)
    if own is None:
        differs = abs(used - plain) > 1e-3
        differs &= not computes_with(config.model_type, '"mscale_all_dim"')  # It multiplies scores.
        says = f"mscale / mscale_all_dim set it; by its factor alone it would be {plain:.4f}"
        says += "; readers without these keys use that" if differs else ""
        yield graded("mscale", "note" if differs else "ok", f"{used:.4f}", f"{plain:.4f}", says)
        return
    same, wrong = abs(own - plain) <= 1e-3, how_often(own, plain)
    usual = wrong.endswith(("twice", "never"))
    says = (
        f"config.json sets it itself; the formula of {rope_type} is the other value"
        f"{wrong if usual else '' if same else ', so it was set on purpose'}"
    )
    grade = "ok" if same else "fault" if usual else "note"
    yield graded("attention_factor given", grade, f"{own:.4f}", f"{plain:.4f}", says)


def how_often(found: float, factor: float) -> str:
    """Name the two usual faults of the attention factor."""
    if abs(found - factor) <= TOLERANCE:
        return ""
    if abs(found / factor**2 - 1) < 0.005:
        return ", but it is applied twice"
    return ", but it is applied never" if abs(found - 1) < 0.005 else ", but it is another"
