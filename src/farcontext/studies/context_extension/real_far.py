"""What the text before is worth to a pretrained checkpoint: claim M2-real.

Three kinds of text: plays that the checkpoint may have read, API manuals of services that are newer
than it, and chapters of a Chinese novel. Rows: kind = real, layout = the kind of text, seed = the
number of the document, arm = whose text stood before the targets (own, other).
"""

from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path

from farcontext import files
from farcontext.checkpoints import far_context
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.questions import encoder
from farcontext.data import corpus
from farcontext.data.manuals import newer_manuals
from farcontext.schema import Row
from farcontext.studies.context_extension.params import Params
from farcontext.studies.real_tier import known, loaded
from farcontext.train.runs import EvalConfig, sweep

NEW = "new_manuals"
WHEEL = "botocore"  # The source whose manuals are dated.
SINCE = "2024-11"  # SmolLM2 was released in this month.
SKIP = {"plays": 2000}  # So many tokens at the head of a play are its title and cast.
PER_TOKEN = 8  # No text here has more characters a token.


def run(params: Params) -> list[Row]:
    """Return losses of the same last tokens, by length and arm.

    The metric is far_loss, in nats a token.

    All documents are read at `real_lengths`; the first plays at `real_long_lengths`, too.
    """
    same = known(params.checkpoint) | {"wheel": _wheel(), "targets": params.real_targets}
    jobs = {}
    for kind, number in params.real_documents.items():
        for pair in pairs(number):
            options = {"kind": kind, "numbers": pair, "lengths": list(params.real_lengths)}
            jobs[kind, *pair] = EvalConfig(far_loss, None, same | options)
    for pair in pairs(params.real_long_documents):
        options = {"kind": "plays", "numbers": pair, "lengths": list(params.real_long_lengths)}
        jobs["long", *pair] = EvalConfig(far_loss, None, same | options)
    return [{"kind": "real"} | row for result in sweep(jobs).values() for row in result.rows]


def pairs(number: int) -> list[list[int]]:
    """Return documents in pairs, each the other's foreign text.

    Neighbours in the alphabet may be of one family, so a pair is half the list apart.
    """
    half = number // 2
    return [[first, first + half] for first in range(half)]


def far_loss(
    *,
    checkpoint: str,
    weights: str,
    wheel: str,
    kind: str,
    numbers: list[int],
    lengths: list[int],
    targets: int,
) -> list[Row]:
    """Return `far_context.crossed_loss` of a pair of documents at each length."""
    pretrained = loaded(checkpoint)
    documents = stretches(pretrained, texts(kind), numbers, max(lengths), SKIP.get(kind, 0))
    return [
        {
            "arm": {"true": "own"}.get(row["far"], row["far"]),
            "layout": kind,
            "length": length,
            "seed": numbers[row["document"]],
            "metric": "far_loss",
            "value": row["loss"],
        }
        for length in lengths
        for row in far_context.crossed_loss(pretrained, documents, length=length, targets=targets)
    ]


def texts(kind: str) -> list[str]:
    """Return the documents of a kind, in a fixed order.

    The kind is new_manuals, or a domain of the corpus.

    The checkpoint was not trained here, so the documents of all splits may be used.
    """
    if kind == NEW:
        return _newer(files.project() / "build" / "sources" / WHEEL)
    folder = files.project() / "build" / "corpus"
    return [
        document.text
        for split in corpus.SPLITS
        for document in corpus.load_documents(folder, split, kind)
    ]


@cache
def _newer(folder: Path) -> list[str]:
    return newer_manuals(folder, SINCE)


def _wheel() -> str:
    """Return the hash of the wheel of manuals.

    With other manuals it is another evaluation.
    """
    return files.read_json(files.project() / "build" / "sources" / WHEEL / "source.json")["sha256"]


def stretches(
    pretrained: Pretrained, texts: Sequence[str], numbers: list[int], tokens: int, skip: int = 0
) -> list[list[int]]:
    """Return a stretch of so many tokens from each document named.

    Documents that are too short have no number.

    Args:
        texts: the documents.
        numbers: those wanted.
        tokens: in a stretch.
        skip: tokens left out at a document's head.
    """
    encode = encoder(pretrained.tokenizer)
    ids = (encode(text[: PER_TOKEN * (skip + tokens)])[skip : skip + tokens] for text in texts)
    long = list(islice((row for row in ids if len(row) == tokens), max(numbers) + 1))
    return [long[number] for number in numbers]
