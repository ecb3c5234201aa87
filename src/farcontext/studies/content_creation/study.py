"""Notebook 11: what a longer context buys in content creation.

It asks whether statements about a story's people contradict it. Claim C1 of claims.yaml reads the
table. Controlled tier: a writer goes on after a story whose state is known (`story_reader`); real
tier: `real`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from farcontext.measure import metrics
from farcontext.nn.generation import Sampling
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.content_creation import real
from farcontext.studies.content_creation.params import Params
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
from farcontext.tasks import storybook, world
from farcontext.tasks.world import Story
from farcontext.train.runs import EvalConfig, sweep

NAME = "content_creation"
COLUMNS = ["tier", "recipe", "arm", "seed", "length", "layout", "metric", "value"]
METRICS = ("contradictions", "quarrels", "persistence", "repetition", "distinct")
STATEMENT = 7  # A statement has so many tokens.


def arms(params: Params) -> list[str]:
    """Return the names of the arms.

    They are the tokens of each window, the whole context, and true statements.
    """
    return [*map(str, sorted(params.windows)), "full", "oracle"]


# ---------------------------------------------------------------------------------------- protocols


def continuations(
    model: Decoder,
    *,
    sizes: dict[str, int],
    length: int,
    layout: str,
    count: int,
    window: int | None,
    new: int,
    temperature: float,
    top_p: float,
) -> list[Row]:
    """Return `scores` of what a writer says after stories.

    Every arm draws alike; the first text is returned too.

    Args:
        window: last tokens of the story that are read; None: all.
    """
    words, prompts = vocabulary(), []
    for number, sample in enumerate(
        stories(sizes, length=length, count=count, depth=LAYOUTS[layout])
    ):
        prompts.append(
            [
                *sample.context.tolist()[-window if window else 0 :],
                *words.encode(brief_of(sizes, number)),
            ]
        )
    texts = written(
        model, prompts, new, sampling=Sampling(temperature=temperature, top_p=top_p), seed=0
    )
    whole = [text[: text.rfind(".") + 1] for text in texts]
    return [
        scores([story_of(sizes, number) for number in range(count)], whole) | {"text": whole[0]}
    ]


def truths(*, sizes: dict[str, int], count: int, statements: int) -> list[Row]:
    """Return `scores` of true statements drawn at random.

    A writer without an error would have these scores.
    """
    texts = []
    for number in range(count):
        rng, facts = np.random.default_rng(number), storybook.summary_of(story_of(sizes, number))
        texts.append("".join(facts[i].sentence for i in rng.integers(len(facts), size=statements)))
    return [
        scores([story_of(sizes, number) for number in range(count)], texts) | {"text": texts[0]}
    ]


def brief_of(sizes: dict[str, int], number: int) -> str:
    """Return whom to write about.

    Every arm reads it, so that a short window knows the people and not where they are.
    """
    return storybook.brief(np.random.default_rng(number), story_of(sizes, number))


def scores(told: Sequence[Story], texts: Sequence[str]) -> Row:
    """Return METRICS of what was written after stories.

    Statements are pooled; a metric is left out where there is nothing to count.

    contradictions: of 100 statements about a story's people and things, those that it contradicts.
    quarrels: those that contradict an earlier one of the same text. persistence: share of all
    statements that are about them at all. repetition: seq-rep-4 of words, mean over texts.
    distinct: distinct-2, pooled.
    """
    about, wrong, quarrels, total = 0, 0, 0, 0
    for story, text in zip(told, texts, strict=True):
        stated, known = world.facts_in(text), {*story.people, *story.things}
        mine = [fact for fact in stated if fact.subject in known]
        about, total = about + len(mine), total + len(stated)
        wrong += len(world.contradictions(mine, world.state(story.events)))
        quarrels += sum(
            bool(world.contradictions([fact], mine[:number])) for number, fact in enumerate(mine)
        )
    words = [text.split() for text in texts]
    found = {
        "contradictions": 100 * wrong / about if about else np.nan,
        "quarrels": 100 * quarrels / about if about else np.nan,
        "persistence": about / total if total else 0.0,
        "repetition": float(pd.Series([metrics.repetition(some, 4) for some in words]).mean()),
        "distinct": metrics.distinct(words, 2),
    }
    return {name: value for name, value in found.items() if not np.isnan(value)}


def falls(rows: Sequence[Row]) -> list[Row]:
    """Return how much the whole context reduces contradictions, in percent.

    Each window and seed has its own row.

    Args:
        rows: arm, seed, value of the contradictions; a window without any has no fall.
    """
    values = {(row["arm"], row["seed"]): row["value"] for row in rows}
    return [
        {
            "arm": arm,
            "seed": seed,
            "metric": "fall",
            "value": 100 * (1 - values["full", seed] / value),
        }
        for (arm, seed), value in values.items()
        if arm.isdecimal() and value and ("full", seed) in values
    ]


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train the writers, let every arm go on, and return the table.

    The table is also written; it has one row an observation.

    arm: the window's tokens, "full", or "oracle" (true statements). metric: METRICS, see `scores` ·
    fall (percent), see `falls` · and those of `real.run`.
    """
    rows = []
    for (arm, seed, layout), result in _results(params).items():
        base = {
            "tier": "controlled",
            "arm": arm,
            "seed": seed,
            "length": params.length,
            "layout": layout,
        }
        rows += [
            base | {"metric": name, "value": result[name]} for name in METRICS if name in result
        ]
    wrong = [row for row in rows if row["metric"] == "contradictions" and row["layout"] == "spread"]
    rows += [
        {"tier": "controlled", "length": params.length, "layout": "spread"} | row
        for row in falls(wrong)
    ]
    rows += real.run(params)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(params))
    tables.write_text(texts(params), NAME, "texts")
    return table


