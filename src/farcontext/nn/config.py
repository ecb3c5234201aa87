"""The shape of a model, as configuration.

The module is importable without torch.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from farcontext.messages import did_you_mean
from farcontext.schema import Count, Frozen, Positive, Share

Positions = Literal["rope", "learned", "sinusoidal", "none", "alibi", "t5"]
Base = Annotated[float, Field(gt=1)]  # With a smaller one, RoPE would turn no pair more slowly.
RECURRENT = ("rnn", "lstm", "gru")


class Extension(Frozen):
    """A scheme that changes RoPE's frequencies to reach further.

    It is what `positions.inverse_frequencies` takes.
    """

    scheme: str
    scale: Annotated[float, Field(ge=1)] = 1.0  # This is s, the reach over the trained length.
    trained_length: Count  # The scheme's formulas call it L.
    beta_fast: Positive | None = None  # None takes the scheme's own default, here and below.
    beta_slow: Positive | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    p: Share | None = None
    new_theta: Positive | None = None
    short_factor: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    long_factor: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    attention_factor: Positive | None = None  # It multiplies cos and sin.

    @property
    def options(self) -> dict[str, Any]:
        """Return the scheme's further keywords, where they are set."""
        common = {"scheme", "scale", "trained_length", "attention_factor"}
        return {name: value for name, value in self if name not in common and value is not None}


class ModelConfig(Frozen):
    """The shape of a model.

    Widths and lengths are in tokens or channels: D width, N heads, G kv_heads, M mlp_width.
    """

    kind: Literal["encoder", "decoder", "encoder_decoder", "rnn", "lstm", "gru"]
    vocab_size: Annotated[int, Field(ge=2)]
    width: Count
    layers: Count
    heads: Count
    kv_heads: Count | None = None  # None means as many as `heads`.
    mlp_width: Count  # A recurrent kind's state has this width.
    norm: Literal["layer", "rms"] = "rms"
    mlp: Literal["geglu", "swiglu", "gelu", "relu"] = "swiglu"
    positions: Positions = "rope"
    # RoPE turns channels i, i+F together, or 2i, 2i+1.
    pairing: Literal["half", "interleaved"] = "half"
    theta: Base = 10_000.0
    local_theta: Base = 10_000.0
    # It extends RoPE; with a learned table, "linear" reads between its rows.
    extension: Extension | None = None
    # RoPE takes sorted positions drawn below this (Ruoss et al. 2023).
    random_positions: Count | None = None
    # L: a query with n > L keys has its logits multiplied by ln n / ln L.
    log_n: Count | None = None
    max_length: Count  # It is the longest trained length; a learned table has this many rows.
    # Local layers see |i - j| < window, in a causal stack backwards only; None: all are global.
    window: Count | None = None
    # With a window, layers 0, g, 2g, … stay global (ModernBERT: 3); with 0 none does.
    global_every: Annotated[int, Field(ge=0)] = 1
    # Each key is mixed with its neighbour's, so one layer can look for "what followed this?".
    smear: bool = False
    # Each embedding takes up so many tokens before it, by channel (Allen-Zhu 2025).
    short_conv: Count | None = None
    # ModernBERT normalises the embedding and has no attention norm in layer 0.
    embedding_norm: bool = False
    tied: bool = True
    init_std: Positive = 0.02
    embedding_std: Positive | None = None  # None means init_std.
    # It is added to the variance: 1e-5 in ModernBERT, 1e-6 or 1e-5 in Llama.
    norm_eps: Positive = 1e-5

    @property
    def head_width(self) -> int:
        """Return H, the channels of a head."""
        return self.width // self.heads

    def is_global(self, layer: int) -> bool:
        """Return whether a layer sees the whole pattern, not a band alone.

        In ModernBERT layers 0, 3, 6, … do; with `global_every` = 0 none does.
        """
        return self.window is None or (self.global_every > 0 and layer % self.global_every == 0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kv_heads = self.kv_heads or self.heads
        if self.width % self.heads:
            raise ValueError(
                f"width = {self.width}, heads = {self.heads}: expected heads to divide width"
            )
        if self.heads % kv_heads:
            raise ValueError(
                f"heads = {self.heads}, kv_heads = {kv_heads}: expected kv_heads to divide heads"
            )
        if self.positions == "rope" and self.head_width % 2:
            raise ValueError(
                f"width = {self.width}, heads = {self.heads}, positions = rope: "
                f"expected an even head width, not {self.head_width}"
            )
        if self.extension and self.positions not in ("rope", "learned"):
            raise ValueError(
                f"extension.scheme = {self.extension.scheme}, positions = {self.positions}: "
                "expected rope, or learned"
            )
        if self.window is not None and self.window > self.max_length:
            raise ValueError(
                f"window = {self.window}, max_length = {self.max_length}: "
                "expected window to be at most max_length"
            )
        if self.random_positions and self.positions != "rope":
            raise ValueError(
                f"random_positions = {self.random_positions}, positions = {self.positions}: "
                "expected rope"
            )
        return self

    @model_validator(mode="after")
    def _extends(self) -> Self:
        extension = self.extension
        if extension is None or self.kind in RECURRENT:
            return self
        # What a scheme takes, it says itself. It needs torch, as does every model that has one.
        from farcontext.nn.positions import (  # noqa: PLC0415
            SCHEMES,
            attention_factor,
            inverse_frequencies,
        )

        if extension.scheme not in SCHEMES:
            raise ValueError(
                f"extension.scheme = {extension.scheme}: expected one of {', '.join(SCHEMES)}"
                f"{did_you_mean(extension.scheme, SCHEMES)}"
            )
        if self.positions == "learned" and (extension.scheme != "linear" or extension.options):
            raise ValueError(
                f"extension.scheme = {extension.scheme}, positions = learned: "
                "expected linear, without options"
            )
        reach = {"scale": extension.scale, "trained_length": extension.trained_length}
        heads = {"head_dim": self.head_width, "theta": self.theta}
        try:
            # Beyond its trained length a scheme may take another branch.
            for length in (extension.trained_length, extension.trained_length + 1):
                if self.positions == "rope":
                    _ = inverse_frequencies(
                        extension.scheme, **heads, **reach, length=length, **extension.options
                    )
            if extension.attention_factor is None:
                _ = attention_factor(extension.scheme, **reach)
        except ValueError as error:
            raise ValueError(f"extension.scheme = {extension.scheme}: {error}") from None
        return self
