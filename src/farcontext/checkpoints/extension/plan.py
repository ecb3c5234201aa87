"""The plan of an extension: the settings that a checkpoint gets.

They are counted from its true origin. A checkpoint that ships with scaled RoPE (Llama 3.1, Qwen
with YaRN) was trained at its original length; a further extension multiplies its factor and keeps
that length. What this tool extended before says so in farcontext-extend.json: its origin is read
there, since a larger base leaves no other trace.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farcontext import files
from farcontext.checkpoints.rope.readers import refused_by_transformers_4
from farcontext.checkpoints.rope.sections import Section, head_width, sections
from farcontext.checkpoints.rope_parameters import ROPE_TYPES, rope_parameters
from farcontext.files import UserError
from farcontext.nn.config import Extension

if TYPE_CHECKING:  # The name is for annotations alone.
    from farcontext.checkpoints.rope.outline import Outline

REPORT = "farcontext-extend.json"
ORIGINAL = "original_max_position_embeddings"
BESIDE = ("mscale", "mscale_all_dim", "truncate")
LOCAL_BASE = ("gemma3",)  # All readers know another base for the local layers of these.
BASES = ("ntk", "abf")  # They leave rope_type default and a larger rope_theta.


@dataclass(frozen=True)
class Origin:
    """How a checkpoint was trained: its length in tokens, its base.

    What is in use stands beside. `scheme` and `factor` are those in use now ("rope" and 1 where
    there are none); `fixed` says why no other scheme fits, "" if any does; `reach` is the window in
    use, in tokens.
    """

    length: int
    theta: float
    scheme: str
    factor: float
    reach: int
    fixed: str = ""


@dataclass(frozen=True)
class Plan:
    """New settings, with the window in tokens that they reach.

    They are a section and max_position_embeddings. With dynamic NTK the first stays the trained
    length: transformers counts from it.
    """

    section: Section
    limit: int
    window: int
    origin: Origin
    factor: float
    warnings: tuple[str, ...]


def origin_of(where: Path, config: "Outline", trained_length: int | None = None) -> Origin:
    """Return a checkpoint's origin.

    It is told by its report, by its configuration, or by the caller.

    Raises:
        UserError: no RoPE, LongRoPE, a damaged report, or a length told beside one that is known.
    """
    section = wide_section(where, config)
    limit, theta, kind = (
        config.max_position_embeddings,
        float(section["rope_theta"]),
        section["rope_type"],
    )
    factor, original = float(section.get("factor") or 1.0), section.get(ORIGINAL) or limit
    if (where / REPORT).is_file():
        return _reported(where / REPORT, section, trained_length)
    if kind == "default":
        return Origin(trained_length or limit, theta, "rope", 1.0, trained_length or limit)
    if trained_length:
        raise UserError(
            f"trained_length = {trained_length}: expected none: {where} has rope_type = {kind}, "
            f"from {original} tokens"
        )
    schemes = {kind: scheme for scheme, (kind, _) in ROPE_TYPES.items()}
    if kind not in schemes or kind == "longrope":
        raise UserError(
            f"{where}: rope_type = {kind}, with lists of searched factors: expected another: "
            "a longer window needs a new search"
        )
    fixed = (
        f"{where}: ships with rope_type = {kind} (factor {factor:g}, from {{length}} tokens), with "
        f"which its weights were trained; there is no unscaled one: expected scheme = "
        f"{schemes[kind]}, which goes on from there"
    )
    if kind == "dynamic":  # It is computed as the text grows: no weights were trained with it.
        return Origin(limit, theta, schemes[kind], factor, round(factor * limit))
    if kind == "linear":
        original = max(1, round(limit / factor))
    reach = max(limit, 0 if kind == "llama3" else round(factor * original))
    return Origin(original, theta, schemes[kind], factor, reach, fixed.format(length=original))


def expect_applied(where: Path, raw: dict[str, Any]) -> None:
    """Refuse a window that rests on attention by chunks (Qwen2.5-1M).

    No scaled RoPE goes on from there: readers with that attention would apply both, others neither.

    Raises:
        UserError: the key, and from which length to count without it.
    """
    chunks = raw.get("dual_chunk_attention_config")
    if isinstance(chunks, dict):
        trained = chunks.get(ORIGINAL) or chunks.get("chunk_size")
        raise UserError(
            f"{where}: dual_chunk_attention_config: max_position_embeddings = "
            f"{raw.get('max_position_embeddings')} needs that attention, which transformers lacks: "
            f"expected a config.json without this key, and --trained-length {trained}"
        )


def wide_section(where: Path, config: "Outline") -> Section:
    """Return the settings of the layers that see farthest.

    Raises:
        UserError: positions that are not RoPE.
    """
    found = sections(config)
    if not found:
        raise UserError(
            f"{where}: model_type = {config.model_type}, whose positions are not RoPE: expected a "
            "model with RoPE, such as Llama or Qwen"
        )
    return found.get("full_attention") or next(iter(found.values()))


def _reported(path: Path, section: Section, trained_length: int | None) -> Origin:
    """Return the origin that an earlier extension wrote down."""
    report = files.read_json(path, "scheme", "factor", "trained_length", "rope_parameters")
    length, factor, scheme = (report[key] for key in ("trained_length", "factor", "scheme"))
    numbers = isinstance(length, int) and isinstance(factor, int | float) and factor > 0
    if not (numbers and isinstance(scheme, str)):
        raise UserError(f"{path}: expected a report of farcontext extend")
    if trained_length:
        raise UserError(f"trained_length = {trained_length}: expected none: {path} says {length}")
    known = report.get("origin", {})
    theta, factor = known.get("rope_theta"), known.get("factor", factor)
    if theta is None and scheme in BASES:
        raise UserError(
            f"{path}: extended with {scheme} by a version that kept no base: expected the "
            "checkpoint that it was made from"
        )
    fixed = (
        f"{path}: it was tuned with {scheme}: expected scheme = {scheme}, or the checkpoint that "
        "it was made from"
    )
    theta, tuned = float(theta or section["rope_theta"]), report.get("tuning") or known.get("tuned")
    return Origin(length, theta, scheme, factor, round(factor * length), fixed if tuned else "")


def plan(
    where: Path,
    config: "Outline",
    origin: Origin,
    scheme: str,
    factor: float,
    theta: float | None = None,
) -> Plan:
    """Return the settings with which a checkpoint reaches `factor` times its window.

    Raises:
        UserError: another scheme than the one that its weights know; a value out of range.
    """
    if origin.fixed and scheme != origin.scheme:
        raise UserError(origin.fixed)
    section = wide_section(where, config)
    nested = len(sections(config)) > 1
    if nested and scheme in BASES and not config.model_type.startswith(LOCAL_BASE):
        raise UserError(
            f"{where}: scheme = {scheme}: readers before transformers 5 have one base for all "
            f"layers of {config.model_type}: expected yarn, linear, llama3 or dynamic_ntk_hf"
        )
    whole, same = origin.factor * factor, scheme == origin.scheme
    share = section.get("partial_rotary_factor") or 1.0
    kept = _kept(section, scheme) if same else {}
    try:
        extension = Extension(
            scheme=scheme, scale=whole, trained_length=origin.length, new_theta=theta, **kept
        )
        new = rope_parameters(extension, origin.theta, int(head_width(config) * share))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    if same:
        new |= {key: section[key] for key in BESIDE if section.get(key) is not None}
    if share != 1:
        new["partial_rotary_factor"] = share
    window = math.floor(factor * origin.reach + 1e-6)
    limit = origin.length if scheme == "dynamic_ntk_hf" else window
    warnings = [*_warnings(config, window), *_unread(config.model_type, new["rope_type"])]
    warnings += _left_out(section, new) if same else []
    return Plan(new, limit, window, origin, whole, tuple(warnings))


def _kept(section: Section, scheme: str) -> dict[str, Any]:
    """Return what a section sets beside factor and length.

    An amplitude follows its factor.
    """
    names = set(ROPE_TYPES.get(scheme, ("", ()))[1]) - {"attention_factor"}
    return {name: float(section[name]) for name in sorted(names) if section.get(name)}


def _left_out(old: Section, new: Section) -> Iterator[str]:
    """Yield the keys that do not go on to a larger factor."""
    usual = 0.1 * math.log(old.get("factor") or 1.0) + 1
    for key in sorted(old.keys() - new.keys() - {"type"}):
        if old[key] is None or (
            key == "attention_factor" and math.isclose(old[key], usual, rel_tol=1e-4)
        ):
            continue
        meant = "; the amplitude is the scheme's own" if key.startswith("att") else ""
        yield f"{key} = {old[key]} of the configuration before is left out{meant}"


def _unread(family: str, kind: str) -> Iterator[str]:
    if refused_by_transformers_4(family, kind):
        yield f"transformers 4 refuses rope_type = {kind} of {family}; transformers 5 reads it"


def _warnings(config: "Outline", window: int) -> list[str]:
    """Return what an extension cannot change.

    Some layers see no farther than before.
    """
    local = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        every = bool(local) and getattr(config, "use_sliding_window", True)
    else:
        every = all("sliding" in kind for kind in kinds)
    if not (every and local and local < window):
        return []
    return [
        f"local attention of {local:,} tokens in every layer: stretching RoPE does not widen it; "
        f"no layer sees farther than that at {window:,} tokens either"
    ]
