"""Extensions to and from transformers' `rope_parameters`.

Whatever `rope_parameters` ask for that the models here do not do is refused, never ignored.
"""

from typing import Any

from farcontext.nn.config import Extension
from farcontext.nn.positions import OPTIONS, inverse_frequencies

# A scheme of ours has a rope_type, which stores these values of Extension under their names.
ROPE_TYPES = {
    "linear": ("linear", ()),
    "dynamic_ntk_hf": ("dynamic", ()),
    "yarn": ("yarn", ("beta_fast", "beta_slow", "attention_factor")),
    "longrope": ("longrope", ("short_factor", "long_factor", "attention_factor")),
    "llama3": ("llama3", ("low_freq_factor", "high_freq_factor")),
}


def _require(found: dict[str, object], wanted: dict[str, object]) -> None:
    for name, value in wanted.items():
        if found[name] != value:
            raise ValueError(f"{name} = {found[name]!r}: expected {value!r}")


def extension_of(rope: dict[str, Any], max_position_embeddings: int) -> Extension | None:
    """Return the extension that transformers' `rope_parameters` ask for.

    It is None for the type "default". "linear" and "dynamic" store no trained length. transformers
    counts dynamic NTK from `max_position_embeddings`; to linear it matters nothing, here it is
    `max_position_embeddings` / factor. The base is not in the result.

    Raises:
        ValueError: a type or setting that the models here do not have; the line names it.
    """
    schemes = {"default": "rope"} | {kind: scheme for scheme, (kind, _) in ROPE_TYPES.items()}
    if (kind := rope["rope_type"]) not in schemes:
        raise ValueError(f"rope_type = {kind!r}: expected one of {', '.join(schemes)}")
    absent = {"mscale": None, "mscale_all_dim": None}
    _require(
        {"partial_rotary_factor": 1.0} | absent | rope, {"partial_rotary_factor": 1.0} | absent
    )
    if kind == "default":
        return None
    original = rope.get("original_max_position_embeddings", max_position_embeddings)
    scale = float(rope.get("factor") or max_position_embeddings / original)
    if kind == "linear":
        original = max(1, round(max_position_embeddings / scale))
    scheme = schemes[kind] if rope.get("truncate", True) else "yarn_untruncated"
    # transformers too takes 0 for none.
    options = {name: rope[name] for name in ROPE_TYPES[schemes[kind]][1] if rope.get(name)}
    numbers = {
        k: tuple(map(float, v)) if isinstance(v, list) else float(v) for k, v in options.items()
    }
    return Extension(scheme=scheme, scale=scale, trained_length=original, **numbers)


def rope_parameters(extension: Extension | None, theta: float, head_dim: int) -> dict[str, Any]:
    """Return transformers' `rope_parameters` of an extension.

    Static NTK and ABF have those of plain RoPE on their base. This is the inverse of
    `extension_of`. With dynamic NTK `max_position_embeddings` has to stay the trained length: a
    larger one moves the length up to which it is plain RoPE, and nothing would be extended.

    Raises:
        ValueError: a scheme or an attention factor that transformers cannot express.
    """
    if extension is None or extension.scheme == "rope":
        return {"rope_type": "default", "rope_theta": theta}
    scheme, scale = extension.scheme, extension.scale
    if scheme == "dynamic_ntk":  # It is theirs with factor 1.
        scheme, scale = "dynamic_ntk_hf", 1.0
    kind, names = ROPE_TYPES.get(scheme.removesuffix("_untruncated"), (None, ()))
    if "attention_factor" not in names:
        _require({"attention_factor": extension.attention_factor or 1.0}, {"attention_factor": 1.0})
    if scheme in ("ntk", "abf"):
        reach = {"scale": scale, "trained_length": extension.trained_length, **extension.options}
        second = float(inverse_frequencies(scheme, head_dim=head_dim, theta=theta, **reach)[1])
        # Pair 1 turns by θ^(−2/H).
        return {"rope_type": "default", "rope_theta": second ** (-head_dim / 2)}
    if kind is None:
        raise ValueError(
            f"extension.scheme = {scheme!r}: expected one of rope, ntk, abf, "
            f"{', '.join(ROPE_TYPES)}"
        )
    options = (OPTIONS[scheme] if kind == "llama3" else {}) | {
        k: v for k, v in extension if v is not None
    }
    found = {"rope_type": kind, "rope_theta": theta, "factor": scale}
    found |= {
        name: list(v) if isinstance(v := options[name], tuple) else v
        for name in names
        if name in options
    }
    if kind not in ("linear", "dynamic"):
        found["original_max_position_embeddings"] = extension.trained_length
    return found | ({"truncate": False} if scheme == "yarn_untruncated" else {})
