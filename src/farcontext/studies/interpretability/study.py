"""Notebook 12: is a longer context harder to interpret?

Attribution methods order a context's sentences by what the answer rests on, and retrieval heads are
knocked out. Claim I1 of claims.yaml reads the table. Controlled tier: the readers of notebook 08,
whose evidence is known (`protocol`); real tier: `real`.
"""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd

from farcontext.measure.stats import t_interval
from farcontext.nn.config import ModelConfig
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.interpretability import real
from farcontext.studies.interpretability.params import Params
from farcontext.studies.interpretability.protocol import ORDERS, explained, knock_outs, shown
from farcontext.studies.question_answering.recipes import reader_of
from farcontext.studies.story_reader import cost_of
from farcontext.train.config import RunConfig
from farcontext.train.runs import EvalConfig, result_of, sweep

NAME = "interpretability"
COLUMNS = [
    *("tier", "model", "scheme", "arm", "head", "seed", "length", "metric", "value"),
]
RECIPE = "long"  # The readers had this recipe in notebook 08.
PLAIN, EXTENDED = "as trained", "log-n"
READER, PICTURE = "story reader", "picture"


class Cell(NamedTuple):
    """One evaluation: what stands in the rows beside the numbers."""

    seed: int
    length: int
    scheme: str = PLAIN
    group: str = "explained"


def run(params: Params) -> pd.DataFrame:
    """Train readers, explain their answers, and return the table.

    The table is also written; it has one row an observation.

    metric: auc, first, deletion, insertion, exact (see `protocol.explained`) · faithfulness (where
    deletion stands between the random order, 0, and the gold one, 1) · fall (the share of its
    faithfulness at the shortest length that is lost) · knocked, head (see `protocol.knock_outs`) ·
    and those of `real.run`.
    """
    rows = []
    for cell, result in sweep(evaluations(params)).items():
        at = {"tier": "controlled", "model": READER, "scheme": cell.scheme}
        rows += [at | {"seed": cell.seed, "length": cell.length} | row for row in result.rows]
    rows += falls(faithfulness(rows), min(params.lengths))
    table = tables.tidy(rows + real.run(params), COLUMNS)
    tables.write_table(table, NAME, params, _cost(params))
    tables.write_text(picture(params), NAME, PICTURE)
    return table


def evaluations(params: Params) -> dict[Cell, EvalConfig]:
    """Return the evaluation of each cell, the longest first."""
    same = {"axis": params.axis, "level": params.level}
    method = {"ablations": list(params.ablations), "steps": params.path_steps}
    method |= {"count": params.contexts, "budgets": list(params.budgets)}
    heads = {"count": params.head_contexts, "silenced": params.silenced, "draws": params.draws}
    jobs = {}
    for length, seed in itertools.product(sorted(params.lengths, reverse=True), params.seeds):
        options = same | method | {"length": length, "seed": seed}
        jobs[Cell(seed, length)] = EvalConfig(explained, reader(params, seed), options)
    for length, seed, scheme in itertools.product(
        params.head_lengths, params.seeds, (PLAIN, EXTENDED)
    ):
        run = reader(params, seed)
        options = same | heads | {"length": length, "seed": seed}
        model = extended(run.model, params) if scheme == EXTENDED else None
        jobs[Cell(seed, length, scheme, "heads")] = EvalConfig(knock_outs, run, options, model)
    return jobs


def reader(params: Params, seed: int) -> RunConfig:
    """Return a seed's reader, the one that notebook 08 trains."""
    return reader_of(params, RECIPE, seed)


def extended(model: ModelConfig, params: Params) -> ModelConfig:
    """Return a reader whose attention is sharpened beyond its trained length.

    The readers know no positions, so that there is no RoPE to extend: with more keys than trained
    on, logits are multiplied by ln n / ln L.
    """
    return model.model_copy(update={"log_n": params.story_reader.long_length})


def faithfulness(rows: list[Row]) -> list[Row]:
    """Return rows with each order's faithfulness added.

    It is where the order's deletion lies between the random order's, 0, and the gold one's, 1.
    """
    found = [row for row in rows if row["metric"] == "deletion"]
    at = {(row["arm"], row["seed"], row["length"]): row["value"] for row in found}
    rows = list(rows)
    for row in found:
        low, high = (at[arm, row["seed"], row["length"]] for arm in ("random", "gold"))
        if high > low:  # Else the reader does not rest on the evidence.
            share = (row["value"] - low) / (high - low)
            rows.append(row | {"metric": "faithfulness", "value": share})
    return rows


