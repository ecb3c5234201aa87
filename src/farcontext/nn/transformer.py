"""Transformers: Stack, then Encoder, Decoder and EncoderDecoder.

Their parts are in `layers`, positions in `embedding`.

B batch, T tokens (queries), S key tokens, N heads, D model width, V vocabulary, n scored positions.
All are pre-norm, without dropout, and without bias but that of the masked-LM output.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from farcontext.nn.config import ModelConfig
from farcontext.nn.embedding import Embedding, RelativeBias, drawn_rotation, on_scores, rotation_of
from farcontext.nn.layers import Block, Cache, Norm, Rotation
from farcontext.nn.masks import Pattern
from farcontext.schema import PAD


class Stack(nn.Module):
    """Blocks and a final norm.

    Layers 0, g, 2g, … see the given pattern; with a window, the others see a band.
    """

    def __init__(self, config: ModelConfig, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        first_norms = (layer > 0 or not config.embedding_norm for layer in range(config.layers))
        self.blocks = nn.ModuleList(Block(config, first_norm, cross) for first_norm in first_norms)
        self.relative = RelativeBias(config, causal) if config.positions == "t5" else None
        self.norm = Norm(config)

    def forward(
        self,
        x_BTD: Tensor,
        documents_BT: Tensor | None = None,
        pattern: Pattern | None = None,
        memory_BSD: Tensor | None = None,
        memory_pattern: Pattern | None = None,
        *,
        select: Tensor | None = None,
        caches: Sequence[Cache] | None = None,
    ) -> Tensor:
        """Return (B, T, D) or, of the selected positions, (n, D).

        The last block computes no others. With caches, one a block, the tokens follow those in
        them, are added, and turn by the table of C tokens: schemes that look at the length take C
        for it.
        """
        whole, band = self._patterns(documents_BT, pattern)
        kinds = {self.config.is_global(layer) for layer in range(len(self.blocks))}
        rotations = {wide: self._rotation(x_BTD, wide, caches and caches[0]) for wide in kinds}
        for layer, block in enumerate(self.blocks):
            wide = self.config.is_global(layer)
            chosen = select if layer == len(self.blocks) - 1 else None
            seen, cache = whole if wide else band, caches[layer] if caches else None
            x_BTD = block(
                x_BTD, seen, rotations[wide], memory_BSD, memory_pattern, chosen, cache=cache
            )
        return self.norm(x_BTD)

    def _patterns(
        self, documents_BT: Tensor | None, pattern: Pattern | None
    ) -> tuple[Pattern, Pattern | None]:
        """Return the patterns of global and of local layers.

        A local layer sees |i − j| < window, in a causal stack backwards only.
        """
        whole = pattern or (Pattern.causal() if self.causal else Pattern())
        band = None
        if self.config.window is not None:
            band = Pattern.window(self.config.window, causal=self.causal)
        if documents_BT is not None:
            whole, band = whole.within(documents_BT), band and band.within(documents_BT)
        return tuple(p and on_scores(p, self.config, self.relative) for p in (whole, band))

    def _rotation(self, x_BTD: Tensor, wide: bool, cache: Cache | None) -> Rotation | None:
        if self.config.positions != "rope":
            return None
        # In bf16 autocast the residual stream may be fp32 and q, k bf16: fp32 tables serve both.
        dtype = torch.promote_types(x_BTD.dtype, torch.float32)
        start, length = (cache.length, cache.capacity) if cache else (0, x_BTD.shape[1])
        if self.config.random_positions:
            cos, sin = drawn_rotation(self.config, length, self.training, x_BTD, dtype)
        else:
            cos, sin = rotation_of(self.config, length, wide, dtype, x_BTD.device)
        here = slice(start, start + x_BTD.shape[1])
        return cos[here], sin[here]


class LanguageModel(nn.Module):
    """The base of the models.

    They share the embedding, a stack, the initialisation, and an output matrix that may be the
    embedding's.
    """

    def __init__(self, config: ModelConfig, causal: bool, output_bias: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.stack = Stack(config, causal)
        self.output = (
            None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.width))
        )
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size)) if output_bias else None
        # PaLM (Chowdhery et al. 2022, §2) ties embeddings of s.d. 1 and multiplies the logits by
        # 1/√D. Then, and for any large s.d., logits of a normalised hidden state start with s.d. 1.
        spread = (config.embedding_std or 0.0) * math.sqrt(config.width)
        self.logit_scale = 1 / spread if config.tied and spread > 1 else 1.0

    def initialise(self) -> None:
        """Draw normal weights of standard deviation `init_std`.

        It is divided by √(2·layers) where a matrix writes to the residual stream.
        """
        config = self.config
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            std = config.init_std
            if name.endswith(("embedding.weight", "embedding.positions")):
                std = config.embedding_std or std
            elif name.endswith("embedding.before"):
                std = (
                    3 * len(parameter)
                ) ** -0.5  # torch takes this for a convolution of that reach.
            elif name.endswith("out.weight"):
                std /= math.sqrt(2 * config.layers)
            nn.init.normal_(parameter, std=std)

    def logits(self, x_nD: Tensor) -> Tensor:
        """Return the scores of all V tokens for final hidden states."""
        x_nD = x_nD * self.logit_scale if self.logit_scale != 1 else x_nD
        return F.linear(
            x_nD, self.embedding.weight if self.output is None else self.output, self.output_bias
        )

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        pattern: Pattern | None = None,
        select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None = None,
        caches: Sequence[Cache] | None = None,
        before: Int[Tensor, "B k"] | None = None,
    ) -> Float[Tensor, "*n D"]:
        """Return the final, normalised hidden states, (B, T, D).

        Those of the selected positions are (n, D), as in `forward`. With caches, `before` holds the
        last tokens in them: a short convolution looks back at these.
        """
        x_BTD = self.embedding(tokens, documents, caches[0].length if caches else 0, before)
        return self.stack(x_BTD, documents, pattern, select=select, caches=caches)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None = None,
        pattern: Pattern | None = None,
    ) -> Float[Tensor, "*n V"]:
        """Return the logits (B, T, V), or (n, V) with `select`.

        `select` tells which positions are scored: output and last block run on those alone.

        Args:
            tokens: ids.
            documents: equal ids see each other; a negative id is padding. None: each row is one
                document.
            select: a mask (B, T), or indices into the flattened rows.
            pattern: what global layers see, at unchanged positions, instead of everything (or j ≤ i
                if causal).
        """
        return self.logits(self.hidden(tokens, documents, pattern, select))


class Encoder(LanguageModel):
    """Bidirectional masked language model.

    With the right config it is ModernBERT (Warner et al. 2024).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, causal=False, output_bias=True)
        self.head = nn.Linear(config.width, config.width, bias=False)
        self.head_norm = Norm(config)
        self.initialise()

    def logits(self, x_nD: Tensor) -> Tensor:
        """Return the scores of all V tokens for final hidden states.

        They pass through dense, GELU and norm.
        """
        return super().logits(self.head_norm(F.gelu(self.head(x_nD))))


