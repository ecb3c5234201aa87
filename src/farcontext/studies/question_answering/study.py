"""Notebook 08: what a longer context buys in question answering.

The study varies what is read, where the evidence stands, and how one trains. Claims Q1 and L1 of
claims.yaml read the table. Controlled tier: readers of stories (`story_reader`); real tier:
`real`.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from farcontext.measure import metrics
from farcontext.measure.retrieval import retrieved
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.question_answering import real
from farcontext.studies.question_answering.params import Params
from farcontext.studies.story_reader import (
    RECIPES,
    likeliest,
    phases_of,
    run_of,
    sizes_of,
    stories,
    vocabulary,
)
from farcontext.tasks import events, world
from farcontext.tasks.sample import Decode, Query, Sample, closed_book, evidence_removed, shuffled
from farcontext.train.config import RunConfig
from farcontext.train.runs import EvalConfig, costs, sweep

NAME = "question_answering"
COLUMNS = ["tier", "recipe", "arm", "seed", "length", "depth", "hops", "metric", "value"]
SHORT = ("window", "retrieved")  # Arms of this group read no more than a window.
CONTROLS = ("closed_book", "removed", "shuffled", "wrong")
ARMS = ("full", *SHORT, *CONTROLS)
HOPS = {"place": 1, "holder": 1, "thing_place": 2}  # A kind of question needs so many sentences.
# At these depths the story begins the context, or stands right before the question.
FAR, NEAR = 0.0, 1.0


# ------------------------------------------------------------------------------------- what is read


def context_of(
    arm: str, sample: Sample, query: Query, *, other: Sample, decode: Decode, window: int, seed: int
) -> np.ndarray:
    """Return what an arm reads before a question.

    `other` is the story whose context the arm "wrong" reads.
    """
    match arm:
        case "full":
            read = sample
        case "closed_book":
            read = closed_book(sample)
        case "removed":
            read = evidence_removed(sample)
        case "shuffled":
            read = shuffled(sample, seed)
        case "wrong":
            read = other
        case "window":
            return sample.context[-window:]
        case "retrieved":
            return retrieved(sample, query, decode, window)
        case _:
            raise ValueError(f"arm = {arm}: expected one of {', '.join(ARMS)}")
    return read.context


def answers(
    model: Decoder,
    *,
    sizes: dict[str, int],
    length: int,
    depth: float | None,
    count: int,
    arm: str,
    window: int,
) -> list[Row]:
    """Return a reader's scores by hops: choice, exact match and F1.

    `choice` says whether the likeliest of the choices is right. Of each story one question of every
    kind is asked: a person's place (1 hop), a thing's holder (1), a thing's place (2). The first
    tokens of all choices differ, so they decide the choice.
    """
    words = vocabulary()
    told = stories(sizes, length=length, count=count + 1, depth=depth)
    rows = []
    for number in range(count):
        sample, rng = told[number], np.random.default_rng(number)
        asked = [_one(rng, sample, kind) for kind in events.QUESTIONS]
        same = {"other": told[number + 1], "decode": words.decode, "window": window, "seed": number}
        contexts = [context_of(arm, sample, query, **same) for query in asked]
        scores = likeliest(model, contexts, [(query.question, query.answer) for query in asked])
        for kind, query, logits in zip(events.QUESTIONS, asked, scores, strict=True):
            firsts = [choice[0] for choice in query.choices]
            best = query.choices[int(logits[0, firsts].argmax())]
            said, true = (words.decode(ids) for ids in (logits.argmax(-1).tolist(), query.answer))
            found = {
                "choice": float(best == query.answer),
                "exact": metrics.exact_match(said, [true]),
            }
            rows.append({"hops": HOPS[kind], **found, "f1": metrics.token_f1(said, [true])})
    means = pd.DataFrame(rows).groupby("hops").mean()
    return [{"hops": int(hops), **scores} for hops, scores in means.to_dict("index").items()]


def _one(rng: np.random.Generator, sample: Sample, kind: str) -> Query:
    """Return one of a story's questions of a kind.

    A kind is told by the words that the question begins with and the number of its hops.
    """
    begins, words = events.QUESTIONS[kind].split("{")[0], vocabulary()
    asked = [query for query in sample.queries if len(query.evidence) == HOPS[kind]]
    alike = [query for query in asked if words.decode(query.question).startswith(begins)]
    return alike[rng.integers(len(alike))]


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train the readers by each recipe, ask them, and return the table.

    The table is also written; it has one row an observation.

    metric: choice, exact, f1 (means over stories, by hops; chance of a choice: `chance`) · oracle
    (share that the oracle answers) · and those of `real.run`.
    """
    cells = _cells(params)
    jobs = {key: job for seed in params.seeds for key, job in _jobs(params, cells, seed).items()}
    rows = []
    for (recipe, arm, seed, length, depth), result in sweep(jobs).items():
        base = {
            "tier": "controlled",
            "recipe": recipe,
            "arm": arm,
            "seed": seed,
            "length": length,
            "depth": depth,
        }
        for found in result.rows:
            scores = {name: found[name] for name in ("choice", "exact", "f1")}
            rows += [
                base | {"hops": found["hops"], "metric": name, "value": x}
                for name, x in scores.items()
            ]
    answered = oracle_share(params)
    rows += [
        {"tier": "controlled", "seed": seed, "metric": "oracle", "value": answered}
        for seed in params.seeds
    ]
    rows += real.run(params)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(params))
    return table


