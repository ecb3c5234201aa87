"""Checks of what a configuration says about rotary positions.

They find what contradicts itself and what is left out, by rules on config.json alone. A value that
is wrong but fits all others is beyond them: `rope_loss.confirm` asks the weights. Some recipes in
use break a rule too (a window that was left as trained beside `factor`, as Qwen2.5's card says):
then one of the numbers is not what its name says, and that is reported.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig

TOLERANCE = 1e-4  # The fp32 frequencies and amplitudes may have this relative difference.
LONG_WINDOW = 8192  # A base of 10,000 or less at such a window, with full attention, is not usual.
WITH_ORIGINAL = ("yarn", "llama3", "longrope")


@dataclass(frozen=True)
class Finding:
    """One comparison: what was found, what was expected, and a sentence.

    The sentence is for the reader.
    """

    name: str
    ok: bool
    found: str
    expected: str
    says: str


def configuration_findings(
    config: "PreTrainedConfig", raw: dict, tokenizer_length: int | None = None
) -> list[Finding]:
    """Return the findings on a configuration.

    `raw` is its JSON, `config` what transformers makes of it. `tokenizer_length` is the longest
    text that the tokenizer's configuration names, in tokens.
    """
    return [
        *_theta(config, raw),
        *_original(config, raw),
        *_growth(config, raw, tokenizer_length),
        *_factor(config),
    ]


def _theta(config: "PreTrainedConfig", raw: dict) -> Iterator[Finding]:
    """Yield whether the base is given, once, and fits the window."""
    sections = [
        raw.get(key)
        for key in ("rope_parameters", "rope_scaling")
        if isinstance(raw.get(key), dict)
    ]
    places = [section.get("rope_theta") for section in sections] + [
        raw.get("rope_theta"),
        raw.get("rotary_emb_base"),
    ]
    given = [float(value) for value in places if value is not None]
    used, window = float(config.rope_parameters["rope_theta"]), config.max_position_embeddings
    modern = config.model_type in ("qwen2", "qwen3") or window > LONG_WINDOW // 2
    says = f"the base that config.json gives; without one transformers takes {used:g}"
    yield Finding(
        "rope_theta given",
        bool(given) or not modern,
        "none" if not given else f"{given[0]:g}",
        "a number",
        says,
    )
    one = len(set(given)) <= 1 and (not given or given[0] == used)
    wanted = f"{given[0] if given else used:g}"
    yield Finding(
        "rope_theta once",
        one,
        ", ".join(f"{v:g}" for v in [*given, used]),
        wanted,
        "all places give one base",
    )
    sliding = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    scaled = config.rope_parameters["rope_type"] != "default"
    original = _trained(config)
    short = used <= 10_000 and original >= LONG_WINDOW and not sliding and not scaled
    says = (
        f"a window of {original} tokens with full attention goes with a base above 10,000; "
        "`confirm` asks the weights"
    )
    yield Finding("rope_theta for the window", not short, f"{used:g}", "more than 10000", says)


def _trained(config: "PreTrainedConfig") -> int:
    return (
        config.rope_parameters.get("original_max_position_embeddings")
        or config.max_position_embeddings
    )


def _original(config: "PreTrainedConfig", raw: dict) -> Iterator[Finding]:
    """Yield whether original length, longest position and factor fit each other.

    Leftovers of a lost scheme are found as well.
    """
    rope, limit = config.rope_parameters, config.max_position_embeddings
    rope_type, factor = rope["rope_type"], rope.get("factor")
    given = _originals(raw)
    name = "original_max_position_embeddings"
    if rope_type not in WITH_ORIGINAL:
        extra = sorted(
            set(rope)
            & {"original_max_position_embeddings", "attention_factor", "short_factor", "beta_fast"}
        )
        extra += ["factor"] if rope_type == "default" and factor is not None else []
        says = f"rope_type {rope_type} uses nothing but its own keys"
        yield Finding("keys of another scheme", not extra, ", ".join(extra) or "none", "none", says)
        return
    if not given:
        yield Finding(
            name,
            False,
            "none",
            "the trained length",
            f"transformers then takes {limit} for {rope_type}",
        )
        return
    original, ratio = given[0], limit / given[0]
    same = len(set(given)) == 1
    yield Finding(
        f"{name} once",
        same,
        ", ".join(map(str, given)),
        str(original),
        "all places give one trained length",
    )
    whole = isinstance(original, int) and original % 32 == 0
    says = "a trained length is a round number of tokens"
    yield Finding(f"{name} is a length", whole, str(original), "a multiple of 32", says)
    if factor is None:
        factor = ratio
    # Llama 3.1 and 3.2 themselves have 8 against 16 and 32 against 16.
    slack = 2.0 if rope_type == "llama3" else 1.01
    fits = factor / slack <= ratio <= factor * slack and (ratio > 1 or factor <= 1)
    says = (
        f"max_position_embeddings / original = {ratio:g} goes with factor = {factor:g}; one of "
        "the three is wrong if not"
    )
    yield Finding(f"{name} × factor", fits, str(original), f"about {limit / factor:g}", says)


def _growth(
    config: "PreTrainedConfig", raw: dict, tokenizer_length: int | None
) -> Iterator[Finding]:
    """Yield whether a factor stretches, and dynamic NTK from the trained length.

    An extended length makes dynamic NTK constant.
    """
    if (factor := config.rope_parameters.get("factor")) is not None:
        says = "a factor stretches the window; dynamic NTK with 0 is constant"
        yield Finding("factor", factor >= 1, f"{factor:g}", "1 or more", says)
    if config.rope_parameters["rope_type"] != "dynamic":
        return
    limit = config.max_position_embeddings
    trained = min([*_originals(raw), tokenizer_length or limit, limit])
    says = (
        "dynamic NTK is constant up to max_position_embeddings, which has to be the trained length"
    )
    yield Finding(
        "dynamic: trained length",
        trained == limit,
        f"max_position_embeddings {limit}",
        str(trained),
        says,
    )


def _originals(raw: dict) -> list[int]:
    name = "original_max_position_embeddings"
    sections = [raw, raw.get("rope_parameters"), raw.get("rope_scaling")]
    return [
        section[name] for section in sections if isinstance(section, dict) and section.get(name)
    ]


def _factor(config: "PreTrainedConfig") -> Iterator[Finding]:
    """Yield whether a given attention factor is the scheme's formula.

    The formula is 0.1 ln s + 1, or √(1 + ln s / ln L).
    """
    rope = config.rope_parameters
    given = rope.get("attention_factor")
    if rope["rope_type"] not in ("yarn", "longrope") or given is None:
        return
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = {**rope, "attention_factor": None}
    other = copy.deepcopy(config)
    other.rope_parameters = plain
    formula = ROPE_INIT_FUNCTIONS[rope["rope_type"]](other)[1]
    says = (
        f"config.json sets it itself; the formula of {rope['rope_type']} is the other "
        f"value{how_often(given, formula)}"
    )
    yield Finding(
        "attention_factor given",
        abs(given - formula) <= 1e-3,
        f"{given:.4f}",
        f"{formula:.4f}",
        says,
    )


def how_often(found: float, factor: float) -> str:
    """Name the two usual faults of the attention factor."""
    if abs(found - factor) <= TOLERANCE:
        return ""
    if abs(found / factor**2 - 1) < 0.005:
        return ", but it is applied twice"
    return ", but it is applied never" if abs(found - 1) < 0.005 else ", but it is another"
