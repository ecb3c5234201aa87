"""What notebook 10 caches: an arm's reports of a seed's stories, scored."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from farcontext.measure import metrics
from farcontext.measure.retrieval import extracts
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.studies.story_reader import LAYOUTS, vocabulary, written
from farcontext.studies.story_writer import Span, Told, excerpt, spans_of, tested
from farcontext.tasks import reports, storybook, world
from farcontext.tasks.events import Fact
from farcontext.tasks.reports import Line
from farcontext.tasks.sample import Sample, closed_book

CONTROLS = ("first", "last", "closed_book", "wrong")  # Who writes does not see all that is told.
MERGERS = ("latest", "joined")  # Reports of chunks are merged so.
KINDS = {
    "all": reports.ONE_SENTENCE + reports.TWO_SENTENCES,
    "one sentence": reports.ONE_SENTENCE,
    "two sentences": reports.TWO_SENTENCES,
}
LINE = 12  # A line has so many tokens at most. A report that runs on is cut where all could stand.


# ------------------------------------------------------------------------------------- what is read


def chunks_of(sample: Sample, size: int) -> list[Span]:
    """Return chunks of a context: sentences of `size` tokens together.

    A chunk has so many at most; only a sentence that is longer than that is cut.
    """
    room = size - sample.blocks[0]
    parts = [(i, min(i + room, b)) for a, b in spans_of(sample) for i in range(a, b, room)]
    chunks = [parts[0]]
    for start, end in parts[1:]:
        if end - chunks[-1][0] <= room:
            chunks[-1] = (chunks[-1][0], end)
        else:
            chunks.append((start, end))
    return chunks


def read_by(arm: str, sample: Sample, other: Sample, size: int) -> np.ndarray:
    """Return the context that a writer of whole reports reads.

    `size` is that of the arms that read a part, and `other` what the arm "wrong" reads.

    Raises:
        ValueError: an arm that is not known.
    """
    context, first = sample.context, sample.blocks[0]
    match arm:
        case "whole":
            return context
        case "first":
            return context[:size]
        case "last":
            return np.concatenate((context[:first], context[first - size :]))
        case "closed_book":
            return closed_book(sample).context
        case "wrong":
            return other.context
    raise ValueError(f"arm = {arm}: expected whole, {', '.join(CONTROLS)}")


# ---------------------------------------------------------------------------------------- protocols


def whole_reports(
    model: Decoder,
    *,
    sizes: dict[str, int],
    seed: int,
    length: int,
    layout: str,
    count: int,
    arm: str,
    chunk: int,
) -> list[Row]:
    """Return the scores of reports that a writer makes in one go."""
    told = tested(sizes, seed=seed, length=length, depth=LAYOUTS[layout], count=count + 1)
    read = [read_by(arm, told[n].sample, told[n + 1].sample, chunk) for n in range(count)]
    return scores(told[:count], reported(model, read, sizes))


def chunk_reports(
    model: Decoder, *, sizes: dict[str, int], seed: int, length: int, count: int, chunk: int
) -> list[Row]:
    """Return the scores of chunks' reports, merged in two ways.

    latest: the last line about a subject wins. joined: the same, and then a thing is where its
    holder is.
    """
    told = tested(sizes, seed=seed, length=length, depth=None, count=count)
    # Other prose fills each chunk up, so that all have one length.
    chunks = [
        [excerpt(one.sample, [span], chunk) for span in chunks_of(one.sample, chunk)]
        for one in told
    ]
    made = iter(reported(model, [context for some in chunks for context in some], sizes))
    parts = [[next(made) for _ in some] for some in chunks]
    latest = [reports.merged(some) for some in parts]
    known = [
        (lines, reports.report(world.read(vocabulary().decode(context.tolist()))))
        for contexts, some in zip(chunks, parts, strict=True)
        for context, lines in zip(contexts, some, strict=True)
    ]
    both = {"latest": latest, "joined": [*map(reports.joined, latest)]}
    rows = [{"arm": arm} | row for arm, said in both.items() for row in scores(told, said)]
    read = float(np.mean([chunk * len(some) for some in chunks]))
    return [
        *rows,
        {"arm": "latest", "metric": "tokens", "value": read},
        {"arm": "latest", "metric": "chunk_f1", "value": _pooled_f1(known)},
    ]


def _pooled_f1(pairs: Sequence[tuple[Sequence[Line], Sequence[Line]]]) -> float:
    """Return the F1 of all facts of pairs (stated, true)."""
    facts = [tuple(reports.facts_of(lines, KINDS["all"]) for lines in pair) for pair in pairs]
    same = sum(len(stated & true) for stated, true in facts)
    return 2 * same / sum(len(stated) + len(true) for stated, true in facts)


def reported(
    model: Decoder, contexts: Sequence[np.ndarray], sizes: dict[str, int]
) -> list[list[Line]]:
    """Return the lines that a writer reports after each context."""
    words = vocabulary()
    cue, (stop,) = words.encode(storybook.SUMMARY), words.encode(storybook.END)
    most = LINE * (sizes["people"] + sizes["things"])
    prompts = [[*context.tolist(), *cue] for context in contexts]
    return [reports.lines_in(text) for text in written(model, prompts, most, stop=stop)]


def copied(*, sizes: dict[str, int], seed: int, length: int, count: int, arm: str) -> list[Row]:
    """Return the scores of as many sentences as a report has lines."""
    words, lines = vocabulary(), []
    told = tested(sizes, seed=seed, length=length, depth=None, count=count)
    for number, one in enumerate(told):
        ids = [one.sample.context[a:b].tolist() for a, b in spans_of(one.sample)]
        sentences = [words.decode(some) for some in ids]
        text = "".join(extracts(sentences, sizes["people"] + sizes["things"], number)[arm])
        lines.append(reports.report(world.read(text)))
    return scores(told, lines)


def perfect(*, sizes: dict[str, int], seed: int, length: int, count: int) -> list[Row]:
    """Return the scores of the oracle, which reads the decoded text."""
    words = vocabulary()
    told = tested(sizes, seed=seed, length=length, depth=None, count=count)
    texts = [words.decode(one.sample.context.tolist()) for one in told]
    return scores(told, [reports.report(world.read(text)) for text in texts])


def scores(told: Sequence[Told], said: Sequence[Sequence[Line]]) -> list[Row]:
    """Return F1, recall and precision of each kind of fact.

    They are means over stories. A report that states nothing of a kind has no precision; where none
    has any, its row is left out.
    """
    rows = []
    for one, lines in zip(told, said, strict=True):
        true = reports.report(one.story.events)
        for name, kinds in KINDS.items():
            found = _compared(*(reports.facts_of(some, kinds) for some in (lines, true)))
            rows += [{"kind": name, "metric": metric, "value": x} for metric, x in found.items()]
    means = pd.DataFrame(rows).groupby(["kind", "metric"])["value"].mean().dropna()
    return [{"kind": k, "metric": m, "value": float(x)} for (k, m), x in means.items()]


def _compared(stated: set[Fact], true: set[Fact]) -> dict[str, float]:
    return {
        "f1": metrics.fact_f1([*stated], [*true]),
        "recall": metrics.fact_recall([*stated], [*true]),
        "precision": metrics.fact_precision([*stated], [*true]),
    }