def _cells(params: Params) -> list[tuple[str, str, int, float]]:
    """Return (recipe, arm, length, depth) of every cell.

    The long recipe has the whole map; arms and recipes are compared at the far end.
    """
    trained = params.story_reader.long_length
    cells = [
        ("long", "full", length, depth) for length in params.lengths for depth in params.depths
    ]
    cells += [("long", arm, trained, depth) for arm in SHORT for depth in (FAR, NEAR)]
    cells += [("long", arm, trained, FAR) for arm in CONTROLS]
    cells += [(recipe, "full", length, FAR) for recipe in RECIPES for length in params.lengths]
    return list(dict.fromkeys(cells))


def _jobs(
    params: Params, cells: Sequence[tuple[str, str, int, float]], seed: int
) -> dict[tuple, EvalConfig]:
    same: dict[str, Any] = {"sizes": sizes_of(params.story_reader), "window": params.window}
    counts = dict.fromkeys(params.lengths, params.stories) | {
        params.story_reader.long_length: params.trained_stories
    }
    runs = {recipe: run_of(params.story_reader, recipe, seed) for recipe in RECIPES}
    return {
        (recipe, arm, seed, length, depth): EvalConfig(
            answers,
            runs[recipe],
            same | {"arm": arm, "length": length, "depth": depth, "count": counts[length]},
        )
        for recipe, arm, length, depth in cells
    }


def oracle_share(params: Params) -> float:
    """Return the share of tested questions that the oracle answers.

    The oracle reads the decoded text alone.
    """
    told, words = (
        stories(
            sizes_of(params.story_reader),
            length=min(params.lengths),
            count=params.stories,
            depth=FAR,
        ),
        vocabulary(),
    )
    hits = [
        found == q.answer
        for s in told
        for q, found in zip(s.queries, world.oracle(s, words.decode), strict=True)
    ]
    return float(np.mean(hits))


def chance(params: Params) -> dict[int, float]:
    """Return the share that a random choice gets right, by hops.

    With one hop, places and holders are asked for alike.
    """
    places, holders = 1 / len(events.PLACES), 1 / params.story_reader.people
    return {1: (places + holders) / 2, 2: places}


def _cost(params: Params) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    Each stands there once: recipes share a base.
    """
    recipes: dict[tuple[RunConfig, int], list[str]] = {}
    for recipe, seed in itertools.product(RECIPES, params.seeds):
        for phase in phases_of(run_of(params.story_reader, recipe, seed)):
            recipes.setdefault((phase, seed), []).append(recipe)
    return costs(
        {
            run: {"recipe": " and ".join(names), "seed": seed}
            for (run, seed), names in recipes.items()
        }
    )
