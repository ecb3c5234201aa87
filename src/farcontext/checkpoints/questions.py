"""All questions of a sample at the price of one reading.

A model is asked them and reads the context once.

    |<------- context, read once ------->| question answer |
                                         | question answer |     one batch of suffixes
                                         | question answer |     on the repeated key-value cache

The scores are those of a plain forward of each whole row (tested). Exact: every token of the answer
is the most probable one after those before it, so nothing need be generated. Choice: the answer is
the likeliest of the choices, by the sum of its tokens' log-probabilities, which favours none where
the choices have equally many tokens. V is the vocabulary.
"""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from farcontext.checkpoints.token_losses import numbers
from farcontext.files import UserError
from farcontext.tasks.needles import needle
from farcontext.tasks.sample import Ids, Query, Sample
from farcontext.tasks.words import NAMES, draw_words

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS_AT_ONCE = 16  # Each suffix of a batch repeats the cache.
Row = dict[str, int | float]


def observe(model: "PreTrainedModel", sample: Sample) -> list[Row]:
    """Return a row a question, the earliest evidence first.

    Rows: question (its number), depth, exact and choice (0 or 1), loss (nats of the whole answer).
    """
    suffixes = sorted({(*q.question, *choice[:-1]) for q in sample.queries for choice in q.choices})
    scores = dict(
        zip(suffixes, suffix_scores(model, sample.context.tolist(), suffixes), strict=True)
    )
    ordered = sorted(sample.queries, key=lambda query: query.depth)
    return [{"question": number} | _scored(query, scores) for number, query in enumerate(ordered)]


def _scored(query: Query, scores: dict[Ids, Tensor]) -> Row:
    start = len(query.question) - 1

    def after(choice: Ids) -> Tensor:
        return scores[*query.question, *choice[:-1]][start:]

    totals = [
        float(after(choice)[range(len(choice)), list(choice)].sum()) for choice in query.choices
    ]
    answer = query.choices.index(query.answer)
    return {
        "depth": query.depth,
        "exact": int(after(query.answer).argmax(-1).tolist() == [*query.answer]),
        "choice": int(np.argmax(totals) == answer),
        "loss": -totals[answer],
    }


@torch.inference_mode()
def suffix_scores(
    model: "PreTrainedModel", context: Sequence[int], suffixes: Sequence[Ids]
) -> list[Float[Tensor, "tokens V"]]:
    """Return the log-probabilities of what follows each token of each suffix.

    There is a tensor a suffix. Shorter suffixes are filled up at their end, which causal attention
    keeps from all that is read off.
    """
    ids = torch.tensor([[*context]], device=model.device)
    cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    found = []
    for start in range(0, len(suffixes), ROWS_AT_ONCE):
        batch = suffixes[start : start + ROWS_AT_ONCE]
        repeated = copy.deepcopy(cache)
        repeated.batch_repeat_interleave(len(batch))
        width = max(map(len, batch))
        rows = torch.tensor(
            [[*suffix, *[suffix[-1]] * (width - len(suffix))] for suffix in batch],
            device=model.device,
        )
        seen = torch.ones(len(batch), ids.shape[1] + width, dtype=torch.int64, device=model.device)
        scores = model(
            input_ids=rows, attention_mask=seen, past_key_values=repeated, use_cache=True
        ).logits
        numbers(scores)
        found += [
            s[: len(suffix)].float().log_softmax(-1).cpu()
            for s, suffix in zip(scores, batch, strict=True)
        ]
    return found


def encoder(
    tokenizer: "PreTrainedTokenizerBase", rows: int | None = None
) -> Callable[[str], list[int]]:
    """Return text → ids without special tokens.

    With `rows`, the embeddings of a model, a text with a token beyond them raises UserError: added
    tokens may lie there.
    """

    def encode(text: str) -> list[int]:
        ids = tokenizer.encode(text, add_special_tokens=False, verbose=False)
        if rows is not None and (last := max(ids, default=-1)) >= rows:
            raise UserError(
                f"text: {tokenizer.convert_ids_to_tokens(last)!r:.60} is token {last}: expected "
                f"tokens up to {rows - 1}, the model's"
            )
        return ids

    return encode


def first_tokens(tokenizer: "PreTrainedTokenizerBase") -> Ids:
    """Return the tokens that a tokenizer itself puts before a text.

    That is its beginning-of-text token, or nothing.
    """
    first = tokenizer("a").input_ids[:1]
    return tuple(first) if first == [tokenizer.bos_token_id] else ()


def needles_that_fit(tokenizer: "PreTrainedTokenizerBase", length: int, most: int) -> int:
    """Return how many needles of any names fit into a context.

    The context has `length` tokens with a question; `most` needles are the limit.
    """
    encode = encoder(tokenizer)
    words = draw_words(np.random.default_rng(0), encode, most)
    longest = max(len(needle(encode, name, word)) for name in NAMES for word in words)
    return max(0, min(most, (length - len(first_tokens(tokenizer))) // longest - 1))
