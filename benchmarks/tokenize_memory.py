"""How much memory does tokenizing need?

Texts of several sizes are each encoded by a process of its own.

Documents are drawn pieces of the corpus's training texts, in which some words stand for others, one
document in ten long; they are written and encoded one by one. Memory is the process's peak resident
set, Python and libraries included. A GB takes minutes, so it runs once: the table is kept in
results/cpu/.

python benchmarks/tokenize_memory.py [--megabytes 1000]
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import table
import tokenizers
from matplotlib.axes import Axes

from farcontext import files
from farcontext.data import tokenizer
from farcontext.data.config import Tokenizer
from farcontext.data.corpus import SPLITS, each_document
from farcontext.results import tables

PIECE = 2_000  # characters that stand together as in the corpus
CHARACTERS = 100_000  # of a short document; a long one has a hundred times as many
SHARES = (0.01, 0.1, 1.0)  # shares of the largest text


def pieces_of(corpus: Path) -> list[str]:
    """Return the training texts of all domains, in pieces."""
    texts = [document.text for document in each_document(corpus, "train")]
    return [text[at : at + PIECE] for text in texts for at in range(0, len(text), PIECE)]


def document(rng: np.random.Generator, pieces: list[str], words: list[str], size: int) -> str:
    """Return a text of about so many characters.

    In each of its pieces, one word stands wherever another stood.
    """
    chosen = [pieces[n] for n in rng.integers(len(pieces), size=size // PIECE)]
    others = [words[n] for n in rng.integers(len(words), size=len(chosen))]
    varied = []
    for piece, other in zip(chosen, others, strict=True):
        own = piece.split()
        varied.append(piece.replace(own[rng.integers(len(own))], other) if own else piece)
    return "\n".join(varied)


def write_corpus(corpus: Path, folder: Path, megabytes: float) -> int:
    """Write a corpus folder as stage `corpus` does.

    Nine tenths of it are for training. The function returns the bytes of the texts.
    """
    rng, written, pieces = np.random.default_rng(0), 0, pieces_of(corpus)
    words = sorted({word for piece in pieces for word in piece.split()})
    frame = {"domain": "made", "language": "und", "group": "", "source": "made", "licence": "none"}
    for split, share in zip(SPLITS, (0.9, 0.05, 0.05), strict=True):
        left, number = share * megabytes * 1e6, 0
        with files.stream_atomic(folder / f"{split}.jsonl") as stream:
            while left > 0:
                size = CHARACTERS * (100 if number % 10 == 9 else 1)
                text = document(rng, pieces, words, max(PIECE, min(size, int(left))))
                row = frame | {"id": f"{split}{number:08}", "title": str(number), "text": text}
                stream.write(json.dumps(row).encode("utf-8") + b"\n")
                bytes_of = len(text.encode("utf-8"))
                left, written, number = left - bytes_of, written + bytes_of, number + 1
    files.write_json(folder / "card.json", {"fingerprint": "made"})
    return written


def encode(corpus: Path, out: Path) -> dict[str, float]:
    """Train a tokenizer of the laptop's size, and encode all.

    The function returns what that took of this process.
    """
    started = time.perf_counter()
    card = tokenizer.build_tokenizer(Tokenizer(vocab_size=2048, characters=500_000), corpus, out)
    return {
        "tokens": sum(split["tokens"] for split in card["domains"]["made"].values()),
        "seconds": time.perf_counter() - started,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw the peak against the size."""
    axis.plot(frame["megabytes"], frame["peak_mib"], marker="o")
    axis.set(xscale="log", xlabel="text (MB)", ylabel="peak resident set (MiB)", ylim=(0, None))


def main() -> None:
    """Print and write a row a size.

    With --corpus, this is the process that encodes one.
    """
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument("--megabytes", type=float, default=1000, help="of the largest text")
    parser.add_argument("--encode", type=Path, help="encode this corpus here, print what it took")
    arguments = parser.parse_args()
    if arguments.encode is not None:
        print(json.dumps(encode(arguments.encode, arguments.encode / "tokens")))
        return
    corpus = files.project() / "build" / "corpus"
    rows = []
    for share in SHARES:
        with tempfile.TemporaryDirectory(prefix="farcontext-") as folder:
            size = write_corpus(corpus, Path(folder), share * arguments.megabytes)
            command = [sys.executable, __file__, "--encode", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"megabytes": size / 1e6, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
    frame = table.save(rows, arguments.out, draw, digits=1)
    machine = {"cpu": tables.processor(), "cores": os.cpu_count()}
    files.write_json(
        arguments.out.with_suffix(".json"), machine | {"tokenizers": tokenizers.__version__}
    )
    print(frame.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
