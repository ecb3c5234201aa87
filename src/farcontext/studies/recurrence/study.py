"""Notebook 02: memory of RNN, LSTM, GRU and attention of equal size.

It measures gradients by distance, recall by distance, and how long a bit is kept. There are two
tasks: `recall` (which value stood after this key?) and `flip_flop` (which bit was written last?).
Claims R1 and R2 of claims.yaml read the table.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from farcontext.measure import effective_length, gradients, stats
from farcontext.measure import losses as evaluation
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.recurrence.arms import (
    IGNORES,
    Arm,
    curriculum,
    model_of,
    parameter_count,
    run_of,
    state_numbers,
)
from farcontext.studies.recurrence.params import Params
from farcontext.tasks import recall
from farcontext.train.config import RunConfig
from farcontext.train.loop import RunResult
from farcontext.train.runs import EvalConfig, costs, grid, sweep

NAME = "recurrence"
COLUMNS = [
    "task",
    "arm",
    "seed",
    "when",
    "rate",
    "tokens",
    "distance",
    "length",
    "ignores",
    "metric",
    "value",
]
# The table's learning curves have at most so many points: means of equal stretches of steps.
CURVE_POINTS = 40
LEARNED = 0.3  # An arm has learned its task when a stretch's mean loss is below this many nats.
POINTS = 20.0  # The curves of two arms count as parted at this difference, in per cent.
SMALLEST = math.log(1e-300)  # The slope is fitted to larger norms only, since fp64 ends at 1e-308.
NEAR = (
    1,
    2,
    4,
    8,
)  # The gradient is also taken at these distances; the slope is not fitted to them.


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train and evaluate every arm; write and return the table.

    The table has one row for each observation.

    metric: parameters, state_numbers (kept after the longest test row) · loss (nats a scored
    token, by training tokens), learned_after (tokens) · accuracy (recall, by distance),
    oracle_accuracy · error (flip-flop, share wrong, by length and ignores) · log10_gradient (by
    distance), log_slope (of the natural logarithm, a token).
    """
    rates = {"recall": params.recall_rates, "flip_flop": params.flip_flop_rates}
    seeds = {"recall": params.seeds, "flip_flop": params.flip_flop_seeds}
    arms = [
        Arm(task, name, seed, rate)
        for task in rates
        for name, rate in rates[task].items()
        for seed in seeds[task]
    ]
    runs = {
        arm: run_of(params, arm)
        for arm in sorted(arms, key=lambda arm: (arm.task != "recall", arm.name))
    }
    trained = sweep(runs)
    rows = size_rows(params, rates)
    rows += [row for arm, result in trained.items() for row in _curve(params, arm, result)]
    rows += _recall(params, {arm: job for arm, job in runs.items() if arm.task == "recall"})
    rows += _flip_flop(params, {arm: job for arm, job in runs.items() if arm.task == "flip_flop"})
    rows += _gradients(params, runs)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(
        table, NAME, params, costs({job: _columns(arm) for arm, job in runs.items()})
    )
    return table


def _columns(arm: Arm) -> Row:
    return {"task": arm.task, "arm": arm.name, "seed": arm.seed}


