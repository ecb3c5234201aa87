"""Byte-level BPE on the training split, and the encoded splits.

Every split is encoded once, into memory-mapped token files.

Byte-level (Radford et al. 2019; Sennrich et al. 2016 for BPE): any text is a sequence of known
bytes, so nothing is unknown and decoding returns the text exactly. Text never yields a special
token: "[MASK]" in a document is six ordinary characters. Documents are read, encoded and written
one after another, so memory does not grow with the corpus.
"""

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as BPETokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from farcontext import files
from farcontext.data.config import Tokenizer
from farcontext.data.corpus import SPLITS, each_document
from farcontext.data.documents import Document
from farcontext.files import UserError
from farcontext.schema import EOS, SPECIAL

MAX_VOCABULARY = 1 << 16  # Token files are uint16.
# One string has so many characters: the trainer holds each string's words at once, the encoder its
# tokens.
PIECE = 1 << 16
TOGETHER = 16  # So many pieces are encoded at once, on all cores.
# No token can lie across this place: words begin with their space.
BREAK = re.compile(r"(?<=\S)(?=[ \n])")


def _sample(documents: Iterable[Document], characters: int) -> Iterator[str]:
    """Yield the first `characters` of each domain's documents, in pieces.

    So no domain outweighs another.
    """
    left: dict[str, int] = {}
    for document in documents:
        text = document.text[: left.setdefault(document.domain, characters)]
        left[document.domain] -= len(text)
        yield from (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def train_tokenizer(corpus: Path, config: Tokenizer) -> BPETokenizer:
    """Return a tokenizer trained on the training split alone.

    The same text gives the same merges.

    Raises:
        UserError: the corpus is not built, or the vocabulary is too large for uint16 or for the
            text.
    """
    if config.vocab_size > MAX_VOCABULARY:
        raise UserError(
            f"tokenizer: vocab_size = {config.vocab_size}: expected at most {MAX_VOCABULARY}"
        )
    tokenizer = BPETokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        _sample(each_document(corpus, "train"), config.characters), trainer
    )
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise UserError(
            f"tokenizer: vocab_size = {config.vocab_size}: "
            f"expected at most {tokenizer.get_vocab_size()}, all that this text gives"
        )
    # tokenizer.json does not keep this, so load_tokenizer sets it again.
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(folder: Path) -> BPETokenizer:
    """Return the tokenizer that `build_tokenizer` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: expected a file here; `farcontext tokenizer` makes it")
    try:
        tokenizer = BPETokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # The library raises bare Exception.
        raise UserError(f"{path}: expected a tokenizer: {' '.join(str(error).split())}") from None
    tokenizer.encode_special_tokens = True
    return tokenizer


def vocabulary_size(folder: Path) -> int:
    """Return V of the tokenizer in a folder.

    It raises UserError if the tokenizer is not built.
    """
    return files.read_json(folder / "card.json", "vocab_size")["vocab_size"]


def token_bytes(tokenizer: BPETokenizer) -> np.ndarray:
    """Return how many UTF-8 bytes each id stands for, int64 (V,).

    A special token stands for 0 bytes.

    In the byte-level alphabet one character stands for one byte.
    """
    lengths = [len(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    lengths[: len(SPECIAL)] = [0] * len(SPECIAL)
    return np.array(lengths, dtype=np.int64)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        boundary = BREAK.search(text, start + PIECE)
        end = boundary.start() if boundary else len(text)
        yield text[start:end]
        start = end


def encode(tokenizer: BPETokenizer, text: str) -> Iterator[np.ndarray]:
    """Yield a document's ids, uint16, EOS last, in consecutive arrays.

    Together they are the ids that the whole text would have at once.

    The tokenizer keeps about 100 bytes a token while it encodes a string, so a long text is cut
    where a word begins.
    """
    pieces = list(_pieces(text))
    for start in range(0, len(pieces), TOGETHER):
        encodings = tokenizer.encode_batch_fast(pieces[start : start + TOGETHER])
        yield from (np.array(one.ids, dtype=np.uint16) for one in encodings)
    yield np.array([EOS], dtype=np.uint16)


def _header(length: int) -> bytes:
    """Return the head of a .npy file of uint16.

    NumPy leaves room in it, so that it is as long for any `length`.
    """
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<u2", "fortran_order": False, "shape": (length,)}
    )
    return buffer.getvalue()


def _write_tokens(
    path: Path, tokenizer: BPETokenizer, lengths: np.ndarray, documents: Iterable[Document]
) -> dict[str, float]:
    """Write one domain's tokens and where its documents start.

    The function returns the card's counts. The starts are (documents + 1,).
    """
    starts, size = [0], 0
    with files.stream_atomic(path.with_name(f"{path.name}.npy")) as stream:
        stream.write(_header(0))
        for document in documents:
            tokens = 0
            for ids in encode(tokenizer, document.text):
                stream.write(ids.tobytes())
                tokens += len(ids)
                size += int(lengths[ids].sum())
            starts.append(starts[-1] + tokens)
        stream.seek(0)
        stream.write(_header(starts[-1]))
    _write_array(path.with_name(f"{path.name}.offsets.npy"), np.array(starts, dtype=np.int64))
    ordinary = starts[-1] - (len(starts) - 1)
    return {
        "documents": len(starts) - 1,
        "tokens": starts[-1],
        "bytes_per_token": round(size / ordinary, 4),
    }


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    files.write_atomic(path, buffer.getvalue())


def build_tokenizer(config: Tokenizer, corpus: Path, destination: Path) -> dict:
    """Train the tokenizer, encode every split, and return the card.

    Every domain of a split is encoded.

    It writes tokenizer.json, <split>-<domain>.npy, <split>-<domain>.offsets.npy, token_bytes.npy
    and card.json.

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
            by_domain = itertools.groupby(
                each_document(corpus, split), key=lambda document: document.domain
            )
            for domain, documents in by_domain:
                counted = _write_tokens(folder / f"{split}-{domain}", tokenizer, lengths, documents)
                counts.setdefault(domain, {})[split] = counted
        identity = {
            "corpus": files.read_json(corpus / "card.json", "fingerprint")["fingerprint"],
            "tokenizer": text,
        }
        card = {
            "vocab_size": tokenizer.get_vocab_size(),
            "domains": counts,
            "corpus": identity["corpus"],
            "fingerprint": files.sha256_json(identity),
        }
        files.write_json(folder / "card.json", card)
    return card
