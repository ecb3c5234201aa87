"""The places where positions enter a model.

They are added to the embedding, turned into queries and keys, or put on the scores.

B batch, T tokens, N heads, H head width, D model width, F = H/2 frequencies. Angles are in fp64,
tables in the stream's dtype.
"""

import math
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from farcontext.nn.buckets import t5_bucket
from farcontext.nn.config import ModelConfig
from farcontext.nn.layers import Norm, Rotation
from farcontext.nn.masks import Pattern
from farcontext.nn.positions import (
    alibi_slopes,
    attention_factor,
    inverse_frequencies,
    positions_within,
    sinusoidal,
)
from farcontext.nn.rotation import rotation_table

T5_BUCKETS, T5_DISTANCE = 32, 128  # These numbers are T5's own (Raffel et al. 2020).


class Embedding(nn.Module):
    """Token embedding with, where configured, absolute positions.

    Positions of kind "learned" and "sinusoidal" are counted within each document. With "sinusoidal"
    the embedding is multiplied by √D, as Vaswani et al. 2017 do (§3.4). A learned table has a row
    for each trained position; with the extension "linear", position p reads it at p/scale, between
    two rows.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.width))
        if config.positions == "learned":
            rows = config.extension.trained_length if config.extension else config.max_length
            self.positions = nn.Parameter(torch.empty(rows, config.width))
        self.before = (
            nn.Parameter(torch.empty(config.short_conv, config.width))
            if config.short_conv
            else None
        )
        self.norm = Norm(config) if config.embedding_norm else nn.Identity()

    def forward(
        self,
        tokens_BT: Tensor,
        documents_BT: Tensor | None,
        start: int = 0,
        before_Bk: Tensor | None = None,
    ) -> Tensor:
        """Return the embedded tokens, (B, T, D).

        The first token stands at position `start`, those `before` it stand right in front of it.
        """
        x_BTD = F.embedding(tokens_BT, self.weight)
        if self.before is not None:
            x_BTD = x_BTD + self._neighbours(tokens_BT, documents_BT, before_Bk)
        match self.config.positions:
            case "learned":
                x_BTD = x_BTD + self._learned(start + positions_within(tokens_BT, documents_BT))
            case "sinusoidal":
                at_T, width = start + positions_within(tokens_BT, documents_BT), self.config.width
                table_TD = sinusoidal(start + tokens_BT.shape[1], width).to(x_BTD)
                x_BTD = x_BTD * math.sqrt(width) + F.embedding(at_T, table_TD)
        return self.norm(x_BTD)

    def _neighbours(
        self, tokens_BT: Tensor, documents_BT: Tensor | None, before_Bk: Tensor | None
    ) -> Tensor:
        """Return a weighted sum of the tokens before each, (B, T, D).

        It is Σ w_i ∘ e_{t−i} over i = 1 … k. This is a channel-wise convolution over the tokens
        before each: Canon-A without its residual's own weight (Allen-Zhu 2025, "Physics of Language
        Models 4.1"). No document looks into another; before the first token stands nothing.
        """
        T, history_BT = (
            tokens_BT.shape[1],
            tokens_BT if before_Bk is None else torch.cat((before_Bk, tokens_BT), 1),
        )
        e_BTD, mixed_BTD = F.embedding(history_BT, self.weight), 0
        for distance, weight_D in enumerate(self.before, 1):
            earlier_BTD = F.pad(e_BTD, (0, 0, distance, 0))[:, : e_BTD.shape[1]][:, -T:]
            if documents_BT is not None:
                same_BT = F.pad(documents_BT, (distance, 0), value=-1)[:, :T] == documents_BT
                earlier_BTD = earlier_BTD * same_BT[..., None]
            mixed_BTD = mixed_BTD + weight_D * earlier_BTD
        return mixed_BTD

    def _learned(self, at_T: Tensor) -> Tensor:
        scale = self.config.extension.scale if self.config.extension else 1.0
        longest, limit = int(at_T.max()) + 1, math.floor(len(self.positions) * scale)
        if longest > limit:
            raise ValueError(f"length = {longest}: expected at most max_length = {limit} tokens")
        if scale == 1:
            return F.embedding(at_T, self.positions)
        low_T = (at_T / scale).floor().long()
        high_T = (low_T + 1).clamp(max=len(self.positions) - 1)
        share_T = (at_T / scale - low_T)[..., None].to(self.positions.dtype)
        return torch.lerp(
            F.embedding(low_T, self.positions), F.embedding(high_T, self.positions), share_T
        )


def frequencies(
    config: ModelConfig, length: int, wide: bool = True
) -> tuple[Float[Tensor, " F"], float]:
    """Return RoPE's frequencies at a current length, and the attention factor.

    Frequencies are fp64, and 0 where a pair does not turn. Local layers (`wide` False) turn by
    `local_theta` and are never extended: they look no further than they did.
    """
    head_dim, extension = config.head_width, config.extension
    if extension is None or not wide:
        theta = config.theta if wide else config.local_theta
        return inverse_frequencies(
            "rope", head_dim=head_dim, theta=theta, trained_length=config.max_length
        ), 1.0
    reach = {"scale": extension.scale, "trained_length": extension.trained_length}
    inv_freq = inverse_frequencies(
        extension.scheme,
        head_dim=head_dim,
        theta=config.theta,
        length=length,
        **reach,
        **extension.options,
    )
    # Partial rotation leaves channels alone: these are pairs of frequency 0.
    inv_freq = F.pad(inv_freq, (0, head_dim // 2 - len(inv_freq)))
    factor = extension.attention_factor
    return inv_freq, attention_factor(extension.scheme, **reach) if factor is None else factor


@lru_cache(maxsize=32)
def rotation_of(
    config: ModelConfig, length: int, wide: bool, dtype: torch.dtype, device: torch.device
) -> Rotation:
    """Return cos and sin (T, F) of the first T positions.

    One table, of positions 0 … T − 1, serves all layers and steps of a length.
    """
    return _rotation(config, torch.arange(length), length, wide, dtype, device)


def drawn_rotation(
    config: ModelConfig, length: int, training: bool, x_BTD: Tensor, dtype: torch.dtype
) -> Rotation:
    """Return the table of sorted positions below `random_positions`.

    They are drawn anew in training, else spread evenly. Ruoss et al. 2023 draw them at test time
    too; when they are spread evenly, an evaluation repeats.
    """
    if length > config.random_positions:
        raise ValueError(
            f"length = {length}: expected at most random_positions = {config.random_positions} "
            "tokens"
        )
    if training:
        at_T = torch.randperm(config.random_positions)[:length].sort().values
    else:
        at_T = torch.linspace(0, config.random_positions - 1, length, dtype=torch.float64).floor()
    return _rotation(config, at_T, length, True, dtype, x_BTD.device)


def _rotation(
    config: ModelConfig,
    at_T: Tensor,
    length: int,
    wide: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Rotation:
    inv_freq, factor = frequencies(config, length, wide)
    cos, sin = rotation_table(inv_freq, at_T, torch.float64)
    return (cos * factor).to(device, dtype), (sin * factor).to(device, dtype)


class RelativeBias(nn.Module):
    """T5's learned bias on the scores, shared by all layers.

    It has a number for each head and bucket of distances. T5 itself leaves out the 1/√H; here the
    scores keep it.
    """

    def __init__(self, config: ModelConfig, causal: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(T5_BUCKETS, config.heads))
        offsets = torch.arange(-T5_DISTANCE, T5_DISTANCE + 1)
        bucket = t5_bucket(offsets, causal=causal, buckets=T5_BUCKETS, max_distance=T5_DISTANCE)
        self.register_buffer("bucket", bucket, persistent=False)

    def forward(self) -> Float[Tensor, "N O"]:
        """Return the bias by offset key − query.

        Offsets go from −T5_DISTANCE to T5_DISTANCE; further away, the last one holds.
        """
        return self.weight[self.bucket].T


def on_scores(pattern: Pattern, config: ModelConfig, relative: RelativeBias | None) -> Pattern:
    """Return a pattern with what positions put on the scores.

    These are ALiBi's slopes or T5's bias, and the scaling by ln n.
    """
    match config.positions:
        case "alibi":
            pattern = replace(pattern, slopes=alibi_slopes(config.heads), built={})
        case "t5":
            pattern = replace(pattern, relative=relative(), built={})
    return replace(pattern, log_n=config.log_n, built={}) if config.log_n else pattern
