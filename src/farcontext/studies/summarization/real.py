"""The real tier of notebook 10: abstracts of real manuals.

A manual's abstract is scored by extraction and by its loss. That tells context use, never a
summary's quality.

    service's name
    description          the abstract: 20 to 200 words without headings, else the manual does not
                         count
    OPERATIONS …         the body: sentences that half copy one of the abstract are left out,
                         then the first tokens are read

Rows fit the study's table: tier = real, recipe = manuals, seed = number of the document, length =
tokens of a body.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from farcontext import files
from farcontext.checkpoints.questions import encoder, first_tokens
from farcontext.checkpoints.token_losses import token_losses
from farcontext.data import corpus
from farcontext.data.documents import Document
from farcontext.measure import metrics
from farcontext.measure.retrieval import extracts
from farcontext.schema import Row
from farcontext.studies.real_tier import known, loaded
from farcontext.studies.summarization.params import Params
from farcontext.tasks.sample import Encode, Ids
from farcontext.train.runs import EvalConfig, sweep

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedModel

CONTEXTS = ("true", "other", "none")
CUE = "\n\nIn short:"  # This cue stands before the abstract in every arm.
FEWEST, MOST = 20, 200  # An abstract has a number of words between these.
COPIED = 0.5  # Two sentences are copies if they share this part of the shorter one's word trigrams.
CHARACTERS = 12  # Each wanted token gets so many characters of text, more than any body needs.
ENDS = re.compile(r"(?<=[.!?])\s+")
LISTED = (
    "Errors:",
    "One of:",
)  # The rendering of a manual adds lines with these beginnings; they are no prose.


@dataclass(frozen=True)
class Summarized:
    """A manual's abstract and the first tokens of its body.

    Manuals of one family describe related services.
    """

    family: str
    abstract: str
    body: Ids


def run(params: Params) -> list[Row]:
    """Return the real tier's rows; none without a checkpoint.

    metric: rouge1, rouge2, rougeL (F1 of an extract against the true abstract), the same with
    _wrong (against another family's) · loss (nats a token of the true abstract, after the true
    body, another's or none).
    """
    if params.checkpoint is None:
        return []
    same = known(params.checkpoint) | {
        "length": params.real_length,
        "sentences": params.real_sentences,
    }
    jobs = [
        EvalConfig(summarize, None, same | {"number": number})
        for number in range(params.real_documents)
    ]
    return [
        {"tier": "real"} | row
        for result in sweep(dict(enumerate(jobs))).values()
        for row in result.rows
    ]


def summarize(
    *, checkpoint: str, weights: str, number: int, length: int, sentences: int
) -> list[Row]:
    """Return one manual's scores, by arm.

    `weights` only names the evaluation in the cache.
    """
    pretrained = loaded(checkpoint)
    encode, first = encoder(pretrained.tokenizer), first_tokens(pretrained.tokenizer)
    own, other = pair(number, length, encode)
    same = {"recipe": "manuals", "seed": number, "length": length}
    rows = []
    for arm, text in copied(pretrained.tokenizer.decode(own.body), sentences, number).items():
        for suffix, abstract in (("", own.abstract), ("_wrong", other.abstract)):
            scores = metrics.rouge(text, abstract)
            rows += [
                same | {"arm": arm, "metric": f"{name}{suffix}", "value": x}
                for name, x in scores.items()
            ]
    scored = tuple(encode(f" {own.abstract}"))
    losses = losses_of(
        pretrained.model, own.body, other.body, before=first, cue=tuple(encode(CUE)), scored=scored
    )
    return rows + [
        same | {"arm": arm, "metric": "loss", "value": loss} for arm, loss in losses.items()
    ]


# ------------------------------------------------------------------------------------------ manuals


def pair(number: int, length: int, encode: Encode) -> tuple[Summarized, Summarized]:
    """Return a test manual and the next one of another family.

    Manuals that do not count are not numbered.

    Raises:
        ValueError: the corpus has fewer manuals with an abstract and a body of `length` tokens, or
            a single family.
    """
    found = usable(
        corpus.load_documents(files.project() / "build" / "corpus", "test", "manuals"),
        length,
        encode,
    )
    if number >= len(found) or len({one.family for one in found}) < 2:
        raise ValueError(
            f"manuals: {len(found)} documents: expected {number + 1} or more, of two families, "
            f"with an abstract of {FEWEST} to {MOST} words and a body of {length} tokens"
        )
    own, after = found[number], [*found[number + 1 :], *found[:number]]
    return own, next(one for one in after if one.family != own.family)


def usable(documents: Sequence[Document], length: int, encode: Encode) -> list[Summarized]:
    """Return the manuals that count, in their order.

    They have an abstract of FEWEST to MOST words and a body of `length` tokens.
    """
    found = []
    for document in documents:
        abstract, body = parted(document.text, CHARACTERS * length)
        ids = encode(body)[:length]
        if FEWEST <= len(abstract.split()) <= MOST and len(ids) == length:
            found.append(Summarized(document.group, abstract, tuple(ids)))
    return found


def parted(text: str, most: int) -> tuple[str, str]:
    """Return a manual's abstract and the beginning of its body.

    The abstract has no headings. The body is cut to its first `most` characters, without copies of
    the abstract.
    """
    described, _, body = text.partition("\nOPERATIONS\n")
    abstract = "\n".join(line for line in described.split("\n") if line.endswith((".", ":", "!")))
    known = [_trigrams(sentence) for line in abstract.split("\n") for sentence in ENDS.split(line)]
    lines = (
        [s for s in ENDS.split(line) if not _copies(_trigrams(s), known)]
        for line in body[:most].split("\n")
    )
    return abstract, "\n".join(" ".join(sentences) for sentences in lines)


def _trigrams(sentence: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", sentence.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def _copies(found: set, known: Sequence[set]) -> bool:
    """Return whether a sentence copies a known one.

    It does if it shares COPIED of its trigrams. It also counts if one of the known shares so many
    with it.
    """
    return any(
        found and one and len(found & one) >= COPIED * min(len(found), len(one)) for one in known
    )


# --------------------------------------------------------------------------------------------- arms


def copied(text: str, count: int, seed: int) -> dict[str, str]:
    """Return `count` sentences of a text by each of EXTRACTS.

    Lines that the rendering of a manual adds are no sentences.
    """
    lines = (line for line in text.split("\n") if not line.startswith(LISTED))
    sentences = [
        s
        for line in lines
        for s in ENDS.split(line)
        if len(s.split()) > 4 and s.endswith((".", "!", "?"))
    ]
    return {arm: " ".join(some) for arm, some in extracts(sentences, count, seed).items()}


def losses_of(
    model: "PreTrainedModel", own: Ids, other: Ids, *, before: Ids, cue: Ids, scored: Ids
) -> dict[str, float]:
    """Return the mean loss (nats) of the scored tokens, by context.

    A context is a body (or nothing), then the cue.
    """
    bodies = dict(zip(CONTEXTS, (own, other, ()), strict=True))
    rows = {arm: (*before, *body, *cue, *scored) for arm, body in bodies.items()}
    return {arm: float(token_losses(model, row, len(scored)).mean()) for arm, row in rows.items()}
