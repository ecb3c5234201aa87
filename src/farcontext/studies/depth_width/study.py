"""Notebook 06: the context window against layers × hidden units, and stability.

It asks whether the window is that product, and whether a longer one makes training more stable. It
has three parts on the same seeds: shapes that differ in depth, width or trained length, stacks of
sliding windows, and training with plain SGD and AdamW. Claims W1 and G1 of claims.yaml read the
table.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from farcontext.measure import losses as evaluation
from farcontext.measure.effective_length import SHARE, crossing
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.depth_width.params import Params
from farcontext.studies.depth_width.protocol import influence
from farcontext.studies.depth_width.stability import stability_rows
from farcontext.studies.depth_width.trainings import (
    LOCAL_WIDTH,
    Shape,
    grid_run,
    local_run,
    shapes,
)
from farcontext.train.runs import EvalConfig, costs, grid, sweep

NAME = "depth_width"
COLUMNS = [
    "arm",
    "layers",
    "width",
    "window",
    "length",
    "lr",
    "distance",
    "seed",
    "metric",
    "value",
]
INFLUENCE = 0.9  # The effective horizon holds this share of all influence.
SLOPES = ("depth_slope", "width_slope", "window_slope")


# -------------------------------------------------------------------------------------------- study


def run(params: Params) -> pd.DataFrame:
    """Train and score all three parts; write and return the table.

    The table has one row for each observation.

    metric: recall (by length), trained_recall (at the trained length) · effective_length (tokens) ·
    depth_slope, width_slope, window_slope (of log effective length on each log) · influence (share,
    by distance) · horizon (tokens) · depth_exponent, horizon_over_window (arm sliding) · and those
    of `stability_rows`.
    """
    found, cost = _grid(params)
    rows = [*found, *_sliding(params), *stability_rows(params)]
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, cost)
    return table


def lengths_of(params: Params, window: int) -> list[int]:
    """Return the tested lengths: half the trained length, then doubling."""
    return [window // 2 * 2**power for power in range(int(math.log2(2 * params.furthest)) + 1)]


def _grid(params: Params) -> tuple[list[Row], pd.DataFrame]:
    """Return W1: each shape's recall and effective length, and the slopes."""
    task = {"name": "recall", "pairs": params.pairs}
    trainings, jobs, rows = {}, {}, []
    for shape, seed in grid(shape=shapes(params), seed=params.seeds):
        trained = grid_run(params, shape, lr=params.rate, seed=seed)
        options = {"task": task, "lengths": lengths_of(params, shape.window)}
        options |= {"rows": params.test_rows, "items": seed}
        jobs[shape, seed] = EvalConfig(evaluation.task_accuracy, trained, options)
        trainings[trained] = shape._asdict() | {"seed": seed}
    for (shape, seed), result in sweep(jobs).items():
        base = {"arm": "grid", "seed": seed} | shape._asdict()
        curve = {row["length"]: row["accuracy"] for row in result.rows}
        rows += [
            base | {"length": n, "metric": "recall", "value": score} for n, score in curve.items()
        ]
        known = {"trained_recall": curve[shape.window], "effective_length": reached(shape, curve)}
        rows += [base | {"metric": metric, "value": value} for metric, value in known.items()]
    return rows + slopes(pd.DataFrame(rows)), costs(trainings)


def reached(shape: Shape, curve: dict[int, float]) -> float:
    """Return the length at which recall falls too low.

    That is below SHARE of recall at the trained length. It lies within the tested lengths: a curve
    that never falls gets the last one.
    """
    length = crossing(list(curve), list(curve.values()), SHARE * curve[shape.window])
    return float(min(max(length, min(curve)), max(curve)))


def slopes(found: pd.DataFrame) -> list[Row]:
    """Return three slopes of log effective length by seed.

    They are on log depth, log width and log trained length, by least squares together.
    """
    rows = []
    lengths = found[found["metric"] == "effective_length"]
    for seed, at in lengths.groupby("seed"):
        logs = np.log2(at[["layers", "width", "window", "value"]].to_numpy(dtype=float))
        design = np.column_stack((np.ones(len(logs)), logs[:, :3]))
        _, *found_here = np.linalg.lstsq(design, logs[:, 3])[0]
        rows += [
            {"seed": seed, "metric": name, "value": float(slope)}
            for name, slope in zip(SLOPES, found_here, strict=True)
        ]
    return rows


def _sliding(params: Params) -> list[Row]:
    """Return influence by distance in stacks of windows.

    How their horizon grows stands beside it.
    """
    options = {"length": params.local_length, "rows": params.test_rows}
    jobs, rows, horizons = {}, [], {}
    for layers, seed in grid(layers=params.local_depths, seed=params.seeds):
        stack = local_run(params, layers, seed)
        jobs[layers, seed] = EvalConfig(influence, stack, options | {"items": seed})
    for (layers, seed), result in sweep(jobs).items():
        base = {
            "arm": "sliding",
            "layers": layers,
            "width": LOCAL_WIDTH,
            "window": params.local_window,
            "seed": seed,
        }
        share = np.array([row["influence"] for row in result.rows])
        share /= share.sum()
        horizons[layers, seed] = horizon(share)
        rows += [
            base | {"distance": d, "metric": "influence", "value": float(s)}
            for d, s in enumerate(share)
        ]
        rows.append(base | {"metric": "horizon", "value": horizons[layers, seed]})
        rows.append(
            base
            | {
                "metric": "horizon_over_window",
                "value": horizons[layers, seed] / params.local_window,
            }
        )
    for seed in params.seeds:
        reached = [horizons[layers, seed] for layers in params.local_depths]
        slope = np.polyfit(np.log(params.local_depths), np.log(reached), 1)[0]
        rows.append(
            {"arm": "sliding", "seed": seed, "metric": "depth_exponent", "value": float(slope)}
        )
    return rows


def horizon(share: Sequence[float]) -> float:
    """Return how many tokens hold INFLUENCE of all influence, by interpolation.

    They are counted back from the predicting token.
    """
    total = np.cumsum(np.asarray(share, dtype=np.float64))
    return float(np.interp(INFLUENCE, np.concatenate(([0.0], total)), np.arange(len(total) + 1)))


def bound(params: Params, layers: int) -> int:
    """Return the furthest distance that can have any influence.

    It is L(w′ − 1): a smeared key adds one token, w′ = w + 1.
    """
    return layers * params.local_window
