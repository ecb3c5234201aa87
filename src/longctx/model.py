"""Transformers, leaf to root: Norm, MLP, Attention, Block, Stack, then Encoder, Decoder and EncoderDecoder.

B batch, T tokens (queries), S key tokens, N heads, G key/value heads, H head width, D model width, F = H/2 frequencies,
M MLP width, V vocabulary, n scored positions. Pre-norm, no dropout, and no bias but that of the masked-LM output.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from longctx.attention import attend
from longctx.config import ModelConfig
from longctx.patterns import Pattern
from longctx.positions import pairs_together, positions_within, rotate, rotation_table_of, sinusoidal, smear

Rotation = tuple[Tensor, Tensor]  # cos and sin, (T, F)


class Norm(nn.Module):
    """LayerNorm without bias, or RMSNorm, over the last axis."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind, self.eps = config.norm, config.norm_eps
        self.weight = nn.Parameter(torch.ones(config.width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.kind == "layer":
            return F.layer_norm(x_BTD, self.weight.shape, self.weight, None, self.eps)
        # under autocast x may be bf16 where the weight is fp32: torch would leave its fused kernel
        return F.rms_norm(x_BTD, self.weight.shape, self.weight.to(x_BTD.dtype), self.eps)


class MLP(nn.Module):
    """GeGLU or SwiGLU (Shazeer 2020): out(act(a) ∘ b), where one matrix makes a and b; or plain out(act(a))."""

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
    """Grouped-query attention, to itself or, given a memory, across; queries, keys and values from one matrix."""

    def __init__(self, config: ModelConfig, cross: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.head_width, self.pairing = config.head_width, config.pairing
        self.qkv = nn.Linear(config.width, (self.heads + 2 * self.kv_heads) * config.head_width, bias=False)
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
    ) -> Tensor:
        split = (self.heads, self.kv_heads, self.kv_heads)
        if memory_BSD is not None:
            w_q, w_kv = self.qkv.weight.split((split[0] * self.head_width, 2 * split[1] * self.head_width))
            q_BTNH = F.linear(x_BTD, w_q).unflatten(-1, (-1, self.head_width))
            k_BSGH, v_BSGH = F.linear(memory_BSD, w_kv).unflatten(-1, (-1, self.head_width)).split(split[1:], 2)
        elif rotation is None:
            q_BTNH, k_BSGH, v_BSGH = self.qkv(x_BTD).unflatten(-1, (-1, self.head_width)).split(split, 2)
            k_BSGH = smear(k_BSGH, self.mix, pattern.documents, causal=pattern.after == 0)
        else:
            qk_BTKH, v_BSGH = self._rotated(x_BTD, rotation, pattern)
            q_BTNH, k_BSGH = qk_BTKH.split(split[:2], 2)
        return self.out(attend(q_BTNH, k_BSGH, v_BSGH, pattern).flatten(2))

    def _rotated(self, x_BTD: Tensor, rotation: Rotation, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Return rotated queries and keys in one tensor, and the values.

        Scores do not change when q and k change the order of their channels alike. So for pairing "half" the rows of
        the matrix, not the tokens, are brought into the order that the one-pass interleaved rotation wants.
        """
        turned, weight = self.heads + self.kv_heads, self.qkv.weight
        if self.pairing == "half":
            w_qk, w_v = weight.tensor_split([turned * self.head_width])
            weight = torch.cat((w_qk.index_select(0, self.order), w_v))
        qkv_BTKH = F.linear(x_BTD, weight).unflatten(-1, (-1, self.head_width))
        qk_BTKH, v_BTGH = qkv_BTKH.tensor_split([turned], 2)
        if self.mix is not None:
            q_BTNH, k_BSGH = qk_BTKH.tensor_split([self.heads], 2)
            qk_BTKH = torch.cat((q_BTNH, smear(k_BSGH, self.mix, pattern.documents, causal=pattern.after == 0)), 2)
        return rotate(qk_BTKH, *rotation, "interleaved"), v_BTGH


class Block(nn.Module):
    """x + attention(norm x), then with a memory x + cross(norm x), then x + mlp(norm x)."""

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
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), pattern, rotation)
        if self.cross is not None:
            x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), memory_pattern, None, memory_BSD)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Embedding(nn.Module):
    """Token embedding and, for "learned" and "sinusoidal", absolute positions, counted within each document.

    With "sinusoidal" the embedding is multiplied by √D, as Vaswani et al. 2017 do (§3.4).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.width))
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.max_length, config.width))
        self.norm = Norm(config) if config.embedding_norm else nn.Identity()

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        x_BTD = F.embedding(tokens_BT, self.weight)
        match self.config.positions:
            case "learned":
                at_T = positions_within(tokens_BT, documents_BT)
                longest, limit = int(at_T.max()) + 1, len(self.positions)
                if longest > limit:
                    raise ValueError(f"length = {longest}: expected at most max_length = {limit} tokens")
                x_BTD = x_BTD + F.embedding(at_T, self.positions)
            case "sinusoidal":
                at_T, width = positions_within(tokens_BT, documents_BT), self.config.width
                table_TD = sinusoidal(tokens_BT.shape[1], width).to(x_BTD)
                x_BTD = x_BTD * math.sqrt(width) + F.embedding(at_T, table_TD)
        return self.norm(x_BTD)


