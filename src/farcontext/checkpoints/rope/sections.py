"""The rotary settings of a configuration, one section a kind of layer.

Most families have one section; Gemma 3 and its like have one for layers of full attention and one
for local ones. Spellings of older versions of transformers are read as they meant them.
"""

import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farcontext import files
from farcontext.checkpoints.headers import reading
from farcontext.files import UserError
from farcontext.messages import did_you_mean

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig

OLD_NAMES = {"su": "longrope"}  # The first release of Phi-3 with 128k positions wrote su.
Section = dict[str, Any]


def sections(config: "PreTrainedConfig") -> dict[str, Section]:
    """Return the rotary settings by kind of layer.

    The key is "" where all layers share one; there is no section without RoPE.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    nested = {kind: inner for kind, inner in rope.items() if isinstance(inner, dict)}
    return nested or ({"": rope} if "rope_type" in rope else {})


def raw_sections(raw: dict[str, Any], kind: str = "") -> list[Section]:
    """Return a config.json's sections for a kind of layer.

    The first is read first. A single section of the older spelling is that of the layers with full
    attention.
    """
    found = [raw.get(key) for key in ("rope_scaling", "rope_parameters")]
    found = [section for section in found if isinstance(section, dict)]
    inner = [section[kind] for section in found if isinstance(section.get(kind), dict)]
    flat = [s for s in found if not any(isinstance(v, dict) for v in s.values())]
    return inner or ([] if "sliding" in kind else flat)


def expect_known_types(where: Path | str, raw: dict[str, Any]) -> None:
    """Refuse a rope_type that transformers does not have.

    Raises:
        UserError: the key, its value and the known types.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    known = ["default", *ROPE_INIT_FUNCTIONS]
    for key in ("rope_scaling", "rope_parameters"):
        outer = raw.get(key)
        if not isinstance(outer, dict):
            continue
        for section in (outer, *(inner for inner in outer.values() if isinstance(inner, dict))):
            for name in ("rope_type", "type"):
                value = section.get(name)
                if isinstance(value, str) and value not in (*known, *OLD_NAMES, "mrope", "axial"):
                    hint = did_you_mean(value, known)
                    raise UserError(
                        f"{where}: {key}.{name} = {value!r:.60}: expected one of "
                        f"{', '.join(known)} (su is read as longrope){hint}"
                    )


def read(folder: Path) -> tuple["PreTrainedConfig", dict[str, Any]]:
    """Return what transformers makes of a folder's config.json, and its JSON.

    Nothing but that file is read, and nothing is run.

    Raises:
        UserError: no such file, not JSON, a family or rope_type that transformers does not have.
    """
    raw = files.read_json(folder / "config.json", "model_type")
    return parse(raw, folder / "config.json"), raw


def parse(raw: dict[str, Any], where: Path | str = "config.json") -> "PreTrainedConfig":
    """Return what transformers makes of the JSON of a config.json.

    Raises:
        UserError: a family or a rope_type that transformers does not have.
    """
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    if raw.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"{where}: model_type = {raw.get('model_type')!r:.60}: expected a family of "
            "transformers"
        )
    expect_known_types(where, raw)
    logging.set_verbosity_error()
    with reading(Path(where), "cannot be read"):
        config = CONFIG_MAPPING[raw["model_type"]].from_dict(modern(raw))
        if sections(config):  # A trained length at the top of config.json is taken the second time.
            config.standardize_rope_params()
        return config


def modern(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a config.json's content with today's names of schemes.

    It is a copy of its JSON. It is a deep one: transformers tidies the sections in place.
    """
    raw = copy.deepcopy(raw)
    for section in (raw.get("rope_scaling"), raw.get("rope_parameters")):
        for name in ("rope_type", "type"):
            if isinstance(section, dict) and section.get(name) in OLD_NAMES:
                section[name] = OLD_NAMES[section[name]]
    return raw


def head_width(config: "PreTrainedConfig") -> int:
    """Return H, the width of a head.

    It is that of its rotated part, where a family names one.
    """
    given = getattr(config, "qk_rope_head_dim", None) or getattr(config, "head_dim", None)
    return given or config.hidden_size // config.num_attention_heads


def trained_length(config: "PreTrainedConfig", section: Section) -> int:
    """Return the length in tokens from which a section counts its scaling."""
    limit = config.max_position_embeddings
    if section["rope_type"] == "linear":
        return max(1, round(limit / (section.get("factor") or 1.0)))
    return section.get("original_max_position_embeddings") or limit


def reach(config: "PreTrainedConfig") -> int | None:
    """Return the longest text that a configuration is made for.

    It is in tokens, None if it names none. With dynamic NTK max_position_embeddings is the trained
    length, and the factor reaches further.
    """
    limit = getattr(config, "max_position_embeddings", None)
    factors = [
        section.get("factor") or 1.0
        for section in sections(config).values()
        if section["rope_type"] == "dynamic"
    ]
    return limit if limit is None else int(limit * max(factors, default=1.0))


@cache
def _source(model_type: str, kind: str) -> str:
    """Return the text of a family's modules in transformers, without importing them."""
    folder = Path(find_spec("transformers").origin).parent / "models"
    folder /= model_type if (folder / model_type).is_dir() else model_type.removesuffix("_text")
    return "\n".join(
        path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"{kind}_*.py"))
    )


def family_reads(model_type: str, key: str) -> bool:
    """Return whether a family's own code in transformers names a key."""
    return computes_with(model_type, key) or key in _source(model_type, "configuration")


def computes_with(model_type: str, key: str) -> bool:
    """Return whether a family's model, not only its configuration, names a key."""
    return key in _source(model_type, "modeling")
