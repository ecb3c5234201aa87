"""Protocols that measure a finished model and return rows.

Each is a function of a model and plain options, to be called through `runs.sweep`.

R test rows, T tokens in a row, V vocabulary. Losses are in nats; a byte counts as UTF-8 of the
scored tokens' text.
"""

import itertools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from farcontext.files import UserError
from farcontext.measure import ngrams
from farcontext.nn.masks import Pattern
from farcontext.nn.recurrent import Recurrent
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.schema import EOS, MASK, SPECIAL, Row
from farcontext.train.batches import IGNORE, Stream, undamaged_rows
from farcontext.train.config import BatchConfig, Task
from farcontext.train.curriculum import task_rows, to_predict
from farcontext.train.keys import device, tokens_folder, vocabulary_size

# Rows, masks and foreign documents are drawn with it, and with a study's seed: all models and
# baselines of a seed have the same targets.
EVALUATION_SEED = 77
ROWS_AT_ONCE = 16
TARGETS = 32  # So many target tokens stand in a row when contexts are compared.


def test_rows(domain: str, length: int, rows: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids drawn from the test split, and each row's document.

    The ids are (R, T), each row inside one document, no two rows overlapping; the documents are
    (R,). `items` draws them.

    Raises:
        UserError: the split has fewer such rows.
    """
    stream = Stream.load(tokens_folder(), "test", (domain,))
    rng = np.random.default_rng([EVALUATION_SEED, items])
    bounds = stream.offsets[domain]
    starts = np.concatenate(
        [
            np.arange(first + rng.integers(length), last - length + 1, length)
            for first, last in pairwise(bounds)
        ]
    )
    if len(starts) < rows:
        raise UserError(
            f"{stream.name}-{domain}: length = {length}, rows = {rows}: "
            f"expected at most {len(starts)} rows"
        )
    chosen = np.sort(rng.choice(starts, rows, replace=False))
    ids = stream.tokens[domain][chosen[:, None] + np.arange(length)].astype(np.int64)
    return ids, stream.document_of(domain, chosen)


def token_bytes() -> np.ndarray:
    """Return how many UTF-8 bytes each of the V tokens stands for."""
    return np.load(tokens_folder() / "token_bytes.npy", allow_pickle=False)


def masked_positions(rows: np.ndarray, rate: float, items: int) -> np.ndarray:
    """Return which positions (R, T) are scored.

    They are the same for every model and baseline, and never special tokens.
    """
    rng = np.random.default_rng([EVALUATION_SEED, items])
    return (rng.random(rows.shape) < rate) & (rows >= len(SPECIAL))


# -------------------------------------------------------------------------- M1: loss in nats a byte


def masked_loss(
    model: Encoder, *, domains: Sequence[str], length: int, rows: int, rate: float, items: int
) -> list[Row]:
    """Return summed loss, scored tokens and bytes for each domain.

    Every scored token is replaced by [MASK].

    There are no random or unchanged replacements as in training: an unchanged token would show the
    model its target.
    """
    found = []
    for domain in domains:
        tokens, _ = test_rows(domain, length, rows, items)
        scored = masked_positions(tokens, rate, items)
        inputs = np.where(scored, MASK, tokens)
        loss = _losses(model, inputs, tokens, scored)
        found.append(_loss_row(domain, loss, tokens[scored]))
    return found


SEES = ("true left", "left", "both")


def ngram_loss(
    *,
    domains: Sequence[str],
    length: int,
    rows: int,
    rate: float,
    items: Sequence[int],
    orders: Sequence[int],
    read: Mapping[str, Any],
) -> list[Row]:
    """Return `masked_loss` of n-grams on the same targets.

    There is a row for each order and for what the n-gram sees of the row.

    sees = true left: the true tokens to the left, masked or not, which is generous. left: the
    damaged row, where the first [MASK] to the left ends the context. both: the damaged row on both
    sides, which is what the encoder sees.

    Args:
        items: each draws its own rows.
        read: the text that the n-grams are counted on, {batch, seed, steps} of a training run, or
            {limit} for all of the training split.
    """
    text = _text_read(**read)
    order, size = max(orders), vocabulary_size()
    left = ngrams.fit(text, order, size)
    right = ngrams.fit(ngrams.backwards(text), order, size)
    found = []
    for item, domain in itertools.product(items, domains):
        tokens, _ = test_rows(domain, length, rows, item)
        scored = masked_positions(tokens, rate, item)
        damaged, targets = np.where(scored, MASK, tokens), tokens[scored]
        at = np.arange(len(targets)), targets
        alone = left.distribution(damaged, scored, order=1)
        for n in orders:
            before = left.distribution(damaged, scored, order=n)
            behind = ngrams.from_the_right(right, damaged, scored, order=n)
            logs = {
                "true left": left.log_prob(tokens, scored, order=n),
                "left": np.log(before[at]),
                "both": np.log(ngrams.both_sides(before, behind, alone)[at]),
            }
            found += [
                {"order": n, "sees": sees, "items": item} | _loss_row(domain, -logs[sees], targets)
                for sees in SEES
            ]
    return found


def _text_read(
    *,
    batch: Mapping[str, Any] | None = None,
    seed: int = 0,
    steps: int = 0,
    limit: int | None = None,
) -> np.ndarray:
    """Return the text that n-grams count, (T,).

    That is the undamaged rows of a training run, each ended by EOS, or all of the training split.
    """
    if batch is None:
        return Stream.load(tokens_folder(), "train", limit=limit).all_tokens()
    config = BatchConfig(**batch)
    stream = Stream.load(tokens_folder(), "train", config.domains, config.limit)
    rows = [undamaged_rows(stream, config, seed=seed, step=step) for step in range(steps)]
    return np.pad(np.concatenate(rows), ((0, 0), (0, 1)), constant_values=EOS).ravel()


def _loss_row(domain: str, loss_n: np.ndarray, targets_n: np.ndarray) -> Row:
    return {
        "domain": domain,
        "nats": float(loss_n.sum()),
        "tokens": len(targets_n),
        "bytes": int(token_bytes()[targets_n].sum()),
    }


def _losses(
    model: Encoder | Decoder, inputs: np.ndarray, targets: np.ndarray, scored: np.ndarray
) -> np.ndarray:
    """Return the losses (n,) of scored positions; others skip the head."""
    parts = []
    for start in range(0, len(inputs), ROWS_AT_ONCE):
        at = slice(start, start + ROWS_AT_ONCE)
        select = torch.from_numpy(scored[at]).to(device())
        logits_nV = model(_tensor(inputs[at]), select=select)
        parts.append(
            F.cross_entropy(logits_nV.float(), _tensor(targets[at])[select], reduction="none")
        )
    return torch.cat(parts).double().cpu().numpy()


def _tensor(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)).to(device())


# ------------------------------------------------------------------------ M2: what context is worth

FAR = ("truncated", "other_document", "same_document")


def context_loss(
    model: Decoder,
    *,
    domain: str,
    length: int,
    rows: int,
    contexts: Sequence[int],
    items: int,
    block: int = TARGETS,
) -> list[Row]:
    """Return each row's mean loss on its last tokens, by far context.

    The target tokens are the same in all of them.

    Args:
        contexts: w, the true tokens that stay before the targets.
        items: it draws the rows.
        block: number of target tokens a row.

    far = full: everything as it is. truncated: only targets and w tokens are fed in; with rotary
    positions this equals hiding the far tokens at unchanged positions (a test holds it).
    other_document, same_document: as many far tokens as before, from another document or from
    elsewhere in the same one.
    """
    tokens, documents = test_rows(domain, length, rows, items)
    every = np.arange(len(tokens))
    foreign = {
        "other_document": foreign_rows(documents, same=False),
        "same_document": foreign_rows(documents, same=True),
    }
    whole = _last_losses(model, tokens, block)
    found = []
    for context in contexts:
        near = length - block - context  # The first token that stays.
        by_far = {"full": (every, whole)}
        by_far["truncated"] = (every, _last_losses(model, tokens[:, near:], block))
        for far, partner in foreign.items():
            # A row may be the only one of its document.
            known = np.flatnonzero(partner >= 0)
            mixed = np.hstack([tokens[partner[known], :near], tokens[known, near:]])
            by_far[far] = (known, _last_losses(model, mixed, block))
        found += [
            {"context": context, "far": far, "row": int(row), "loss": float(loss)}
            for far, (known, losses) in by_far.items()
            for row, loss in zip(known, losses, strict=True)
        ]
    return found


def _last_losses(model: Decoder, tokens: np.ndarray, block: int) -> np.ndarray:
    """Return each row's mean loss on its last `block` tokens."""
    if not len(tokens):
        return np.empty(0)
    scored = np.zeros(tokens[:, 1:].shape, bool)
    scored[:, -block:] = True
    return _losses(model, tokens[:, :-1], tokens[:, 1:], scored).reshape(-1, block).mean(1)


def foreign_rows(documents: np.ndarray, same: bool) -> np.ndarray:
    """Return for each row another row to take far tokens from.

    It is of another document (or of the same one); −1 says that there is none. It is drawn with a
    fixed seed, the same for every model.
    """
    rng = np.random.default_rng(EVALUATION_SEED)
    partner = np.full(len(documents), -1)
    for row, document in enumerate(documents):
        candidates = np.flatnonzero((documents == document) == same)
        candidates = candidates[candidates != row]
        if len(candidates):
            partner[row] = rng.choice(candidates)
    return partner


def hidden_against_truncated(
    model: Encoder | Decoder,
    *,
    domain: str,
    length: int,
    rows: int,
    context: int,
    block: int = TARGETS,
) -> list[Row]:
    """Return how far logits differ between hidden and cut-off tokens.

    Hidden tokens stay in place. Rotary positions are relative and nothing else tells a position, so
    the difference is rounding error.
    """
    tokens, _ = test_rows(domain, length, rows, 0)
    near = np.arange(length) >= length - block - context
    documents = _tensor(np.broadcast_to(near, tokens.shape))
    hidden = model(_tensor(tokens), documents=documents)[:, near]
    cut = model(_tensor(tokens[:, near]))
    return [{"hidden_minus_truncated": float((hidden - cut).abs().max())}]


# ---------------------------------------------------------------------------------- synthetic tasks

TOKENS_AT_ONCE = 16_384


def task_accuracy(
    model: Encoder | Decoder | Recurrent,
    *,
    task: Mapping[str, Any],
    lengths: Sequence[int],
    depths: Sequence[float | None] = (None,),
    rows: int,
    items: int = 0,
    window: int | None = None,
    sinks: int = 0,
) -> list[Row]:
    """Return the share of right answers, by length and depth.

    Args:
        task: fields of `config.Task`; its depth is set from `depths`.
        rows: test rows of each length and depth.
        items: which test rows are drawn. A study that gives each seed its own has intervals over
            seeds that cover the choice of rows, too.
        window, sinks: a decoder sees only the last `window` keys and the first `sinks` ones, at
            their true positions.
    """
    causal = not isinstance(model, Encoder)
    seen = {} if window is None else {"pattern": Pattern(before=window - 1, after=0, sinks=sinks)}
    found = []
    for length in lengths:
        for place, depth in enumerate(depths):
            asked = Task(**{**task, "depth": depth} if depth is not None else task)
            drawn = [EVALUATION_SEED, length, place, *([items] if items else [])]
            rng = np.random.default_rng(drawn)
            hits = []
            at_once = max(1, TOKENS_AT_ONCE // length)
            tokens, scored = task_rows(asked, rng, rows, length)
            for start in range(0, rows, at_once):
                part = slice(start, start + at_once)
                batch = to_predict(
                    tokens[part], scored[part], causal=causal, mask=model.config.vocab_size - 1
                )
                chosen = (batch.targets != IGNORE).to(device())
                best_n = model(batch.tokens.to(device()), select=chosen, **seen).argmax(-1)
                hits.append((best_n == batch.targets.to(device())[chosen]).float().cpu())
            found.append(
                {"length": length, "depth": depth, "accuracy": float(torch.cat(hits).mean())}
            )
    return found
