"""FLOPs and bytes of attention and of a model, by formula.

B rows, T tokens a row, S key tokens, L layers, N heads, G key/value heads, H head width, D model
width, V vocabulary. FLOPs count a multiplication and an addition as two; attention's are those of
flash-attn's benchmark and of FlashAttention-2 §4.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from farcontext.files import UserError
from farcontext.nn.config import ModelConfig
from farcontext.nn.masks import Pattern
from farcontext.nn.transformer import Decoder, Encoder, num_parameters

# Attention's backward pass has five matrix products against two forward; other layers' factor is 2.
BACKWARD = 2.5


def convention_pairs(T: int, S: int, causal: bool) -> float:
    """Return the pairs that papers count: T·S, or half when causal."""
    return T * S / 2 if causal and T == S else T * S  # The exact causal count is T(T+1)/2.


def attention_flop(rows: int, heads: int, head_width: int, pairs: float) -> float:
    """Return the FLOPs of QKᵀ and PV, forward: 4·B·N·pairs·H."""
    return 4 * rows * heads * pairs * head_width  # The softmax is not counted.


def attention_bytes(rows: int, heads: int, head_width: int, T: int, S: int, element: int) -> int:
    """Return the fewest bytes that attention moves."""
    # Q, K and V are read once, O is written once.
    return element * rows * heads * 2 * (T + S) * head_width


def score_bytes(rows: int, heads: int, T: int, S: int, element: int) -> int:
    """Return the bytes that the T × S scores take once."""
    # Materialised S and P, written and read, move four times this.
    return element * rows * heads * T * S


@dataclass(frozen=True)
class Size:
    """The part of a model's shape that the formulas need."""

    parameters: int  # So many numbers are trained.
    matrices: int  # So many trained numbers are in the matrices of the layers.


@dataclass(frozen=True)
class Shape:
    """A model not of ours, in the names of ModelConfig.

    Its numbers are counted elsewhere, so none is built here. With experts, `mlp_width` and
    `size.matrices` are those that one token passes through.
    """

    size: Size
    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    mlp: str = "swiglu"
    kind: str = "decoder"
    window: int | None = None
    local: tuple[bool, ...] = ()  # Whether a layer sees the window alone; empty: none does.
    # A token leaves so many numbers in a layer's cache; None: its keys and its values.
    cached: int | None = None

    def is_global(self, layer: int) -> bool:
        """Return whether a layer sees the whole pattern, not a band alone."""
        return not (self.local and self.local[layer])


def kv_cache_bytes(
    config: ModelConfig | Shape, length: int, rows: int = 1, element: int = 2
) -> int:
    """Return the bytes of the keys and values kept for generation: 2·L·G·H·T·B·b.

    In a layer of a foreign model that sees a window alone, T is at most the window.
    """
    each = 2 * (config.kv_heads or config.heads) * config.head_width
    kept = config.layers * length
    if isinstance(config, Shape):
        each = config.cached or each
        shorter = min(length, config.window or length)
        kept -= sum(config.local) * (length - shorter)
    return each * kept * rows * element


@lru_cache
def size_of(config: ModelConfig | Shape) -> Size:
    """Count a model's numbers on one that takes no memory.

    Raises:
        UserError: neither an encoder nor a decoder.
    """
    if isinstance(config, Shape):
        return config.size
    if config.kind not in ("encoder", "decoder"):
        raise UserError(f"kind = {config.kind}: expected encoder or decoder")
    with torch.device("meta"):
        model = (Encoder if config.kind == "encoder" else Decoder)(config)
    matrices = sum(p.numel() for p in model.stack.blocks.parameters() if p.ndim == 2)
    return Size(num_parameters(model), matrices)


def patterns(config: ModelConfig | Shape) -> list[tuple[int, Pattern]]:
    """Return (layers, pattern) for each pattern that some layers have."""
    causal, L = config.kind == "decoder", config.layers
    # A layer sees everything, everything before, or a band.
    whole = Pattern.causal() if causal else Pattern()
    if config.window is None:
        return [(L, whole)]
    wide = sum(map(config.is_global, range(L)))
    band = Pattern.window(config.window, causal=causal)
    return [(n, p) for n, p in ((wide, whole), (L - wide, band)) if n]


def flop(
    config: ModelConfig | Shape, length: int, rows: int = 1, scored: int | None = None
) -> dict[str, float]:
    """Return the forward FLOPs by part: attention, layers' matrices and the output."""
    tokens = rows * length
    visible = sum(n * p.count(length, length) for n, p in patterns(config))
    return {
        # Only visible pairs count.
        "attention": attention_flop(rows, config.heads, config.head_width, visible),
        "layers": 2.0 * size_of(config).matrices * tokens,
        "output": 2.0 * config.vocab_size * config.width * (tokens if scored is None else scored),
    }


def training_flop(forward: Mapping[str, float]) -> float:
    """Return training FLOPs: 3.5 times attention's forward ones, 3 times the rest."""
    return (1 + BACKWARD) * forward["attention"] + 3 * (forward["layers"] + forward["output"])


def break_even(config: ModelConfig | Shape) -> float:
    """Return T at which attention's forward FLOPs equal all others'."""
    others = 2 * (size_of(config).matrices + config.vocab_size * config.width)
    # A token takes so many FLOPs for each that it sees.
    each = 4 * config.layers * config.heads * config.head_width
    # A window is ignored; the form is closed.
    return others / each * (2 if config.kind == "decoder" else 1)
