"""Notebook 07: every way to extend the context of a small model.

Every arm is scored zero-shot and after the same short fine-tuning. Bases (one a way to encode
positions, some seeds each) learn associative recall at length L by one curriculum; the RoPE schemes
share their base. P1, P2 and the published orders of claims.yaml read the table.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from farcontext.measure.effective_length import SHARE, crossing
from farcontext.measure.stats import CONFIDENCE, holm, paired_p, t_interval
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.context_extension import apart, real
from farcontext.studies.context_extension.arms import (
    ARMS,
    Arm,
    base_run,
    extended,
    longer_run,
    tuned_run,
)
from farcontext.studies.context_extension.params import Params
from farcontext.studies.context_extension.protocol import (
    logits_at,
    recall_by_layout,
    recall_remapped,
)
from farcontext.train.config import RunConfig
from farcontext.train.runs import EvalConfig, costs, sweep

NAME = "context_extension"
COLUMNS = [
    "kind",
    "trained",
    "arm",
    "dose",
    "rate",
    "layout",
    "length",
    "depth",
    "seed",
    "metric",
    "value",
]
FLOOR = 0.95  # Below this recall at L a reach means nothing: a flat curve reaches for ever.
MEAN = "mean"  # This stands for all three layouts.
RATES = ("first", "second")  # The learning rate chosen, and one that was all but tied with it.


class Case(NamedTuple):
    """One arm's evaluation: what stands in the rows beside the numbers."""

    kind: str
    trained: int
    arm: str
    dose: int
    rate: str
    seed: int


# -------------------------------------------------------------------------------------- evaluations


def _jobs(
    params: Params, arm: Arm, run: RunConfig, dose: int, kind: str = "decoder"
) -> list[EvalConfig]:
    """Return the evaluations of an arm's training.

    As it is, the scale follows the length asked for; a tuned model keeps the one it was tuned with.
    """
    lengths = [params.length * multiple for multiple in params.multiples]
    options = {
        "depths": params.depths,
        "pairs": params.pairs,
        "span": params.span,
        "rows": params.test_rows,
        "items": run.seed,
    }
    if arm.window:
        options["window"] = params.length
    if arm.remap:
        options |= {"remap": arm.remap, "trained": params.length, "lengths": lengths}
        return [EvalConfig(recall_remapped, run, options)]
    if dose or arm.scheme is None:
        changed = None if dose else extended(params, arm, 1.0, kind)
        return [EvalConfig(recall_by_layout, run, options | {"lengths": lengths}, changed)]
    return [
        EvalConfig(
            recall_by_layout,
            run,
            options | {"lengths": [n]},
            extended(params, arm, n / params.length, kind),
        )
        for n in lengths
    ]


def scored(jobs: Mapping[Case, list[EvalConfig]]) -> dict[Case, list[Row]]:
    """Return each case's rows of all its evaluations."""
    results = sweep(
        {(case, number): job for case, many in jobs.items() for number, job in enumerate(many)}
    )
    return {
        case: [row for number in range(len(many)) for row in results[case, number].rows]
        for case, many in jobs.items()
    }


# -------------------------------------------------------------------------------------------- study


def run(params: Params) -> pd.DataFrame:
    """Train, fine-tune and score every arm, and return the table.

    The table is also written; it has one row an observation. `trained` is L, and `dose` the steps
    of fine-tuning, 0 as it is.

    metric: recall (share of answers, by layout, length and depth) · kept (recall at a length over
    recall at L, by layout near, far, spread) · score (recall at 8× and beyond, by layout, and
    their mean) · base_recall (at L) · effective_length, reach (tokens; its log2 over L) · and those
    of `apart.run` and `real.run`.
    """
    jobs = evaluations(params)
    rows = [
        case._asdict() | row
        for case, many in scored(jobs).items()
        for row in observations(params.goal, case.trained, many)
    ]
    rows += _chosen(params, rows) + apart.run(params) + real.run(params)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(jobs))
    tables.write_text(which_scheme(table).round(6).reset_index(), NAME, "schemes")
    return table