class Stack(nn.Module):
    """Blocks and a final norm. Layers 0, g, 2g, … see the given pattern; with a window, the others a band."""

    def __init__(self, config: ModelConfig, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        first_norms = (layer > 0 or not config.embedding_norm for layer in range(config.layers))
        self.blocks = nn.ModuleList(Block(config, first_norm, cross) for first_norm in first_norms)
        self.norm = Norm(config)

    def is_global(self, layer: int) -> bool:
        """Whether a layer sees the whole pattern; ModernBERT: 0, 3, 6, …"""
        return self.config.window is None or layer % self.config.global_every == 0

    def forward(
        self,
        x_BTD: Tensor,
        documents_BT: Tensor | None = None,
        pattern: Pattern | None = None,
        memory_BSD: Tensor | None = None,
        memory_pattern: Pattern | None = None,
    ) -> Tensor:
        whole, band = self._patterns(documents_BT, pattern)
        for layer, block in enumerate(self.blocks):
            wide = self.is_global(layer)
            rotation = self._rotation(x_BTD, wide)
            x_BTD = block(x_BTD, whole if wide else band, rotation, memory_BSD, memory_pattern)
        return self.norm(x_BTD)

    def _patterns(self, documents_BT: Tensor | None, pattern: Pattern | None) -> tuple[Pattern, Pattern | None]:
        """Return the patterns of global and of local layers: half-width h, or in a causal stack the last h keys."""
        whole = pattern or (Pattern.causal() if self.causal else Pattern())
        band = None
        if self.config.window is not None:
            band = (Pattern.window if self.causal else Pattern.local)(self.config.window)
        if documents_BT is None:
            return whole, band
        return whole.within(documents_BT), band and band.within(documents_BT)

    def _rotation(self, x_BTD: Tensor, wide: bool) -> Rotation | None:
        if self.config.positions != "rope":
            return None
        theta = self.config.theta if wide else self.config.local_theta
        # in bf16 autocast the residual stream may be fp32 and q, k bf16: tables in fp32 serve both
        dtype = torch.promote_types(x_BTD.dtype, torch.float32)
        return rotation_table_of(self.config.head_width, theta, x_BTD.shape[1], dtype, x_BTD.device)


def select_rows(x_BTD: Tensor, select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None) -> Tensor:
    """Return (n, D): positions chosen by a mask (B, T) or by indices into the flattened B·T; all of x with None."""
    if select is None:
        return x_BTD
    chosen_n = select.flatten().nonzero().squeeze(1) if select.dtype == torch.bool else select
    return x_BTD.flatten(0, 1).index_select(0, chosen_n)


class LanguageModel(nn.Module):
    """What the models share: embedding, a stack, initialisation, and an output matrix that may be the embedding's."""

    def __init__(self, config: ModelConfig, causal: bool, output_bias: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.stack = Stack(config, causal)
        self.output = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size)) if output_bias else None
        # PaLM (Chowdhery et al. 2022, §2) ties embeddings of s.d. 1 and multiplies the logits by 1/√D: then, and for
        # any large s.d., logits of a normalised hidden state start with s.d. 1
        spread = (config.embedding_std or 0.0) * math.sqrt(config.width)
        self.logit_scale = 1 / spread if config.tied and spread > 1 else 1.0

    def initialise(self) -> None:
        """Draw normal weights: s.d. `init_std`, over √(2·layers) where a matrix writes to the residual stream."""
        config = self.config
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            std = config.init_std
            if name.endswith(("embedding.weight", "embedding.positions")):
                std = config.embedding_std or std
            elif name.endswith("out.weight"):
                std /= math.sqrt(2 * config.layers)
            nn.init.normal_(parameter, std=std)

    def logits(self, x_nD: Tensor) -> Tensor:
        """Return the scores of all V tokens for final hidden states."""
        x_nD = x_nD * self.logit_scale if self.logit_scale != 1 else x_nD
        return F.linear(x_nD, self.embedding.weight if self.output is None else self.output, self.output_bias)

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        pattern: Pattern | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return the final, normalised hidden states; arguments as in `forward`."""
        return self.stack(self.embedding(tokens, documents), documents, pattern)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None = None,
        pattern: Pattern | None = None,
    ) -> Float[Tensor, "*n V"]:
        """Return logits (B, T, V), or (n, V) of the positions that `select` scores: the output runs on those alone.

        Args:
            tokens: ids.
            documents: equal ids see each other; a negative id is padding. None: each row is one document.
            select: a mask (B, T), or indices into the flattened rows.
            pattern: what global layers see, at unchanged positions, instead of everything (or j ≤ i if causal).
        """
        return self.logits(select_rows(self.hidden(tokens, documents, pattern), select))


class Encoder(LanguageModel):
    """Bidirectional masked language model; with the right config, ModernBERT (Warner et al. 2024)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, causal=False, output_bias=True)
        self.head = nn.Linear(config.width, config.width, bias=False)
        self.head_norm = Norm(config)
        self.initialise()

    def logits(self, x_nD: Tensor) -> Tensor:
        """Return the scores of all V tokens for final hidden states, through dense, GELU and norm."""
        return super().logits(self.head_norm(F.gelu(self.head(x_nD))))


