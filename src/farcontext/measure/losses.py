"""Protocols that measure a finished model and return rows.

Each is a function of a model and plain options, to be called through `runs.sweep`.

R test rows, T tokens in a row, V vocabulary. Losses are in nats; a byte counts as UTF-8 of the
scored tokens' text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from farcontext.data.tokenizer import load_tokenizer
from farcontext.measure import ngrams
from farcontext.nn.masks import Pattern
from farcontext.nn.recurrent import Recurrent
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.schema import MASK, SPECIAL, Row
from farcontext.train.batches import IGNORE, Stream
from farcontext.train.config import Task
from farcontext.train.curriculum import task_rows, to_predict
from farcontext.train.keys import device, tokens_folder

# Masks and foreign documents are drawn with it: all models and baselines have the same targets.
EVALUATION_SEED = 77
ROWS_AT_ONCE = 16
TARGETS = 32  # So many target tokens stand in a row when contexts are compared.


def test_rows(domain: str, length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids from the test split, and each row's document.

    The ids are (R, T), each row inside one document; the documents are (R,).
    """
    stream = Stream.load(tokens_folder(), "test", (domain,))
    return stream.windows(domain, length, rows)


def token_bytes() -> np.ndarray:
    """Return how many UTF-8 bytes each of the V tokens stands for."""
    return np.load(tokens_folder() / "token_bytes.npy", allow_pickle=False)


def masked_positions(rows: np.ndarray, rate: float) -> np.ndarray:
    """Return which positions (R, T) are scored.

    They are the same for every model and baseline, and never special tokens.
    """
    rng = np.random.default_rng(EVALUATION_SEED)
    return (rng.random(rows.shape) < rate) & (rows >= len(SPECIAL))


# -------------------------------------------------------------------------- M1: loss in nats a byte


def masked_loss(
    model: Encoder, *, domains: Sequence[str], length: int, rows: int, rate: float
) -> list[Row]:
    """Return summed loss, scored tokens and bytes for each domain.

    Every scored token is replaced by [MASK].

    There are no random or unchanged replacements as in training: an unchanged token would show the
    model its target.
    """
    found = []
    for domain in domains:
        tokens, _ = test_rows(domain, length, rows)
        scored = masked_positions(tokens, rate)
        inputs = np.where(scored, MASK, tokens)
        loss = _losses(model, inputs, tokens, scored)
        found.append(_loss_row(domain, loss, tokens[scored]))
    return found


def ngram_loss(
    *,
    domains: Sequence[str],
    length: int,
    rows: int,
    rate: float,
    orders: Sequence[int],
    limit: int | None,
) -> list[Row]:
    """Return what `masked_loss` returns, for n-grams on the same targets.

    The n-grams saw the whole training split.

    Each is given the true left context of a target, masked or not, which is generous to the n-gram.
    """
    stream = Stream.load(tokens_folder(), "train", limit=limit)
    counted = ngrams.fit(stream.all_tokens(), max(orders), stream.vocab_size)
    found = []
    for order in orders:
        for domain in domains:
            tokens, _ = test_rows(domain, length, rows)
            scored = masked_positions(tokens, rate)
            found.append(
                {"order": order}
                | _loss_row(domain, -counted.log_prob(tokens, scored, order=order), tokens[scored])
            )
    return found


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

FAR = ("full", "truncated", "other_document", "same_document")


