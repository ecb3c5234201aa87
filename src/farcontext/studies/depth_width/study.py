"""Notebook 06: the context window against layers × hidden units, and stability.

It asks whether the window is that product, and whether a longer one makes training more stable. It
has three arms on some seeds each: a grid of depth × width × trained length, stacks of sliding
windows, and a divergence sweep with plain SGD. Claims W1 and G1 of claims.yaml read the table.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from farcontext.measure import losses as evaluation
from farcontext.measure.effective_length import SHARE, crossing
from farcontext.measure.gradients import gradient_norms
from farcontext.measure.stats import partial_r2, t_interval
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.depth_width.divergence import _divergence
from farcontext.studies.depth_width.params import Params
from farcontext.studies.depth_width.trainings import LOCAL_WIDTH, cells, grid_run, local_run
from farcontext.tasks import recall
from farcontext.train.keys import device
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
PERMUTATIONS = 200
INFLUENCE = 0.9  # The effective horizon holds this share of all influence.


# ----------------------------------------------------------------------------------------- protocol


def influence(model: Decoder, *, length: int, rows: int) -> list[Row]:
    """Return the mean norm of the last loss's gradient by distance.

    The gradient is of a row's last loss at each token; distance is from the predicting token.
    """
    rng = np.random.default_rng([evaluation.EVALUATION_SEED, length])
    tokens, _ = recall.dense_recall(rng, rows, length)
    tokens = torch.from_numpy(tokens).to(device())
    at = torch.full((rows,), length - 2, device=device())
    norm_T = gradient_norms(model, tokens, at, tokens[:, -1]).mean(0)[: length - 1].flip(0)
    return [{"distance": d, "influence": float(value)} for d, value in enumerate(norm_T)]


# -------------------------------------------------------------------------------------------- study


def run(params: Params) -> pd.DataFrame:
    """Train and score all three arms; write and return the table.

    The table has one row for each observation.

    metric: recall (by length) · effective_length (tokens) · partial_r2, raw_partial_r2,
    chance_partial_r2 (arm: the terms) · depth_slope, width_slope, window_slope (of log effective
    length on each log) · worst_trained_recall · influence (share, by distance) · horizon (tokens) ·
    depth_exponent, horizon_over_window (arm sliding) · diverged, spikes, dispersion (by T and rate)
    · divergence_trend, floor_divergence (arm equal tokens or equal sequences).
    """
    grid, cost = _grid(params)
    rows = [*grid, *_sliding(params), *_divergence(params)]
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, cost)
    return table


def lengths_of(params: Params, window: int) -> list[int]:
    """Return the tested lengths: half the trained length, then doubling."""
    return [window // 2 * 2**power for power in range(int(math.log2(2 * params.furthest)) + 1)]


def _grid(params: Params) -> tuple[list[Row], pd.DataFrame]:
    """Return W1: recall and effective length of the grid's cells.

    What explains the length stands beside them.
    """
    rates, rows = cells(params), []
    task = {"name": "recall", "pairs": params.pairs}
    trainings, jobs = {}, {}
    for window, cell, seed in grid(window=params.windows[::-1], cell=rates, seed=params.seeds):
        trained = grid_run(params, *cell, window, lr=rates[cell], seed=seed)
        options = {"task": task, "lengths": lengths_of(params, window), "rows": params.test_rows}
        jobs[(*cell, window, seed)] = EvalConfig(evaluation.task_accuracy, trained, options)
        trainings[trained] = {"layers": cell[0], "width": cell[1], "window": window, "seed": seed}
    for (layers, width, window, seed), found in sweep(jobs).items():
        base = {"arm": "grid", "layers": layers, "width": width, "window": window, "seed": seed}
        curve = {row["length"]: row["accuracy"] for row in found.rows}
        rows += [
            base | {"length": n, "metric": "recall", "value": score} for n, score in curve.items()
        ]
        first, last = min(curve), max(curve)
        reached = crossing(list(curve), list(curve.values()), SHARE * curve[window])
        # The length is censored at both ends: a curve that never falls gets the last length tested.
        rows.append(
            base | {"metric": "effective_length", "value": float(min(max(reached, first), last))}
        )
    return rows + _explained(pd.DataFrame(rows)), costs(trainings)


def _explained(grid: pd.DataFrame) -> list[Row]:
    """Return partial R² by seed, and the least trained recall.

    The latter is the least recall that a seed's cells have at their trained length.
    """
    rows = []
    for seed, at in grid.groupby("seed"):
        trained = at[(at["metric"] == "recall") & (at["length"] == at["window"])]["value"]
        rows.append({"seed": seed, "metric": "worst_trained_recall", "value": float(trained.min())})
        cell = at[at["metric"] == "effective_length"]
        logs = np.log2(cell[["layers", "width", "window", "value"]].to_numpy(dtype=float))
        model, window, reached = logs[:, :2], logs[:, 2:3], logs[:, 3]
        if len(cell) < 5:
            continue
        # A share of variance has no sign; slopes tell what lengthens (all are 1 in the formula).
        slopes = np.linalg.lstsq(np.column_stack((np.ones(len(logs)), logs[:, :3])), reached)[0][1:]
        for name, slope in zip(("depth_slope", "width_slope", "window_slope"), slopes, strict=True):
            rows.append({"seed": seed, "metric": name, "value": float(slope)})
        for arm, terms, given in (
            ("depth and width", model, window),
            ("trained length", window, model),
        ):
            raw = partial_r2(reached, terms, given)
            rng = np.random.default_rng(0)
            chance = [
                partial_r2(reached, rng.permutation(terms), given) for _ in range(PERMUTATIONS)
            ]
            free = len(cell) - given.shape[1] - 1
            adjusted = 1 - (1 - raw) * free / (free - terms.shape[1])
            values = {
                "raw_partial_r2": raw,
                "chance_partial_r2": float(np.mean(chance)),
                "partial_r2": adjusted,
            }
            rows += [
                {"arm": arm, "seed": seed, "metric": name, "value": v} for name, v in values.items()
            ]
    return rows


def _sliding(params: Params) -> list[Row]:
    """Return influence by distance in stacks of windows.

    How their horizon grows stands beside it.
    """
    options = {"length": params.local_length, "rows": params.test_rows}
    cases = grid(layers=params.local_depths, seed=params.seeds)
    rows, horizons = [], {}
    for (layers, seed), result in sweep(
        {case: EvalConfig(influence, local_run(params, *case), options) for case in cases}
    ).items():
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


# --------------------------------------------------------------------------------------- reading it


def against_formula(table: pd.DataFrame) -> pd.DataFrame:
    """Return each cell's mean effective length beside the product that predicts it."""
    found = table[table["metric"] == "effective_length"].astype({"layers": int, "width": int})
    wide = found.pivot_table(index=["layers", "width"], columns="window", values="value")
    wide.columns = [f"trained at {int(window)}" for window in wide.columns]
    return wide.round(0).assign(formula=[layers * width for layers, width in wide.index])


def with_intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean and 95 % interval over seeds.

    There is a row for each run, metric and number of layers; all depths in one row come first.
    """
    found = []
    for by in (["run", "metric"], ["run", "metric", "layers"]):
        for keys, at in rows.groupby(by):
            interval = t_interval(list(at.groupby("seed")["value"].mean()))
            layers = "all" if len(keys) == 2 else str(int(keys[2]))
            found.append((*keys[:2], layers, interval.estimate, interval.low, interval.high))
    columns = ["run", "metric", "layers", "mean", "low", "high"]
    return pd.DataFrame(found, columns=columns).set_index(columns[:3]).sort_index().round(2)
