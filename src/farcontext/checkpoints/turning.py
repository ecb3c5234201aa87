"""Rotation of a model whose RoPE depends on how much it reads.

Dynamic NTK and longrope turn a whole row by its length: a plain forward pass of T tokens turns all
of them as T asks for. A cache that was filled while the row was shorter holds keys that are
turned otherwise, and transformers' modules remember the longest row that they have met. So whatever
reads a row in parts says first how long the whole row is. For every other scheme nothing changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig, PreTrainedModel

MOVING = ("dynamic", "longrope")
FIXED = "default"  # transformers leaves the frequencies of such a module alone.


def moving(model: "PreTrainedModel") -> list[tuple[nn.Module, str | None]]:
    """Return the rotary modules that turn by the row's length.

    Each comes with its layer type, None where a module has one kind of rotation.
    """
    found = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        named = kinds if isinstance(kinds, dict) else {None: kinds}
        found += [(module, layer) for layer, kind in named.items() if _moves(kind)]
    return found


def _moves(kind: object) -> bool:
    return isinstance(kind, str) and any(name in kind for name in MOVING)


def linear_biases(config: "PreTrainedConfig") -> bool:
    """Return whether attention adds a bias by distance (ALiBi).

    It does so instead of turning anything.
    """
    inner = getattr(config, "attn_config", None)
    return bool(
        config.model_type == "bloom"
        or getattr(config, "alibi", False)
        or getattr(inner, "alibi", False)
    )


def turn_of(model: "PreTrainedModel", length: int) -> tuple[int, ...]:
    """Return what tells rows apart that turn differently: equal values turn alike.

    Args:
        length: tokens of the whole row.
    """
    return tuple(_turn(module, layer, length) for module, layer in moving(model))


def _turn(module: nn.Module, layer: str | None, length: int) -> int:
    if "longrope" in _kind(module, layer):
        rope = module.config.rope_parameters
        rope = rope if layer is None else rope[layer]
        return int(length > rope["original_max_position_embeddings"])
    return length if length > module.original_max_seq_len else 0


def _kind(module: nn.Module, layer: str | None) -> str:
    return module.rope_type if layer is None else module.rope_type[layer]


@contextmanager
def turned(model: "PreTrainedModel", length: int) -> Iterator[None]:
    """Let a model turn as for a row of `length` tokens.

    A plain forward pass of so many turns that way. It does so whatever it reads meanwhile, and
    whatever it read before. transformers' own module computes the frequencies. Afterwards it starts
    as if it had read nothing.
    """
    held = moving(model)
    kinds: list[tuple[nn.Module, Any]] = []
    try:
        for module, layer in held:
            _forget(module, layer)
            at = torch.tensor([[length - 1]], device=model.device)
            module(torch.empty(1, device=model.device), at, **_named(layer))
        for module in {id(module): module for module, _ in held}.values():
            kinds.append((module, module.rope_type))
            single = isinstance(module.rope_type, str)
            module.rope_type = FIXED if single else dict.fromkeys(module.rope_type, FIXED)
        yield
    finally:
        for module, kind in kinds:
            module.rope_type = kind
        for module, layer in held:
            _forget(module, layer)


def _named(layer: str | None) -> dict[str, str]:
    return {} if layer is None else {"layer_type": layer}


def _forget(module: nn.Module, layer: str | None) -> None:
    """Put a module's first frequencies back, as if it had read nothing."""
    prefix = "" if layer is None else f"{layer}_"
    first = getattr(module, f"{prefix}original_inv_freq")
    module.register_buffer(f"{prefix}inv_freq", first.clone(), persistent=False)
    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
