"""The key that names a run in the cache.

It is a hash of all that can change the run's bits.
"""

from collections.abc import Callable
from functools import cache as memoize
from pathlib import Path
from typing import Any

import torch

from farcontext import files
from farcontext.train import fingerprints
from farcontext.train.config import Curriculum, RunConfig

# On a CPU no result depends on these.
CUDA_ONLY = frozenset({"farcontext.nn.xformers", "farcontext.nn.flex"})
# The code that a run reaches only with an option (`syntax.LATER`).
LATER = {"muon": ("farcontext.train.optimizer", "MuonAndAdamW")}


def left_out() -> frozenset[str]:
    """Return the modules that no result of this device depends on."""
    return (
        fingerprints.PLUMBING | {__name__} | (frozenset() if device().type == "cuda" else CUDA_ONLY)
    )


@memoize
def code_fingerprint(function: Callable[..., Any]) -> dict[str, str]:
    """Return the digests of the code behind a function's result.

    They are by name.
    """
    return fingerprints.of_function(function, left_out())


def tokens_folder() -> Path:
    """Return the folder that stage `tokenizer` made."""
    return files.project() / "build" / "tokenizer"


def vocabulary_size() -> int:
    """Return V, the tokenizer's number of tokens."""
    return files.read_json(tokens_folder() / "card.json", "vocab_size")["vocab_size"]


def corpus_fingerprint() -> str:
    """Return the fingerprint of the tokenised corpus (text and tokenizer)."""
    return files.read_json(tokens_folder() / "card.json", "fingerprint")["fingerprint"]


def device() -> torch.device:
    """Return the device that runs use: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@memoize
def training_code() -> dict[str, str]:
    """Return the digests of the code that trainings depend on.

    They are by name.
    """
    return fingerprints.of_symbol("farcontext.train.loop", "train", without=left_out())


def run_key(run: RunConfig) -> str:
    """Return the name of a run, 16 hex digits.

    They are a hash of all that can change the run's bits.
    """
    identity = {
        "config": run.model_dump(mode="json"),
        "corpus": None if isinstance(run.batch, Curriculum) else corpus_fingerprint(),
        "code": training_code(),
        "torch": torch.__version__,
        "device": device().type,
    }
    return files.sha256_json(identity | _later(run))[:16]


def _later(run: RunConfig) -> dict[str, dict[str, str]]:
    """Return the digests of the code behind a run's options.

    Options of the run that it starts from count, too.
    """
    before = _later(run.start) if run.start else {}
    used = (name for name in LATER if getattr(run.optimizer, name))
    return before | {
        name: fingerprints.of_symbol(*LATER[name], without=left_out()) for name in used
    }


def origin(run: RunConfig) -> dict[str, str | None]:
    """Return hashes that readers of a run's folder hold against it.

    They are of its configuration, and of the tokenizer, None for a run on synthetic tasks.
    """
    on_text = not isinstance(run.batch, Curriculum)
    tokenizer = files.sha256_file(tokens_folder() / "tokenizer.json") if on_text else None
    return {"config": files.sha256_json(run.model_dump(mode="json")), "tokenizer": tokenizer}


def run_folder(run: RunConfig) -> Path:
    """Return the folder of a run in the cache."""
    return files.cache() / "runs" / run_key(run)