class Decoder(LanguageModel):
    """Causal language model with logits of the *next* token.

    With the right config it is Llama (Touvron et al. 2023).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, causal=True)
        self.initialise()


class EncoderDecoder(LanguageModel):
    """Sequence-to-sequence model (Vaswani et al. 2017, but pre-norm).

    It has `layers` blocks on either side and one embedding.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, causal=False)
        self.decoder = Stack(config, causal=True, cross=True)
        self.initialise()

    def hidden(
        self,
        source: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"],
        source_documents: Int[Tensor, "B S"] | None = None,
        target_documents: Int[Tensor, "B T"] | None = None,
        select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "*n D"]:
        """Return the decoder's final hidden states.

        A target token sees the source tokens of its own document. Without target documents all
        targets are of document 0. RoPE turns self-attention only: source and target positions have
        no common origin.
        """
        memory_BSD = self.stack(self.embedding(source, source_documents), source_documents)
        x_BTD, across = self.embedding(target, target_documents), Pattern()
        if source_documents is not None:
            mine = torch.zeros_like(target) if target_documents is None else target_documents
            across = across.within(source_documents, mine)
        return self.decoder(x_BTD, target_documents, None, memory_BSD, across, select=select)

    def forward(
        self,
        source: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"],
        source_documents: Int[Tensor, "B S"] | None = None,
        target_documents: Int[Tensor, "B T"] | None = None,
        select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "*n V"]:
        """Return the logits of the next target token.

        They are (B, T, V) or (n, V); documents and `select` are as in the other models.
        """
        return self.logits(self.hidden(source, target, source_documents, target_documents, select))


def padding_of(tokens: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return documents for rows of one document each.

    Rows are filled up with PAD: a document is 0, and −1 where there is padding.
    """
    return torch.where(tokens == PAD, -1, 0)


def num_parameters(model: nn.Module) -> int:
    """Return the number of trained numbers, a shared matrix once."""
    return sum(parameter.numel() for parameter in model.parameters())
