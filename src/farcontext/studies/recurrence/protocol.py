"""What notebook 02 caches: recall of what was never told."""

import numpy as np

from farcontext.measure.losses import EVALUATION_SEED
from farcontext.nn.recurrent import Recurrent
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.tasks import recall
from farcontext.train.batches import IGNORE
from farcontext.train.curriculum import to_predict
from farcontext.train.keys import device


def foreign_recall(
    model: Decoder | Recurrent, *, pairs: int, span: int, length: int, rows: int, items: int
) -> list[Row]:
    """Return the share of right answers where the row told other values.

    The pairs keep their keys and get values of other pairs, drawn anew, so a right answer is a
    guess: 1/VALUES on average. Options are those of `recall.recall`; `items` draws the rows.
    """
    rng = np.random.default_rng([EVALUATION_SEED, length, pairs, items])
    tokens, scored = recall.recall(rng, rows, length, pairs=pairs, span=span)
    seen = forget(rng, tokens, scored)
    batch = to_predict(seen, scored, causal=True, mask=model.config.vocab_size - 1)
    chosen = (batch.targets != IGNORE).to(device())
    best_n = model(batch.tokens.to(device()), select=chosen).argmax(-1).cpu().numpy()
    return [{"accuracy": float((best_n == tokens[scored]).mean())}]


def forget(rng: np.random.Generator, tokens: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return rows (R, T) whose pairs have other values, drawn anew.

    The answers stay as they were.
    """
    values = (tokens >= recall.KEYS) & (tokens < recall.KEYS + recall.VALUES)
    drawn = recall.KEYS + rng.integers(recall.VALUES, size=tokens.shape)
    return np.where(values & ~scored, drawn, tokens)
