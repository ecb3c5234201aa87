"""How one kind of layer turns queries and keys.

It is said in the terms of `positions`. F frequencies. A rotation is made from a section of a
configuration (rope_type, rope_theta, factor, …) by the public formulas that all runtimes share;
what they differ in is which keys they read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from farcontext.nn.positions import inverse_frequencies

ORIGINAL = "original_max_position_embeddings"
GROWING = ("dynamic_ntk_hf", "longrope")  # Their frequencies change with the length of the text.
# A rope_type has this scheme of `positions`, which takes these keys of a section.
SCHEMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "default": ("rope", ()),
    "linear": ("linear", ()),
    "dynamic": ("dynamic_ntk_hf", ()),
    "yarn": ("yarn", ("beta_fast", "beta_slow")),
    "llama3": ("llama3", ("low_freq_factor", "high_freq_factor")),
    "longrope": ("longrope", ("short_factor", "long_factor")),
}
BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}


@dataclass(frozen=True)
class Rotation:
    """The frequencies and the amplitude of one kind of layer."""

    scheme: str
    theta: float
    width: int  # So many channels of a head are rotated, 2F.
    scale: float
    trained: int  # The scheme counts from this length in tokens.
    amplitude: float = 1.0  # It multiplies cos and sin.
    options: Mapping[str, Any] = field(default_factory=dict)
    # The frequencies are those of this length for every text; None: of the text's own.
    frozen: int | None = None

    def frequencies(self, length: int) -> Float[Tensor, " F"]:
        """Return the angle by which each pair turns a token, fp64.

        It is in radians, from one token to the next.

        Raises:
            ValueError: a value that the scheme does not take.
        """
        return inverse_frequencies(
            self.scheme,
            head_dim=self.width,
            theta=self.theta,
            scale=self.scale,
            trained_length=self.trained,
            length=self.frozen or length,
            **self.options,
        )


def rotation_of(section: Mapping[str, Any], *, head: int, limit: int) -> Rotation:
    """Return the rotation of a section by the formulas that transformers publishes.

    Args:
        section: rope_type, rope_theta and the scheme's keys.
        head: the width of a head.
        limit: max_position_embeddings.

    Raises:
        ValueError: a rope_type without a scheme, or a key that it lacks; the text names it.
    """
    rope_type = section["rope_type"]
    if rope_type == "proportional":
        share = section.get("partial_rotary_factor") or 1.0
        return Rotation("p_rope", float(section["rope_theta"]), head, 1.0, limit, 1.0, {"p": share})
    if rope_type not in SCHEMES:
        raise ValueError(f"rope_type = {rope_type}: expected one of {', '.join(SCHEMES)}")
    scheme, keys = SCHEMES[rope_type]
    if rope_type == "yarn" and section.get("truncate") is False:
        scheme = "yarn_untruncated"
    trained = limit if rope_type == "dynamic" else section.get(ORIGINAL) or limit
    factor = section.get("factor") or (limit / trained if rope_type in ("yarn", "longrope") else 1)
    options = {}
    for key in keys:
        if (value := section.get(key) or BETAS.get(key)) is None:
            raise ValueError(f"rope_type = {rope_type}: expected {key}")
        options[key] = tuple(map(float, value)) if isinstance(value, list) else float(value)
    return Rotation(
        scheme=scheme,
        theta=float(section["rope_theta"]),
        width=int(head * (section.get("partial_rotary_factor") or 1.0)),
        scale=float(factor) if rope_type != "default" else 1.0,
        trained=int(trained),
        amplitude=_amplitude(section, float(factor), limit / trained, int(trained)),
        options=options,
    )


def yarn_amplitude(factor: float, mscale: float = 1.0) -> float:
    """Return 0.1·m·ln s + 1, and 1 where nothing is stretched."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def _amplitude(section: Mapping[str, Any], factor: float, ratio: float, trained: int) -> float:
    """Return the factor on cos and sin.

    It is what the section sets, else the scheme's formula.
    """
    rope_type, own = section["rope_type"], section.get("attention_factor")
    if rope_type not in ("yarn", "longrope"):
        return 1.0
    if own is not None:
        return float(own)
    if rope_type == "longrope":
        stretch = section.get("factor") or ratio
        return math.sqrt(1 + math.log(stretch) / math.log(trained)) if stretch > 1 else 1.0
    if section.get("mscale") and section.get("mscale_all_dim"):
        whole = yarn_amplitude(factor, section["mscale_all_dim"])
        return yarn_amplitude(factor, section["mscale"]) / whole
    return yarn_amplitude(factor)
