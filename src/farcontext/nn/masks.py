"""The patterns that tell which query may see which key.

B batch, T query tokens, S key tokens, N heads. Everything is aligned at the bottom right, as in
flash-attn since 2.1: the last query stands at the last key, so query i stands at key position
i + S − T.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ALL = slice(None)
COUNT_BLOCK = 256  # `count` holds the dense rows of so many queries at a time, where it has to.


@dataclass(frozen=True, eq=False)
class Pattern:
    """The keys that each query may see.

    A visible key's offset j − (i + S − T) lies in [−before, after], and the key in the query's own
    document. A limit of None is no limit.
    """

    before: int | None = None
    after: int | None = None
    sinks: int = 0  # The first keys stay visible whatever `before` says, but not beyond `after`.
    slopes: Float[Tensor, " N"] | None = None  # ALiBi adds −slope·distance to the scaled score.
    # A bias by offset −R … R is added; beyond ±R, that of ±R holds.
    relative: Float[Tensor, "N O"] | None = None
    # L: the scores of a query at position n > L are multiplied by ln n / ln L.
    log_n: int | None = None
    # Each key has a document; a negative one is padding, which sees nothing and is unseen.
    documents: Int[Tensor, "B S"] | None = None
    # The queries have these documents; None takes those of the last T keys.
    queries: Int[Tensor, "B T"] | None = None
    # Kernels keep their masks here for the next layer.
    built: dict = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("before", "after", "sinks"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} = {value}: expected at least 0")

    @classmethod
    def causal(cls) -> "Pattern":
        """Return the causal pattern, j ≤ i."""
        return cls(after=0)

    @classmethod
    def window(cls, keys: int, *, causal: bool = True) -> "Pattern":
        """Return the pattern in which a query sees its nearest keys.

        Its own key is among them. Causal, they end at the query: 0 ≤ i − j < keys, and flash-attn
        writes (keys − 1, 0). Otherwise they lie on both sides: |i − j| < keys, so 2·keys − 1 keys
        are visible.
        """
        if keys < 1:
            raise ValueError(f"keys = {keys}: expected at least 1, the query's own")
        return cls(before=keys - 1, after=0 if causal else keys - 1)

    @classmethod
    def local(cls, half_width: int) -> "Pattern":
        """Return the pattern of a band, |i − j| ≤ half_width.

        It has 2·half_width + 1 keys. ModernBERT's local_attention = 128 is half_width = 64.
        """
        return cls(before=half_width, after=half_width)

    def within(
        self, documents: Int[Tensor, "B S"], queries: Int[Tensor, "B T"] | None = None
    ) -> "Pattern":
        """Return the same pattern within documents.

        No query sees a key of another document.
        """
        return replace(self, documents=documents, queries=queries, built={})

    @property
    def plain(self) -> bool:
        """Return whether nothing is added to the scores."""
        return self.slopes is None and self.relative is None

    @property
    def banded(self) -> bool:
        """Return whether the pattern is a band of limited width.

        Nothing is visible beside the band and nothing is added, so far keys need not be looked at.
        """
        return self.before is not None and self.after is not None and not self.sinks and self.plain

    def is_full(self) -> bool:
        """Return whether every key is visible and nothing is added."""
        return self.before is None and self.after is None and self.documents is None and self.plain

    def is_causal(self) -> bool:
        """Return whether the pattern is j ≤ i and nothing else."""
        return self.before is None and self.after == 0 and self.documents is None and self.plain

    def allowed(
        self,
        T: int,
        S: int,
        device: torch.device | str = "cpu",
        rows: slice = ALL,
        columns: slice = ALL,
    ) -> Bool[Tensor, "#B 1 t s"]:
        """Return the dense mask, True where the key may be seen.

        `rows` and `columns` pick its block of some query rows and key columns.
        """
        offset = self._offsets(T, S, device, rows, columns)
        mask = torch.ones_like(offset, dtype=torch.bool)
        if self.before is not None:
            mask &= offset >= -self.before
        if self.sinks:
            mask |= (torch.arange(S, device=device) < self.sinks)[columns]
        if self.after is not None:
            mask &= offset <= self.after
        mask = mask[None, None]
        if self.documents is not None:
            mine, theirs = self.query_documents(T)[:, rows, None], self.documents[:, None, columns]
            mask = mask & ((mine == theirs) & (theirs >= 0))[:, None].to(device)
        return mask

    def bias(
        self,
        T: int,
        S: int,
        device: torch.device | str = "cpu",
        rows: slice = ALL,
        columns: slice = ALL,
    ) -> Float[Tensor, "1 N t s"] | None:
        """Return what is added to the scaled scores, None if nothing is.

        `rows` and `columns` pick a block of it. It is ALiBi's −slope·|i + S − T − j| in fp64 (Press
        et al. 2022, §3), or the relative bias at offset j − (i + S − T). Visible and hidden keys
        get it alike: `allowed` hides. Causal or not, the distance is what counts.
        """
        if self.plain:
            return None
        offset = self._offsets(T, S, device, rows, columns)
        if self.relative is not None:
            furthest = self.relative.shape[1] // 2
            return self.relative.to(device)[:, offset.clamp(-furthest, furthest) + furthest][None]
        return -self.slopes.double().to(device)[None, :, None, None] * offset.abs()

    def query_scale(
        self, T: int, S: int, device: torch.device | str = "cpu"
    ) -> Float[Tensor, " T"]:
        """Return the factor by which each query's scores are multiplied.

        It is max(1, ln n / ln L) at position n, counted from 1. Log-n scaling keeps the entropy of
        attention as keys become more (Su 2021; Nakanishi 2025 learns a factor).
        """
        n_T = torch.arange(S - T + 1, S + 1, device=device, dtype=torch.float64).clamp(min=1)
        return (n_T.log() / math.log(self.log_n)).clamp(min=1)

    def query_documents(self, T: int) -> Int[Tensor, "B T"]:
        """Return the documents of T queries."""
        if self.queries is not None:
            return self.queries
        if self.documents.shape[1] < T:
            raise ValueError(
                f"T = {T}, S = {self.documents.shape[1]}: expected `queries` where T exceeds S"
            )
        return self.documents[:, self.documents.shape[1] - T :]

    def keys_of(self, rows: slice, T: int, S: int) -> slice:
        """Return the span of keys that queries of `rows` may see.

        No query of `rows` sees anything outside it (documents aside).
        """
        first = 0 if self.before is None or self.sinks else rows.start + S - T - self.before
        end = S if self.after is None else rows.stop + S - T + self.after
        return slice(min(max(first, 0), S), min(max(end, 0), S))

    def count(self, T: int, S: int) -> int:
        """Return the number of visible pairs.

        It takes O(T) work. With documents, pairs are summed over rows, in O(T·S) work and O(S)
        memory.
        """
        if self.documents is not None:
            device = self.documents.device
            blocks = (slice(i, min(i + COUNT_BLOCK, T)) for i in range(0, T, COUNT_BLOCK))
            return sum(int(self.allowed(T, S, device, rows).sum()) for rows in blocks)
        at = torch.arange(T) + S - T
        end = torch.full_like(at, S) if self.after is None else (at + self.after + 1).clamp(0, S)
        first = torch.zeros_like(at) if self.before is None else (at - self.before).clamp(0, S)
        first = torch.minimum(first, end)
        return int((end - first + first.clamp(max=self.sinks)).sum())

    def receptive_field(self, layers: int) -> int | None:
        """Return how many tokens can reach one output through `layers` layers.

        The output's own token is among them; None means all tokens. It is L(w−1) + 1 for a window
        of w keys, 2Lh + 1 for |i−j| ≤ h. Papers round it to L·w.
        """
        if self.before is None or self.after is None or self.sinks:
            return None
        return layers * (self.before + self.after) + 1

    def _offsets(
        self, T: int, S: int, device: torch.device | str, rows: slice, columns: slice
    ) -> Int[Tensor, "t s"]:
        at = torch.arange(S - T, S, device=device)[rows]
        return torch.arange(S, device=device)[columns] - at[:, None]
