"""Notebook 07: every way to extend the context of a small model.

Every arm is scored zero-shot and after the same short fine-tuning. Bases (one a way to encode
positions, some seeds each) learn associative recall at length L by one curriculum; the RoPE schemes
share their base. P1, P2 and the published orders of claims.yaml read the table.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from farcontext.measure.effective_length import SHARE, crossing
from farcontext.measure.stats import holm, paired_p, t_interval
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.context_extension import real
from farcontext.studies.context_extension.arms import ARMS, Arm, base_run, extended, tuned_run
from farcontext.studies.context_extension.params import Params
from farcontext.studies.context_extension.protocol import logits_at, recall_by_layout
from farcontext.train.config import RunConfig
from farcontext.train.runs import EvalConfig, costs, sweep

NAME = "context_extension"
COLUMNS = ["kind", "arm", "tuned", "layout", "length", "depth", "rate", "seed", "metric", "value"]
FLOOR = (
    0.95  # Below this recall at L a reach means nothing: a flat curve at chance reaches for ever.
)
RATES = ("first", "second")  # The learning rate chosen, and one that was all but tied with it.

# -------------------------------------------------------------------------------------- evaluations


def _jobs(
    params: Params, arm: Arm, run: RunConfig, tuned: bool, kind: str = "decoder"
) -> list[EvalConfig]:
    """Return the evaluations of an arm's training.

    Zero-shot, the scale follows the length asked for; a tuned model keeps the one it was tuned
    with.
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
    if tuned or arm.scheme is None:
        changed = None if tuned else extended(params, arm, 1.0, kind)
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


def scored(jobs: Mapping[tuple, list[EvalConfig]]) -> dict[tuple, list[Row]]:
    """Return each key's rows of all its evaluations."""
    found = sweep(
        {(key, number): job for key, many in jobs.items() for number, job in enumerate(many)}
    )
    return {
        key: [row for number in range(len(many)) for row in found[key, number].rows]
        for key, many in jobs.items()
    }


# -------------------------------------------------------------------------------------------- study


def run(params: Params) -> pd.DataFrame:
    """Train, fine-tune and score every arm, and return the table.

    The table is also written; it has one row an observation.

    metric: recall (share of answers, by layout, length and depth) · kept (recall at a length over
    recall at L, by layout near, far, spread) · effective_length, reach (tokens; its log2 over L) ·
    score (mean recall at 8× and beyond) · base_recall (of the arm's base, at L) · and those of
    `real.run`.
    """
    jobs = evaluations(params, params.seeds, params.rates)
    rows = [
        {"kind": kind, "arm": arm, "tuned": tuned, "rate": rate, "seed": seed} | row
        for (kind, arm, tuned, rate, seed), many in scored(jobs).items()
        for row in observations(params, many)
    ]
    rows += _chosen(params, rows) + real.run(params)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(jobs))
    tables.write_text(which_scheme(table).round(6).reset_index(), NAME, "schemes")
    return table


def evaluations(
    params: Params, seeds: Iterable[int], rates: Mapping[str, Sequence[float]]
) -> dict[tuple, list[EvalConfig]]:
    """Return the evaluations of an arm's training, by name.

    A name is (kind, arm, tuned, rate, seed). Where two rates of a base were all but tied, its arms
    are run at both: "first" and "second". A base with one rate stands under both names, so that
    arms of different bases compare.
    """
    jobs: dict[tuple, list[EvalConfig]] = {}
    names = RATES[: max(len(tied) for tied in rates.values())]
    for seed, name, (number, rate) in itertools.product(seeds, params.arms, enumerate(names)):
        arm = ARMS[name]
        lr = rates[arm.base][min(number, len(rates[arm.base]) - 1)]
        start = base_run(params, arm.base, seed, lr)
        jobs["decoder", name, "zero_shot", rate, seed] = _jobs(params, arm, start, tuned=False)
        if name in params.tuned_arms:
            tuned = tuned_run(params, arm, seed, lr)
            jobs["decoder", name, "tuned", rate, seed] = _jobs(params, arm, tuned, tuned=True)
    for seed, name in itertools.product(seeds, params.encoder_arms):
        start = base_run(params, ARMS[name].base, seed, rates["rope"][0], "encoder")
        jobs["encoder", name, "zero_shot", RATES[0], seed] = _jobs(
            params, ARMS[name], start, False, "encoder"
        )
    return jobs


