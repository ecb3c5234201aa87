"""Notebook 11: what a longer context buys in content creation.

A writer states who is where and who has what, or that it is not told. Claim C1 of claims.yaml reads
the table. Controlled tier: statements about stories whose state is known (`story_writer`); real
tier: `real`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.content_creation import real
from farcontext.studies.content_creation.params import Params
from farcontext.studies.content_creation.protocol import chance, perfect, statements, texts
from farcontext.studies.story_reader import cost_of
from farcontext.studies.story_tables import compared
from farcontext.studies.story_writer import writer_of
from farcontext.train.runs import EvalConfig, result_of, sweep

NAME = "content_creation"
COLUMNS = [
    "tier",
    "recipe",
    "arm",
    "seed",
    "length",
    "layout",
    "changes",
    "tokens",
    "coverage",
    "metric",
    "value",
]
WHOLE = 0  # The column tokens of an arm that has no choice of them.
COVERAGE = 0.9  # Claims compare arms where such a share of the statements is made.
DRAWN = {"oracle": perfect, "chance": chance}  # Arms without a writer.
ARMS = ("whole", "last", "bm25", "bm25 each", "closed_book", *DRAWN)


class Cell(NamedTuple):
    """What stands in the rows beside the numbers."""

    arm: str
    seed: int
    length: int
    layout: str
    changes: int
    tokens: int


def run(params: Params) -> pd.DataFrame:
    """Train the writers, let every arm state, and return the table.

    The table is also written; it has one row an observation. tokens: those that an arm reads at
    most, 0 for all; of "bm25 each", before each statement.

    metric: contradictions, invented, stated (see `protocol.scores`; with a coverage, at that share
    of the statements) · excess (contradictions of BM25's arm over those after the whole story) ·
    oracle (share of statements) · and those of `real.run`.
    """
    results = sweep({cell: _job(params, cell) for cell in cells(params)})
    rows: list[Row] = [
        {"tier": "controlled"} | cell._asdict() | row
        for cell, result in results.items()
        for row in result.rows
    ]
    rows += excesses(rows)
    table = tables.tidy(rows + real.run(params), COLUMNS)
    tables.write_table(table, NAME, params, _cost(params))
    tables.write_text(said(params), NAME, "texts")
    return table


def cells(params: Params) -> list[Cell]:
    """Return what is evaluated: every arm at every number of changes.

    The control that reads the last tokens has every second budget.
    """
    found = []
    for seed in params.seeds:
        for changes in params.changes:
            length = params.story_reader.long_length
            at = Cell("whole", seed, length, "spread", changes, WHOLE)
            found += [at, at._replace(arm="closed_book")]
            found += [at._replace(layout="near")] * (changes == min(params.changes))
            found += [at._replace(arm="bm25", tokens=n) for n in params.tokens]
            found += [at._replace(arm="last", tokens=n) for n in params.tokens[1::2]]
            found += [at._replace(arm="bm25 each", tokens=min(params.tokens))]
            found += [at._replace(arm=arm) for arm in DRAWN]
    return found


def excesses(rows: Iterable[Row]) -> list[Row]:
    """Return how much more BM25's arm contradicts than the whole story.

    It is by seed, changes, tokens and coverage.
    """
    found = [
        row
        for row in rows
        if row["metric"] == "contradictions" and "coverage" in row and row["layout"] == "spread"
    ]
    same = lambda row: (row["seed"], row["changes"], row["coverage"])  # noqa: E731
    whole = {same(row): row["value"] for row in found if row["arm"] == "whole"}
    return [
        row | {"metric": "excess", "value": row["value"] - whole[same(row)]}
        for row in found
        if row["arm"] == "bm25"
    ]


def _job(params: Params, cell: Cell) -> EvalConfig:
    same = _story(params, cell.seed, cell.changes) | {"count": params.stories}
    if cell.arm in DRAWN:
        return EvalConfig(DRAWN[cell.arm], None, same)
    writer = writer_of(params.story_reader, params.story_writer, "statements", cell.seed)
    options = {"arm": cell.arm, "layout": cell.layout, "tokens": cell.tokens}
    return EvalConfig(statements, writer, same | options | {"coverages": params.coverages})


def _story(params: Params, seed: int, changes: int) -> Row:
    reader = params.story_reader
    sizes = {"people": reader.people, "things": reader.things, "changes": changes}
    return {"sizes": sizes, "seed": seed, "length": reader.long_length}


def said(params: Params) -> pd.DataFrame:
    """Return what arms state after a story, and real continuations.

    The story is the first seed's first one with most changes; the play is the first.
    """
    seed, fewest = params.seeds[0], min(params.tokens)
    arms = {"whole": ("whole", WHOLE)} | {
        f"{arm}, {fewest} tokens": (arm, fewest) for arm in ("last", "bm25")
    }
    writer = writer_of(params.story_reader, params.story_writer, "statements", seed)
    job = EvalConfig(texts, writer, _story(params, seed, max(params.changes)) | {"arms": arms})
    plays = {} if params.checkpoint is None else real.continuations(params, 0)
    rows = [("controlled", row["arm"], row["text"]) for row in result_of(job).rows]
    rows += [("real", arm, text) for arm, text in plays.items()]
    told = [{"tier": tier, "arm": arm, "text": f"… {text.strip()}"} for tier, arm, text in rows]
    return pd.DataFrame(told, columns=["tier", "arm", "text"])


def bm25_against_whole(table: pd.DataFrame, coverage: float) -> pd.DataFrame:
    """Return contradictions after BM25's sentences and the whole story.

    They are in 100 statements, by the tokens that BM25 may find and the number of changes, at one
    coverage.
    """
    rows = table[(table["metric"] == "contradictions") & (table["coverage"] == coverage)]
    rows = rows[(rows["layout"] == "spread") & rows["changes"].notna()]
    rows = rows.astype({"changes": int, "tokens": int})
    one, other = (rows[rows["arm"] == arm] for arm in ("bm25", "whole"))
    return compared(one, other, ["tokens", "changes"], ("BM25", "whole story"))


def _cost(params: Params) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    The readers' base is part of it.
    """
    runs = {
        seed: writer_of(params.story_reader, params.story_writer, "statements", seed)
        for seed in params.seeds
    }
    return pd.DataFrame([{"seed": seed} | cost_of(run) for seed, run in runs.items()])