def falls(rows: list[Row], shortest: int) -> list[Row]:
    """Return rows with what each order loses with length added.

    It is a share of its faithfulness at the shortest length. There are none for the orders that
    faithfulness is measured by.
    """
    found = [row for row in rows if row["metric"] == "faithfulness"]
    found = [row for row in found if row["arm"] not in ("random", "gold")]
    start = {(row["arm"], row["seed"]): row["value"] for row in found if row["length"] == shortest}
    return rows + [
        row | {"metric": "fall", "value": 1 - row["value"] / start[row["arm"], row["seed"]]}
        for row in found
        if row["length"] > shortest and start.get((row["arm"], row["seed"]), 0) > 0
    ]


def picture(params: Params) -> pd.DataFrame:
    """Return one context's sentences with every method's scores."""
    options = {"axis": params.axis, "level": params.level, "length": min(params.lengths)}
    options |= {"ablations": list(params.ablations), "steps": params.path_steps}
    seed = params.seeds[0]
    job = EvalConfig(shown, reader(params, seed), options | {"seed": seed})
    return pd.DataFrame(result_of(job).rows)


# --------------------------------------------------------------------------------------- reading it


def by_length(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a metric's means over seeds, by order and length."""
    rows = table[(table["metric"] == metric) & (table["model"] == READER)]
    return rows.pivot_table(index="arm", columns="length", values="value", sort=False)


def knocked(table: pd.DataFrame) -> pd.DataFrame:
    """Return what knocking out heads costs, against random heads.

    It is in points. A row for each model, scheme, length and way to find heads. The 95 % interval
    is over seeds, in the real tier over contexts; "separated" if it leaves out zero.
    """
    rows = table[table["metric"] == "knocked"]
    keys = ["model", "scheme", "length"]
    wide = rows.pivot_table(index=[*keys, "seed"], columns="arm", values="value", sort=False)
    found = []
    for place, at in wide.groupby(level=keys, sort=False):
        for arm in (name for name in at.columns if name not in ("none", "random")):
            gap = 100 * (at["random"] - at[arm]).dropna()
            if gap.empty:
                continue
            x = t_interval(list(gap))
            said = "separated" if x.low > 0 or x.high < 0 else "not separated"
            values = {"all": at["none"].mean(), "found": at[arm].mean()}
            values |= {"random": at["random"].mean()}
            shown = f"{x.estimate:+.0f} [{x.low:+.0f}, {x.high:+.0f}]"
            found.append(
                dict(zip(keys, place, strict=True))
                | {"heads": arm}
                | {name: 100 * value for name, value in values.items()}
                | {"random − found": shown, "said": said}
            )
    return pd.DataFrame(found).astype({"length": int}).set_index([*keys, "heads"])


def pointed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of atoms that each kind of head points right.

    The 95 % interval is over left fragments.
    """
    rows = table[(table["metric"] == "pointing") & table["seed"].notna()]
    found = []
    for arm, at in rows.groupby("arm", sort=False):
        x = t_interval(list(at["value"]))
        found.append({"head": arm, "share": x.estimate, "low": x.low, "high": x.high, "n": x.n})
    return pd.DataFrame(found).set_index("head")


def random_gap(table: pd.DataFrame, params: Params) -> float:
    """Return how far random orders' mean auc lies from 0.5.

    It is in standard errors. With one sentence of evidence, a random order's auc is all but uniform
    on 0 … 1.
    """
    rows = table[(table["metric"] == "auc") & (table["arm"] == "random")]["value"]
    draws = len(rows) * params.contexts * ORDERS
    return float(abs(rows.mean() - 0.5) * np.sqrt(12 * draws))


def _cost(params: Params) -> pd.DataFrame:
    """Return seconds, tokens and memory of the readers behind the table."""
    return pd.DataFrame([{"seed": seed} | cost_of(reader(params, seed)) for seed in params.seeds])
