"""The key that names a run in the cache.

It is a hash of all that can change the run's bits.
"""

from functools import cache as memoize
from pathlib import Path

import torch

from farcontext import files
from farcontext.train.config import Curriculum, RunConfig

LOOP = Path(__file__).with_name("loop.py")  # A training runs what this module imports.


@memoize
def code_fingerprint(module_file: str) -> dict[str, str]:
    """Return the code digests of a module and its imports.

    The imports are all those from this package, direct or not.
    """
    path = Path(module_file)
    source = path.read_text(encoding="utf-8")
    return files.code_fingerprints(source) | {path.stem: files.code_digest(source)}


def tokens_folder() -> Path:
    """Return the folder that stage `tokenizer` made."""
    return files.project() / "build" / "tokenizer"


def vocabulary_size() -> int:
    """Return V, the tokenizer's number of tokens."""
    return files.read_json(tokens_folder() / "card.json")["vocab_size"]


def corpus_fingerprint() -> str:
    """Return the fingerprint of the tokenised corpus (text and tokenizer)."""
    return files.read_json(tokens_folder() / "card.json")["fingerprint"]


def device() -> torch.device:
    """Return the device that runs use: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_key(run: RunConfig) -> str:
    """Return the name of a run, 16 hex digits.

    They are a hash of all that can change the run's bits.
    """
    identity = {
        "config": run.model_dump(mode="json"),
        "corpus": None if isinstance(run.batch, Curriculum) else corpus_fingerprint(),
        "code": code_fingerprint(str(LOOP)),
        "torch": torch.__version__,
        "device": device().type,
    }
    return files.sha256_json(identity)[:16]


def run_folder(run: RunConfig) -> Path:
    """Return the folder of a run in the cache."""
    return files.cache() / "runs" / run_key(run)
