"""Checks of whether a loaded checkpoint rotates as its configuration says.

Whether what it says is sound is checked too. There are three kinds of evidence. `check` compares
numbers: what the rotary modules hold and return, against transformers' own functions on the
configuration on disk and against `positions`. It also reads that configuration for what contradicts
itself (`rope_config`). The third kind asks the weights (`rope_loss`). A model without a rotary
module (GPT-2) is said to have none.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from farcontext import files
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.rope_config import TOLERANCE, Finding, configuration_findings, how_often
from farcontext.nn.positions import inverse_frequencies

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig, PreTrainedModel


def check(pretrained: Pretrained) -> list[Finding]:
    """Compare what a model does with what its config.json says.

    The file is compared with itself too, and the findings have a fixed order. The expected
    frequencies are those of transformers' functions for the configuration *on disk*: a buffer that
    was changed after loading is seen. Lengths up to 4 times the longest position are tried on a
    copy of each module. Call it before the model reads texts beyond 4 times its window. A value
    that is wrong but consistent with all others is not seen here; `rope_loss.confirm` may see it.
    """
    config, raw = _on_disk(pretrained)
    modules = rotary_modules(pretrained.model)
    if not modules:
        says = (
            "the model has no rotary module: its positions are learned, there is nothing to check"
        )
        return [Finding("rotary modules", "rope_parameters" not in raw, "none", "none", says)]
    findings = []
    for name, module in modules.items():
        findings += _module_findings(name, module, config)
    longest = getattr(pretrained.tokenizer, "model_max_length", None)
    return [
        *findings,
        _logit_scale(pretrained.model),
        *configuration_findings(config, raw, longest),
    ]


def rotary_modules(model: "PreTrainedModel") -> dict[str, nn.Module]:
    """Return every module that holds inverse frequencies, by its name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "inv_freq")}


def lines(findings: Sequence[Finding]) -> list[str]:
    """Return one line a finding, FAULT first, as they are printed."""
    ordered = sorted(findings, key=lambda finding: finding.ok)
    shown = [
        (
            f,
            "ok   " if f.ok else "FAULT",
            "" if f.ok else f": found {f.found}, expected {f.expected}",
        )
        for f in ordered
    ]
    return [f"{mark} {f.name}{values}; {f.says}" for f, mark, values in shown]


def _on_disk(pretrained: Pretrained) -> tuple["PreTrainedConfig", dict]:
    """Return the configuration that the folder holds, read anew, and its JSON.

    That of a GGUF file or a run is the one as loaded.
    """
    from transformers import AutoConfig

    path = pretrained.path / "config.json"
    raw = files.read_json(path) if path.is_file() else {}
    if "model_type" not in raw:
        config = copy.deepcopy(pretrained.model.config)
        return config, config.to_dict()
    config = AutoConfig.from_pretrained(
        pretrained.path, trust_remote_code=False, local_files_only=True
    )
    return config, raw


# ------------------------------------------------------------------------------ what the model does


def expected(
    module: nn.Module, config: "PreTrainedConfig", length: int | None = None
) -> tuple[Float[Tensor, " F"], float]:
    """Return the frequencies and the factor of transformers' own functions.

    The factor is the one on cos and sin; the length is in tokens.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope_type = config.rope_parameters["rope_type"]
    if rope_type == "default":
        return type(module).compute_default_rope_parameters(config)
    return ROPE_INIT_FUNCTIONS[rope_type](config, seq_len=length)


def ours(config: "PreTrainedConfig", length: int) -> Float[Tensor, " F"]:
    """Return the frequencies that `positions` computes for the same configuration, fp64.

    Raises:
        ValueError: a scheme that `positions` does not know, or a value out of its range.
    """
    rope, limit = config.rope_parameters, config.max_position_embeddings
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    share = rope.get("partial_rotary_factor", 1.0)
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
    common = {
        "head_dim": width,
        "theta": rope["rope_theta"],
        "trained_length": trained,
        "length": length,
    }
    freq_F = inverse_frequencies(scheme, scale=rope.get("factor") or 1.0, **common, **options)
    return freq_F / rope.get("factor", 1.0) if scheme == "p_rope" else freq_F


def _ours_or_nothing(config: "PreTrainedConfig", length: int) -> Tensor:
    try:
        return ours(config, length)
    except ValueError:  # A value is out of range: then the two do not agree.
        return torch.empty(0)


@torch.no_grad()
def _turned(module: nn.Module, length: int) -> tuple[Tensor, Tensor]:
    """Return the frequencies in use at a length, and the amplitude.

    The amplitude is √(cos² + sin²) of what the module returns.
    """
    at = torch.tensor([[0, 1, length - 1]], device=module.inv_freq.device)
    cos, sin = module(torch.zeros(1, 1, 1, device=at.device), at)
    return module.inv_freq.detach().float().cpu(), (
        cos.float() ** 2 + sin.float() ** 2
    ).sqrt().cpu()


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Return the largest relative difference; infinity for other shapes."""
    if found.shape != wanted.shape:
        return math.inf
    found, wanted = found.double().cpu(), wanted.double().cpu()
    return float(
        ((found - wanted).abs() / wanted.abs().clamp(min=1e-12)).nan_to_num(math.inf).max()
    )


