"""Notebook 02: memory of RNN, LSTM, GRU and attention.

It measures gradients by distance, recall by number of pairs, distance and state, and how long a bit
is kept. There are two tasks: `recall` (which value stood after this key?) and `flip_flop` (which
bit was written last?). Claims R1 and R2 of claims.yaml read the table.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from farcontext.measure import gradients, stats
from farcontext.measure import losses as evaluation
from farcontext.measure.effective_length import crossing
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.recurrence.arms import (
    IGNORES,
    Arm,
    curriculum,
    model_of,
    packed,
    parameter_count,
    run_of,
    state_numbers,
)
from farcontext.studies.recurrence.params import Params
from farcontext.studies.recurrence.protocol import foreign_recall
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
    "pairs",
    "distance",
    "length",
    "ignores",
    "metric",
    "value",
]
# The table's learning curves have at most so many points: means of equal stretches of steps.
CURVE_POINTS = 40
HELD = 0.9  # A model holds so many pairs as it recalls at least so well.
SMALLEST = math.log(1e-300)  # The slope is fitted to larger norms only, since fp64 ends at 1e-308.
# The gradient is also taken at these distances; the slope is not fitted to them.
NEAR = (1, 2, 4, 8)
# Gradients are taken of one arm an architecture.
ARCHITECTURES = ("rnn", "lstm", "gru", "attention")


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train and evaluate every arm; write and return the table.

    The table has one row for each observation.

    metric: parameters, state_numbers (kept after the longest test row), evidence_numbers (kept of
    the row's pairs) · loss (nats a scored token, by training tokens) · accuracy (recall, by pairs
    and distance), held (pairs that an arm recalls), foreign_accuracy (recall when other values were
    told), oracle_accuracy · error (flip-flop, share wrong, by length and ignores) · log10_gradient
    (by distance), log_slope (of the natural logarithm, a token).
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
    recalling = {arm: job for arm, job in runs.items() if arm.task == "recall"}
    rows += _recall(params, recalling) + _recall_controls(params, recalling)
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

    Attention keeps keys and values of every token: those of the longest test row are counted, and
    those of the pairs alone. A recurrent state has one size.
    """
    longest = {"recall": max(params.recall_lengths), "flip_flop": max(params.test_lengths)}
    rows = []
    for task, names in rates.items():
        for arm in names:
            model = model_of(params, task, arm)
            sizes = {"parameters": parameter_count(model)}
            sizes["state_numbers"] = state_numbers(model, longest[task])
            row = {"task": task, "arm": arm}
            rows += [row | {"metric": m, "value": float(value)} for m, value in sizes.items()]
            if task == "recall":
                rows += [
                    row
                    | {"pairs": pairs, "metric": "evidence_numbers"}
                    | {"value": float(state_numbers(model, 2 * pairs))}
                    for pairs in params.pairs
                ]
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
    return [
        _columns(arm) | {"tokens": tokens, "metric": "loss", "value": loss}
        for tokens, loss in points
    ]


