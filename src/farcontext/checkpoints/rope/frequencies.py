"""What rotary modules hold and return, and what they should.

The latter comes from two computations. Most modules hold one list of frequencies; those of Gemma 3
and its like one a kind of layer, in buffers named after it. Here the kind is "" where all layers
share one.
"""

import copy
import inspect
import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from farcontext.checkpoints.rope.sections import Section, computes_with, head_width, sections
from farcontext.nn.positions import inverse_frequencies

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig, PreTrainedModel

ENDING = "inv_freq"
COPIES = ("original_", "long_", "short_")  # Copies to come back to, and lists to change to.


def frequencies(module: nn.Module) -> dict[str, Float[Tensor, " F"]]:
    """Return the frequencies that a module holds itself, by kind of layer.

    They are on the CPU (or meta), in the dtype in which the module holds them.
    """
    found = {}
    names = [name for name, _ in module.named_buffers(recurse=False)]
    names += [name for name in vars(module) if isinstance(getattr(module, name), Tensor)]
    for name in dict.fromkeys(names):
        kind = name.removesuffix(ENDING).removesuffix("_")
        if name.endswith(ENDING) and not f"{kind}_".endswith(COPIES):
            value = getattr(module, name).detach()
            found[kind] = value if value.is_meta else value.cpu()
    return found


def rotary_modules(model: "PreTrainedModel") -> dict[str, nn.Module]:
    """Return every module that holds inverse frequencies, by its name."""
    return {name: module for name, module in model.named_modules() if frequencies(module)}


def expected(
    module: nn.Module, config: "PreTrainedConfig", length: int | None = None, kind: str = ""
) -> tuple[Float[Tensor, " F"], float]:
    """Return the frequencies and the factor of transformers' own functions.

    The factor is the one on cos and sin; the length is in tokens.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope_type, layers = sections(config)[kind]["rope_type"], {"layer_type": kind} if kind else {}
    config = copy.deepcopy(config)  # Their functions tidy it.
    if rope_type == "default":
        function = type(module).compute_default_rope_parameters
        takes = inspect.signature(function).parameters
        return function(config, **(layers if "layer_type" in takes else {}))
    return ROPE_INIT_FUNCTIONS[rope_type](config, seq_len=length, **layers)


def ours(config: "PreTrainedConfig", section: Section, length: int) -> Float[Tensor, " F"]:
    """Return the frequencies that `positions` computes for the same section, fp64.

    Raises:
        ValueError: a scheme that `positions` does not know, or a value out of its range.
    """
    rope, limit, head_dim = section, config.max_position_embeddings, head_width(config)
    share = rope.get("partial_rotary_factor") or 1.0
    if rope["rope_type"] == "default":  # Only families that rotate a part read it there.
        share = share if computes_with(config.model_type, "partial_rotary_factor") else 1.0
    width, trained = int(head_dim * share), rope.get("original_max_position_embeddings") or limit
    scheme, options = rope["rope_type"], {}
    match scheme:
        case "default":
            scheme = "rope"
        case "linear":
            pass
        case "dynamic":
            scheme, trained = "dynamic_ntk_hf", limit
        case "yarn":
            scheme = "yarn" if rope.get("truncate", True) else "yarn_untruncated"
            options = {
                "beta_fast": rope.get("beta_fast") or 32.0,
                "beta_slow": rope.get("beta_slow") or 1.0,
            }
        case "llama3":
            options = {name: rope[name] for name in ("low_freq_factor", "high_freq_factor")}
        case "longrope":
            options = {name: rope[name] for name in ("short_factor", "long_factor")}
        case "proportional":
            scheme, width, options = "p_rope", head_dim, {"p": share}
        case other:
            raise ValueError(f"rope_type = {other!r}: expected a scheme of positions")
    factor = rope.get("factor") or (limit / trained if scheme.startswith("yarn") else 1.0)
    common = {
        "head_dim": width,
        "theta": rope["rope_theta"],
        "trained_length": trained,
        "length": length,
    }
    low = options.get("low_freq_factor")
    if low is not None and low == options["high_freq_factor"]:  # There is no ramp, as in Llama 4.
        freq_F = inverse_frequencies("rope", **common)
        return torch.where(2 * math.pi / freq_F > trained / low, freq_F / factor, freq_F)
    freq_F = inverse_frequencies(scheme, scale=factor, **common, **options)
    return freq_F / rope.get("factor", 1.0) if scheme == "p_rope" else freq_F


def ours_or_nothing(config: "PreTrainedConfig", section: Section, length: int) -> Tensor:
    """Return `ours`, or nothing if a value is out of range."""
    try:
        return ours(config, section, length)
    except (ValueError, KeyError):  # Then the two do not agree.
        return torch.empty(0)


@torch.no_grad()
def turned(module: nn.Module, length: int, kind: str = "") -> tuple[Tensor, Tensor]:
    """Return the frequencies in use at a length, and the amplitude.

    The amplitude is √(cos² + sin²) of what the module returns, or its modulus.
    """
    device = next(iter(module.buffers())).device
    at = torch.tensor([[0, 1, length - 1]], device=device)
    returned = module(torch.zeros(1, 1, 1, device=device), at, *([kind] if kind else []))
    if isinstance(returned, Tensor):
        amplitude = returned.abs()
    else:
        cos, sin = returned
        amplitude = (cos.float() ** 2 + sin.float() ** 2).sqrt()
    return frequencies(module)[kind].float(), amplitude.float().cpu()


def apart(found: Tensor, wanted: Tensor) -> float:
    """Return the largest relative difference; infinity for other shapes."""
    if found.shape != wanted.shape:
        return math.inf
    found, wanted = found.double().cpu(), wanted.double().cpu()
    return float(
        ((found - wanted).abs() / wanted.abs().clamp(min=1e-12)).nan_to_num(math.inf).max()
    )


def base_of(freq_F: Tensor) -> str:
    """Describe frequencies by bases that would give them.

    They are the base of their first two and that of their last. A reader can compare these.
    """
    freq_F = freq_F.double()
    base = float((freq_F[0] / freq_F[1]) ** len(freq_F)) if len(freq_F) > 1 else math.nan
    return f"base {base:.6g}, last {float(freq_F[-1]):.4g}"
