"""All questions of a sample at the price of one reading.

A model is asked them and reads the context once.

    |<------- context, read once ------->| question answer
                                         | question answer     one row: a tree of suffixes that
                                         | question answer     do not see each other

The suffixes are laid behind the context as a tree (equal beginnings once), each token at the
position that it has in its own row, and a mask lets it see the context and its own beginning. So
the key-value cache is never repeated. A model whose cache forgets (sliding windows) or that knows
no positions but its mask's (ALiBi) reads the suffixes one after the other on the same cache. Where
the rotation depends on the whole row's length (`turning`), the context is read once for each such
length.

The scores are those of a plain forward of each whole row (tested). Exact: every token of the answer
is the most probable one after those before it, so nothing need be generated. Choice: the answer is
the likeliest of the choices, by the sum of its tokens' log-probabilities, which favours none where
the choices have equally many tokens. V is the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from farcontext.checkpoints.token_losses import numbers
from farcontext.checkpoints.turning import linear_biases, turn_of, turned
from farcontext.files import UserError
from farcontext.tasks.needles import needle
from farcontext.tasks.sample import Ids, Query, Sample
from farcontext.tasks.words import NAMES, draw_words

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

TOKENS_AT_ONCE = 256  # Suffixes of so many tokens in all are one row behind the context.
READ_AT_ONCE = 2048  # A longer context is read in such parts, whose activations fit.
Row = dict[str, int | float]


def observe(model: "PreTrainedModel", sample: Sample, part: int = READ_AT_ONCE) -> list[Row]:
    """Return a row a question, the earliest evidence first.

    Rows: question (its number), depth, exact and choice (0 or 1), loss (nats of the whole answer).

    Args:
        part: tokens of the context that are read at once; it bounds the memory, and changes no
            score by more than rounding.
    """
    suffixes = sorted({(*q.question, *choice[:-1]) for q in sample.queries for choice in q.choices})
    scores = dict(
        zip(suffixes, suffix_scores(model, sample.context.tolist(), suffixes, part), strict=True)
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
    model: "PreTrainedModel",
    context: Sequence[int],
    suffixes: Sequence[Ids],
    part: int = READ_AT_ONCE,
) -> list[Float[Tensor, "tokens V"]]:
    """Return the log-probabilities of what follows each token of each suffix.

    There is a tensor a suffix, fp32 on the CPU.
    """
    alike: dict[tuple[int, ...], list[Ids]] = {}
    for suffix in suffixes:
        alike.setdefault(turn_of(model, len(context) + len(suffix)), []).append(suffix)
    found: dict[Ids, Tensor] = {}
    for group in alike.values():
        with turned(model, len(context) + len(group[0])):
            cache = read(model, context, part)
            for some in _parts(group) if _sees_all(model, cache) else ([s] for s in group):
                found |= _behind(model, cache, len(context), some)
    return [found[suffix] for suffix in suffixes]


def read(model: "PreTrainedModel", ids: Sequence[int], part: int = READ_AT_ONCE) -> "DynamicCache":
    """Read a text and return its key-value cache.

    The cache can be cut back to it.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    for start in range(0, len(ids), part):
        rows = torch.tensor([[*ids[start : start + part]]], device=model.device)
        model(input_ids=rows, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.activate_past_recording()  # Else a sliding window forgets what a suffix pushes out.
    return cache


def _sees_all(model: "PreTrainedModel", cache: "DynamicCache") -> bool:
    """Return whether a mask of ours says all that a token sees."""
    from transformers.cache_utils import DynamicLayer

    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    return plain and not linear_biases(model.config)


def _parts(suffixes: Sequence[Ids]) -> Iterator[list[Ids]]:
    """Yield the suffixes in lists, neighbours together.

    A list has at most about TOKENS_AT_ONCE tokens.
    """
    part: list[Ids] = []
    for suffix in sorted(suffixes):
        if part and len(_tree([*part, suffix])) > TOKENS_AT_ONCE:
            yield part
            part = []
        part.append(suffix)
    if part:
        yield part


def _tree(suffixes: Sequence[Ids]) -> dict[Ids, int]:
    """Return every beginning of the suffixes with its number, shorter ones first."""
    beginnings = {suffix[:size] for suffix in suffixes for size in range(1, len(suffix) + 1)}
    return {beginning: number for number, beginning in enumerate(sorted(beginnings, key=len))}


def _behind(
    model: "PreTrainedModel", cache: "DynamicCache", read: int, suffixes: Sequence[Ids]
) -> dict[Ids, Tensor]:
    """Return the suffixes' log-probabilities; the cache is left as it was."""
    tree = _tree(suffixes)
    rows = torch.tensor([[beginning[-1] for beginning in tree]], device=model.device)
    at = torch.tensor([[read + len(beginning) - 1 for beginning in tree]], device=model.device)
    # One suffix is a plain row, whose mask the model makes itself.
    mask = None if len(suffixes) == 1 else _mask(model, tree, read)
    scores = model(
        input_ids=rows,
        attention_mask=mask,
        position_ids=at,
        past_key_values=cache,
        use_cache=True,
    ).logits[0]
    cache.crop(-len(tree))
    scores = numbers(scores).float().log_softmax(-1).cpu()
    return {s: scores[[tree[s[:size]] for size in range(1, len(s) + 1)]] for s in suffixes}


def _mask(model: "PreTrainedModel", tree: dict[Ids, int], read: int) -> Tensor:
    """Return what each token of the tree sees.

    That is the context and its own beginnings.
    """
    sees = torch.zeros(len(tree), read + len(tree), dtype=torch.bool)
    sees[:, :read] = True
    for beginning, number in tree.items():
        sees[number, [read + tree[beginning[:size]] for size in range(1, len(beginning) + 1)]] = (
            True
        )
    if model.config._attn_implementation != "eager":
        return sees[None, None].to(model.device)
    low = torch.finfo(model.dtype).min  # Attention that is written out adds its mask.
    return (
        torch.zeros(sees.shape, dtype=model.dtype)
        .masked_fill(~sees, low)[None, None]
        .to(model.device)
    )


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
                f"text: {tokenizer.convert_ids_to_tokens(last)!r:.60} is token {last}: the "
                f"tokenizer has {len(tokenizer)} ids, vocab_size = {rows}: expected tokens up to "
                f"{rows - 1}"
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
