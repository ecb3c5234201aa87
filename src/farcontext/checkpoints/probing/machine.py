"""The device that a checkpoint is read on.

It tells which, in which dtype, and what is needed of its memory.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel

from farcontext.checkpoints.load import Pretrained, load
from farcontext.checkpoints.token_losses import SCORES
from farcontext.files import UserError
from farcontext.train.interrupt import free_bytes

KINDS = ("cpu", "cuda", "mps")
GIB = 2**30
READ_MOST = (
    2048  # So many tokens of a context are read in one part, where memory has room for them.
)
READ_LEAST = 128


@dataclass(frozen=True)
class Needs:
    """Bytes that reading one context of a length takes."""

    weights: int
    cache: int  # Keys and values of the context.
    work: int  # What else is held at once: activations of a part, scores.

    @property
    def whole(self) -> int:
        """The sum."""
        return self.weights + self.cache + self.work


def device_of(name: str) -> torch.device:
    """Return the device of this name.

    auto is a GPU where there is one.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in KINDS or (number and not (number.isascii() and number.isdigit())):
        raise UserError(f"device = {name:.40}: expected auto, {', '.join(KINDS)}, or as cuda:1")
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[kind]
    if int(number or 0) >= count:
        raise UserError(f"device = {name}: expected one that is here, which has {count} of {kind}")
    return torch.device(name)


def usual_dtype(device: torch.device | None = None) -> Literal["float32", "bfloat16"]:
    """Return the dtype that a device reads a model fastest in.

    A CPU without AVX-512 is several times slower in bfloat16, and so are old GPUs.
    """
    if (device or device_of("auto")).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    fast = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return "bfloat16" if fast else "float32"


def moved(pretrained: Pretrained, device: torch.device) -> Pretrained:
    """Return a checkpoint on a device; no value changes.

    Rotary frequencies keep their fp32 there: a cast of the whole model would round them too, and
    turn far positions by another angle.

    Raises:
        UserError: the device has no room for it.
    """
    size = weights_of(pretrained.model)
    if device.type == "cuda" and size > (free := free_on(device)):
        raise UserError(
            f"device = {device}: expected {size / GIB:.1f} GiB free for the weights, found "
            f"{free / GIB:.1f}; or --device cpu"
        )
    return replace(pretrained, model=pretrained.model.to(device))


def loaded(path: Path, device: str, dtype: str) -> Pretrained:
    """Load a checkpoint onto a device.

    Args:
        device: as `device_of`.
        dtype: as `load.load`, or auto: the faster there.

    Raises:
        UserError: as these.
    """
    where = device_of(device)
    found = load(path, dtype=usual_dtype(where) if dtype == "auto" else dtype)
    return moved(found, where)


def weights_of(model: PreTrainedModel) -> int:
    """Return the bytes of a model's weights; tied ones count once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def free_on(device: torch.device) -> int | None:
    """Return how many bytes a device can still give; None if unknown."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_bytes()


def needs(model: PreTrainedModel, length: int, part: int = READ_MOST) -> Needs:
    """Return what reading a context takes.

    It has `length` tokens, and `part` are read at a time. The formula counts no padding and no
    buffers of libraries.
    """
    config, size = model.config, torch.finfo(model.dtype).bits // 8
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    mlp = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    cache = 2 * config.num_hidden_layers * groups * width * size * length
    tokens = min(part, length)
    row = 6 * config.hidden_size + 3 * mlp + 3 * heads * width
    repeated = 2 * heads * width * length if groups < heads else 0  # of one layer's keys, values
    return Needs(weights_of(model), cache, size * (tokens * row + repeated) + 3 * 4 * SCORES)


def part_that_fits(model: PreTrainedModel, length: int) -> int:
    """Return how many tokens of a context are read at once.

    They are as many as fit into three quarters of what is free, at most READ_MOST.

    Raises:
        UserError: not even READ_LEAST fit; the line says what would.
    """
    free, part = free_on(model.device), READ_MOST
    while free is not None and _beside(model, length, part) > 0.75 * free:
        if part == READ_LEAST:
            raise UserError(
                f"length = {length}: expected {_beside(model, length, part) / GIB:.1f} GiB beside "
                f"the weights, found {free / GIB:.1f} free on {model.device}: expected shorter "
                "lengths, or another --dtype or --device"
            )
        part //= 2
    return part


def _beside(model: PreTrainedModel, length: int, part: int) -> int:
    found = needs(model, length, part)
    return found.cache + found.work


def operations(model: PreTrainedModel, length: int) -> float:
    """Return the floating-point operations of reading a context of `length` tokens.

    They are 2 a weight and token, and those of causal attention; a table of embeddings that is only
    looked up counts too where it is not tied, which no estimate of minutes notices.
    """
    config = model.config
    weights = sum(p.numel() for p in model.parameters())
    return 2.0 * length * weights + 2.0 * config.num_hidden_layers * config.hidden_size * length**2
