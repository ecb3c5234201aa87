"""The worth of far text to a pretrained checkpoint, on real documents.

Nothing is generated: losses of given tokens say what far text is worth and what the positions
survive. Losses are in nats a token, and a row has T tokens. Positions beyond the trained ones are
screened by a gap in the position ids, which costs two short pieces instead of one long one.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.questions import suffix_scores
from farcontext.checkpoints.rope_loss import rebuilt
from farcontext.checkpoints.token_losses import token_losses

Row = dict[str, Any]
# It gives the losses of a row's tokens, or of so many last ones.
Read = Callable[[Pretrained, Sequence[int], int | None], Tensor]


def reading(pretrained: Pretrained, tokens: Sequence[int], last: int | None = None) -> Tensor:
    """Return `token_losses`: each row is read when it is asked for."""
    return token_losses(pretrained.model, tokens, last)


def remembering() -> Read:
    """Return a `reading` that reads no whole row twice.

    It keeps the losses of rows that were asked for whole, and takes their last ones from there.
    """
    known: dict[tuple[int, ...], Tensor] = {}

    def read(pretrained: Pretrained, tokens: Sequence[int], last: int | None = None) -> Tensor:
        row = tuple(tokens)
        if row not in known and last is not None:
            return reading(pretrained, row, last)
        if row not in known:
            known[row] = reading(pretrained, row)
        return known[row] if last is None else known[row][-last:]

    return read


def far_context_loss(
    pretrained: Pretrained,
    documents: Sequence[Sequence[int]],
    *,
    lengths: Sequence[int],
    targets: int = 128,
    read: Read = reading,
) -> list[Row]:
    """Return losses of the same last tokens after different text.

    A loss is a mean over a document's last tokens. How much text of which document stands before
    them differs.

    Args:
        documents: token ids, each at least as long as the longest length; the last tokens are the
            targets.
        lengths: tokens in a row, targets included.
        read: gives the losses; `remembering()` spares a second reading.

    far = true: the document's own text. other: as much text of the next document, up to the
    targets, so that the number of tokens and their positions are the same.

    Raises:
        ValueError: a document that is too short, a length without room before the targets, or a
            single document.
    """
    longest = max(lengths)
    if min(lengths) <= targets or min(map(len, documents)) < longest or len(documents) < 2:
        raise ValueError(
            f"lengths = {list(lengths)}, targets = {targets}, documents of "
            f"{sorted(map(len, documents))[:3]} … tokens: "
            "expected two documents as long as the longest length, and lengths above targets"
        )
    rows = []
    for number, document in enumerate(documents):
        other = documents[(number + 1) % len(documents)]
        for length in lengths:
            for far, source in (("true", document), ("other", other)):
                before = list(source[len(source) - length : len(source) - targets])
                loss = read(pretrained, [*before, *document[-targets:]], targets)
                rows.append(
                    {"document": number, "length": length, "far": far, "loss": float(loss.mean())}
                )
    return rows


def crossed_loss(
    pretrained: Pretrained, documents: Sequence[Sequence[int]], *, length: int, targets: int
) -> list[Row]:
    """Return `far_context_loss` of one length, each context read once.

    A context stands before its own document's targets and before those of the document before it:
    two suffixes of one key-value cache (`questions`), for little more than half the tokens.

    Args:
        documents: token ids, two or more, each at least `length` long.
        length: tokens in a row, targets included.
        targets: the last tokens, whose loss is meant.
    """
    ends = [[*document[-targets:]] for document in documents]
    rows = []
    for number, source in enumerate(documents):
        *before, last = source[len(source) - length : len(source) - targets]
        behind = {"true": number, "other": (number or len(documents)) - 1}
        suffixes = [(last, *ends[document][:-1]) for document in behind.values()]
        scores = suffix_scores(pretrained.model, before, suffixes)
        for (far, document), scores_tV in zip(behind.items(), scores, strict=True):
            loss = -scores_tV[range(targets), ends[document]].mean()
            found = {"document": document, "length": length, "far": far}
            rows.append(found | {"loss": float(loss)})
    return rows


def loss_by_position(
    pretrained: Pretrained,
    documents: Sequence[Sequence[int]],
    *,
    length: int,
    bucket: int = 128,
    read: Read = reading,
) -> list[Row]:
    """Return the mean loss of each document's first tokens by position.

    The first `length` tokens are read. Rows: document, position (the bucket's first), loss. The
    very first token is not predicted.

    Raises:
        ValueError: a document that is too short, or a bucket that does not divide the length.
    """
    if bucket < 2 or length % bucket:
        raise ValueError(f"bucket = {bucket}: expected a divisor of length = {length}, 2 or more")
    if min(map(len, documents)) < length:
        raise ValueError(
            f"documents of {min(map(len, documents))} tokens: expected {length} or more"
        )
    rows = []
    for number, document in enumerate(documents):
        losses = read(pretrained, document[:length], None)
        for start in range(0, length, bucket):
            loss = float(losses[max(0, start - 1) : start + bucket - 1].mean())
            rows.append({"document": number, "position": start, "loss": loss})
    return rows


def position_gap(
    pretrained: Pretrained,
    documents: Sequence[Sequence[int]],
    *,
    gaps: Sequence[int],
    schemes: Mapping[str, Mapping[str, Any]],
    half: int = 1024,
) -> list[Row]:
    """Return losses of second halves whose positions jump by a gap.

    A loss is that of a document's second `half` tokens. This is a cheap screen for schemes beyond
    the trained length: the model meets distances of gap and more at the price of 2·half tokens. It
    meets none of the text that would stand there: a scheme that passes is worth a real long run, no
    more.

    Args:
        gaps: positions left out between the halves; 0 is the ordinary loss.
        schemes: name → changes of `rope_parameters`; {} leaves the model as it is. Rotary modules
            are built by transformers and put back afterwards.
        half: tokens in each half.
    """
    rows = []
    # Without a mask, a jump would be taken for packed documents, and hide the first half.
    mask = torch.ones(1, 2 * half, dtype=torch.long, device=pretrained.model.device)
    at_T = torch.arange(2 * half, device=pretrained.model.device)
    for scheme, changes in schemes.items():
        with rebuilt(pretrained.model, **changes) if changes else nullcontext():
            for gap in gaps:
                positions = torch.where(at_T < half, at_T, at_T + gap)[None]
                for number, document in enumerate(documents):
                    loss = token_losses(
                        pretrained.model,
                        document[: 2 * half],
                        half,
                        position_ids=positions,
                        attention_mask=mask,
                    )
                    found = {"scheme": scheme, "gap": gap, "document": number}
                    rows.append(found | {"loss": float(loss.mean())})
    return rows