def evaluations(params: Params) -> dict[Case, list[EvalConfig]]:
    """Return the evaluations of every arm, dose, rate and seed.

    Where two rates of a base were all but tied, some arms are run at both, "first" and "second". A
    base with one rate stands under both names, so that arms of different bases compare. Bases of
    the longer trained length are tested up to the goal alone, since attention's cost is quadratic.
    """
    jobs = arms_at(params, "first", params.arms, params.seeds)
    fewer = params.model_copy(update={"doses": params.second_doses})
    jobs |= arms_at(fewer, "second", params.second_arms, params.second_seeds)
    if params.longer_length:
        within = tuple(n for n in params.multiples if n <= params.goal)
        longer = params.model_copy(
            update={"length": params.longer_length, "tuned_arms": (), "multiples": within}
        )
        start = partial(longer_run, params)
        jobs |= arms_at(longer, "first", params.longer_arms, params.longer_seeds, start)
    for seed, name in itertools.product(params.seeds, params.encoder_arms):
        start = base_run(params, ARMS[name].base, seed, params.rates["rope"][0], "encoder")
        case = Case("encoder", params.length, name, 0, "first", seed)
        jobs[case] = _jobs(params, ARMS[name], start, 0, "encoder")
    return jobs


def arms_at(
    params: Params,
    rate: str,
    arms: Iterable[str],
    seeds: Iterable[int],
    trained: Callable[[str, int, float], RunConfig] | None = None,
) -> dict[Case, list[EvalConfig]]:
    """Return arms at one of their bases' rates.

    They come as they are, and after every dose. `trained` gives the run of a base, a seed and a
    rate; None: `base_run`.
    """
    trained = trained or partial(base_run, params)
    jobs = {}
    for seed, arm in itertools.product(seeds, (ARMS[name] for name in arms)):
        rates = params.rates[arm.base]
        lr = rates[min(RATES.index(rate), len(rates) - 1)]
        start = trained(arm.base, seed, lr)
        at = Case("decoder", params.length, arm.name, 0, rate, seed)
        jobs[at] = _jobs(params, arm, start, 0)
        for dose in params.doses if arm.name in params.tuned_arms else ():
            tuned = tuned_run(params, arm, seed, lr, dose)
            jobs[at._replace(dose=dose)] = _jobs(params, arm, tuned, dose)
    return jobs


def observations(goal: int, trained: int, answered: Iterable[Row]) -> list[Row]:
    """Return the rows of one case.

    They are recall, and what is derived from it.

    Args:
        goal: the score counts from this multiple on.
        trained: L.
        answered: rows of `recall_by_layout`.
    """
    frame = pd.DataFrame(answered)
    packed = frame[frame["layout"] == "packed"]
    ends = {"far": packed["depth"].min(), "near": packed["depth"].max()}
    by_layout = {
        name: packed[packed["depth"] == depth].set_index("length")["accuracy"]
        for name, depth in ends.items()
    }
    by_layout["spread"] = frame[frame["layout"] == "spread"].set_index("length")["accuracy"]
    rows = [
        {k: row[k] for k in ("layout", "length", "depth")}
        | {"metric": "recall", "value": row["accuracy"]}
        for row in frame.to_dict("records")
    ]
    beyond = [n for n in by_layout["spread"].index if n >= goal * trained]
    for layout, curve in by_layout.items():
        kept = curve / max(curve[trained], 1e-9)
        rows += [
            {"layout": layout, "length": n, "metric": "kept", "value": float(value)}
            for n, value in kept.items()
        ]
        rows.append({"layout": layout, "metric": "score", "value": float(curve[beyond].mean())})
    mean = sum(by_layout.values()) / len(by_layout)
    length = crossing(list(mean.index), list(mean), SHARE * mean[trained])
    length = min(max(length, trained), float(mean.index[-1]))
    derived = {
        "base_recall": float(mean[trained]),
        "effective_length": length,
        "reach": math.log2(length / trained),
        "score": float(mean[beyond].mean()),
    }
    return [*rows, *({"layout": MEAN, "metric": k, "value": v} for k, v in derived.items())]


def _chosen(params: Params, rows: list[Row]) -> list[Row]:
    """Return the rows of P1's arm again, as arm "chosen"."""
    return [
        row | {"arm": "chosen"}
        for row in rows
        if (row.get("arm"), row.get("trained")) == (params.chosen, params.length)
        and row["metric"] in ("kept", "base_recall")
    ]


