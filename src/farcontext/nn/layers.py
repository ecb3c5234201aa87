"""The parts of a Transformer, leaf to root: Norm, MLP, Attention, Block.

B batch, T tokens (queries), S key tokens, N heads, G key/value heads, H head width, D model width,
F = H/2 frequencies, M MLP width, K = N + G. All are pre-norm, without dropout and without bias.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from farcontext.nn.attention import attend
from farcontext.nn.config import ModelConfig
from farcontext.nn.masks import Pattern
from farcontext.nn.positions import smear
from farcontext.nn.rotation import pairs_together, rotate

Rotation = tuple[Tensor, Tensor]  # These are cos and sin, (T, F).


def select_rows(
    x_BTD: Float[Tensor, "B T D"], select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None
) -> Float[Tensor, "*n D"]:
    """Return the selected positions, (n, D).

    `select` is a mask (B, T) or indices into the flattened B·T; with None, all of x is returned.
    """
    if select is None:
        return x_BTD
    chosen_n = select.flatten().nonzero().squeeze(1) if select.dtype == torch.bool else select
    return x_BTD.flatten(0, 1).index_select(0, chosen_n)


def trailing_queries(select: Tensor | None) -> int | None:
    """Return the number of tokens from the first selected one on.

    The count goes to the end of the row. It is None if it would exceed half of the row.
    """
    if select is None or select.dtype != torch.bool:
        return None
    T, first = select.shape[1], int(select.any(0).int().argmax())
    return T - first if 2 * first >= T else None


class Cache:
    """Keys and values of one layer for up to C tokens.

    The tables are made once and hold the keys as attention sees them, rotated.
    """

    def __init__(self, rows: int, capacity: int, config: ModelConfig, like: Tensor) -> None:
        shape = (rows, config.kv_heads or config.heads, capacity, config.head_width)
        self.keys_BGCH, self.values_BGCH = like.new_empty(shape), like.new_empty(shape)
        self.capacity, self.length = capacity, 0

    def extend(self, k_BTGH: Tensor, v_BTGH: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Append T tokens and return the last S keys and values.

        Both are (B, S, G, H) and cover all that the pattern lets the tokens see.
        """
        T, end = k_BTGH.shape[1], self.length + k_BTGH.shape[1]
        self.keys_BGCH[:, :, self.length : end] = k_BTGH.transpose(1, 2)
        self.values_BGCH[:, :, self.length : end] = v_BTGH.transpose(1, 2)
        self.length = end
        seen = slice(pattern.keys_of(slice(0, T), T, end).start, end)
        return self.keys_BGCH[:, :, seen].transpose(1, 2), self.values_BGCH[:, :, seen].transpose(
            1, 2
        )


class Norm(nn.Module):
    """LayerNorm without bias, or RMSNorm, over the last axis."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind, self.eps = config.norm, config.norm_eps
        self.weight = nn.Parameter(torch.ones(config.width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.kind == "layer":
            return F.layer_norm(x_BTD, self.weight.shape, self.weight, None, self.eps)
        # Under autocast x may be bf16 where the weight is fp32: torch would leave its fused kernel.
        return F.rms_norm(x_BTD, self.weight.shape, self.weight.to(x_BTD.dtype), self.eps)


class MLP(nn.Module):
    """A GeGLU, SwiGLU (Shazeer 2020) or plain MLP.

    A gated one is out(act(a) ∘ b), where one matrix makes a and b; a plain one is out(act(a)).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.mlp
        parts = 2 if config.mlp in ("geglu", "swiglu") else 1
        self.inward = nn.Linear(config.width, parts * config.mlp_width, bias=False)
        self.out = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTM = self.inward(x_BTD)
        match self.kind:
            case "gelu":
                return self.out(F.gelu(x_BTM))
            case "relu":
                return self.out(F.relu(x_BTM))
        activated, gate = x_BTM.chunk(2, -1)
        return self.out((F.gelu(activated) if self.kind == "geglu" else F.silu(activated)) * gate)


