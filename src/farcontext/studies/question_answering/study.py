"""Notebook 08: what a longer context buys in question answering.

One thing at a time is hard, by degrees, and the reader reads all of it or what BM25 finds; and two
recipes of pre-training at equal cost. Claims Q1 and L1 of claims.yaml read the table. Controlled
tier: readers of stories (`story_reader`); real tier: `real`.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from farcontext.measure.stats import t_interval
from farcontext.results import tables
from farcontext.studies.question_answering import real
from farcontext.studies.question_answering.params import Params
from farcontext.studies.question_answering.protocol import CONTROLS, Laid, answers, tested
from farcontext.studies.question_answering.recipes import RECIPES, reader_of
from farcontext.studies.story_reader import phases_of, vocabulary
from farcontext.tasks import events, puzzle_text, puzzles
from farcontext.train.config import RunConfig
from farcontext.train.runs import EvalConfig, costs, sweep

NAME = "question_answering"
COLUMNS = ["tier", "recipe", "axis", "arm", "steps", "seed", "length", "level", "metric", "value"]
READER = "long"  # The reader of the axes had this recipe.
RIVAL, FAR, LENGTH = "rival", "far", "length"
FLOOR = 0.8  # Below this share of right answers a reader cannot do what is asked.
ENOUGH = 5  # Points by which the whole context must be better.
ORACLE_ITEMS = 10  # The oracle is asked so many of each cell.


def arms_of(params: Params) -> list[str]:
    """Return the names of what is read, but for controls."""
    return ["whole", "told", "evidence", *params.retrieval]


class Case(NamedTuple):
    """One evaluation: what stands in the rows beside the numbers."""

    recipe: str
    axis: str
    level: int
    seed: int
    length: int
    group: str = "arms"


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train the readers by each recipe, ask them, and return the table.

    The table is also written; it has one row an observation. axis and level say what is hard, and
    how hard; axis "length" has the contexts of other lengths (level: tokens), axis "far" those on
    which recipes are compared (level: changes). Arm "rival" is the form of BM25 that was chosen for
    an axis on other seeds.

    metric: exact (share of right answers; steps: written, or direct in one) · tokens (mean number
    read) · oracle (share that the oracle answers) · and those of `real.run`.
    """
    rows = []
    for case, result in sweep(evaluations(params)).items():
        at = {"tier": "controlled"} | case._asdict()
        for found in result.rows:
            named = [found["arm"]]
            named += [RIVAL] if found["arm"] == params.rivals.get(case.axis) else []
            rows += [
                at | {"arm": arm, "steps": found["steps"], "metric": name, "value": found[name]}
                for arm in named
                for name in ("exact", "tokens")
            ]
    rows += [
        {
            "tier": "controlled",
            "seed": seed,
            "metric": "oracle",
            "value": oracle_share(params, seed),
        }
        for seed in params.seeds
    ]
    table = tables.tidy(rows + real.run(params), COLUMNS)
    tables.write_table(table, NAME, params, _cost(params))
    return table


