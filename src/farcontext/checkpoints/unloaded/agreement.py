"""How a runtime's reading differs from what a configuration means.

It also says what makes them agree. That is keys of config.json, which every reader of it takes as
its own flags too, and for llama.cpp flags and keys of a GGUF file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from farcontext.checkpoints.rope.sections import raw_sections
from farcontext.checkpoints.unloaded.rotation import (
    GROWING,
    ORIGINAL,
    Rotation,
    yarn_amplitude,
)
from farcontext.checkpoints.unloaded.runtimes import Raw, Reading

TOLERANCE = 1e-4  # Frequencies and amplitudes that differ by less, relatively, are the same.


@dataclass(frozen=True)
class Compared:
    """A runtime's reading beside what is meant, with what makes them agree."""

    reading: Reading
    differs: tuple[str, ...]
    keys: Mapping[str, Any]  # Merged into config.json, they make this runtime agree.
    flags: tuple[str, ...]  # The same on its command line; of llama.cpp the only way.


def main_rotation(reading: Reading) -> Rotation | None:
    """Return the rotation of the layers that see everything."""
    found = reading.rotations
    return found.get("full_attention") or next(iter(found.values()), None)


def compared(reading: Reading, reference: Reading, raw: Raw) -> Compared:
    """Return how a reading differs from what is meant.

    What makes them agree stands beside it.
    """
    window = reference.window
    differs = tuple(_differences(reading, reference, window))
    turns = bool(reading.refusal) or any(not text.startswith("window") for text in differs)
    wanted, found = main_rotation(reference), main_rotation(reading)
    if turns and found and wanted and found.frozen and wanted.scheme in GROWING:
        return Compared(reading, differs, {}, tuple(_by_length(reading, wanted, window)))
    keys = _keys(reading, reference, raw) if turns else {}
    if reading.window != window and reading.runtime not in ("vLLM", "sglang"):
        keys = keys | {"max_position_embeddings": window}
    return Compared(reading, differs, keys, tuple(_flags(reading, reference, keys, window)))


def _by_length(reading: Reading, wanted: Rotation, window: int) -> list[str]:
    """Return the flag of a runtime that ignores a text's length.

    Its frequencies do not follow it.
    """
    flag = {"vLLM": "--max-model-len", "sglang": "--context-length", "llama.cpp": "-c"}
    if wanted.scheme != "longrope":
        return ["no keys: its frequencies are the same for short texts and long ones"]
    name = flag[reading.runtime]
    return [f"{name} {wanted.trained} for texts up to that, {name} {window} for longer ones"]


def _differences(reading: Reading, reference: Reading, window: int) -> list[str]:
    if reading.refusal:
        return [f"refused: {reading.refusal}"]
    found = []
    if reading.window != window:
        found.append(f"window {reading.window:,} for {window:,}")
    for kind, wanted in reference.rotations.items():
        prefix = f"{kind}: " if kind else ""
        rotation = reading.rotations.get(kind)
        if rotation is None:
            found.append(f"{prefix}no RoPE")
            continue
        if text := slower(rotation, wanted, window):
            found.append(prefix + text)
        if abs(rotation.amplitude / wanted.amplitude - 1) > TOLERANCE:
            found.append(
                f"{prefix}amplitude {rotation.amplitude:.4f} for {wanted.amplitude:.4f} (scores "
                f"{(rotation.amplitude / wanted.amplitude) ** 2:.3f} times)"
            )
    return found