def size_rows(params: Params, rates: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Return how many numbers each arm learns and keeps.

    The kept numbers are those that it keeps in mind after the longest test row.
    """
    longest = {"recall": max(params.recall_lengths), "flip_flop": max(params.test_lengths)}
    rows = []
    for task, names in rates.items():
        for arm in names:
            model = model_of(params, task, arm)
            kept = state_numbers(model, longest[task])
            for metric, value in (("parameters", parameter_count(model)), ("state_numbers", kept)):
                rows.append({"task": task, "arm": arm, "metric": metric, "value": float(value)})
    return rows


def _curve(params: Params, arm: Arm, result: RunResult) -> list[Row]:
    stages = curriculum(params, arm.task).stages
    seen = np.cumsum([stage.rows * stage.length for stage in stages for _ in range(stage.steps)])
    losses = np.array([row["loss"] for row in result.rows])
    stretch = math.ceil(len(losses) / CURVE_POINTS)
    points = [
        (int(seen[part[-1]]), float(losses[part].mean()))
        for part in _stretches(len(losses), stretch)
    ]
    rows = [
        _columns(arm) | {"tokens": tokens, "metric": "loss", "value": loss}
        for tokens, loss in points
    ]
    after = [tokens for tokens, loss in points if loss < LEARNED]
    return rows + [
        _columns(arm) | {"metric": "learned_after", "value": float(tokens)} for tokens in after[:1]
    ]


def _stretches(count: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


# --------------------------------------------------------------------------- R2: recall by distance


def depth_of(params: Params, distance: int) -> float:
    """Return where the pairs must stand for a distance to the questions.

    The `distance` tokens lie between the last place for the pairs and the questions.
    """
    room = params.recall_lengths[-1] - 2 * params.pairs - params.span
    if not 0 <= distance <= room:
        raise ValueError(f"distance = {distance}: expected 0 to {room}")
    return 1 - distance / room


def _recall(params: Params, runs: Mapping[Arm, RunConfig]) -> list[Row]:
    """Return accuracy by distance.

    Rows have one length, so that distance alone differs.
    """
    length = params.recall_lengths[-1]
    task = {"name": "recall", "pairs": params.pairs, "span": params.span}
    depths = tuple(depth_of(params, distance) for distance in params.distances)
    options = {"task": task, "lengths": (length,), "depths": depths, "rows": params.test_rows}
    jobs = {arm: EvalConfig(evaluation.task_accuracy, job, options) for arm, job in runs.items()}
    rows = [
        _columns(arm) | {"distance": distance, "metric": "accuracy", "value": row["accuracy"]}
        for arm, result in sweep(jobs).items()
        for distance, row in zip(params.distances, result.rows, strict=True)
    ]
    rng = np.random.default_rng(evaluation.EVALUATION_SEED)
    tokens, scored = recall.recall(
        rng, params.test_rows, length, pairs=params.pairs, span=params.span
    )
    right = float((recall.oracle(tokens, scored) == tokens[scored]).mean())
    return rows + [
        {
            "task": "recall",
            "arm": "oracle",
            "seed": seed,
            "metric": "oracle_accuracy",
            "value": right,
        }
        for seed in params.seeds
    ]


def crossover(table: pd.DataFrame) -> pd.Series:
    """Return the distance at which attention first leads the LSTM by POINTS.

    There is one distance for each run and seed; infinity means that it leads nowhere.

    Args:
        table: what `results.beside_published` returns.
    """
    accuracy = table[table["metric"] == "accuracy"]
    wide = accuracy.pivot_table(index=["run", "seed"], columns=["arm", "distance"], values="value")
    lead = 100 * (wide["attention"] - wide["lstm"]).dropna(axis=1, how="all")
    return lead.apply(
        lambda row: effective_length.crossing(
            list(row.dropna().index), list(-row.dropna()), -POINTS
        ),
        axis=1,
    )


# ------------------------------------------------------------------------- a bit to keep: flip-flop


def _flip_flop(params: Params, runs: Mapping[Arm, RunConfig]) -> list[Row]:
    options = {"lengths": params.test_lengths, "rows": params.test_rows}
    jobs = {
        (arm, ignores): EvalConfig(
            evaluation.task_accuracy,
            runs[arm],
            options | {"task": {"name": "flip_flop", "ignores": ignores}},
        )
        for arm, ignores in grid(arm=runs, ignores=params.test_ignores)
    }
    return [
        _columns(arm)
        | {
            "length": row["length"],
            "ignores": ignores,
            "metric": "error",
            "value": 1 - row["accuracy"],
        }
        for (arm, ignores), result in sweep(jobs).items()
        for row in result.rows
    ]


# ------------------------------------------------------------------------- R1: gradient by distance


def gradient_distances(params: Params) -> tuple[list[int], list[int]]:
    """Return the distances of the gradient, and those of the slope.

    The gradient is taken at the first; the slope is fitted to the second, which are among them.
    """
    fitted = list(range(params.fit_from, params.gradient_length * 7 // 8 + 1, 8))
    return [d for d in NEAR if d < params.fit_from] + fitted, fitted


def _gradients(params: Params, runs: Mapping[Arm, RunConfig]) -> list[Row]:
    """Return the norm by distance, untrained and trained.

    Rows are of the arm's task.
    """
    distances, fitted = gradient_distances(params)
    tasks = {
        "recall": {"name": "recall", "pairs": params.pairs, "span": params.span},
        "flip_flop": {"name": "flip_flop", "ignores": IGNORES},
    }
    same = {
        "length": params.gradient_length,
        "distances": tuple(distances),
        "rows": params.gradient_rows,
    }
    jobs = {}
    for arm, job in runs.items():
        options = same | {"task": tasks[arm.task]}
        jobs[arm, "trained"] = EvalConfig(gradients.gradient_by_distance, job, options)
        jobs[arm, "start"] = EvalConfig(
            gradients.gradient_before_training, job, options | {"seed": arm.seed}
        )
    rows = []
    for (arm, when), result in sweep(jobs).items():
        at = _columns(arm) | {"when": when}
        norms = {row["distance"]: row["log_norm"] for row in result.rows}
        rows += [
            at | {"distance": d, "metric": "log10_gradient", "value": norm / math.log(10)}
            for d, norm in norms.items()
        ]
        rows.append(at | {"metric": "log_slope", "value": slope_of({d: norms[d] for d in fitted})})
    return rows


def slope_of(log_norms: Mapping[int, float]) -> float:
    """Return the least-squares slope of ln(norm) on distance.

    It uses the points whose norm fp64 can hold; with fewer than two it is NaN.
    """
    held = {d: norm for d, norm in log_norms.items() if norm > SMALLEST}
    return stats.log_slope(list(held), np.exp(list(held.values()))) if len(held) > 1 else math.nan
