"""What a decoder's attention heads read and write.

Heads can be knocked out, too. One row at a time. T queries (the last ones of the row), S key
tokens, N heads, G key/value heads, H head width, D model width, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from farcontext.nn.attention import weights
from farcontext.nn.layers import Attention
from farcontext.nn.masks import Pattern
from farcontext.nn.positions import smear
from farcontext.nn.transformer import Decoder


class Head(NamedTuple):
    """A head's place: its layer and its number there, from 0."""

    layer: int
    number: int


class Layer(NamedTuple):
    """What one layer attended to in one row.

    weights: (N, T, S), of the queries that were computed. values: (S, N, H).
    """

    weights: Tensor
    values: Tensor


@contextmanager
def watched(model: Decoder) -> Iterator[list[Layer]]:
    """Collect what each layer attends to in the block.

    The weights are computed again beside the forward pass, whose backend does not keep them.

    Raises:
        ValueError: in the forward pass, more than one row, or RoPE.
    """
    found: list[Layer] = []

    def watch(attention: Attention, given: tuple, options: dict[str, Any], _: Tensor) -> None:
        x_BTD, pattern, rotation, *_ = given
        if len(x_BTD) != 1 or rotation is not None:
            raise ValueError(f"{len(x_BTD)} rows: expected one, and a decoder without RoPE")
        found.append(_attended(attention, x_BTD, pattern, options["last"]))

    handles = [
        block.attention.register_forward_hook(watch, with_kwargs=True)
        for block in model.stack.blocks
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _attended(attention: Attention, x_BTD: Tensor, pattern: Pattern, last: int | None) -> Layer:
    heads, groups = attention.heads, attention.kv_heads
    parts = attention.qkv(x_BTD).unflatten(-1, (-1, attention.head_width))
    q_BTNH, k_BSGH, v_BSGH = parts.split((heads, groups, groups), 2)
    k_BSGH = smear(k_BSGH, attention.mix, pattern.documents, causal=pattern.after == 0)
    if last is not None:
        q_BTNH = q_BTNH[:, -last:]
    if pattern.log_n:
        scale_T = pattern.query_scale(q_BTNH.shape[1], k_BSGH.shape[1], q_BTNH.device)
        q_BTNH = q_BTNH * scale_T[:, None, None].to(q_BTNH.dtype)
    values_BSNH = v_BSGH.repeat_interleave(heads // groups, dim=2)
    return Layer(weights(q_BTNH, k_BSGH, pattern)[0], values_BSNH[0])


def written(model: Decoder, layers: Sequence[Layer], answer: int) -> list[Float[Tensor, "N S"]]:
    """Return what each head writes for an answer, by key.

    It is what the head's reading of the key adds to the answer's logit: weight · (W_O v)·u for the
    last query, the head's direct effect (LOCOS, arXiv 2607.01002). u is the answer's row of the
    output matrix times the final norm's weight. Not applied: the final norm's division, which is
    one positive number a row, and what later layers make of it.

    Args:
        model: a decoder.
        layers: as `watched` collects them.
        answer: a token's id.
    """
    output_VD = model.embedding.weight if model.output is None else model.output
    u_D = output_VD[answer] * model.stack.norm.weight
    found = []
    for layer, block in zip(layers, model.stack.blocks, strict=True):
        direction_NH = (u_D @ block.attention.out.weight).unflatten(0, (len(layer.weights), -1))
        effect_NS = torch.einsum("snh,nh->ns", layer.values, direction_NH)
        found.append(layer.weights[:, -1] * effect_NS)
    return found


def contrast(scores: Float[Tensor, "N S"], evidence: Float[Tensor, " S"]) -> Float[Tensor, " N"]:
    """Return each head's mean score on evidence minus that elsewhere.

    Args:
        scores: of each key.
        evidence: 1 where a key is evidence, 0 elsewhere; both must occur.
    """
    inside = scores @ evidence / evidence.sum()
    return inside - scores @ (1 - evidence) / (1 - evidence).sum()


def outputs_of(model: Decoder) -> list[nn.Linear]:
    """Return what each layer's heads write through, as `knocked_out` takes it."""
    return [block.attention.out for block in model.stack.blocks]


@contextmanager
def knocked_out(outputs: Sequence[nn.Linear], heads: Iterable[Head], count: int) -> Iterator[None]:
    """Let some heads write nothing in the block (zero ablation).

    Args:
        outputs: a layer's matrix each that its heads write through, heads side by side.
        heads: those that are silenced.
        count: N, heads in a layer.
    """
    silent: dict[int, list[int]] = {}
    for head in heads:
        silent.setdefault(head.layer, []).append(head.number)

    def silence(numbers: list[int]):
        def hook(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            split = given[0].unflatten(-1, (count, -1)).clone()
            split[..., numbers, :] = 0
            return (split.flatten(-2),)

        return hook

    handles = [
        outputs[layer].register_forward_pre_hook(silence(numbers))
        for layer, numbers in silent.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
