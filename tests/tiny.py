"""A small project of its own stands in a temporary folder.

It has a small real corpus and tokenizer, and models of width 16.
"""

import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import torch

from farcontext import files
from farcontext.data.config import Corpus, Tokenizer
from farcontext.data.corpus import build_corpus
from farcontext.data.tokenizer import build_tokenizer
from farcontext.nn.config import ModelConfig
from farcontext.tasks import recall
from farcontext.train.config import BatchConfig, Curriculum, OptimizerConfig, RunConfig, Stage, Task

ROOT = Path(__file__).parent.parent
VOCABULARY = 264
LENGTH = 16


def make_project(root: Path) -> Path:
    """Fill a folder with what training needs.

    That is dvc.yaml and build/tokenizer, made by the real data stages.
    """
    words = random.Random(0)
    lexicon = ["".join(words.choices("abcdefghij", k=words.randint(2, 7))) for _ in range(60)]
    tales = root / "build" / "sources" / "tales"
    for number in range(8):
        files.write_atomic(tales / f"{number}.txt", " ".join(words.choices(lexicon, k=120)))
    origin = {
        "domain": "tales",
        "language": "und",
        "licence": "none",
        "reader": "files",
        "title": "tales",
        "sha256": "",
    }
    files.write_json(tales / "source.json", origin)
    corpus = Corpus(
        sources=("tales",), manuals=1, test_share=0.2, validation_share=0.2, near_duplicate=0.8
    )
    build_corpus(corpus, root / "build" / "sources", root / "build" / "corpus")
    tokenizer = Tokenizer(vocab_size=VOCABULARY, characters=100_000)
    build_tokenizer(tokenizer, root / "build" / "corpus", root / "build" / "tokenizer")
    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    files.write_atomic(root / "dvc.yaml", "stages: {}\n")
    return root


def tiny_run(
    *, kind: str = "decoder", steps: int = 40, save_every: int = 5, seed: int = 0, **changes: Any
) -> RunConfig:
    """Return a run of one layer, width 16, T = 16.

    `changes` go to the optimiser, `rows` to the batch.
    """
    model = ModelConfig(
        kind=kind,
        vocab_size=VOCABULARY,
        width=16,
        layers=1,
        heads=2,
        mlp_width=32,
        max_length=LENGTH,
        init_std=0.1,
    )
    batch = BatchConfig(
        objective="mlm" if kind == "encoder" else "clm", length=LENGTH, rows=changes.pop("rows", 4)
    )
    optimizer = OptimizerConfig(**{"lr": 0.01, "warmup": 4} | changes)
    return RunConfig(
        model=model, batch=batch, optimizer=optimizer, steps=steps, save_every=save_every, seed=seed
    )


def task_run(
    *, kind: str = "decoder", start: RunConfig | None = None, seed: int = 0, **changes: Any
) -> RunConfig:
    """Return a run of 20 steps on recall, short rows first; `changes` go to the model."""
    shape = {
        "width": 16,
        "layers": 1,
        "heads": 2,
        "mlp_width": 32,
        "max_length": 2 * LENGTH,
        "init_std": 0.1,
    }
    model = ModelConfig(kind=kind, vocab_size=recall.VOCABULARY + 1, **shape | changes)
    dense, once = Task(name="dense_recall", pairs=2), Task(name="recall", pairs=2)
    stages = (
        Stage(steps=12, rows=6, length=LENGTH, tasks=(dense,)),
        Stage(steps=8, rows=5, length=2 * LENGTH, tasks=(dense, once)),
    )
    optimizer = OptimizerConfig(lr=0.01, warmup=4)
    batch = Curriculum(stages=stages)
    return RunConfig(
        model=model,
        batch=batch,
        optimizer=optimizer,
        steps=20,
        save_every=5,
        seed=seed,
        start=start,
    )


def embedding_norm(model: torch.nn.Module, *, scale: float = 1.0) -> list[dict]:
    """A protocol: one number of a model."""
    assert torch.is_inference_mode_enabled() and not model.training
    return [{"norm": scale * next(model.parameters()).norm().item()}]


def constant(*, value: int) -> list[dict]:
    """A protocol that needs no model."""
    return [{"value": value}]


def die_once(*, folder: str, value: int) -> list[dict]:
    """A protocol: the process of the first call to it is killed; each call leaves a file."""
    calls = Path(folder)
    first = value == 0 and not any(calls.glob("0-*"))
    (calls / f"{value}-{os.getpid()}").touch()
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return [{"value": value}]


def die() -> list[dict]:
    """A protocol: it kills the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)