def _base(freq_F: Tensor) -> str:
    """Describe frequencies by the base of their first two and by their last.

    A reader can compare these.
    """
    base = float((freq_F[0] / freq_F[1]) ** len(freq_F)) if len(freq_F) > 1 else math.nan
    return f"base {base:.6g}, last {float(freq_F[-1]):.4g}"


def _module_findings(name: str, module: nn.Module, config: "PreTrainedConfig") -> Iterator[Finding]:
    """Yield one module's comparisons: as loaded, by length, amplitude, two computations."""
    rope_type, limit = config.rope_parameters["rope_type"], config.max_position_embeddings
    original = config.rope_parameters.get("original_max_position_embeddings") or limit
    grows = rope_type in ("dynamic", "longrope")
    module = copy.deepcopy(module)  # Its buffers change with the length.
    held, factor = module.inv_freq.detach().float().cpu(), expected(module, config)[1]
    start = expected(module, config)[0]
    seen = (
        int(getattr(module, "max_seq_len_cached", limit))
        if rope_type == "dynamic"
        else 2 * max(original, limit)
    )
    if grows and _apart(held, after := expected(module, config, seen)[0]) <= TOLERANCE:
        start = after  # A longer text came before.
    says = f"{name} holds the frequencies of rope_type {rope_type} in config.json"
    yield Finding(
        f"{name}: frequencies", _apart(held, start) <= TOLERANCE, _base(held), _base(start), says
    )
    within, beyond = min(original, limit), 2 * max(original, limit)
    # Beyond comes first: a short text may heal.
    lengths = [2 * beyond, within // 2, within, beyond, within // 2]
    bad, amplitudes, gap = None, [], 0.0
    for length in lengths:
        found, amplitude = _turned(module, length)
        wanted = expected(module, config, length if grows else None)[0]
        amplitudes.append(amplitude.flatten())
        if _apart(found, wanted) > TOLERANCE and bad is None:
            bad = (length, found, wanted)
        gap = max(gap, _apart(wanted, _ours_or_nothing(config, length)))
    length, found, wanted = bad or (within, found, wanted)
    kind = "change with the length as they should" if grows else "stay the same at every length"
    says = (
        f"frequencies {kind}"
        if bad is None
        else f"at {length} tokens the frequencies are not those of {rope_type}"
    )
    if bad and grows and length > within and _apart(found, start) <= TOLERANCE:
        says = (
            f"{rope_type} is constant: at {length} tokens the frequencies are still those of the "
            "shortest text"
        )
    yield Finding(f"{name}: by length", bad is None, _base(found), _base(wanted), says)
    measured = torch.cat(amplitudes)
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


def _logit_scale(model: "PreTrainedModel") -> Finding:
    """Compare the scale of attention logits with 1/√H.

    It is a second place where a factor may be applied.
    """
    scales = [
        float(module.scaling)
        * math.sqrt(module.head_dim if hasattr(module, "head_dim") else module.head_size)
        for module in model.modules()
        if isinstance(getattr(module, "scaling", None), float)
        and (hasattr(module, "head_dim") or hasattr(module, "head_size"))
    ]
    worst = max(scales, key=lambda scale: abs(scale - 1), default=1.0)
    says = "logits are divided by √H and by nothing else"
    return Finding("logit scale", abs(worst - 1) <= TOLERANCE, f"{worst:.4f}/√H", "1/√H", says)
