"""Rows made beforehand are kept under their digest.

They are drawn as a pure function of seed and step, and refused when damaged.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from farcontext.files import UserError
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import padding_of
from farcontext.schema import BOS, PAD
from farcontext.train import curriculum
from farcontext.train.batches import IGNORE
from farcontext.train.config import Curriculum, OptimizerConfig, RunConfig, Stage, Task
from farcontext.train.curriculum import keep_rows, task_batch, to_predict
from farcontext.train.loop import load_model, train
from farcontext.train.runs import final_loss

TOKENS = np.arange(60).reshape(10, 6)
SCORED = TOKENS % 3 == 2


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path))
    curriculum._kept_rows.cache_clear()
    return tmp_path


def batch_of(digest: str, *, step: int = 0, length: int = 6) -> np.ndarray:
    stage = Stage(steps=5, rows=8, length=length, tasks=(Task(name="prepared", digest=digest),))
    made = task_batch(Curriculum(stages=(stage,)), seed=3, step=step, causal=True, vocab_size=61)
    return np.stack((made.tokens.numpy(), made.targets.numpy()))


def test_prepared_rows_are_drawn_whole_with_their_marks() -> None:
    tokens, targets = batch_of(keep_rows(TOKENS, SCORED))
    rows = tokens[:, 0] // 6
    assert (tokens == TOKENS[rows]).all()
    assert (
        targets == to_predict(TOKENS[rows], SCORED[rows], causal=True, mask=60).targets.numpy()
    ).all()
    assert len(set(rows.tolist())) > 3


def test_a_step_draws_the_same_rows_again_and_another_step_others() -> None:
    digest = keep_rows(TOKENS, SCORED)
    first, second = batch_of(digest), batch_of(digest, step=1)
    curriculum._kept_rows.cache_clear()
    assert (batch_of(digest) == first).all()
    assert not (first == second).all()


def test_the_digest_names_tokens_and_marks() -> None:
    assert keep_rows(TOKENS, SCORED) == keep_rows(TOKENS.copy(), SCORED.copy())
    assert (
        len({keep_rows(TOKENS, SCORED), keep_rows(TOKENS + 1, SCORED), keep_rows(TOKENS, ~SCORED)})
        == 3
    )


def test_rows_that_are_missing_damaged_or_of_another_length_are_one_line(empty_cache: Path) -> None:
    digest = keep_rows(TOKENS, SCORED)
    with pytest.raises(UserError, match="rows of 6 tokens: expected length = 5"):
        batch_of(digest, length=5)
    path = empty_cache / "rows" / f"{digest}.npy"
    curriculum._kept_rows.cache_clear()
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(UserError, match="expected the rows of this digest"):
        batch_of(digest)
    path.unlink()
    with pytest.raises(UserError, match="expected the rows of this digest"):
        batch_of(digest)


@pytest.mark.parametrize("tokens", [TOKENS - 1, TOKENS + (1 << 16), TOKENS[0]])
def test_ids_beyond_sixteen_bits_are_refused(tokens: np.ndarray) -> None:
    with pytest.raises(ValueError, match="ids of 16 bits"):
        keep_rows(tokens, np.zeros(tokens.shape, bool))


def test_an_encoder_decoder_learns_to_copy_its_source(empty_cache: Path) -> None:
    """The row is the source, padded, then the target; the target's first token is given."""
    rng = np.random.default_rng(0)
    words = rng.integers(5, 13, size=(256, 3))
    padding, start = np.full((256, 1), PAD), np.full((256, 1), BOS)
    tokens = np.concatenate((words, padding, start, words), 1)
    scored = np.arange(8) > 4
    digest = keep_rows(tokens, np.broadcast_to(scored, tokens.shape))
    stage = Stage(
        steps=1, rows=32, length=8, tasks=(Task(name="prepared", digest=digest),), source=4
    )
    batch = task_batch(Curriculum(stages=(stage,)), seed=0, step=0, causal=True, vocab_size=13)
    assert batch.source.shape == batch.tokens.shape == (32, 4)
    assert (batch.targets[:, :3] == batch.source[:, :3]).all() and (
        batch.targets[:, 3] == IGNORE
    ).all()
    shape = {
        "width": 32,
        "layers": 1,
        "heads": 2,
        "mlp_width": 32,
        "max_length": 8,
        "init_std": 0.1,
        "short_conv": 1,
    }
    run = RunConfig(
        model=ModelConfig(
            kind="encoder_decoder", vocab_size=13, positions="learned", embedding_std=1.0, **shape
        ),
        batch=Curriculum(stages=(stage,)),
        optimizer=OptimizerConfig(lr=0.01, warmup=10),
        steps=150,
        save_every=150,
        seed=0,
    )
    assert final_loss(train(run)) < 0.1
    model = load_model(run)
    padded = model(batch.source, batch.tokens, padding_of(batch.source))
    cut = model(batch.source[:, :3], batch.tokens, padding_of(batch.source[:, :3]))
    assert torch.allclose(padded, cut, atol=1e-5)
    assert not torch.allclose(
        padded, model(batch.source.flip(0), batch.tokens, padding_of(batch.source)), atol=0.1
    )
    assert [len(part.source) for part in batch.split(4)] == [8] * 4
