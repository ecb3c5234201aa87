"""Notebook 10: what a longer context buys in summarization.

The arms differ in what the writer of the summary reads. Claim S1 of claims.yaml reads the table.
Controlled tier: summaries of stories, whose facts are known (`story_reader`); real tier:
`real`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from farcontext.measure import metrics
from farcontext.measure.retrieval import EXTRACTS, extracts
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.story_reader import (
    LAYOUTS,
    cost_of,
    sizes_of,
    stories,
    story_of,
    vocabulary,
    writer_of,
    written,
)
from farcontext.studies.summarization import real
from farcontext.studies.summarization.params import Params
from farcontext.tasks import storybook, world
from farcontext.tasks.events import Fact
from farcontext.tasks.sample import SENTENCE, Sample, closed_book, even_depths
from farcontext.train.runs import EvalConfig, sweep

NAME = "summarization"
COLUMNS = ["tier", "arm", "seed", "length", "layout", "depth", "metric", "value"]
SHORT = ("first", "last", "hierarchical")  # Arms of this group read no more than a window at once.
CONTROLS = ("closed_book", "wrong")
ARMS = ("full", *SHORT, *CONTROLS, *EXTRACTS)
METRICS = ("recall", "precision", "rougeL", "words")
# A fact has at most so many tokens. A summary that runs on is cut where all facts could stand.
LONGEST = 12


# ------------------------------------------------------------------------------------- what is read


def read_by(arm: str, sample: Sample, other: Sample, window: int) -> list[np.ndarray]:
    """Return the contexts that an arm summarizes one by one.

    `other` is the story that the arm "wrong" reads.

    Raises:
        ValueError: an arm that is not known.
    """
    context, first = sample.context, sample.context[: sample.blocks[0]]
    rest, size = context[len(first) :], window - len(first)
    match arm:
        case "full":
            return [context]
        case "first":
            return [context[:window]]
        case "last":
            return [np.concatenate((first, rest[-size:]))]
        case "hierarchical":
            return [
                np.concatenate((first, rest[start : start + size]))
                for start in range(0, len(rest), size)
            ]
        case "closed_book":
            return [closed_book(sample).context]
        case "wrong":
            return [other.context]
    raise ValueError(f"arm = {arm}: expected one of {', '.join(ARMS)}")


def merged(parts: Sequence[str]) -> list[Fact]:
    """Return what the summaries of a text's parts state, each once.

    Where they differ, the last one is kept.
    """
    stated: dict[tuple[str, str], Fact] = {}
    for fact in (fact for part in parts for fact in world.facts_in(part)):
        stated[fact.kind, fact.subject] = fact
    return sorted(stated.values(), key=lambda fact: (fact.kind != "place", fact.subject))


# ---------------------------------------------------------------------------------------- protocols


def summaries(
    model: Decoder,
    *,
    sizes: dict[str, int],
    length: int,
    layout: str,
    count: int,
    arm: str,
    window: int,
) -> list[Row]:
    """Return the scores of what a writer says about stories.

    They are `scores` of many stories.
    """
    words = vocabulary()
    told = stories(sizes, length=length, count=count + 1, depth=LAYOUTS[layout])
    read = [read_by(arm, told[number], told[number + 1], window) for number in range(count)]
    cue, (stop,) = words.encode(storybook.SUMMARY), words.encode(storybook.END)
    prompts = [[*context, *cue] for contexts in read for context in contexts]
    texts = iter(written(model, prompts, LONGEST * (sizes["people"] + sizes["things"]), stop=stop))
    stated = [merged([next(texts) for _ in contexts]) for contexts in read]
    return scores(sizes, stated, ["".join(fact.sentence for fact in facts) for facts in stated])


def copied(*, sizes: dict[str, int], length: int, layout: str, count: int, arm: str) -> list[Row]:
    """Return the scores of sentences copied from stories.

    As many sentences are copied as a summary has.
    """
    words, stated, texts = vocabulary(), [], []
    for number, sample in enumerate(
        stories(sizes, length=length, count=count, depth=LAYOUTS[layout])
    ):
        text = words.decode(sample.context.tolist())
        sentences = [found.group() for found in SENTENCE.finditer(text) if found.group().strip()]
        texts.append("".join(extracts(sentences, sizes["people"] + sizes["things"], number)[arm]))
        stated.append(
            [fact for fact in world.state(world.read(texts[-1])) if fact.kind != "thing_place"]
        )
    return scores(sizes, stated, texts)


def facts_of(sizes: dict[str, int], number: int) -> dict[Fact, float]:
    """Return the facts of a tested story's summary, with their depths.

    A depth is that of the fact where the story is spread.
    """
    story = story_of(sizes, number)
    evidence, depths = world.state(story.events), even_depths(len(story.events))
    return {fact: float(depths[evidence[fact][-1]]) for fact in storybook.summary_of(story)}


def scores(
    sizes: dict[str, int], stated: Sequence[Sequence[Fact]], texts: Sequence[str]
) -> list[Row]:
    """Return METRICS, and the recall of facts by depth.

    METRICS are means over stories; precision is left out where no story has one.
    """
    rows, found = [], []
    for number, (facts, text) in enumerate(zip(stated, texts, strict=True)):
        true = facts_of(sizes, number)
        reference = "".join(fact.sentence for fact in true)
        row = {
            "recall": metrics.fact_recall(facts, [*true]),
            "precision": metrics.fact_precision(facts, [*true]),
        }
        rows.append(
            row | {"rougeL": metrics.rouge(text, reference)["rougeL"], "words": len(text.split())}
        )
        found += [{"depth": depth, "value": float(fact in facts)} for fact, depth in true.items()]
    means = pd.DataFrame(rows).mean()
    by_depth = pd.DataFrame(found).groupby("depth")["value"].mean()
    return [
        *(
            {"metric": name, "value": float(means[name])}
            for name in METRICS
            if pd.notna(means[name])
        ),
        *(
            {"metric": "recall_at", "depth": depth, "value": value}
            for depth, value in by_depth.items()
        ),
    ]


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train the writers, let every arm summarize, and return the table.

    The table is also written; it has one row an observation.

    metric: recall, precision (of the facts) · rougeL (F1 against the oracle's summary) · words (of
    the summary), means over stories · recall_at (of the facts at a depth) · oracle (share of the
    facts that the oracle finds in the decoded text) · and those of `real.run`.
    """
    jobs = {
        (*cell, seed): _job(params, *cell, seed) for seed in params.seeds for cell in _cells(params)
    }
    rows = []
    for (arm, length, layout, seed), result in sweep(jobs).items():
        base = {"tier": "controlled", "arm": arm, "seed": seed, "length": length, "layout": layout}
        rows += [base | row for row in result.rows]
    known = oracle_recall(params)
    rows += [
        {"tier": "controlled", "seed": seed, "metric": "oracle", "value": known}
        for seed in params.seeds
    ]
    rows += real.run(params)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(params))
    return table


