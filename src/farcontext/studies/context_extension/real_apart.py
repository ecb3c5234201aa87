"""Where a pretrained checkpoint's loss goes: the real tier of claim D1.

Needles are told together, and asked for behind prose of a play in the five surroundings of `apart`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import torch
import torch.nn.functional as F

from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.questions import encoder, first_tokens, observe, read
from farcontext.schema import Row
from farcontext.studies.context_extension import real_far
from farcontext.studies.context_extension.apart import rows_of
from farcontext.studies.context_extension.params import Params
from farcontext.studies.real_tier import known, loaded
from farcontext.tasks import needles
from farcontext.tasks.sample import Query, reading
from farcontext.train.runs import EvalConfig, grid, sweep

NEEDLES = 5
# RULER's noise (Hsieh et al. 2024): text that every model can read, and that tells nothing.
NOISE = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
# A plain repeat of a needle's beginning would read as the next needle right behind them.
ASKED = "\n\nQuestion: What is the secret word of {0}?\nAnswer: The secret word of {0} is"


def run(params: Params) -> list[Row]:
    """Return the rows of the real tier, as those of `apart.run`.

    The column seed has the number of the context.
    """
    same = known(params.checkpoint)
    lengths = sorted(params.apart_lengths, reverse=True)
    cells = grid(length=lengths, seed=range(params.apart_contexts))
    jobs = {
        cell: EvalConfig(needles_apart, None, same | {"length": cell.length, "context": cell.seed})
        for cell in cells
    }
    return [
        row
        for cell, result in sweep(jobs).items()
        for row in rows_of(result.rows, {"kind": "real", "arm": "needles", **cell._asdict()})
    ]


def needles_apart(*, checkpoint: str, weights: str, length: int, context: int) -> list[Row]:
    """Return nats an answer in each surrounding of one context's needles."""
    pretrained = loaded(checkpoint)
    return [
        {"surrounding": name, "loss": float(np.mean(losses))}
        for name, losses in surroundings(pretrained, length, context, play(context))
    ]


def play(number: int) -> str:
    """Return a play of the corpus, by number in a fixed order."""
    texts = real_far.texts("plays")
    return texts[number % len(texts)]


def surroundings(
    pretrained: Pretrained, length: int, seed: int, filler: str
) -> Iterator[tuple[str, list[float]]]:
    """Yield each surrounding's name and the loss of each answer.

    Args:
        pretrained: the checkpoint.
        length: tokens of the longer contexts.
        seed: draws names, words and the place in the filler.
        filler: real prose.
    """
    encode, bos = encoder(pretrained.tokenizer), [*first_tokens(pretrained.tokenizer)]
    told = {"encode": encode, "keys": NEEDLES, "bos": bos, "seed": seed, "filler": filler}
    # The sample's own, shorter questions are not asked, so it has room for more than `length`.
    sample = needles.sample(length=2 * length, depths=[0.0] * NEEDLES, **told)
    end = max(stop for query in sample.queries for _, stop in query.evidence)
    evidence = sample.context[len(bos) : end].tolist()
    prose = sample.context[end:length].tolist()
    noise = islice(cycle(encode(NOISE)), len(prose))
    contexts = {
        "together": [*bos, *evidence],
        "blank": [*bos, *evidence, *noise],
        "real": [*bos, *evidence, *prose],
        "beside": [*bos, *prose, *evidence],
    }
    queries = [asked(query, pretrained) for query in sample.queries]
    for name, context in contexts.items():
        rows = observe(pretrained.model, reading(sample, queries, np.array(context)))
        yield name, [row["loss"] for row in rows]
    together, gap = contexts["together"], len(prose)
    yield "masked", _behind_gap(pretrained, together, queries, gap)


def asked(query: Query, pretrained: Pretrained) -> Query:
    """Return a needle's query with a question that reads as one."""
    name = needles.name_in(pretrained.tokenizer.decode(query.question))
    question = encoder(pretrained.tokenizer)(ASKED.format(name))
    return replace(query, question=tuple(question))


@torch.inference_mode()
def _behind_gap(
    pretrained: Pretrained, context: Sequence[int], queries: Sequence[Query], gap: int
) -> list[float]:
    """Return the losses of answers whose questions stand `gap` positions later.

    This is the filler hidden from all: nobody looks at it, and the positions stay. The context is
    read once.
    """
    cache, losses = read(pretrained.model, context), []
    for query in queries:
        row = torch.tensor([[*query.question, *query.answer[:-1]]])
        size = row.shape[1]
        scores = pretrained.model(
            input_ids=row,
            position_ids=len(context) + gap + torch.arange(size)[None],
            # Without a mask, a jump would be taken for packed documents, and hide the context.
            attention_mask=torch.ones(1, len(context) + size, dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
        ).logits[0, -len(query.answer) :]
        cache.crop(-size)
        loss = F.cross_entropy(scores.float(), torch.tensor(query.answer), reduction="sum")
        losses.append(float(loss))
    return losses
