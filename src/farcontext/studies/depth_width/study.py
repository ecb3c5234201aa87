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
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.depth_width.params import Params
from farcontext.tasks import recall
from farcontext.train.batches import Batch
from farcontext.train.config import Curriculum, OptimizerConfig, RunConfig, Stage, Task
from farcontext.train.curriculum import task_batch
from farcontext.train.keys import device
from farcontext.train.loop import build_model, scored_loss
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
SHORT = 32  # The curriculum's first stage has so many tokens.
HEAD_WIDTH = 32  # It is the same at every width, so that RoPE's frequencies are the same too.
LOCAL_WIDTH = 64
PERMUTATIONS = 200
INFLUENCE = 0.9  # The effective horizon holds this share of all influence.
LAST = 5  # So many losses at the end tell whether a run diverged.

# ---------------------------------------------------------------------------------------------------- configurations


def cells(params: Params) -> dict[tuple[int, int], float]:
    """Return (layers, width) → learning rate."""
    return {
        tuple(int(part) for part in name.split("x")): rate for name, rate in params.rates.items()
    }


def _model(layers: int, width: int, length: int, **changes: object) -> ModelConfig:
    return ModelConfig(
        kind="decoder",
        vocab_size=recall.VOCABULARY + 1,
        width=width,
        layers=layers,
        heads=max(1, width // HEAD_WIDTH),
        mlp_width=2 * width,
        mlp="gelu",
        max_length=length,
        init_std=0.1,
        embedding_std=1.0,
        smear=True,
        **changes,
    )


def _run(
    params: Params, model: ModelConfig, lr: float, seed: int, long: tuple[Stage, ...]
) -> RunConfig:
    short = Stage(
        steps=params.short_steps,
        rows=params.train_rows,
        length=SHORT,
        tasks=(Task(name="dense_recall", pairs=max(1, params.pairs // 2)),),
    )
    steps = params.short_steps + sum(stage.steps for stage in long)
    optimizer = OptimizerConfig(lr=lr, warmup=min(30, steps // 3))
    stages = Curriculum(stages=(short, *long))
    return RunConfig(
        model=model, batch=stages, optimizer=optimizer, steps=steps, save_every=steps, seed=seed
    )


def grid_run(
    params: Params, layers: int, width: int, window: int, *, lr: float, seed: int
) -> RunConfig:
    """Return a cell's training: recall at 32 tokens, then at `window`."""
    tasks = (Task(name="dense_recall", pairs=params.pairs), Task(name="recall", pairs=params.pairs))
    # The window is the trained length.
    long = Stage(steps=params.long_steps, rows=params.train_rows, length=window, tasks=tasks)
    return _run(params, _model(layers, width, max(SHORT, window)), lr, seed, (long,))


def local_run(params: Params, layers: int, seed: int) -> RunConfig:
    """Return the training of a stack whose layers all see `local_window` keys."""
    model = _model(
        layers, LOCAL_WIDTH, params.local_length, window=params.local_window, global_every=0
    )
    return _run(params, model, 0.004, seed, ())


# ---------------------------------------------------------------------------------------------------------- protocols


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


def plain_sgd(*, length: int, rows: int, lr: float, steps: int, seed: int) -> list[Row]:
    """Train a small decoder with plain SGD; return what became of it.

    Plain SGD has no momentum, warm-up or clipping. diverged: a loss or gradient norm that is not
    finite, or a mean of the last losses above the first one. spikes: share of steps whose loss is
    a tenth above the one before. dispersion: s.d. of the log gradient norm over the finite steps.
    """
    task = Task(name="dense_recall", pairs=8)
    batches = Curriculum(stages=(Stage(steps=steps, rows=rows, length=length, tasks=(task,)),))
    losses, norms = [], []
    with torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        model = build_model(_model(2, HEAD_WIDTH, length)).to(device())
        weights = list(model.parameters())
        for step in range(steps):
            batch = task_batch(
                batches, seed=seed, step=step, causal=True, vocab_size=recall.VOCABULARY + 1
            )
            batch = Batch(batch.tokens.to(device()), batch.targets.to(device()), None)
            total, scored = scored_loss(model, batch)
            gradients = torch.autograd.grad(total / scored, weights)
            losses.append(total.item() / scored)
            norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradients)))
            if not (math.isfinite(losses[-1]) and math.isfinite(norms[-1])):
                break
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.sub_(gradient, alpha=lr)
    known = np.array([loss for loss in losses if math.isfinite(loss)])
    finite = [norm for norm in norms if math.isfinite(norm) and norm > 0]
    return [
        {
            "diverged": float(diverged(losses, norms)),
            "spikes": float((known[1:] > 1.1 * known[:-1]).sum() / steps),
            "dispersion": float(np.std(np.log(finite))),
        }
    ]


def diverged(losses: Sequence[float], norms: Sequence[float]) -> bool:
    """Return whether training diverged, by the definition fixed beforehand."""
    if not np.isfinite([*losses, *norms]).all():
        return True
    return bool(np.mean(losses[-LAST:]) > losses[0])


# -------------------------------------------------------------------------------------------------------------- study


def run(params: Params) -> pd.DataFrame:
    """Train and score all three arms; write and return the table.

    The table has one row for each observation.

    metric: recall (by length) · effective_length (tokens) · partial_r2, raw_partial_r2,
    chance_partial_r2 (arm: the terms) · depth_slope, width_slope, window_slope (of log effective
    length on each log) · worst_trained_recall · tuning (recall at the trained length, by rate) ·
    influence (share, by distance) · horizon (tokens) · depth_exponent, horizon_over_window (arm
    sliding) · diverged, spikes, dispersion (by T and rate) · divergence_trend, floor_divergence
    (arm equal tokens or equal sequences).
    """
    grid, cost = _grid(params)
    rows = [*grid, *_tuning(params), *_sliding(params), *_divergence(params)]
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, cost)
    return table


def lengths_of(params: Params, window: int) -> list[int]:
    """Return the tested lengths: half the trained length, then doubling."""
    return [window // 2 * 2**power for power in range(int(math.log2(2 * params.furthest)) + 1)]


def _rates(params: Params) -> dict[tuple[int, int], float]:
    """Return each cell's rate: what params say or, where they ask for it, the best one tried."""
    if not params.tuning_rates:
        return cells(params)
    tried = pd.DataFrame(_tuning(params)).groupby(["layers", "width", "lr"])["value"].mean()
    return {cell: float(tried[cell].idxmax()) for cell in cells(params)}


def _tuning(params: Params) -> list[Row]:
    window = params.windows[-1]
    options = {
        "task": {"name": "recall", "pairs": params.pairs},
        "lengths": [window],
        "rows": params.test_rows,
    }
    jobs = {
        (*cell, lr, seed): EvalConfig(
            evaluation.task_accuracy, grid_run(params, *cell, window, lr=lr, seed=seed), options
        )
        for cell, lr, seed in grid(
            cell=cells(params), lr=params.tuning_rates, seed=params.tuning_seeds
        )
    }
    return [
        {
            "layers": layers,
            "width": width,
            "window": window,
            "lr": lr,
            "seed": seed,
            "metric": "tuning",
        }
        | {"value": found.rows[0]["accuracy"]}
        for (layers, width, lr, seed), found in sweep(jobs).items()
    ]


def _grid(params: Params) -> tuple[list[Row], pd.DataFrame]:
    """Return W1: recall and effective length of cells, and what explains the length."""
    rates = _rates(params)
    task = {"name": "recall", "pairs": params.pairs}
    trainings, jobs = {}, {}
    for window, cell, seed in grid(window=params.windows[::-1], cell=rates, seed=params.seeds):
        trained = grid_run(params, *cell, window, lr=rates[cell], seed=seed)
        options = {"task": task, "lengths": lengths_of(params, window), "rows": params.test_rows}
        jobs[(*cell, window, seed)] = EvalConfig(evaluation.task_accuracy, trained, options)
        trainings[trained] = {"layers": cell[0], "width": cell[1], "window": window, "seed": seed}
    rows = []
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
    """Return partial R² by seed, and the least recall that a seed's cells have at their trained length."""
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
    """Return influence by distance in stacks of windows, and how their horizon grows."""
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


def _divergence(params: Params) -> list[Row]:
    """Return G1: what becomes of plain SGD by T and rate, with equal tokens or sequences a step."""
    rows_of = {
        "equal tokens": lambda n: params.sgd_tokens // n,
        "equal sequences": lambda n: params.sgd_rows,
    }
    lengths = params.sgd_lengths
    same = {"steps": params.sgd_steps}
    jobs = {
        case: EvalConfig(plain_sgd, None, same | _sgd(rows_of[case.arm](case.length), *case[1:]))
        for case in grid(arm=rows_of, length=lengths[::-1], lr=params.sgd_rates, seed=params.seeds)
    }
    rows = []
    for case, result in sweep(jobs).items():
        rows += [
            case._asdict() | {"metric": metric, "value": value}
            for metric, value in result.rows[0].items()
        ]
    frame = pd.DataFrame(rows)
    share = frame[frame["metric"] == "diverged"].groupby(["arm", "seed", "length"])["value"].mean()
    for (arm, seed), values in share.groupby(["arm", "seed"]):
        slope = np.polyfit(np.log2(values.index.get_level_values("length")), values.to_numpy(), 1)[
            0
        ]
        found_here = {"divergence_trend": float(slope), "floor_divergence": float(values.iloc[0])}
        rows += [
            {"arm": arm, "seed": seed, "metric": name, "value": v} for name, v in found_here.items()
        ]
    return rows


def _sgd(rows: int, length: int, lr: float, seed: int) -> Row:
    return {"rows": rows, "length": length, "lr": lr, "seed": seed}


# --------------------------------------------------------------------------------------------------------- reading it


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