def _cells(params: Params) -> list[tuple[str, int, str]]:
    """Return (arm, length, layout) of every cell.

    The whole context has all lengths, the others the trained one.
    """
    trained = params.story_reader.long_length
    cells = [("full", length, "spread") for length in params.lengths] + [("full", trained, "near")]
    return list(dict.fromkeys([*cells, *((arm, trained, "spread") for arm in ARMS)]))


def _job(params: Params, arm: str, length: int, layout: str, seed: int) -> EvalConfig:
    same = {
        "sizes": sizes_of(params.story_reader),
        "count": params.stories,
        "arm": arm,
        "length": length,
        "layout": layout,
    }
    if arm in EXTRACTS:
        return EvalConfig(copied, None, same)
    writer = writer_of(params.story_reader, params.story_writer, "summary", seed)
    return EvalConfig(summaries, writer, same | {"window": params.window})


def oracle_recall(params: Params) -> float:
    """Return the share of the facts that the oracle finds.

    The oracle reads the decoded text of the tested stories.
    """
    sizes, words = sizes_of(params.story_reader), vocabulary()
    told = stories(sizes, length=min(params.lengths), count=params.stories, depth=None)
    known = [world.state(world.read(words.decode(sample.context.tolist()))) for sample in told]
    return float(
        np.mean([metrics.fact_recall([*k], [*facts_of(sizes, n)]) for n, k in enumerate(known)])
    )


def _cost(params: Params) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    The readers' base is part of it.
    """
    runs = {
        seed: writer_of(params.story_reader, params.story_writer, "summary", seed)
        for seed in params.seeds
    }
    return pd.DataFrame([{"seed": seed} | cost_of(run) for seed, run in runs.items()])