class Decoder(LanguageModel):
    """Causal language model, logits of the *next* token; with the right config, Llama (Touvron et al. 2023)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, causal=True)
        self.initialise()


class EncoderDecoder(LanguageModel):
    """Sequence to sequence (Vaswani et al. 2017, but pre-norm): `layers` blocks on either side, one embedding."""

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
    ) -> Float[Tensor, "B T D"]:
        """Return the decoder's final hidden states; a target token sees the source tokens of its own document.

        Without target documents all targets are of document 0. RoPE turns self-attention only: source and target
        positions have no common origin.
        """
        memory_BSD = self.stack(self.embedding(source, source_documents), source_documents)
        x_BTD, across = self.embedding(target, target_documents), Pattern()
        if source_documents is not None:
            mine = torch.zeros_like(target) if target_documents is None else target_documents
            across = across.within(source_documents, mine)
        return self.decoder(x_BTD, target_documents, None, memory_BSD, across)

    def forward(
        self,
        source: Int[Tensor, "B S"],
        target: Int[Tensor, "B T"],
        source_documents: Int[Tensor, "B S"] | None = None,
        target_documents: Int[Tensor, "B T"] | None = None,
        select: Bool[Tensor, "B T"] | Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "*n V"]:
        """Return logits of the next target token, (B, T, V) or (n, V); documents and `select` as in the others."""
        return self.logits(select_rows(self.hidden(source, target, source_documents, target_documents), select))


def num_parameters(model: nn.Module) -> int:
    """Return the number of trained numbers, a shared matrix once."""
    return sum(parameter.numel() for parameter in model.parameters())