class Attention(nn.Module):
    """Grouped-query attention of a sequence to itself or to a memory.

    Queries, keys and values come from one matrix.
    """

    def __init__(self, config: ModelConfig, cross: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.head_width, self.pairing = config.head_width, config.pairing
        self.qkv = nn.Linear(
            config.width, (self.heads + 2 * self.kv_heads) * config.head_width, bias=False
        )
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.mix = nn.Parameter(torch.zeros(self.kv_heads)) if config.smear and not cross else None
        if config.positions == "rope" and config.pairing == "half" and not cross:
            starts = torch.arange(self.heads + self.kv_heads)[:, None] * config.head_width
            order = (starts + torch.tensor(pairs_together(config.head_width))).flatten()
            self.register_buffer("order", order, persistent=False)

    def forward(
        self,
        x_BTD: Tensor,
        pattern: Pattern,
        rotation: Rotation | None = None,
        memory_BSD: Tensor | None = None,
        last: int | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return (B, T, D), or the output of the `last` tokens alone.

        Each token sees all the keys that it otherwise would, the cache's keys first.
        """
        split = (self.heads, self.kv_heads, self.kv_heads)
        if memory_BSD is not None:
            w_q, w_kv = self.qkv.weight.split(
                (split[0] * self.head_width, 2 * split[1] * self.head_width)
            )
            q_BTNH = F.linear(x_BTD, w_q).unflatten(-1, (-1, self.head_width))
            k_BSGH, v_BSGH = (
                F.linear(memory_BSD, w_kv).unflatten(-1, (-1, self.head_width)).split(split[1:], 2)
            )
        elif rotation is None:
            q_BTNH, k_BSGH, v_BSGH = (
                self.qkv(x_BTD).unflatten(-1, (-1, self.head_width)).split(split, 2)
            )
            k_BSGH = smear(k_BSGH, self.mix, pattern.documents, causal=pattern.after == 0)
        else:
            qk_BTKH, v_BSGH = self._rotated(x_BTD, rotation, pattern)
            q_BTNH, k_BSGH = qk_BTKH.split(split[:2], 2)
        if cache is not None:
            k_BSGH, v_BSGH = cache.extend(k_BSGH, v_BSGH, pattern)
        if last is not None:
            q_BTNH = q_BTNH[:, -last:]
        return self.out(attend(q_BTNH, k_BSGH, v_BSGH, pattern).flatten(2))

    def _rotated(
        self, x_BTD: Tensor, rotation: Rotation, pattern: Pattern
    ) -> tuple[Tensor, Tensor]:
        """Return rotated queries and keys in one tensor, and the values.

        Scores do not change when q and k change the order of their channels alike. So for pairing
        "half" the rows of the matrix, not the tokens, are brought into the order that the one-pass
        interleaved rotation wants.
        """
        turned, weight = self.heads + self.kv_heads, self.qkv.weight
        if self.pairing == "half":
            w_qk, w_v = weight.tensor_split([turned * self.head_width])
            weight = torch.cat((w_qk.index_select(0, self.order), w_v))
        qkv_BTKH = F.linear(x_BTD, weight).unflatten(-1, (-1, self.head_width))
        qk_BTKH, v_BTGH = qkv_BTKH.tensor_split([turned], 2)
        if self.mix is not None:
            q_BTNH, k_BSGH = qk_BTKH.tensor_split([self.heads], 2)
            qk_BTKH = torch.cat(
                (q_BTNH, smear(k_BSGH, self.mix, pattern.documents, causal=pattern.after == 0)), 2
            )
        return rotate(qk_BTKH, *rotation, "interleaved"), v_BTGH


class Block(nn.Module):
    """A block: x + attention(norm x), then x + mlp(norm x).

    With a memory, x + cross(norm x) stands between the two.
    """

    def __init__(self, config: ModelConfig, first_norm: bool = True, cross: bool = False) -> None:
        super().__init__()
        self.attention_norm = Norm(config) if first_norm else nn.Identity()
        self.attention = Attention(config)
        self.cross_norm = Norm(config) if cross else None
        self.cross = Attention(config, cross=True) if cross else None
        self.mlp_norm = Norm(config)
        self.mlp = MLP(config)

    def forward(
        self,
        x_BTD: Tensor,
        pattern: Pattern,
        rotation: Rotation | None = None,
        memory_BSD: Tensor | None = None,
        memory_pattern: Pattern | None = None,
        select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None = None,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return (B, T, D), or in a stack's last block (n, D).

        Nothing is computed for tokens that are not selected.
        """
        # A memory's pattern tells every query's document, so all queries are kept there.
        last = trailing_queries(select) if self.cross is None else None
        mixed_BTD = self.attention(
            self.attention_norm(x_BTD), pattern, rotation, last=last, cache=cache
        )
        if last is not None:
            x_BTD, select = x_BTD[:, -last:], select[:, -last:]
        x_BTD = x_BTD + mixed_BTD
        if self.cross is not None:
            x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), memory_pattern, None, memory_BSD)
        x_BTD = select_rows(x_BTD, select)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))
