"""Checks of what a configuration says about rotary positions.

They find what contradicts itself and what is left out, by rules on config.json alone: no weights,
no tokenizer. A value that is wrong but fits all others is beyond them: `rope_loss.confirm` asks the
weights. Recipes that model cards print, and settings on purpose, are notes.
"""

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig

from farcontext.checkpoints.rope.finding import Finding, graded
from farcontext.checkpoints.rope.keys import amplitude, unread, unread_in_section
from farcontext.checkpoints.rope.sections import (
    Section,
    raw_sections,
    sections,
    trained_length,
)

LONG_WINDOW = 8192  # A base of 10,000 or less at such a window, with full attention, is not usual.
WITH_ORIGINAL = ("yarn", "llama3", "longrope")
ORIGINAL = "original_max_position_embeddings"
# Before transformers 4.33 a configuration had no rope_theta, and every model 10,000.
FIRST_WITH_THETA = (4, 33)
BEFORE_THETA = ("llama", "gpt_neox", "falcon", "persimmon")
# They were published with a base of 10,000 at 8,192 positions or more.
SMALL_BASES = ("gemma", "gemma2", "glm", "glm4", "falcon", "chatglm")
# Cards print YaRN on these windows, which config.json keeps; the family's trained lengths.
CARD_WINDOWS = {
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl"), (32768,)),
    **dict.fromkeys(("glm4", "glm4_moe"), (32768,)),
    **dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_moe"), (32768, 40960, 262144)),
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_moe"), (262144,)),
    "smollm3": (65536,),
}


def configuration_findings(
    config: PreTrainedConfig, raw: dict[str, Any], tokenizer_length: float | None = None
) -> list[Finding]:
    """Return the findings on a configuration, in three grades.

    `raw` is its JSON, `config` what transformers makes of it (`rope.sections.read` and `parse` give
    both). `tokenizer_length` is the longest text that the tokenizer's configuration names, in
    tokens. A model whose layers have settings of their own has findings a kind of layer.
    """
    found = [*unread(config, raw)]
    for kind, section in sections(config).items():
        prefix = f"{kind}: " if kind else ""
        local = "sliding" in kind
        parts = [
            *_two_sections(raw, kind),
            *_theta(config, section, raw, kind),
            *unread_in_section(config, section, raw, kind),
            *([] if local else _original(config, section, raw, kind, tokenizer_length)),
            *_growth(config, section, raw, kind, tokenizer_length),
            *amplitude(config, section),
        ]
        found += [_named(prefix, finding) for finding in parts]
    return [*found, *_tokenizer(config, tokenizer_length)] if sections(config) else found


def _named(prefix: str, finding: Finding) -> Finding:
    return Finding(**(vars(finding) | {"name": prefix + finding.name}))


# --------------------------------------------------------------------------------------------- base


def _two_sections(raw: dict[str, Any], kind: str) -> Iterator[Finding]:
    """Yield whether rope_scaling and rope_parameters say the same, where both are there."""
    if len(given := raw_sections(raw, kind)) < 2:
        return
    old, new = ({k: v for k, v in part.items() if v is not None} for part in given)
    for part in (old, new):
        part.setdefault("rope_type", part.pop("type", "default"))
        part.pop("type", None)
        part.setdefault("rope_theta", raw.get("rope_theta") or raw.get("rotary_emb_base"))
        for key in (ORIGINAL, "partial_rotary_factor", "attention_factor"):
            part.setdefault(key, raw.get(key))
    differ = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    says = "transformers 5 reads both, older readers the first alone"
    yield graded(
        "rope_scaling and rope_parameters",
        "fault" if differ else "ok",
        ", ".join(f"{key}: {old.get(key)} and {new.get(key)}" for key in differ)[:200] or "equal",
        "equal values",
        says,
    )


