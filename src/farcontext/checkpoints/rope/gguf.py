"""The rotary settings of a GGUF file, as llama.cpp reads them.

transformers takes the base alone from such a file. Here scaling is read too: `rope.scaling.*`,
`rope_freqs.weight` (one divisor a frequency: Llama 3.1 comes so) and the two lists of LongRoPE.
What cannot be expressed is refused by name. Sources: llama.cpp's convert_hf_to_gguf.py,
src/llama-model.cpp and ggml_rope_ext (b4000 to b6000), and the key names of gguf 0.19.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from farcontext.checkpoints.headers import Stored
from farcontext.checkpoints.rope.finding import Finding
from farcontext.checkpoints.rope.frequencies import apart, base_of
from farcontext.checkpoints.rope.keys import TOLERANCE
from farcontext.files import UserError
from farcontext.nn.positions import inverse_frequencies

BASE = 10_000.0  # llama.cpp takes it where a file names none.
FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
# What llama.cpp knows below rope.scaling., and what is read here.
READ = (
    *("type", "factor", "original_context_length", "attn_factor", "finetuned"),
    *("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"),
)
NEUTRAL = {"yarn_ext_factor": (-1.0, 1.0), "yarn_log_multiplier": (0.0, 0.1), "alpha": (0.0, 1.0)}
TYPES = ("none", "linear", "yarn", "longrope")
NUMBERS = {"F32": np.float32, "F16": np.float16}
LOW, HIGH = 1.0, 4.0  # Llama 3.1's own ramp; no other was published.
Rope = dict[str, Any]


def rope_of(path: Path, settings: dict[str, object], stored: dict[str, Stored]) -> Rope:
    """Return a GGUF file's settings under the names of `rope_parameters`.

    `rope_theta` is left out where the file names no base.

    Raises:
        UserError: a key, a type or a tensor that transformers cannot express; the line names it.
    """
    arch = settings.get("general.architecture")
    prefix = f"{arch}.rope."
    base = settings.get(f"{prefix}freq_base")
    theta = {} if base is None else {"rope_theta": _positive(path, f"{prefix}freq_base", base)}
    scaling = _scaling(path, settings, f"{prefix}scaling.")
    kind = scaling.get("type", "linear" if scaling.get("factor") else "none")
    if linear := settings.get(f"{prefix}scale_linear"):  # The key of 2023.
        kind, scaling["factor"] = "linear", linear
    if kind not in TYPES:
        raise UserError(
            f"{path}: {prefix}scaling.type = {kind!r:.60}: expected one of {', '.join(TYPES)}"
        )
    factor = float(scaling.get("factor") or 1.0)
    context = settings.get(f"{arch}.context_length")
    original = scaling.get("original_context_length") or context
    if LONG in stored or SHORT in stored:
        return theta | _longrope(path, stored, scaling, original)
    if kind == "longrope":
        raise UserError(f"{path}: {prefix}scaling.type = longrope: expected {LONG} and {SHORT}")
    if FREQS in stored:
        if kind == "yarn" and factor != 1:
            raise UserError(
                f"{path}: {FREQS} and {prefix}scaling.type = yarn: expected one of them"
            )
        divisors = _numbers(stored, FREQS) * (factor if kind == "linear" else 1.0)
        return theta | _divided(divisors, theta.get("rope_theta", BASE), context)
    if kind == "none" or factor == 1:
        return theta | {"rope_type": "default"}
    if kind == "linear":
        return theta | {"rope_type": "linear", "factor": factor}
    return theta | _yarn(scaling, factor, original)


def _scaling(path: Path, settings: dict[str, object], prefix: str) -> dict[str, Any]:
    """Return the keys below rope.scaling.

    Those that are not read and change something are refused.
    """
    found = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
    for key, value in found.items():
        if key not in READ and value not in NEUTRAL.get(key, ()):
            raise UserError(
                f"{path}: {prefix}{key} = {value!r:.60}: expected one of {', '.join(READ)}"
            )
        if key not in ("type", "finetuned"):
            _positive(path, f"{prefix}{key}", value, least=0.0)
    return found


def _positive(path: Path, key: str, value: object, least: float = 1e-9) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= least):
        raise UserError(f"{path}: {key} = {value!r:.60}: expected a number above 0")
    return float(value)


def _yarn(scaling: dict[str, Any], factor: float, original: object) -> Rope:
    found = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    own = scaling.get("attn_factor") or scaling.get("yarn_attn_factor") or 1.0
    if own != 1:  # llama.cpp multiplies YaRN's own amplitude by it.
        found["attention_factor"] = own * (0.1 * math.log(factor) + 1)
    betas = {name: scaling.get(f"yarn_{name}") for name in ("beta_fast", "beta_slow")}
    return found | {name: value for name, value in betas.items() if value}


def _longrope(
    path: Path, stored: dict[str, Stored], scaling: dict[str, Any], original: object
) -> Rope:
    for name in (LONG, SHORT):
        if name not in stored:
            raise UserError(f"{path}: {name}: expected this tensor beside the other")
    if (scaling.get("factor") or 1.0) != 1:
        raise UserError(
            f"{path}: rope.scaling.factor = {scaling['factor']}: expected none beside {LONG}"
        )
    found = {"rope_type": "longrope", "original_max_position_embeddings": original}
    found |= {"short_factor": _numbers(stored, SHORT).tolist()}
    found |= {"long_factor": _numbers(stored, LONG).tolist()}
    # llama.cpp has no formula of its own: without the key, cos and sin are not multiplied.
    return found | {"attention_factor": float(scaling.get("attn_factor") or 1.0)}


def _numbers(stored: dict[str, Stored], name: str) -> Float[Tensor, " F"]:
    """Return the numbers of a small tensor of a GGUF file, fp64."""
    tensor = stored[name]
    if tensor.dtype not in NUMBERS or len(tensor.shape) != 1:
        raise UserError(
            f"{tensor.path}: {name}: {tensor.dtype} {[*tensor.shape]}: expected one axis of F32"
        )
    with tensor.path.open("rb") as stream:
        values = np.fromfile(stream, NUMBERS[tensor.dtype], tensor.shape[0], offset=tensor.start)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise UserError(f"{tensor.path}: {name}: expected numbers above 0")
    return torch.from_numpy(values.astype(np.float64))


def _divided(divisor_F: Float[Tensor, " F"], theta: float, context: object) -> Rope:
    """Return the settings that divide each frequency by its own number.

    They are Llama 3's where its ramp gives these numbers, else LongRoPE's with one list twice.
    """
    if bool((divisor_F == 1).all()):
        return {"rope_type": "default"}
    factor = float(divisor_F.max())
    plain = {"head_dim": 2 * len(divisor_F), "theta": theta}
    bare_F = inverse_frequencies("rope", trained_length=1, **plain)
    for original in (2**n for n in range(8, 24)):
        reach = {"scale": factor, "trained_length": original}
        ramp = {"low_freq_factor": LOW, "high_freq_factor": HIGH}
        found_F = inverse_frequencies("llama3", **plain, **reach, **ramp)
        if apart(bare_F / divisor_F, found_F) <= TOLERANCE and float(divisor_F.min()) == 1:
            found = {"rope_type": "llama3", "factor": round(factor, 4), **ramp}
            return found | {"original_max_position_embeddings": original}
    lists = dict.fromkeys(("short_factor", "long_factor"), divisor_F.tolist())
    found = {"rope_type": "longrope", "attention_factor": 1.0, **lists}
    return found | {"original_max_position_embeddings": context}


def file_finding(
    settings: dict[str, object], stored: dict[str, Stored], held_F: Float[Tensor, " F"]
) -> Finding:
    """Compare held frequencies with llama.cpp's own formula on the file's keys.

    They are base^(−2i/H), times 1 / factor (linear), by YaRN's ramp over the index, or divided by
    the file's tensor; of LongRoPE's two the one for the text read last.
    """
    arch = settings.get("general.architecture")
    base = float(settings.get(f"{arch}.rope.freq_base") or BASE)
    pairs = len(held_F)
    index_F = torch.arange(pairs, dtype=torch.float64)
    freq_F = base ** (-index_F / pairs)
    scaling = {
        key.rpartition(".")[2]: value
        for key, value in settings.items()
        if key.startswith(f"{arch}.rope.scal")
    }
    factor = float(scaling.get("factor") or scaling.get("scale_linear") or 1.0)
    if scaling.get("type") == "yarn" and factor != 1:
        length = scaling.get("original_context_length") or settings[f"{arch}.context_length"]
        turns = (scaling.get("yarn_beta_fast") or 32.0, scaling.get("yarn_beta_slow") or 1.0)
        fast, slow = (pairs * math.log(length / (n * 2 * math.pi)) / math.log(base) for n in turns)
        low, high = max(0, math.floor(fast)), min(2 * pairs - 1, math.ceil(slow))
        mix_F = 1 - ((index_F - low) / max(0.001, high - low)).clamp(0, 1)
        freq_F = freq_F / factor * (1 - mix_F) + freq_F * mix_F
    elif scaling.get("type") != "none":
        freq_F = freq_F / factor
    lists = [_numbers(stored, name) for name in (SHORT, LONG, FREQS) if name in stored]
    wanted = [freq_F / divisor_F for divisor_F in lists if len(divisor_F) == pairs] or [freq_F]
    gaps = [apart(held_F.double(), each_F) for each_F in wanted]
    best, freq_F = min(gaps), wanted[gaps.index(min(gaps))]
    says = "llama.cpp's formula on the file's own keys and tensors"
    return Finding(
        "frequencies of the file", best <= TOLERANCE, base_of(held_F), base_of(freq_F), says
    )