def observations(params: Params, found: Iterable[Row]) -> list[Row]:
    """Return one arm's rows for a seed.

    They are recall, and what is derived from it.
    """
    frame = pd.DataFrame(found)
    packed = frame[frame["layout"] == "packed"]
    by_layout = {
        "far": packed[packed["depth"] == min(params.depths)].set_index("length")["accuracy"],
        "near": packed[packed["depth"] == max(params.depths)].set_index("length")["accuracy"],
        "spread": frame[frame["layout"] == "spread"].set_index("length")["accuracy"],
    }
    rows = [
        {k: row[k] for k in ("layout", "length", "depth")}
        | {"metric": "recall", "value": row["accuracy"]}
        for row in frame.to_dict("records")
    ]
    trained = params.length
    for layout, curve in by_layout.items():
        rows += [
            {
                "layout": layout,
                "length": n,
                "metric": "kept",
                "value": float(value / max(curve[trained], 1e-9)),
            }
            for n, value in curve.items()
        ]
    mean = sum(by_layout.values()) / len(by_layout)
    length = crossing(list(mean.index), list(mean), SHARE * mean[trained])
    length = min(max(length, trained), float(mean.index[-1]))
    beyond = mean[mean.index >= params.goal * trained]
    return [
        *rows,
        {"metric": "base_recall", "value": float(mean[trained])},
        {"metric": "effective_length", "value": length},
        {"metric": "reach", "value": math.log2(length / trained)},
        {"metric": "score", "value": float(beyond.mean())},
        {"metric": "score_spread", "value": float(by_layout["spread"][beyond.index].mean())},
        {
            "metric": "score_packed",
            "value": float((by_layout["far"] + by_layout["near"])[beyond.index].mean() / 2),
        },
    ]


def _chosen(params: Params, rows: list[Row]) -> list[Row]:
    """Return the rows of P1's arm again, as arm "chosen"."""
    return [
        row | {"arm": "chosen"}
        for row in rows
        if (row.get("arm"), row.get("tuned")) == (params.chosen, "tuned")
        and row["metric"] in ("kept", "base_recall", "reach")
    ]


# --------------------------------------------------------------------------------------- reading it


def pairwise(table: pd.DataFrame, tuned: str) -> pd.DataFrame:
    """Return every pair of arms compared on the same seeds.

    A row has the difference of scores, its 95 % interval and Holm's adjusted p. The better arm of a
    pair stands first; the table is sorted by the size of the difference.
    """
    scores = table[
        (table["metric"] == "score") & (table["tuned"] == tuned) & (table["kind"] == "decoder")
    ]
    scores = scores[scores["rate"] == RATES[0]]
    wide = scores.pivot_table(index="seed", columns="arm", values="value")
    rows = []
    for first, second in itertools.combinations(wide.mean().sort_values(ascending=False).index, 2):
        effects = list((wide[first] - wide[second]).dropna())
        interval = t_interval(effects)
        rows.append(
            (first, second, interval.estimate, interval.low, interval.high, paired_p(effects))
        )
    pairs = pd.DataFrame(rows, columns=["better", "worse", "difference", "low", "high", "p"])
    known = pairs["p"].notna()
    pairs.loc[known, "p_holm"] = holm(pairs.loc[known, "p"])
    return pairs.drop(columns="p").sort_values("difference", ascending=False).reset_index(drop=True)


def which_scheme(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table that answers "which scheme should I choose?".

    It shows reach in trained lengths, and its price. Columns: reach as it is and tuned (geometric
    mean over seeds of effective length over L; at most the longest multiple tested; NaN where mean
    recall at L is below FLOOR), recall at 8× and beyond, and what tuning costs at L (recall at L,
    tuned minus as it is).
    """
    decoders = table[(table["rate"] == RATES[0]) & (table["arm"] != "chosen")]
    decoders = decoders[decoders["kind"] == "decoder"]
    mean = decoders.pivot_table(index="arm", columns=["metric", "tuned"], values="value")
    reach = 2 ** mean["reach"].where(mean["base_recall"] >= FLOOR)
    columns = {
        "reach as it is": reach["zero_shot"],
        "reach tuned": reach.get("tuned", pd.Series(np.nan, mean.index)),
        "recall ≥ 8× as it is": mean["score", "zero_shot"],
        "recall ≥ 8× tuned": mean["score"].get("tuned", pd.Series(np.nan, mean.index)),
        "recall at 1×": mean["base_recall", "zero_shot"],
        "tuned − as it is, at 1×": mean["base_recall"].get("tuned", pd.Series(np.nan, mean.index))
        - mean["base_recall", "zero_shot"],
    }
    best = ["recall ≥ 8× tuned", "recall ≥ 8× as it is"]
    return pd.DataFrame(columns).sort_values(best, ascending=False, na_position="last")


def bases(params: Params) -> int:
    """Return how many different bases the arms start from."""
    return len({ARMS[name].base for name in params.arms})


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


def _cost(jobs: Mapping[tuple, list[EvalConfig]]) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    Each stands there once: arms share their base.
    """
    runs: dict[RunConfig, Row] = {}
    for (kind, arm, tuned, rate, seed), many in jobs.items():
        name = arm if tuned == "tuned" else ARMS[arm].base
        told = {"kind": kind, "arm": name, "tuned": tuned, "rate": rate, "seed": seed}
        runs.setdefault(many[0].run, told)
    return costs(runs)