# --------------------------------------------------------------------------------------- reading it


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of recall beyond 8 L.

    They are at the chosen rate and the shortest trained length.
    """
    rows = table[(table["metric"] == "score") & (table["rate"] == RATES[0])]
    rows = rows[(rows["kind"] == "decoder") & (rows["arm"] != "chosen")]
    return rows[rows["trained"] == rows["trained"].min()]


def pairwise(table: pd.DataFrame, dose: int, layout: str) -> pd.DataFrame:
    """Return every pair of arms compared on the same seeds.

    A row has the difference of scores, its 95 % interval and Holm's adjusted p. The better arm of a
    pair stands first; the table is sorted by the size of the difference.
    """
    rows = scores(table)
    rows = rows[(rows["dose"] == dose) & (rows["layout"] == layout)]
    wide = rows.pivot_table(index="seed", columns="arm", values="value")
    pairs = []
    for first, second in itertools.combinations(wide.mean().sort_values(ascending=False).index, 2):
        effects = list((wide[first] - wide[second]).dropna())
        interval = t_interval(effects)
        pairs.append(
            (first, second, interval.estimate, interval.low, interval.high, paired_p(effects))
        )
    table = pd.DataFrame(pairs, columns=["better", "worse", "difference", "low", "high", "p"])
    known = table["p"].notna()
    table.loc[known, "p_holm"] = holm(table.loc[known, "p"])
    return table.drop(columns="p").sort_values("difference", ascending=False).reset_index(drop=True)


def which_scheme(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table that answers "which scheme should I choose?".

    Rows: where the evidence stands (layout) and how many steps can be spent (dose). Columns: the
    best scheme for an existing rotary checkpoint, its recall at 8× and beyond, all schemes whose
    difference from it does not exclude zero (Holm), and recall at 1× of the best (what short
    contexts pay).
    """
    rotary = [name for name, arm in ARMS.items() if arm.base == "rope"]
    at_one = table[(table["metric"] == "base_recall") & (table["rate"] == RATES[0])]
    at_one = at_one[at_one["trained"] == at_one["trained"].min()]
    short = at_one.groupby(["arm", "dose"])["value"].mean()
    rows = []
    own = scores(table[table["arm"].isin(rotary) | (table["kind"] != "decoder")])
    for (layout, dose), at in own.groupby(["layout", "dose"]):
        mean = at.groupby("arm")["value"].mean().sort_values(ascending=False)
        pairs = pairwise(own, dose, layout)
        level = pairs[(pairs["better"] == mean.index[0]) & ~(pairs["p_holm"] < 1 - CONFIDENCE)]
        rows.append(
            {"evidence": layout, "steps": int(dose), "best": mean.index[0]}
            | {"recall at 8× and beyond": mean.iloc[0], "as good": ", ".join(level["worse"])}
            | {"recall at 1×": short[mean.index[0], dose]}
        )
    return pd.DataFrame(rows).set_index(["evidence", "steps"])


def same_weights(params: Params) -> float:
    """Return how far schemes at scale 1 differ from their base.

    The value is the largest difference of logits, at the trained length.
    """
    seed, lr = params.seeds[0], params.rates["rope"][0]
    names = [name for name in params.arms if ARMS[name].base == "rope" and ARMS[name].scheme]
    plain = EvalConfig(logits_at, base_run(params, "rope", seed, lr), {"length": params.length})
    jobs = {"plain": plain} | {
        name: replace(plain, model=extended(params, ARMS[name], 1.0)) for name in names
    }
    logits = {name: np.array(result.rows[0]["logits"]) for name, result in sweep(jobs).items()}
    return max(float(np.abs(logits[name] - logits["plain"]).max()) for name in names)


def _cost(jobs: Mapping[Case, list[EvalConfig]]) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    Each stands there once: arms share their base.
    """
    runs: dict[RunConfig, Row] = {}
    for case, many in jobs.items():
        named = case if case.dose else case._replace(arm=ARMS[case.arm].base)
        runs.setdefault(many[0].run, named._asdict())
    return costs(runs)
