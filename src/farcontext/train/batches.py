"""Batches as a function of (seed, step), and fixed evaluation rows.

Batches are a pure function of (seed, step). Evaluations score the fixed rows.

B rows, T tokens in a row. Tokens stay memory-mapped; a batch costs one permutation lookup and one
gather.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from farcontext import files
from farcontext.files import UserError
from farcontext.schema import EOS, MASK, PAD, SPECIAL
from farcontext.train.config import BatchConfig

IGNORE = -100  # A target of this value is not scored.
# Each purpose draws from a random stream of its own.
PERMUTATION, OFFSET, MASKING, TASKS = range(4)


@dataclass(frozen=True)
class Batch:
    """The rows that one step sees.

    `documents` tells documents apart within a row; with None, each row lies in one.
    """

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]  # IGNORE marks what is not scored.
    documents: Int[Tensor, "B T"] | None
    source: Int[Tensor, "B S"] | None = None  # An encoder–decoder's encoder reads these.

    def split(self, parts: int) -> list["Batch"]:
        """Return the rows as `parts` batches of equal size, in order."""
        fields = (self.tokens, self.targets, self.documents, self.source)
        chunks = ([None] * parts if field is None else field.chunk(parts) for field in fields)
        return [Batch(*part) for part in zip(*chunks, strict=True)]

    def to(self, where: torch.device) -> "Batch":
        """Return the batch on a device."""
        fields = (self.tokens, self.targets, self.documents, self.source)
        return Batch(*(None if field is None else field.to(where) for field in fields))


@dataclass(frozen=True)
class Stream:
    """One split's tokens over some domains.

    Each document ends with EOS, which belongs to it.
    """

    name: str  # Messages use it.
    vocab_size: int
    fingerprint: str
    tokens: dict[str, np.ndarray]  # Each domain has its ids, uint16, memory-mapped.
    # Each domain has the starts of its documents and the end, int64.
    offsets: dict[str, np.ndarray]

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains, sorted by name."""
        return tuple(self.tokens)

    @classmethod
    def load(
        cls, folder: Path, split: str, domains: Sequence[str] = (), limit: int | None = None
    ) -> Self:
        """Map a split's tokens into memory.

        Args:
            folder: what stage `tokenizer` made.
            split: train, validation or test.
            domains: empty for all.
            limit: keep the first `limit` tokens of each domain; the last document may be cut.

        Raises:
            UserError: not built, no such split or domain, or a damaged file.
        """
        folder = Path(folder)
        card = files.read_json(folder / "card.json", "domains", "vocab_size", "fingerprint")
        known = sorted(card["domains"])
        tokens, offsets = {}, {}
        for domain in sorted(set(domains)) or known:
            if domain not in known:
                raise UserError(f"{folder}: domains: {domain}: expected some of {', '.join(known)}")
            ids = _load_array(folder / f"{split}-{domain}.npy", np.uint16)
            starts = np.asarray(_load_array(folder / f"{split}-{domain}.offsets.npy", np.int64))
            if limit is not None and limit < len(ids):
                ids, starts = ids[:limit], np.append(starts[starts < limit], limit)
            tokens[domain], offsets[domain] = ids, starts
        return cls(
            f"{folder.name}/{split}", card["vocab_size"], card["fingerprint"], tokens, offsets
        )

    def document_of(self, domain: str, positions: np.ndarray) -> np.ndarray:
        """Return the document index of each position of a domain.

        Positions count in the domain's stream.
        """
        return np.searchsorted(self.offsets[domain], positions, side="right") - 1

    def all_tokens(self) -> np.ndarray:
        """Return every domain's ids in one array, int64, in order of domain."""
        return np.concatenate(list(self.tokens.values())).astype(np.int64)

    def windows(self, domain: str, length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `evaluation_starts`' windows and each one's document.

        Windows are int64 (rows, length), documents (rows,).
        """
        starts = evaluation_starts(self, domain, length, rows)
        ids = self.tokens[domain][starts[:, None] + np.arange(length)].astype(np.int64)
        return ids, self.document_of(domain, starts)


def _load_array(path: Path, dtype: type) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: expected a file here; `farcontext tokenizer` makes it") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: expected an array: {' '.join(str(error).split())}") from None
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(
            f"{path}: dtype = {array.dtype}, {array.ndim} axes: expected {np.dtype(dtype)}, 1 axis"
        )
    return array


def generator(purpose: int, seed: int, index: int) -> np.random.Generator:
    """Return the random stream of a purpose, a seed and an index.

    The index is a step or an epoch.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([purpose, seed, index])))


