"""Retrieve, then read: the parts of a context that BM25 ranks highest for a question, and where in a text they stand.

BM25 is bm25s's (Lù 2024), Lucene's variant with k1 = 1.5 and b = 0.75; words as they are, no stemming, English stop words
left out. Scores are comparable within one context and question only.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import bm25s
import numpy as np

from longctx.tasks.sample import Decode, Query, Sample, longest


def ranking(texts: Sequence[str], question: str) -> list[int]:
    """Return the numbers of texts by their BM25 score for a question, the highest first; equal ones in their order."""
    words = bm25s.tokenize(list(texts), show_progress=False)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    scores = index.get_scores(bm25s.tokenize([question], return_ids=False, show_progress=False)[0])
    return np.argsort(-scores, kind="stable").tolist()


def retrieved(sample: Sample, query: Query, decode: Decode, window: int) -> np.ndarray:
    """Return the blocks of a context that rank highest for a question, in the context's order, `window` tokens at most.

    A block that does not fit any more is passed over; what stands before the first block stays.
    """
    blocks = [sample.context[start:end] for start, end in pairwise([*sample.blocks, len(sample.context)])]
    ranked = ranking([decode(block.tolist()) for block in blocks], decode(query.question))
    room, chosen = window - sample.blocks[0], []
    for number in ranked:
        if len(blocks[number]) <= room:
            chosen.append(number)
            room -= len(blocks[number])
    first = sample.context[: sample.blocks[0]]
    return np.concatenate([first, *(blocks[number] for number in sorted(chosen))])


def reading(sample: Sample, queries: Sequence[Query], context: np.ndarray) -> Sample:
    """Return some of a sample's questions after another, shorter context, which is all that there is to read."""
    size = len(context) + max(map(longest, queries))
    asked = tuple(replace(query, evidence=()) for query in queries)
    return replace(sample, context=context, queries=asked, blocks=(0,), length=size)
