"""Retrieve, then read: the parts of a context that BM25 prefers.

They are those that BM25 ranks highest for a question. The module also says where in a text they
stand.

BM25 is bm25s's (Lù 2024), Lucene's variant with k1 = 1.5 and b = 0.75; words as they are, no
stemming, English stop words left out. Where a script writes no spaces between words, each two
neighbouring characters count as one (as Lucene's CJKBigramFilter has it). Scores are comparable
within one context and question only.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import bm25s
import numpy as np

from farcontext.tasks.sample import Decode, Query, Sample

# These summaries copy sentences, and are the baselines of every summary.
EXTRACTS = ("lead", "random", "bm25")
# A passage has so many words at most, so that a long paragraph has more than one place.
PASSAGE = 120
PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")  # A paragraph's lines are not blank.
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Bopomofo, Han.
UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u103f\u1050-\u109f\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u312f\u31f0-\u31ff\uff66-\uff9f"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
RUN = re.compile(f"[{UNSPACED}]{{2,}}")
WORD = rf"[{UNSPACED}]{{2}}|\b\w\w+\b"  # As `spaced` parts a text: two characters or more.
# What counts as a word of a passage: two characters there, 100 at most of anything else.
STEP = re.compile(rf"\s*(?:[{UNSPACED}]{{1,2}}|[^\s{UNSPACED}]{{1,100}})\s*")


def spaced(text: str) -> str:
    """Return a text with unspaced scripts cut into pairs of neighbours."""
    return RUN.sub(lambda run: f" {' '.join(map(''.join, pairwise(run.group())))} ", text)


def ranker(texts: Sequence[str]) -> Callable[[str], list[int]]:
    """Return the function that gives a question's `ranking` of these texts."""
    parted = {"token_pattern": WORD, "show_progress": False}
    words = bm25s.tokenize([spaced(text) for text in texts], **parted)
    index = bm25s.BM25()
    if words.vocab:
        index.index(words, show_progress=False)

    def ranked(question: str) -> list[int]:
        asked = bm25s.tokenize([spaced(question)], return_ids=False, **parted)[0]
        if not asked or not words.vocab:
            return []
        scores = index.get_scores(asked)
        order = np.argsort(-scores, kind="stable").tolist()
        return [number for number in order if scores[number] > 0]

    return ranked


def ranking(texts: Sequence[str], question: str) -> list[int]:
    """Return the numbers of texts in the order of BM25 scores.

    They are the texts that share a word with the question; equal scores keep the order of the
    texts.

    A word has two letters or more, or is two neighbours of `UNSPACED`. A question without one
    ("???"), or texts without any, share nothing.
    """
    return ranker(texts)(question)


def extracts(sentences: Sequence[str], count: int, seed: int) -> dict[str, list[str]]:
    """Return `count` sentences of a text, by each of EXTRACTS.

    The sentences stand in the order of the text.

    The extract lead has the first sentences, random has sentences drawn by seed, and bm25 has those
    with the highest score for the whole text as the question, which favours long sentences of words
    that recur: a centroid.
    """
    numbers = {
        "lead": range(len(sentences)),
        "random": np.random.default_rng(seed).permutation(len(sentences)),
        "bm25": ranking(sentences, " ".join(sentences)),
    }
    return {
        name: [sentences[number] for number in sorted(numbers[name][:count])] for name in EXTRACTS
    }


def retrieved(sample: Sample, query: Query, decode: Decode, window: int) -> np.ndarray:
    """Return the blocks of a context that rank highest for a question.

    They stand in the context's order, and have `window` tokens at most.

    A block that does not fit any more is passed over; what stands before the first block stays.
    """
    blocks = [
        sample.context[start:end] for start, end in pairwise([*sample.blocks, len(sample.context)])
    ]
    ranked = ranking([decode(block.tolist()) for block in blocks], decode(query.question))
    kept = packed(ranked, [len(block) for block in blocks], window - sample.blocks[0])
    return np.concatenate(
        [sample.context[: sample.blocks[0]], *(blocks[number] for number in kept)]
    )


def packed(numbers: Iterable[int], sizes: Sequence[int], room: int) -> list[int]:
    """Return, in ascending order, the numbers whose sizes fit into the room.

    They are taken in the order given.
    """
    taken = []
    for number in numbers:
        if sizes[number] <= room:
            taken.append(number)
            room -= sizes[number]
    return sorted(taken)


# ------------------------------------------------------------------------------ somebody's own text


@dataclass(frozen=True)
class Passage:
    """A piece of a text and its lines in it.

    Lines count from 1, and both ends are included.
    """

    first: int
    last: int
    text: str
    depth: float  # The middle of the piece is here: 0 is the text's beginning, 1 is its end.


def passages(text: str) -> list[Passage]:
    """Return a text's paragraphs in order, long ones in pieces.

    Pieces consist of whole lines, or of words (`STEP`) where a line is long.
    """
    pieces = []
    for paragraph in PARAGRAPH.finditer(text):
        start = paragraph.start()
        for piece in _pieces(paragraph.group()):
            first = text.count("\n", 0, start) + 1
            last = first + piece.rstrip("\n").count("\n")
            pieces.append(Passage(first, last, piece.strip(), (start + len(piece) / 2) / len(text)))
            start += len(piece)
    return pieces


def _pieces(paragraph: str) -> Iterator[str]:
    """Yield parts of at most PASSAGE words that together are the paragraph.

    They are cut at line ends where there are any.
    """
    held, count = "", 0
    for line in re.findall(r"[^\n]*\n|[^\n]+\Z", paragraph):
        steps = STEP.findall(line)
        for start in range(0, len(steps), PASSAGE):
            part, words = (
                "".join(steps[start : start + PASSAGE]),
                len(steps[start : start + PASSAGE]),
            )
            if held and count + words > PASSAGE:
                yield held
                held, count = "", 0
            held, count = held + part, count + words
    if held:
        yield held


def chosen(
    ranked: Sequence[int], sizes: Sequence[int], budget: int, *, fill: bool = True
) -> list[int]:
    """Return the numbers of the passages to read, in text order.

    All passages are read if they fit, else the best ranked that do.

    Where room is left and `fill`, the passages from the beginning on fill it.

    Args:
        ranked: numbers of passages, the best first; some may be missing.
        sizes: tokens of each passage.
        budget: tokens in all.
    """
    if sum(sizes) <= budget:
        return list(range(len(sizes)))
    others = range(len(sizes)) if fill else ()
    return packed(dict.fromkeys([*ranked, *others]), sizes, budget)