@lru_cache(maxsize=64)
def _offset(seed: int, epoch: int) -> int:
    return int(generator(OFFSET, seed, epoch).integers(1 << 32))


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, rows: int) -> np.ndarray:
    return generator(PERMUTATION, seed, epoch).permutation(rows)


def _windows(stream: Stream, length: int) -> np.ndarray:
    """Return the whole windows of each domain, (domains,)."""
    counts = np.array([len(ids) // length for ids in stream.tokens.values()])
    for domain, count in zip(stream.domains, counts, strict=True):
        if count == 0:
            found = len(stream.tokens[domain])
            raise UserError(
                f"{stream.name}-{domain}: {found} tokens: expected at least length = {length}"
            )
    return counts


@lru_cache(maxsize=8)
def _pieces_of(offsets: bytes, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and ends of the pieces that documents are cut into.

    A piece has at most `length` tokens.
    """
    bounds = np.frombuffer(offsets, dtype=np.int64)
    starts = np.concatenate([np.arange(first, last, length) for first, last in pairwise(bounds)])
    owner = np.searchsorted(bounds, starts, side="right")
    return starts, np.minimum(starts + length, bounds[owner])


def _draw(
    counts: np.ndarray, rows: int, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return epoch, domain and window of a step's rows, each (B,).

    All domains' windows are shuffled together, so domains mix in proportion to their tokens, and
    each window comes once an epoch. A step takes the next B of the permutation; the step at an
    epoch's end takes from both.
    """
    total = int(counts.sum())
    epochs, places = np.divmod(np.arange(step * rows, (step + 1) * rows), total)
    shuffled = np.empty(rows, dtype=np.int64)
    for epoch in np.unique(epochs):
        now = epochs == epoch
        shuffled[now] = _permutation(seed, int(epoch), total)[places[now]]
    domains = np.searchsorted(np.cumsum(counts), shuffled, side="right")
    return epochs, domains, shuffled - (np.cumsum(counts) - counts)[domains]


def _packed(
    stream: Stream, config: BatchConfig, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and documents, both (B, T + 1).

    The tokens are windows of a domain's stream and the token after each.

    The stream is a ring that an epoch enters at an offset of its own, so windows differ between
    epochs; of each domain fewer than `length` tokens are left out of an epoch.
    """
    epochs, domains, windows = _draw(_windows(stream, config.length), config.rows, seed, step)
    offsets = np.array([_offset(seed, int(epoch)) for epoch in epochs])
    tokens = np.empty((config.rows, config.length + 1), dtype=np.int64)
    documents = np.empty_like(tokens)
    for number in np.unique(domains):
        now, name = domains == number, stream.domains[number]
        ids, count = stream.tokens[name], len(stream.offsets[name]) - 1
        starts = offsets[now] % len(ids) + windows[now] * config.length
        laps, places = np.divmod(starts[:, None] + np.arange(config.length + 1), len(ids))
        tokens[now] = ids[places]
        # The ring's seam is a boundary too.
        documents[now] = stream.document_of(name, places) + count * laps
    return tokens, documents


def _padded(
    stream: Stream, config: BatchConfig, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and documents, both (B, T + 1).

    A row is a piece of one document, the token after it, and padding.

    Documents are 0 for the piece (and the token after it, if it is of the same document) and 1 for
    padding.
    """
    pieces = [_pieces_of(offsets.tobytes(), config.length) for offsets in stream.offsets.values()]
    counts = np.array([len(starts) for starts, _ in pieces])
    tokens = np.full((config.rows, config.length + 1), PAD, dtype=np.int64)
    documents = np.ones_like(tokens)
    _, domains, windows = _draw(counts, config.rows, seed, step)
    for row, (number, piece) in enumerate(zip(domains, windows, strict=True)):
        ids = stream.tokens[stream.domains[number]]
        start, end = (int(bound[piece]) for bound in pieces[number])
        if end < len(ids) and ids[end - 1] != EOS:
            end += 1
        tokens[row, : end - start] = ids[start:end]
        documents[row, : end - start] = 0
    return tokens, documents


def training_batch(stream: Stream, config: BatchConfig, *, seed: int, step: int) -> Batch:
    """Return the batch of a step.

    It is a pure function of its arguments, so resuming needs the step alone. Layout packed gives
    windows of `length` consecutive tokens, without padding. Layout padded gives pieces of one
    document each. With objective mlm, targets are the original ids of the selected tokens
    (`mask_tokens`). With objective clm, targets are the next token of the same document, so a
    document's EOS is predicted and predicts nothing.

    Raises:
        UserError: a domain is shorter than one row.
    """
    match config.layout:
        case "packed":
            tokens, documents = _packed(stream, config, seed, step)
        case "padded":
            tokens, documents = _padded(stream, config, seed, step)
    inputs, here = tokens[:, :-1], documents[:, :-1]
    match config.objective:
        case "mlm":
            rng = generator(MASKING, seed, step)
            inputs, targets = mask_tokens(inputs, rng, config.mask_rate, stream.vocab_size)
        case "clm":
            scored = (documents[:, 1:] == here) & (inputs != PAD)
            targets = np.where(scored, tokens[:, 1:], IGNORE)
    alone = bool((here == here[:, :1]).all())
    return Batch(tensor(inputs), tensor(targets), None if alone else tensor(here))


def undamaged_rows(stream: Stream, config: BatchConfig, *, seed: int, step: int) -> np.ndarray:
    """Return the packed rows (B, T) of a step, before masking."""
    return _packed(stream, config, seed, step)[0][:, :-1]


def tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor that shares its memory."""
    return torch.from_numpy(np.ascontiguousarray(array))


def mask_tokens(
    tokens: np.ndarray, rng: np.random.Generator, rate: float, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (inputs, targets) of masked-language modelling, int64, of the tokens' shape.

    Each ordinary token is selected with probability `rate`, each on its own; of the selected 80 %
    become MASK, 10 % a random ordinary token, 10 % stay (Devlin et al. 2019, §3.1). Special tokens
    and padding are never selected. Targets hold the original ids of the selected and IGNORE
    elsewhere.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    selected = (rng.random(tokens.shape) < rate) & (tokens >= len(SPECIAL))
    what = rng.random(tokens.shape)
    others = rng.integers(len(SPECIAL), vocab_size, tokens.shape)
    inputs = np.where(selected & (what < 0.8), MASK, tokens)
    inputs = np.where(selected & (what >= 0.9), others, inputs)
    return inputs, np.where(selected, tokens, IGNORE)


def evaluation_starts(
    stream: Stream, domain: str, length: int, rows: int, *, within_document: bool = True
) -> np.ndarray:
    """Return the first positions of fixed, evenly spaced windows, int64 (rows,), increasing.

    Windows do not overlap if the text has room for that; they lie inside one document each if any
    document is long enough. `stream.document_of(domain, starts)` tells which.

    Raises:
        UserError: no such domain, or fewer than `rows` different windows of that length.
    """
    if domain not in stream.tokens:
        raise UserError(
            f"{stream.name}: domain = {domain}: expected one of {', '.join(stream.domains)}"
        )
    bounds = (
        stream.offsets[domain] if within_document else np.array([0, len(stream.tokens[domain])])
    )
    if np.diff(bounds).max(initial=0) < length:
        bounds = np.array([0, len(stream.tokens[domain])])
    for stride in (length, 1):
        # Each document has so many windows.
        room = np.maximum(0, np.diff(bounds) - length + stride) // stride
        total = int(room.sum())
        if total >= rows:
            chosen = ((np.arange(rows) + 0.5) * total / rows).astype(np.int64)
            document = np.searchsorted(np.cumsum(room), chosen, side="right")
            return bounds[document] + stride * (chosen - (np.cumsum(room) - room)[document])
    raise UserError(
        f"{stream.name}-{domain}: length = {length}, rows = {rows}: expected at most {total} rows"
    )
