"""Checks of whether a checkpoint rotates as its configuration says.

Whether what it says is sound is checked too. There are three kinds of evidence. `check` compares
numbers: what the rotary modules hold and return, against transformers' own functions on the
configuration on disk and against `positions`. It also reads that configuration for what contradicts
itself (`rope_config`). The third kind asks the weights (`rope_loss`). A model without a rotary
module (GPT-2) is said to have none. `check_configuration` needs neither weights nor tokenizer.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from farcontext import files
from farcontext.checkpoints.headers import gguf_header
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.rope.finding import Finding, graded, lines
from farcontext.checkpoints.rope.frequencies import (
    apart,
    base_of,
    expected,
    frequencies,
    ours_or_nothing,
    rotary_modules,
    turned,
)
from farcontext.checkpoints.rope.gguf import file_finding
from farcontext.checkpoints.rope.keys import TOLERANCE, how_often
from farcontext.checkpoints.rope.scores import score_scale
from farcontext.checkpoints.rope.sections import computes_with, parse, read, sections
from farcontext.checkpoints.rope.stored import stored_frequencies
from farcontext.checkpoints.rope_config import configuration_findings

__all__ = ["check", "check_configuration", "lines", "rotary_modules", "skeleton"]

OWN_KEY = "alpha"  # Hunyuan's factor on the base.


def check(
    checkpoint: Pretrained | PreTrainedModel,
    config: PreTrainedConfig | dict[str, Any] | None = None,
    tokenizer_length: float | None = None,
) -> list[Finding]:
    """Compare what a model does with what its configuration says.

    The configuration is compared with itself too, and the findings have a fixed order. The expected
    frequencies are those of transformers' functions for the configuration *on disk*: a buffer that
    was changed after loading is seen. Lengths up to 4 times the longest position are tried on a
    copy of each module. Call it before the model reads texts beyond 4 times its window. A value
    that is wrong but consistent with all others is not seen here; `rope_loss.confirm` may see it.

    Args:
        checkpoint: what `load` returns, or a model in memory, loaded by whomever.
        config: for a model in memory, what it should follow: the JSON of its config.json, or a
            configuration; None: the one that it carries.
        tokenizer_length: for a model in memory, the tokenizer's `model_max_length`.
    """
    if isinstance(checkpoint, Pretrained):
        model = checkpoint.model
        wanted, raw = _on_disk(checkpoint)
        tokenizer_length = getattr(checkpoint.tokenizer, "model_max_length", None)
        kept = [
            *stored_frequencies(checkpoint.path, wanted, rotary_modules(model)),
            *_of_the_file(checkpoint),
        ]
    else:
        model, kept = checkpoint, []
        wanted = config if config is not None else copy.deepcopy(model.config)
        wanted, raw = (
            (parse(wanted), wanted) if isinstance(wanted, dict) else (wanted, wanted.to_dict())
        )
    return [*_model_findings(model, wanted, raw, tokenizer_length), *kept]


def check_configuration(
    raw: dict[str, Any], tokenizer_length: float | None = None
) -> list[Finding]:
    """Check the JSON of a config.json alone.

    The rotary modules that it makes are checked, too. There are no weights: the model is built
    without memory. Any size takes less than a second or two.

    Raises:
        UserError: a family or a rope_type that transformers does not have.
    """
    config = parse(raw)
    return _model_findings(skeleton(config), config, raw, tokenizer_length)


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model without weights whose rotary modules are real.

    They are on the CPU.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    for name, module in rotary_modules(model).items():
        model.set_submodule(name, real(module, config))
    return model.eval()


def real(module: nn.Module, config: PreTrainedConfig) -> nn.Module:
    """Return a rotary module that holds numbers.

    It is the given one, or on meta one made anew.
    """
    on_meta = any(freq_F.is_meta for freq_F in frequencies(module).values())
    return type(module)(config) if on_meta else module


def _model_findings(
    model: PreTrainedModel,
    config: PreTrainedConfig,
    raw: dict[str, Any],
    tokenizer_length: float | None,
) -> list[Finding]:
    modules = rotary_modules(model)
    if not modules:
        says = (
            "the model has no rotary module: its positions are learned, there is nothing to check"
        )
        return [Finding("rotary modules", "rope_parameters" not in raw, "none", "none", says)]
    found = []
    for name, held in modules.items():
        module = real(held, model.config)
        for kind in frequencies(module):
            found += _module_findings(name, module, config, kind)
    scale = score_scale(model, config)
    return [*found, *scale, *configuration_findings(config, raw, tokenizer_length)]


def _on_disk(pretrained: Pretrained) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """Return the configuration that the checkpoint holds, read anew, and its JSON.

    That of a GGUF file is made from the file's own keys; that of a run is the one as loaded.
    """
    path = pretrained.path / "config.json"
    raw = files.read_json(path) if path.is_file() else {}
    if "model_type" in raw:
        return read(pretrained.path)
    if pretrained.stated is not None:
        return parse(pretrained.stated, pretrained.path), pretrained.stated
    config = copy.deepcopy(pretrained.model.config)
    return config, config.to_dict()


def _of_the_file(pretrained: Pretrained) -> Iterator[Finding]:
    """Yield how a GGUF file's keys agree with their use.

    They are its own keys, beside what was made of them.
    """
    if pretrained.stated is None:
        return
    settings, stored = gguf_header(pretrained.path)
    for module in rotary_modules(pretrained.model).values():
        for held_F in frequencies(module).values():
            yield file_finding(settings, stored, held_F)


# ------------------------------------------------------------------------------ what the model does


def _module_findings(
    name: str, module: nn.Module, config: PreTrainedConfig, kind: str
) -> Iterator[Finding]:
    """Yield one module's comparisons: as loaded, by length, amplitude, two computations."""
    section = sections(config).get(kind)
    name = f"{name} {kind}" if kind else name
    if section is None:
        says = "the module rotates, and the configuration has no section for it"
        yield Finding(f"{name}: frequencies", False, "some", "none", says)
        return
    if OWN_KEY in section and computes_with(config.model_type, f'"{OWN_KEY}"'):
        yield _of_its_own(name, module, config, kind)
        return
    rope_type, limit = section["rope_type"], config.max_position_embeddings
    original = section.get("original_max_position_embeddings") or limit
    grows = rope_type in ("dynamic", "longrope")
    module = copy.deepcopy(module)  # Its buffers change with the length.
    held, (start, factor) = frequencies(module)[kind], expected(module, config, kind=kind)
    seen = (
        int(getattr(module, "max_seq_len_cached", limit))
        if rope_type == "dynamic"
        else 2 * max(original, limit)
    )
    if grows and apart(held, after := expected(module, config, seen, kind)[0]) <= TOLERANCE:
        start = after  # A longer text came before.
    yield _held(name, held, start, rope_type)
    within, beyond = min(original, limit), 2 * max(original, limit)
    # Beyond comes first: a short text may heal.
    lengths = [2 * beyond, within // 2, within, beyond, within // 2]
    bad, amplitudes, gap = None, [], 0.0
    for length in lengths:
        found, amplitude = turned(module, length, kind)
        wanted = expected(module, config, length if grows else None, kind)[0]
        amplitudes.append(amplitude.flatten())
        if apart(found, wanted) > TOLERANCE and bad is None:
            bad = (length, found, wanted)
        gap = max(gap, apart(wanted, ours_or_nothing(config, section, length)))
    length, found, wanted = bad or (within, found, wanted)
    change = "change with the length as they should" if grows else "stay the same at every length"
    says = (
        f"frequencies {change}"
        if bad is None
        else f"at {length} tokens the frequencies are not those of {rope_type}"
    )
    if bad and grows and length > within and apart(found, start) <= TOLERANCE:
        says = (
            f"{rope_type} is constant: at {length} tokens the frequencies are still those of the "
            "shortest text"
        )
    yield Finding(f"{name}: by length", bad is None, base_of(found), base_of(wanted), says)
    yield from _amplitude_and_gap(name, torch.cat(amplitudes), factor, gap)


def _of_its_own(name: str, module: nn.Module, config: PreTrainedConfig, kind: str) -> Finding:
    """Compare frequencies that a family computes itself.

    A module made anew is the other side.
    """
    held, anew = (frequencies(m)[kind] for m in (module, type(module)(copy.deepcopy(config))))
    grade = "note" if apart(held, anew) <= TOLERANCE else "fault"
    says = f"{config.model_type} computes its own frequencies from {OWN_KEY}; other readers may not"
    return graded(f"{name}: frequencies", grade, base_of(held), base_of(anew), says)


def _held(name: str, held: Float[Tensor, " F"], start: Tensor, rope_type: str) -> Finding:
    """Compare the frequencies as loaded; bf16 ones were cast with the weights."""
    says = f"{name} holds the frequencies of rope_type {rope_type} in config.json"
    same = apart(held, start) <= TOLERANCE
    if not same and held.dtype != torch.float32 and apart(held, start.to(held.dtype)) <= TOLERANCE:
        worst = float((held.double() - start.double()).abs().max())
        says = (
            f"{name} was cast to {str(held.dtype).removeprefix('torch.')} with the weights: "
            f"{2047 * worst:.2g} rad off at position 2,047; keep inv_freq in float32, as "
            "from_pretrained does"
        )
    return graded(
        f"{name}: frequencies", "ok" if same else "fault", base_of(held), base_of(start), says
    )


def _amplitude_and_gap(name: str, measured: Tensor, factor: float, gap: float) -> Iterator[Finding]:
    worst = float(measured[(measured - factor).abs().argmax()])
    yield Finding(
        f"{name}: attention factor",
        abs(worst / factor - 1) <= TOLERANCE,
        f"{worst:.4f}",
        f"{factor:.4f}",
        f"cos and sin are multiplied by it{how_often(worst, factor)}",
    )
    says = "transformers' functions and farcontext.nn.positions agree on config.json"
    yield Finding(
        f"{name}: two computations",
        gap <= TOLERANCE,
        f"{gap:.1e} apart",
        f"at most {TOLERANCE:g}",
        says,
    )