def slower(rotation: Rotation, wanted: Rotation, window: int) -> str:
    """Describe how the slowest pair turns beside the one wanted.

    It is nothing where all are equal.
    """
    if rotation.width != wanted.width:
        return f"{rotation.width} of a head's channels turned for {wanted.width}"
    lengths = [window]
    if {rotation.scheme, wanted.scheme} & set(GROWING):
        lengths = [max(2, wanted.trained // 2), window, 2 * window]
    for length in lengths:
        found_F, wanted_F = rotation.frequencies(length), wanted.frequencies(length)
        apart = (found_F / wanted_F - 1).abs()
        if float(apart.max()) > TOLERANCE:
            worst = int(torch.argmax(apart))
            times = float(found_F[worst] / wanted_F[worst])
            said = f"{times:.2f}× too fast" if times > 1 else f"{1 / times:.2f}× too slow"
            return f"pair {worst} turns {said} in {length:,} tokens"
    return ""


def section_of(rotation: Rotation, runtime: str) -> dict[str, Any]:
    """Return the section from which a runtime makes a rotation.

    It is one of a configuration.
    """
    names = {"rope": "default", "dynamic_ntk_hf": "dynamic", "yarn_untruncated": "yarn"}
    found: dict[str, Any] = {"rope_type": names.get(rotation.scheme, rotation.scheme)}
    found["rope_theta"] = rotation.theta
    if rotation.scheme == "rope":
        return found
    found["factor"] = rotation.scale
    if found["rope_type"] not in ("linear", "dynamic"):
        found[ORIGINAL] = rotation.trained
    found |= {k: list(v) if isinstance(v, tuple) else v for k, v in rotation.options.items()}
    if rotation.scheme == "yarn_untruncated":
        found["truncate"] = False
    if found["rope_type"] in ("yarn", "longrope"):
        if runtime == "sglang" and found["rope_type"] == "yarn":
            found["attn_factor"] = rotation.amplitude / yarn_amplitude(rotation.scale)
        else:
            found["attention_factor"] = rotation.amplitude
    return found


def _keys(reading: Reading, reference: Reading, raw: Raw) -> dict[str, Any]:
    """Return the keys that make a reader of config.json agree."""
    runtime = reading.runtime
    if not reference.rotations:
        return {}
    kinds = {kind: section_of(r, runtime) for kind, r in reference.rotations.items()}
    main = kinds.get("") or kinds.get("full_attention") or next(iter(kinds.values()))
    match runtime:
        case "llama.cpp":  # Its converter looks for llama3's trained length at the top of the file.
            return {ORIGINAL: main[ORIGINAL]} if main["rope_type"] == "llama3" else {}
        case "transformers 4":
            found = {"rope_theta": main["rope_theta"]}
            found["rope_scaling"] = main if main["rope_type"] != "default" else None
            if local := kinds.get("sliding_attention"):
                found["rope_local_base_freq"] = local["rope_theta"]
            if main["rope_type"] == "longrope":
                found[ORIGINAL] = main[ORIGINAL]
            return found
    found = {"rope_parameters": kinds.get("", kinds)}
    return found | ({"rope_scaling": None} if raw_sections(dict(raw)) else {})


def _flags(reading: Reading, reference: Reading, keys: Mapping[str, Any], window: int) -> list[str]:
    """Return a runtime's command-line flags that make it agree."""
    longer = reading.window != window
    match reading.runtime:
        case "vLLM":
            said = [f"--max-model-len {window}"] if longer else []
            return [*said, *([f"--hf-overrides '{json.dumps(keys)}'"] if keys else [])]
        case "sglang":
            said = [f"--context-length {window}"] if longer else []
            return [*said, *([f"--json-model-override-args '{json.dumps(keys)}'"] if keys else [])]
        case "llama.cpp":
            said = [f"-c {window}"] if longer else []
            turns = ORIGINAL not in keys and _differences(reading, reference, reading.window)
            return [*said, *(llama_flags(reading, reference) if turns else [])]
    return []


def llama_flags(reading: Reading, reference: Reading) -> list[str]:
    """Return llama.cpp's flags for the reference's rotation.

    What they cannot give stands beside them.
    """
    wanted, found = main_rotation(reference), main_rotation(reading)
    if wanted is None:
        return []
    flags = [f"--rope-freq-base {wanted.theta:g}"]
    amplitude = found.amplitude if found else 1.0
    match wanted.scheme:
        case "linear":
            flags += ["--rope-scaling linear", f"--rope-scale {wanted.scale:g}"]
        case "yarn":
            flags += ["--rope-scaling yarn", f"--rope-scale {wanted.scale:g}"]
            flags += [f"--yarn-orig-ctx {wanted.trained}"]
            amplitude = yarn_amplitude(wanted.scale)
        case "rope":
            pass
        case _:
            return [f"no flags give {wanted.scheme}"]
    if abs(amplitude / wanted.amplitude - 1) > TOLERANCE:
        key = "ARCHITECTURE.rope.scaling.attn_factor"  # GGUF's general.architecture stands there.
        flags.append(f"--override-kv {key}=float:{wanted.amplitude / amplitude:.6g}")
    return flags
