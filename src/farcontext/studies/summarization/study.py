"""Notebook 10: what a longer context buys in summarization.

A story is reported after all of it was read, or from reports of its chunks. Claims S1 and S1-kind
of claims.yaml read the table. Controlled tier: stories whose facts are known (`story_writer`); real
tier: `real`.
"""

from typing import NamedTuple

import pandas as pd

from farcontext.measure.retrieval import EXTRACTS
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.story_reader import cost_of
from farcontext.studies.story_tables import compared
from farcontext.studies.story_writer import writer_of
from farcontext.studies.summarization import real
from farcontext.studies.summarization.params import Params
from farcontext.studies.summarization.protocol import (
    CONTROLS,
    MERGERS,
    chunk_reports,
    copied,
    perfect,
    whole_reports,
)
from farcontext.train.runs import EvalConfig, sweep

NAME = "summarization"
COLUMNS = [
    "tier",
    "arm",
    "seed",
    "length",
    "layout",
    "changes",
    "chunk",
    "kind",
    "metric",
    "value",
]
UNCUT = 0  # The column chunk of who reads no chunks.
ARMS = ("whole", *MERGERS, *CONTROLS, *EXTRACTS, "oracle")
WRITERS = ("whole", "chunk")  # What the two writers are trained to report.
CHECKED = ("whole", "latest")  # The rows of these arms have the manipulation checks.


class Cell(NamedTuple):
    """What stands in the rows beside the numbers.

    The arm "chunks" is both mergers.
    """

    arm: str
    seed: int
    length: int
    layout: str
    changes: int
    chunk: int


def run(params: Params) -> pd.DataFrame:
    """Train the writers, let every arm report, and return the table.

    The table is also written; it has one row an observation. chunk: tokens of a chunk, 0 without
    chunks. kind: facts that one sentence or two sentences tell, or all.

    metric: f1, recall, precision (of the facts, means over a seed's stories) · chunk_f1 (of the
    reports of chunks against what the chunks tell) · tokens (read for a report) · and those of
    `real.run`.
    """
    results = sweep({cell: _job(params, cell) for cell in cells(params)})
    rows: list[Row] = [
        {"tier": "controlled"} | cell._asdict() | row
        for cell, result in results.items()
        for row in result.rows
    ]
    table = tables.tidy(rows + real.run(params), COLUMNS)
    tables.write_table(table, NAME, params, _cost(params))
    return table


def cells(params: Params) -> list[Cell]:
    """Return what is evaluated, each cell once."""
    trained = params.story_reader.long_length
    found = []
    for seed in params.seeds:
        for changes in params.changes:
            at = Cell("whole", seed, trained, "spread", changes, UNCUT)
            found += [at, at._replace(arm="oracle"), at._replace(arm="chunks", chunk=params.chunk)]
            found += [at._replace(layout="near")] * (changes == min(params.changes))
        at = Cell("chunks", seed, trained, "spread", middle(params), params.chunk)
        found += [at._replace(arm=arm, chunk=UNCUT) for arm in (*CONTROLS, *EXTRACTS)]
        found += [at._replace(chunk=size) for size in params.chunks]
        found += [at._replace(length=length) for length in params.lengths]
        found += [at._replace(arm="whole", length=n, chunk=UNCUT) for n in params.lengths]
    return list(dict.fromkeys(found))


def middle(params: Params) -> int:
    """Return the number of changes at which all else is varied."""
    return sorted(params.changes)[len(params.changes) // 2]


def _job(params: Params, cell: Cell) -> EvalConfig:
    reader, writer = params.story_reader, params.story_writer
    same = {
        "sizes": {"people": reader.people, "things": reader.things, "changes": cell.changes},
        "seed": cell.seed,
        "length": cell.length,
        "count": params.stories,
    }
    if cell.arm == "oracle":
        return EvalConfig(perfect, None, same)
    if cell.arm in EXTRACTS:
        return EvalConfig(copied, None, same | {"arm": cell.arm})
    if cell.arm == "chunks":
        chunks = writer_of(reader, writer, "chunk", cell.seed)
        return EvalConfig(chunk_reports, chunks, same | {"chunk": cell.chunk})
    whole = writer_of(reader, writer, "whole", cell.seed)
    options = same | {"layout": cell.layout, "arm": cell.arm, "chunk": params.chunk}
    return EvalConfig(whole_reports, whole, options)


def whole_against_chunks(table: pd.DataFrame, merger: str) -> pd.DataFrame:
    """Return F1 of chunks and of the whole story, by changes.

    It is in points. All facts count, at the trained length.
    """
    rows = table[(table["metric"] == "f1") & (table["kind"] == "all")]
    rows = rows[(rows["layout"] == "spread") & rows["changes"].notna()]
    rows = rows.assign(value=100 * rows["value"], changes=rows["changes"].astype(int))
    trained = rows.loc[rows["arm"] == "first", "length"].iloc[0]
    size = rows.loc[rows["arm"] == merger, "chunk"].mode()[0]
    at = rows[(rows["length"] == trained) & rows["chunk"].isin((size, UNCUT))]
    one, other = (at[at["arm"] == arm] for arm in (merger, "whole"))
    return compared(one, other, ["changes"], ("chunks", "whole story"))


def _cost(params: Params) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    The readers' base is part of each.
    """
    return pd.DataFrame(
        [
            {"seed": seed, "writer": name}
            | cost_of(writer_of(params.story_reader, params.story_writer, name, seed))
            for seed in params.seeds
            for name in WRITERS
        ]
    )