def texts(params: Params) -> pd.DataFrame:
    """Return what each arm wrote after a story and a play.

    The story is the first tested one, with the first seed; the play is the first.
    """
    found = _results(params)
    ours = {
        arm: row["text"]
        for (arm, seed, layout), row in found.items()
        if (seed, layout) == (params.seeds[0], "spread")
    }
    plays = {} if params.checkpoint is None else real.continuations(params, 0)
    rows = [
        (tier, arm, text)
        for tier, some in (("controlled", ours), ("real", plays))
        for arm, text in some.items()
    ]
    told = [{"tier": tier, "arm": arm, "text": f"… {text.strip()}"} for tier, arm, text in rows]
    return pd.DataFrame(told, columns=["tier", "arm", "text"])


def _results(params: Params) -> dict[tuple[str, int, str], Row]:
    """Return `scores` and a text by (arm, seed, layout).

    Every arm has the story far away; the whole context also has it near.
    """
    same = {"sizes": sizes_of(params.story_reader), "count": params.stories}
    sampling = {"new": params.new, "temperature": params.temperature, "top_p": params.top_p}
    windows = {str(window): window for window in sorted(params.windows)} | {"full": None}
    jobs = {}
    for seed in params.seeds:
        writer = writer_of(params.story_reader, params.story_writer, "statements", seed)
        for arm, layout in [*((arm, "spread") for arm in windows), ("full", "near")]:
            options = (
                same
                | sampling
                | {"length": params.length, "layout": layout, "window": windows[arm]}
            )
            jobs[arm, seed, layout] = EvalConfig(continuations, writer, options)
        jobs["oracle", seed, "spread"] = EvalConfig(
            truths, None, same | {"statements": params.new // STATEMENT}
        )
    return {key: result.rows[0] for key, result in sweep(jobs).items()}


def _cost(params: Params) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    What it started from is part of it.
    """
    runs = {
        seed: writer_of(params.story_reader, params.story_writer, "statements", seed)
        for seed in params.seeds
    }
    return pd.DataFrame([{"seed": seed} | cost_of(run) for seed, run in runs.items()])
