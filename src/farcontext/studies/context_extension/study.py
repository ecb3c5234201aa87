"""Notebook 07: every way to extend the context of a small model.

Every arm is scored zero-shot and after the same short fine-tuning. Bases (one a way to encode
positions, some seeds each) learn associative recall at length L by one curriculum; the RoPE schemes
share their base. P1, P2 and the published orders of claims.yaml read the table.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from farcontext.measure import losses
from farcontext.measure.effective_length import SHARE, crossing
from farcontext.measure.stats import holm, paired_p, t_interval
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.context_extension import real
from farcontext.studies.context_extension.arms import ARMS, Arm, base_run, extended, tuned_run
from farcontext.studies.context_extension.params import Params
from farcontext.studies.context_extension.protocol import logits_at, recall_by_layout
from farcontext.studies.trainings import Trial, best_rates
from farcontext.train.config import RunConfig
from farcontext.train.runs import EvalConfig, costs, grid, sweep

NAME = "context_extension"
COLUMNS = ["kind", "arm", "tuned", "layout", "length", "depth", "lr", "seed", "metric", "value"]
FLOOR = (
    0.95  # Below this recall at L a reach means nothing: a flat curve at chance reaches for ever.
)
DOWNSIDE = 0.02  # Fine-tuning may lose this much recall at L, and that still counts as nothing.

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


def _scored(jobs: dict[tuple, list[EvalConfig]]) -> dict[tuple, list[Row]]:
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
    """Tune, train, fine-tune and score every arm, and return the table.

    The table is also written; it has one row an observation.

    metric: recall (share of answers, by layout, length and depth) · kept (recall at a length over
    recall at L, by layout near, far, spread) · effective_length, reach (tokens; its log2 over L) ·
    score (mean recall at 8× and beyond) · base_recall (of the arm's base, at L) · tuning,
    tuning_loss (recall at L and final loss of each rate tried, on seeds of their own) · and those
    of `real.run`.
    """
    rates, tuning = tune(params)
    arms = [ARMS[name] for name in params.arms]
    jobs: dict[tuple, list[EvalConfig]] = {}
    for seed in params.seeds:
        for arm in arms:
            start = base_run(params, arm.base, seed, rates[arm.base])
            jobs["decoder", arm.name, "zero_shot", seed] = _jobs(params, arm, start, tuned=False)
            if arm.name in params.tuned_arms:
                jobs["decoder", arm.name, "tuned", seed] = _jobs(
                    params, arm, tuned_run(params, arm, seed, rates[arm.base]), tuned=True
                )
        for name in params.encoder_arms:
            start = base_run(params, ARMS[name].base, seed, rates["rope"], "encoder")
            jobs["encoder", name, "zero_shot", seed] = _jobs(
                params, ARMS[name], start, False, "encoder"
            )
    rows = tuning
    for (kind, arm, tuned, seed), found in _scored(jobs).items():
        base = {"kind": kind, "arm": arm, "tuned": tuned, "seed": seed}
        rows += [base | row for row in _observations(params, found)]
    rows += _chosen(params, rates, rows) + real.run(params)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(params, rates, jobs))
    tables.write_text(which_scheme(table).round(6).reset_index(), NAME, "schemes")
    return table


def tune(params: Params) -> tuple[dict[str, float], list[Row]]:
    """Return each base's learning rate, and all that was tried.

    The rate is the one with the least final loss on the tuning seeds. The same rates for every
    base: equal tuning, not only equal training. The loss decides, on rows never seen before: recall
    at L is 1 for several rates once a base has learnt the task.
    """
    trials = _trials(params)
    options = {
        "task": {"name": "recall", "pairs": params.pairs},
        "lengths": [params.length],
        "rows": params.test_rows,
    }
    best, tried = best_rates(trials)
    recalled = sweep(
        {name: EvalConfig(losses.task_accuracy, trial, options) for name, trial in trials.items()}
    )
    rows = []
    for trial, loss in tried.items():
        at = dict(zip(("arm", "lr", "seed"), trial, strict=True)) | {"kind": "decoder"}
        rows.append(at | {"metric": "tuning_loss", "value": loss})
        rows.append(at | {"metric": "tuning", "value": recalled[trial].rows[0]["accuracy"]})
    return best, rows


def _trials(params: Params) -> dict[Trial[str], RunConfig]:
    """Return the training of every trial."""
    bases = dict.fromkeys(ARMS[name].base for name in params.arms)
    return {
        (base, lr, seed): base_run(params, base, seed, lr)
        for base, lr, seed in grid(base=bases, lr=params.lrs, seed=params.tuning_seeds)
    }


def _observations(params: Params, found: Iterable[Row]) -> list[Row]:
    """Return the rows of one arm and seed: recall, and what is derived from it."""
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


def _chosen(params: Params, rates: dict[str, float], rows: list[Row]) -> list[Row]:
    """Return the rows of P1's arm again, as arm "chosen".

    It is the best tuned arm on the tuning seeds, which no verdict reads, of those that keep what
    their base recalls at L (DOWNSIDE), unless none does.
    """
    cases = [(ARMS[name], seed) for name in params.tuned_arms for seed in params.tuning_seeds]
    jobs = {
        (arm.name, seed): _jobs(params, arm, tuned_run(params, arm, seed, rates[arm.base]), True)
        for arm, seed in cases
    }
    found = [
        {"arm": name} | row
        for (name, _), many in _scored(jobs).items()
        for row in _observations(params, many)
    ]
    tuned = pd.DataFrame(found).pivot_table(index="arm", columns="metric", values="value")
    frame = pd.DataFrame(rows)
    trials = frame[(frame["metric"] == "tuning") & (frame["lr"] == frame["arm"].map(rates))]
    base = (
        trials.groupby("arm")["value"].mean()[[ARMS[name].base for name in tuned.index]].to_numpy()
    )
    kept = tuned[tuned["base_recall"] >= base - DOWNSIDE]
    best = (tuned if kept.empty else kept)["score"].idxmax()
    return [
        row | {"arm": "chosen"}
        for row in rows
        if (row.get("arm"), row.get("tuned")) == (best, "tuned")
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
    decoders = table[(table["kind"] == "decoder") & (table["arm"] != "chosen")]
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
    seed, lr = params.seeds[0], params.lrs[0]
    names = [name for name in params.arms if ARMS[name].base == "rope" and ARMS[name].scheme]
    plain = EvalConfig(logits_at, base_run(params, "rope", seed, lr), {"length": params.length})
    jobs = {"plain": plain} | {
        name: replace(plain, model=extended(params, ARMS[name], 1.0)) for name in names
    }
    logits = {name: np.array(result.rows[0]["logits"]) for name, result in sweep(jobs).items()}
    return max(float(np.abs(logits[name] - logits["plain"]).max()) for name in names)


def _cost(
    params: Params, rates: dict[str, float], jobs: dict[tuple, list[EvalConfig]]
) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table.

    Each stands there once: arms share their base.
    """
    runs: dict[RunConfig, Row] = {}

    def add(job: RunConfig, kind: str, arm: str, tuned: str, seed: int) -> None:
        runs.setdefault(job, {"kind": kind, "arm": arm, "tuned": tuned, "seed": seed})

    for (base, _, seed), job in _trials(params).items():
        add(job, "decoder", base, "trial", seed)
    for arm, seed in itertools.product(
        (ARMS[name] for name in params.tuned_arms), params.tuning_seeds
    ):
        add(tuned_run(params, arm, seed, rates[arm.base]), "decoder", arm.name, "trial", seed)
    for (kind, arm, tuned, seed), many in jobs.items():
        name = arm if tuned == "tuned" else ARMS[arm].base
        add(many[0].run, kind, name, tuned, seed)
    return costs(runs)