def _stretches(count: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


# ------------------------------------------------------------- R2: recall by pairs and distance


def depth_of(params: Params, pairs: int, distance: int) -> float:
    """Return where the pairs must stand for a distance to the questions.

    The `distance` tokens lie between the last place for the pairs and the questions.

    Raises:
        ValueError: the longest rows have no room for it.
    """
    room = params.recall_lengths[-1] - (2 + params.tokens_a_pair) * pairs
    if not 0 <= distance <= room:
        raise ValueError(f"distance = {distance}: expected 0 to {room}")
    return 1 - distance / room


def _recall(params: Params, runs: Mapping[Arm, RunConfig]) -> list[Row]:
    """Return accuracy by pairs and distance, and what each arm holds.

    All rows have one length, so that nothing else differs; each seed has rows of its own.
    """
    length = params.recall_lengths[-1]
    jobs = {}
    for arm, pairs in grid(arm=runs, pairs=params.pairs):
        options = {"task": packed(params, pairs).model_dump(exclude_none=True)}
        depths = tuple(depth_of(params, pairs, distance) for distance in params.distances)
        options |= {"lengths": (length,), "depths": depths, "rows": params.test_rows}
        options |= {"items": arm.seed}
        jobs[arm, pairs] = EvalConfig(evaluation.task_accuracy, runs[arm], options)
    rows = [
        _columns(arm)
        | {"pairs": pairs, "distance": distance, "metric": "accuracy", "value": row["accuracy"]}
        for (arm, pairs), result in sweep(jobs).items()
        for distance, row in zip(params.distances, result.rows, strict=True)
    ]
    return rows + held(pd.DataFrame(rows))


def held(accuracy: pd.DataFrame) -> list[Row]:
    """Return how many pairs each arm holds, by seed.

    It recalls so many with a share of HELD or better. All distances are averaged. The number lies
    within those tested: the first may mean fewer, the last more.

    Args:
        accuracy: rows of metric accuracy with task, arm, seed, pairs and value.
    """
    rows = []
    for (task, arm, seed), at in accuracy.groupby(["task", "arm", "seed"]):
        curve = at.groupby("pairs")["value"].mean()
        first, last = curve.index[0], curve.index[-1]
        pairs = min(max(crossing(list(curve.index), list(curve), HELD), first), last)
        row = {"task": task, "arm": arm, "seed": seed, "metric": "held", "value": float(pairs)}
        rows.append(row)
    return rows


def _recall_controls(params: Params, runs: Mapping[Arm, RunConfig]) -> list[Row]:
    """Return recall where the row told other values, and the oracle's."""
    length, rows = params.recall_lengths[-1], []
    jobs = {}
    for arm, pairs in grid(arm=runs, pairs=params.pairs):
        options = {"pairs": pairs, "span": params.tokens_a_pair * pairs, "length": length}
        options |= {"rows": params.test_rows, "items": arm.seed}
        jobs[arm, pairs] = EvalConfig(foreign_recall, runs[arm], options)
    for (arm, pairs), result in sweep(jobs).items():
        at = {"pairs": pairs, "metric": "foreign_accuracy", "value": result.rows[0]["accuracy"]}
        rows.append(_columns(arm) | at)
    for seed, pairs in grid(seed=params.seeds, pairs=params.pairs):
        rng = np.random.default_rng([evaluation.EVALUATION_SEED, length, seed])
        task = packed(params, pairs)
        tokens, scored = recall.recall(rng, params.test_rows, length, **task.options)
        right = float((recall.oracle(tokens, scored) == tokens[scored]).mean())
        at = {"pairs": pairs, "metric": "oracle_accuracy", "value": right}
        rows.append({"task": "recall", "arm": "oracle", "seed": seed} | at)
    return rows


# ------------------------------------------------------------------------- a bit to keep: flip-flop


def _flip_flop(params: Params, runs: Mapping[Arm, RunConfig]) -> list[Row]:
    """Return the share of wrong bits by length.

    Each seed has rows of its own.
    """
    options = {"lengths": params.test_lengths, "rows": params.test_rows}
    jobs = {
        (arm, ignores): EvalConfig(
            evaluation.task_accuracy,
            runs[arm],
            options | {"task": {"name": "flip_flop", "ignores": ignores}, "items": arm.seed},
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
        "recall": packed(params, min(params.pairs)).model_dump(exclude_none=True),
        "flip_flop": {"name": "flip_flop", "ignores": IGNORES},
    }
    same = {
        "length": params.gradient_length,
        "distances": tuple(distances),
        "rows": params.gradient_rows,
    }
    jobs = {}
    for arm, job in runs.items():
        if arm.name not in ARCHITECTURES:
            continue
        options = same | {"task": tasks[arm.task], "items": arm.seed}
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