def _given_thetas(config: PreTrainedConfig, raw: dict[str, Any], kind: str) -> list[float]:
    local = kind and "sliding" in kind
    names = ("rope_local_base_freq",) if local else ("rope_theta", "rotary_emb_base")
    places = [section.get("rope_theta") for section in raw_sections(raw, kind)]
    places += [] if local and any(places) else [raw.get(name) for name in names]
    if local and not any(places):  # Some families share one base, others have their own for these.
        wide = raw.get("rope_theta")
        places = [wide] if wide == sections(config)[kind]["rope_theta"] else []
    return [float(value) for value in places if isinstance(value, int | float)]


def _theta(
    config: PreTrainedConfig, section: Section, raw: dict[str, Any], kind: str
) -> Iterator[Finding]:
    """Yield whether the base is given, once, and fits the window."""
    given, used = _given_thetas(config, raw, kind), float(section["rope_theta"])
    says = f"the base that config.json gives; without one transformers takes {used:g}"
    if not given:
        grade, why = _without_theta(config, section, raw, kind)
        yield graded("rope_theta given", grade, "none", "a number", f"{says}{why}")
    else:
        yield graded("rope_theta given", "ok", f"{given[0]:g}", "a number", says)
    one = len(set(given)) <= 1 and (not given or given[0] == used)
    yield graded(
        "rope_theta once",
        "ok" if one else "fault",
        ", ".join(f"{v:g}" for v in [*given, used]),
        f"{given[0] if given else used:g}",
        "all places give one base",
    )
    local = "sliding" in kind or (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    )
    original = section.get(ORIGINAL) or config.max_position_embeddings
    small = used <= 10_000 and original >= LONG_WINDOW and section["rope_type"] == "default"
    short = small and not local and bool(given)
    usual = config.model_type in SMALL_BASES
    says = (
        f"a window of {original} tokens with full attention goes with a base above 10,000; "
        "`confirm` asks the weights"
    )
    grade = "ok" if not short else "note" if usual else "fault"
    yield graded("rope_theta for the window", grade, f"{used:g}", "more than 10000", says)


