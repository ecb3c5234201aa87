"""How much memory does tokenizing need?

Generated texts of several sizes are each encoded by a process of its own.

The corpus is words drawn by Zipf's law from a made-up lexicon, one document in ten long; it is
generated and encoded document by document. Memory is the process's peak resident set, Python and
libraries included.

python benchmarks/tokenize_memory.py [--megabytes 1000]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import table
from matplotlib.axes import Axes

from farcontext import files
from farcontext.data import tokenizer
from farcontext.data.config import Tokenizer
from farcontext.data.corpus import SPLITS

LEXICON = 5_000
WORDS = 20_000  # words of a short document; a long one has a hundred times as many
SHARES = (0.01, 0.1, 1.0)  # shares of the largest text


def document(rng: np.random.Generator, lexicon: np.ndarray, words: int) -> str:
    """Return a text of so many words.

    A line ends after every tenth word.
    """
    ranks = np.minimum(rng.zipf(1.2, words) - 1, LEXICON - 1)
    chosen = lexicon[ranks].reshape(-1, 10)
    return "\n".join(" ".join(line) for line in chosen)


def write_corpus(folder: Path, megabytes: float) -> int:
    """Write a corpus folder as stage `corpus` does.

    Nine tenths of it are for training. The function returns the bytes of the texts.
    """
    rng, written = np.random.default_rng(0), 0
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    lexicon = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(LEXICON)])
    frame = {"domain": "made", "language": "und", "group": "", "source": "made", "licence": "none"}
    for split, share in zip(SPLITS, (0.9, 0.05, 0.05), strict=True):
        left, number = share * megabytes * 1e6, 0
        with files.stream_atomic(folder / f"{split}.jsonl") as stream:
            while left > 0:
                text = document(rng, lexicon, WORDS * (100 if number % 10 == 9 else 1))[
                    : int(left) + 1
                ]
                row = frame | {"id": f"{split}{number:08}", "title": str(number), "text": text}
                stream.write(json.dumps(row).encode("utf-8") + b"\n")
                left, written, number = left - len(text), written + len(text), number + 1
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
    parser.add_argument(
        "--corpus", type=Path, help="encode this corpus here and print what it took"
    )
    arguments = parser.parse_args()
    if arguments.corpus is not None:
        print(json.dumps(encode(arguments.corpus, arguments.corpus / "tokens")))
        return
    rows = []
    for share in SHARES:
        with tempfile.TemporaryDirectory(prefix="farcontext-") as folder:
            size = write_corpus(Path(folder), share * arguments.megabytes)
            command = [sys.executable, __file__, "--corpus", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"megabytes": size / 1e6, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
    frame = table.save(rows, arguments.out, draw)
    print(frame.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
