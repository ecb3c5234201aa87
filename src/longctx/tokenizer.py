"""Byte-level BPE on the training split, and every split encoded once into memory-mapped token files.

Byte-level (Radford et al. 2019; Sennrich et al. 2016 for BPE): any text is a sequence of known bytes, so
nothing is unknown and decoding returns the text exactly. Text never yields a special token: "[MASK]" in a
document is six ordinary characters.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as BPETokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from longctx import files
from longctx.config import EOS, SPECIAL, Tokenizer
from longctx.corpus import SPLITS, Document, load_documents
from longctx.files import UserError

MAX_VOCABULARY = 1 << 16  # token files are uint16
PIECE = 1 << 16  # characters of one training string: the trainer holds each string's words at once


def _sample(documents: list[Document], characters: int) -> Iterator[str]:
    """Yield the first `characters` of each domain's documents, in pieces: so no domain outweighs another."""
    left = {document.domain: characters for document in documents}
    for document in documents:
        text = document.text[: left[document.domain]]
        left[document.domain] -= len(text)
        yield from (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def train_tokenizer(corpus: Path, config: Tokenizer) -> BPETokenizer:
    """Return a tokenizer trained on the training split alone; the same text gives the same merges.

    Raises:
        UserError: the corpus is not built, or the vocabulary is too large for uint16 or for the text.
    """
    if config.vocab_size > MAX_VOCABULARY:
        raise UserError(f"tokenizer: vocab_size = {config.vocab_size}: expected at most {MAX_VOCABULARY}")
    tokenizer = BPETokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(load_documents(corpus, "train"), config.characters), trainer)
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise UserError(
            f"tokenizer: vocab_size = {config.vocab_size}: expected at most {tokenizer.get_vocab_size()}, "
            "all that this text gives"
        )
    tokenizer.encode_special_tokens = True  # not kept in tokenizer.json: load_tokenizer sets it again
    return tokenizer


def load_tokenizer(folder: Path) -> BPETokenizer:
    """Return the tokenizer that `build_tokenizer` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: expected a file here; `longctx tokenizer` makes it")
    try:
        tokenizer = BPETokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: expected a tokenizer: {' '.join(str(error).split())}") from None
    tokenizer.encode_special_tokens = True
    return tokenizer


def vocabulary_size(folder: Path) -> int:
    """Return V of the tokenizer in a folder. Raises UserError if it is not built."""
    return files.read_json(folder / "card.json")["vocab_size"]


def token_bytes(tokenizer: BPETokenizer) -> np.ndarray:
    """Return how many bytes of UTF-8 each id stands for, int64 (V,); 0 for a special token.

    In the byte-level alphabet one character stands for one byte.
    """
    lengths = [len(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    lengths[: len(SPECIAL)] = [0] * len(SPECIAL)
    return np.array(lengths, dtype=np.int64)


def encode_documents(tokenizer: BPETokenizer, documents: list[Document]) -> tuple[np.ndarray, np.ndarray]:
    """Return the documents' ids, uint16, each followed by EOS, and their starts, int64 (documents + 1,)."""
    encoded = [np.array([*tokenizer.encode(d.text).ids, EOS], dtype=np.uint16) for d in documents]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]).astype(np.int64)
    return np.concatenate(encoded), offsets


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    files.write_atomic(path, buffer.getvalue())


def build_tokenizer(config: Tokenizer, corpus: Path, destination: Path) -> dict:
    """Train the tokenizer, encode every split of every domain, and return the card.

    Writes tokenizer.json, <split>-<domain>.npy, <split>-<domain>.offsets.npy, token_bytes.npy and card.json.

    Raises:
        UserError: as `train_tokenizer`.
    """
    tokenizer = train_tokenizer(corpus, config)
    text = tokenizer.to_str()
    lengths = token_bytes(tokenizer)
    counts: dict[str, dict[str, dict[str, float]]] = {}
    with files.folder_atomic(destination) as folder:
        files.write_atomic(folder / "tokenizer.json", text)
        _write_array(folder / "token_bytes.npy", lengths)
        for split in SPLITS:
            documents = load_documents(corpus, split)
            for domain in sorted({document.domain for document in documents}):
                tokens, offsets = encode_documents(tokenizer, [d for d in documents if d.domain == domain])
                _write_array(folder / f"{split}-{domain}.npy", tokens)
                _write_array(folder / f"{split}-{domain}.offsets.npy", offsets)
                ordinary = len(tokens) - (len(offsets) - 1)
                counts.setdefault(domain, {})[split] = {
                    "documents": len(offsets) - 1,
                    "tokens": len(tokens),
                    "bytes_per_token": round(int(lengths[tokens].sum()) / ordinary, 4),
                }
        identity = {"corpus": files.read_json(corpus / "card.json")["fingerprint"], "tokenizer": text}
        card = {
            "vocab_size": tokenizer.get_vocab_size(),
            "domains": counts,
            "corpus": identity["corpus"],
            "fingerprint": files.sha256_json(identity),
        }
        files.write_json(folder / "card.json", card)
    return card