def _without_theta(
    config: PreTrainedConfig, section: Section, raw: dict[str, Any], kind: str
) -> tuple[str, str]:
    """Return the grade of a configuration without a base, and why."""
    # Only a family of two kinds of layers has a base of 10,000 of its own, for the local ones.
    own = sections(type(config)()).get(kind) if "sliding" in kind else None
    if float(section["rope_theta"]) != 10_000 or (own and own["rope_theta"] == 10_000):
        return "note", ", the default of its family"
    trained = trained_length(config, section)
    if trained <= LONG_WINDOW // 2 and config.max_position_embeddings <= LONG_WINDOW // 2:
        family = config.model_type in ("qwen2", "qwen3")
        return ("fault", ", which this family never had") if family else ("ok", "")
    version = _version(raw)
    of_its_day = config.model_type in BEFORE_THETA and "rope_parameters" not in raw
    early = version is not None and version < FIRST_WITH_THETA
    if of_its_day and (early or (version is None and trained <= LONG_WINDOW // 2)):
        return "note", ", as every model had before transformers 4.33"
    if config.model_type == "mistral" and raw.get("sliding_window") and not raw_sections(raw):
        return "note", ", as the first Mistral has"
    return "fault", ": was it lost?"


def _version(raw: dict[str, Any]) -> tuple[int, ...] | None:
    """Return the first two numbers of the version that wrote a config.json."""
    parts = str(raw.get("transformers_version") or "").split(".")[:2]
    return tuple(map(int, parts)) if len(parts) == 2 and all(map(str.isdecimal, parts)) else None


# ------------------------------------------------------------------------------------------ lengths


def _originals(raw: dict[str, Any], kind: str = "") -> list[int]:
    places = [raw, *raw_sections(raw, kind)]
    return [place[ORIGINAL] for place in places if place.get(ORIGINAL)]


def _original(
    config: PreTrainedConfig,
    section: Section,
    raw: dict[str, Any],
    kind: str,
    tokenizer_length: float | None,
) -> Iterator[Finding]:
    """Yield whether original length, longest position and factor fit each other."""
    limit, rope_type = config.max_position_embeddings, section["rope_type"]
    if rope_type not in WITH_ORIGINAL:
        return
    given = _originals(raw, kind)
    if not given:
        says = f"transformers then takes {limit} for {rope_type}"
        yield graded(ORIGINAL, "fault", "none", "the trained length", says)
        return
    original = given[0]
    yield graded(
        f"{ORIGINAL} once",
        "ok" if len(set(given)) == 1 else "fault",
        ", ".join(map(str, given)),
        str(original),
        "all places give one trained length",
    )
    whole = isinstance(original, int) and original % 32 == 0
    says = "a trained length is a round number of tokens"
    yield graded(
        f"{ORIGINAL} is a length",
        "ok" if whole else "fault",
        str(original),
        "a multiple of 32",
        says,
    )
    factor = section.get("factor") or limit / original
    grade, wanted, says = _fit(config, rope_type, original, factor, tokenizer_length)
    yield graded(f"{ORIGINAL} × factor", grade, f"{original} × {factor:g}", wanted, says)


def _fit(
    config: PreTrainedConfig,
    rope_type: str,
    original: float,
    factor: float,
    tokenizer_length: float | None,
) -> tuple[str, str, str]:
    """Return grade, expected value and sentence on window / original against factor."""
    limit = config.max_position_embeddings
    ratio, wanted = limit / original, f"max_position_embeddings = {round(factor * original)}"
    # Llama 3.1 and 3.2 themselves have 8 against 16 and 32 against 16.
    slack = 2.0 if rope_type == "llama3" else 1.01
    says = f"max_position_embeddings / original = {ratio:g} goes with factor = {factor:g}"
    if factor / slack <= ratio <= factor * slack and (ratio > 1 or factor <= 1):
        return "ok", wanted, says
    cut = (
        f"the window stays {limit} of {round(factor * original)} tokens: set {wanted} to use them; "
        "short texts are scaled too"
    )
    if getattr(config, "no_rope_layers", None) and ratio > factor:
        return "note", wanted, f"{says}; layers without RoPE carry the rest"
    if 1 < ratio < factor:
        return "note", wanted, cut
    listed = original in CARD_WINDOWS.get(config.model_type, ())
    reaches = limit < (tokenizer_length or 0) <= 1.1 * factor * original
    if ratio == 1 and rope_type == "yarn" and (listed or reaches):
        return "note", wanted, f"{cut}; so the model's card writes it"
    if factor < ratio <= 1.5 * factor and rope_type == "yarn":
        says = f"the window is wider than the {round(factor * original)} tokens that it reaches"
        return "note", wanted, says
    both = f"{wanted}, or original about {limit / factor:g}"
    return "fault", both, f"{says}; one of the three is wrong"


def _growth(
    config: PreTrainedConfig,
    section: Section,
    raw: dict[str, Any],
    kind: str,
    tokenizer_length: float | None,
) -> Iterator[Finding]:
    """Yield whether a factor stretches, and dynamic NTK from the trained length.

    An extended length makes dynamic NTK constant.
    """
    factor = section.get("factor")
    if factor is not None:
        says = "a factor stretches the window; dynamic NTK with 0 is constant"
        yield graded("factor", "ok" if factor >= 1 else "fault", f"{factor:g}", "1 or more", says)
    if section["rope_type"] != "dynamic":
        return
    limit = config.max_position_embeddings
    trained = min([*_originals(raw, kind), tokenizer_length or limit, limit])
    says = (
        "dynamic NTK is constant up to max_position_embeddings, which has to be the trained length"
    )
    yield graded(
        "dynamic: trained length",
        "ok" if trained == limit else "fault",
        f"max_position_embeddings {limit}",
        f"{trained:g}",
        says,
    )


def _tokenizer(config: PreTrainedConfig, tokenizer_length: float | None) -> Iterator[Finding]:
    """Yield whether the tokenizer's limit is below the window."""
    limit = config.max_position_embeddings
    if tokenizer_length is not None and tokenizer_length < limit:
        says = "readers such as vLLM stop at the tokenizer's model_max_length"
        yield graded("tokenizer limit", "note", f"{tokenizer_length:g}", f"{limit} or more", says)