def context_loss(
    model: Encoder | Decoder,
    *,
    domain: str,
    length: int,
    rows: int,
    contexts: Sequence[int],
    block: int = TARGETS,
) -> list[Row]:
    """Return each row's mean loss under different far contexts.

    The target tokens are the same in all of them.

    Args:
        contexts: w, the true tokens that stay next to the block of targets: before it for a
            decoder, half on either side of it for an encoder.
        block: number of target tokens a row, at its end for a decoder, in its middle for an
            encoder.

    far = full: everything as it is. truncated: only block and w tokens are fed in; with rotary
    positions this equals hiding the far tokens at unchanged positions (a test holds it).
    other_document, same_document: as many far tokens as before, from another document or from
    elsewhere in the same one.
    """
    tokens, documents = test_rows(domain, length, rows)
    causal = isinstance(model, Decoder)
    start = length - block if causal else (length - block) // 2
    targets = np.zeros(tokens.shape, bool)
    targets[:, start : start + block] = True
    foreign = {
        "other_document": foreign_rows(documents, same=False),
        "same_document": foreign_rows(documents, same=True),
    }
    found = []
    for context in contexts:
        kept = (
            slice(start - context, length)
            if causal
            else slice(start - context // 2, start + block + context // 2)
        )
        for far in FAR:
            known = (
                np.ones(len(tokens), bool) if far in ("full", "truncated") else foreign[far] >= 0
            )
            if not known.any():  # There are too few rows for two of one document.
                continue
            inputs = tokens[known].copy()
            if far in foreign:
                inputs = tokens[foreign[far][known]].copy()
                inputs[:, kept] = tokens[known][:, kept]
            cut = kept if far == "truncated" else slice(None)
            means = _block_means(
                model, inputs[:, cut], tokens[known][:, cut], targets[known][:, cut], block
            )
            found += [
                {
                    "context": context,
                    "far": far,
                    "row": int(row),
                    "document": int(documents[row]),
                    "loss": float(mean),
                }
                for row, mean in zip(np.flatnonzero(known), means, strict=True)
            ]
    return found


def _block_means(
    model: Encoder | Decoder, inputs: np.ndarray, truth: np.ndarray, targets: np.ndarray, block: int
) -> np.ndarray:
    """Return the mean loss of each row's targets.

    A decoder predicts position t from t − 1; an encoder from [MASK].

    The encoder's targets are every third token of the block, so that their neighbours stay known.
    """
    if isinstance(model, Decoder):
        return (
            _losses(model, inputs[:, :-1], truth[:, 1:], targets[:, 1:]).reshape(-1, block).mean(1)
        )
    third = targets & (np.cumsum(targets, axis=1) % 3 == 2)
    return (
        _losses(model, np.where(third, MASK, inputs), truth, third).reshape(len(inputs), -1).mean(1)
    )


def foreign_rows(documents: np.ndarray, same: bool) -> np.ndarray:
    """Return for each row another row to take far tokens from.

    It is of another document (or of the same one); −1 says that there is none.

    A row's partner is drawn with a fixed seed, the same for every model.
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
    """Return the largest difference between hiding and cutting off far tokens.

    The difference is one of logits; hidden tokens stay in place.

    Rotary positions are relative and nothing else tells a position, so the difference is rounding
    error.
    """
    tokens, _ = test_rows(domain, length, rows)
    near = np.arange(length) >= length - block - context
    documents = _tensor(np.broadcast_to(near, tokens.shape))
    hidden = model(_tensor(tokens), documents=documents)[:, near]
    cut = model(_tensor(tokens[:, near]))
    return [{"hidden_minus_truncated": float((hidden - cut).abs().max())}]


# ---------------------------------------------------------------------------------- fill in a blank


def blanks(model: Encoder, *, sentences: Sequence[tuple[str, str]]) -> list[Row]:
    """Return what a model puts into a gap.

    This is the probability of the true token, and the three likeliest tokens.

    Args:
        sentences: text, and the text of the one token of it to be guessed.

    Raises:
        ValueError: that text is not a token of the sentence.
    """
    tokenizer = load_tokenizer(tokens_folder())
    found = []
    for text, target in sentences:
        ids = tokenizer.encode(text).ids
        places = [i for i, token in enumerate(ids) if tokenizer.decode([token]) == target]
        if not places:
            raise ValueError(f"{target!r}: expected a token of {text!r}")
        masked = np.array([ids])
        masked[0, places[0]] = MASK
        p_V = model(_tensor(masked))[0, places[0]].softmax(-1)
        best = " · ".join(tokenizer.decode([int(token)]) for token in p_V.topk(3).indices)
        gap = tokenizer.decode(ids[: places[0]]) + " ___" + tokenizer.decode(ids[places[0] + 1 :])
        found.append({"text": gap, "true": target, "p": float(p_V[ids[places[0]]]), "best": best})
    return found


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
    """Return the share of scored tokens that are the likeliest ones.

    There is one share for each length and each depth of the evidence.

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