def evaluations(params: Params) -> dict[Case, EvalConfig]:
    """Return the evaluation of each case.

    Controls, which should be at chance, are asked a quarter of the questions.
    """
    trained, jobs = params.story_reader.long_length, {}
    cells = [(axis, level) for axis, levels in params.levels.items() for level in levels]
    far = {"length": params.far_length, "within": params.far_share, "arms": ["whole"]}
    for seed in params.seeds:
        runs = {recipe: reader_of(params, recipe, seed) for recipe in RECIPES}
        same = {"count": params.stories, "seed": seed}
        same |= {"length": trained, "arms": arms_of(params)}
        few = {"count": -(-params.stories // 4), "arms": list(CONTROLS)}

        def ask(case: Case, axis: str, level: int, **changes: Any) -> None:
            options = same | {"axis": axis, "level": level} | changes  # noqa: B023
            jobs[case] = EvalConfig(answers, runs[case.recipe], options)  # noqa: B023

        for axis, level in cells:
            ask(Case(READER, axis, level, seed, trained), axis, level)
            ask(Case(READER, axis, level, seed, trained, "controls"), axis, level, **few)
        for length in params.lengths:
            case = Case(READER, LENGTH, length, seed, length)
            ask(case, "updates", params.length_updates, length=length)
        for recipe, level in itertools.product(RECIPES, params.far_updates):
            ask(Case(recipe, FAR, level, seed, params.far_length), "updates", level, **far)
    return jobs


def oracle_share(params: Params, seed: int) -> float:
    """Return the share of a seed's tested questions that the oracle answers.

    The oracle reads the decoded text alone.
    """
    words, hits = vocabulary(), []
    for axis, level in ((axis, level) for axis, some in params.levels.items() for level in some):
        items = tested(
            axis, level, length=params.story_reader.long_length, count=ORACLE_ITEMS, seed=seed
        )
        for laid in items:
            text, chain = words.decode(laid.tokens(range(len(laid.made)))), laid.puzzle.chain
            hits.append(laid.puzzle.right(puzzle_text.answers(text, chain)))
    return float(np.mean(hits))


def chance(axis: str) -> float:
    """Return the share that a random choice gets right."""
    place, holder, number = 1 / len(events.PLACES), 1 / puzzles.PEOPLE, 1 / len(events.NUMBERS)
    if axis in ("updates", LENGTH, FAR):
        people, things = puzzles.PEOPLE, puzzles.GOODS
        return (people * place + things * holder) / (people + things)
    return number if axis == "counting" else place


# --------------------------------------------------------------------------------------- reading it


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return whole − rival in points, by axis and level.

    The 95 % interval is over seeds. Beside them stand both arms, and what the reader can do with
    the tellings alone.
    """
    rows = table[(table["metric"] == "exact") & (table["steps"] == "written")]
    rows = rows[(rows["recipe"] == READER) & (rows["axis"] != FAR)]
    wide = rows.pivot_table(index=["axis", "level", "seed"], columns="arm", values="value")
    found = []
    for (axis, level), at in wide.groupby(["axis", "level"], sort=False):
        x = t_interval(list(100 * (at["whole"] - at[RIVAL])))
        means = at[["told", "whole", RIVAL]].mean().to_dict()
        ends = {"difference": x.estimate, "low": x.low, "high": x.high}
        found.append({"axis": axis, "level": int(level)} | means | ends)
    return pd.DataFrame(found)


def advice(found: pd.DataFrame) -> pd.DataFrame:
    """Return what to do, by axis: what `differences` says in words.

    Length pays from the level on from which the whole context is better by ENOUGH points on average
    and its interval lies above 0. Where the reader fails at the second level, although it reads
    nothing but the tellings (FLOOR), nothing is said.
    """
    rows = []
    by_axis = dict([*found.sort_values("level").groupby("axis")])
    for axis in (name for name in (*puzzles.AXES, LENGTH) if name in by_axis):
        at = by_axis[axis]
        better = (at["difference"] >= ENOUGH) & (at["low"] > 0)
        pays = at["level"][better.iloc[::-1].cummin().iloc[::-1].astype(bool)]
        worse = bool((at["high"] < 0).any())
        says = "retrieval is enough" + (", and better" if worse else "")
        if at["told"].iloc[1] < FLOOR:
            says = "this reader cannot do it"
        elif len(pays):
            says = f"read everything from {pays.iloc[0]:,} on"
        last = at.iloc[-1]
        ends = {"hardest level": int(last["level"]), "whole": last["whole"], "BM25": last[RIVAL]}
        interval = f"{last['difference']:+.0f} [{last['low']:+.0f}, {last['high']:+.0f}]"
        rows.append({"axis": axis, "advice": says} | ends | {"whole − BM25, points": interval})
    return pd.DataFrame(rows).set_index("axis")


def strips_of(laid: Laid, arms: Mapping[str, str]) -> dict[str, list[tuple[int, int, str]]]:
    """Return what each arm reads of a context, as `figures.strips` draws it.

    Args:
        laid: a puzzle in prose.
        arms: arm → its words.
    """
    starts = np.cumsum([0, *(len(block) for block in laid.made)]).tolist()
    kinds = dict.fromkeys(laid.telling, "told")
    kinds |= dict.fromkeys((laid.telling[number] for number in laid.puzzle.evidence), "evidence")
    question = laid.puzzle.chain[0].question
    return {
        words: [
            (starts[number], len(laid.made[number]), kinds.get(number, "prose"))
            for number in laid.sentences(arm, question)
        ]
        for arm, words in arms.items()
    }


def _cost(params: Params) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    Each stands there once: recipes share a base.
    """
    recipes: dict[tuple[RunConfig, int], list[str]] = {}
    for recipe, seed in itertools.product(RECIPES, params.seeds):
        for phase in phases_of(reader_of(params, recipe, seed)):
            recipes.setdefault((phase, seed), []).append(recipe)
    return costs(
        {
            run: {"recipe": " and ".join(names), "seed": seed}
            for (run, seed), names in recipes.items()
        }
    )
