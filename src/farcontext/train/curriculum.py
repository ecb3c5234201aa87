"""Batches of synthetic tasks, a pure function of (seed, step) too.

Rows are made here, or drawn from those made beforehand.

R rows, T tokens in a row. A task gives tokens and which of them are scored, (R, T) each; what a
model is to predict of them depends on whether it is causal.
"""

import hashlib
import io
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from farcontext import files
from farcontext.files import UserError
from farcontext.schema import PAD
from farcontext.tasks.rows import MADE
from farcontext.train.batches import IGNORE, TASKS, Batch, generator, tensor
from farcontext.train.config import Curriculum, Task


def task_rows(
    task: Task, rng: np.random.Generator, rows: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a task's tokens and which of them are scored.

    Both are (rows, length).
    """
    make = MADE.get(task.name, prepared)
    return make(rng, rows, length, **task.options)


def _rows_file(digest: str) -> Path:
    return files.cache() / "rows" / f"{digest}.npy"


def keep_rows(tokens: np.ndarray, scored: np.ndarray) -> str:
    """Keep rows for training in the cache and return their digest.

    `tokens` and `scored` are (rows, length) each; `prepared` draws from what is kept.

    Raises:
        ValueError: shapes differ, or an id that 16 bits do not hold.
    """
    if (
        tokens.shape != scored.shape
        or tokens.ndim != 2
        or not 0 <= tokens.min() <= tokens.max() < 1 << 16
    ):
        raise ValueError(
            f"tokens {tokens.shape}, scored {scored.shape}: "
            "expected (rows, length) each, ids of 16 bits"
        )
    memory = io.BytesIO()
    np.save(memory, np.stack((tokens, scored)).astype(np.uint16))
    digest = hashlib.sha256(memory.getvalue()).hexdigest()
    files.write_atomic(_rows_file(digest), memory.getvalue())
    return digest


@lru_cache(maxsize=8)
def _kept_rows(path: Path) -> np.ndarray:
    """Return kept tokens and marks, uint16 (2, rows, length).

    Raises:
        UserError: the rows are not there, or others than their name says.
    """
    if not path.is_file() or files.sha256_file(path) != path.stem:
        raise UserError(
            f"{path}: expected the rows of this digest; "
            "the study that trains on them makes them again"
        )
    return np.load(path, allow_pickle=False)


def prepared(
    rng: np.random.Generator, rows: int, length: int, *, digest: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows drawn, with replacement, from those that `keep_rows` kept.

    Raises:
        UserError: they are missing, damaged, or of another length.
    """
    kept = _kept_rows(_rows_file(digest))
    if kept.shape[2] != length:
        raise UserError(
            f"{_rows_file(digest)}: rows of {kept.shape[2]} tokens: expected length = {length}"
        )
    tokens, scored = kept[:, rng.integers(kept.shape[1], size=rows)]
    return tokens.astype(np.int64), scored.astype(bool)


def to_predict(tokens: np.ndarray, scored: np.ndarray, *, causal: bool, mask: int) -> Batch:
    """Return a task's rows as a batch.

    A decoder predicts a scored token from those before it, an encoder from `mask`. The encoder
    reads `mask` in place of every scored token; its vocabulary has one id more than the task.
    """
    if causal:
        targets = np.full(tokens.shape, IGNORE)
        targets[:, :-1] = np.where(scored[:, 1:], tokens[:, 1:], IGNORE)
        return Batch(tensor(tokens), tensor(targets), None)
    return Batch(
        tensor(np.where(scored, mask, tokens)), tensor(np.where(scored, tokens, IGNORE)), None
    )


def task_batch(
    curriculum: Curriculum, *, seed: int, step: int, causal: bool, vocab_size: int
) -> Batch:
    """Return the batch of a step of a curriculum.

    It is a pure function of its arguments, as `training_batch` is.

    Raises:
        UserError: rows that are missing or damaged, or whose ids the vocabulary does not hold.
    """
    stage, rng = curriculum.at(step), generator(TASKS, seed, step)
    share, rest = divmod(stage.rows, len(stage.tasks))
    counts = [share + (place < rest) for place in range(len(stage.tasks))]
    made = [
        task_rows(task, rng, rows, stage.length)
        for task, rows in zip(stage.tasks, counts, strict=True)
    ]
    tokens, scored = (np.concatenate(parts) for parts in zip(*made, strict=True))
    if (needed := int(tokens.max()) + 1 + (not causal)) > vocab_size:
        raise UserError(
            f"model.vocab_size = {vocab_size}: expected at least {needed}, for the rows of "
            f"{', '.join(task.name for task in stage.tasks)}"
        )
    if stage.source is None:
        return to_predict(tokens, scored, causal=causal, mask=vocab_size - 1)
    source, target = np.split(tokens, [stage.source], axis=1)
    return replace(
        to_predict(target, scored[:, stage.source :], causal=True, mask=PAD), source=tensor(source)
    )
