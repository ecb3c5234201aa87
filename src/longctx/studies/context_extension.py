"""Notebook 07: every way to extend the context of a small model, zero-shot and after the same short fine-tuning.

Bases (one a way to encode positions, some seeds each) learn associative recall at length L by one curriculum; the RoPE
schemes share their base. P1, P2 and the published orders of claims.yaml read the table.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from longctx import evaluation, results
from longctx.config import Curriculum, Extension, ModelConfig, OptimizerConfig, RunConfig, Stage, Task
from longctx.effective import SHARE, crossing
from longctx.model import Decoder, Encoder
from longctx.params import ContextExtension as Params
from longctx.runs import EvalConfig, RunResult, sweep
from longctx.tasks import recall
from longctx.training import Row

NAME = "context_extension"
COLUMNS = ["kind", "arm", "tuned", "layout", "length", "depth", "lr", "seed", "metric", "value"]
SHORT_SPAN = 4  # tokens of a row in the first stage: L / SHORT_SPAN
SINKS = 4
P_ROPE, PARTIAL = 0.75, 0.5  # share of pairs that turn; share of channels that turn
TURNS = 4.0  # YaRN's fast end of the ramp, in turns, where L is too short for the published 32


class Arm(NamedTuple):
    """A way to reach further: the base it starts from, and RoPE's scheme with its options, if any."""

    name: str
    base: str
    scheme: str | None = None
    options: tuple[tuple[str, float], ...] = ()
    log_n: bool = False
    window: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm("rope", "rope"),
        Arm("linear", "rope", "linear"),
        Arm("ntk", "rope", "ntk"),
        Arm("dynamic_ntk", "rope", "dynamic_ntk"),
        Arm("dynamic_ntk_hf", "rope", "dynamic_ntk_hf"),
        Arm("yarn", "rope", "yarn"),
        Arm("yarn_4_turns", "rope", "yarn", (("beta_fast", TURNS),)),
        Arm("yarn_rotations", "rope", "yarn_rotations"),
        Arm("llama3", "rope", "llama3"),
        Arm("abf", "rope", "abf"),
        Arm("log_n", "rope", log_n=True),
        Arm("window_sinks", "rope", window=True),
        Arm("p_rope", "p_rope"),
        Arm("partial_rotary", "partial_rotary"),
        Arm("random", "random"),
        Arm("alibi", "alibi"),
        Arm("nope", "nope"),
        Arm("rope_smeared", "rope_smeared"),  # keys mixed with their neighbour's: a base that minutes are enough for
        Arm("nope_smeared", "nope_smeared"),
        Arm("t5", "t5"),
        Arm("sinusoidal", "sinusoidal"),
        Arm("learned", "learned", "linear"),
    )
}
FOLLOWS = ("linear", "ntk", "yarn", "yarn_rotations", "llama3", "abf")  # schemes whose scale is set from outside


def base_model(params: Params, base: str, kind: str = "decoder") -> ModelConfig:
    """Return the model of a base at length L: the same but for its positions."""
    match base.removesuffix("_smeared"):
        case "nope":
            encoding: Row = {"positions": "none"}
        case "random":
            encoding = {"random_positions": params.length * max(params.multiples)}
        case "p_rope":
            encoding = {"extension": Extension(scheme=base, trained_length=params.length, p=P_ROPE)}
        case "partial_rotary":
            encoding = {"extension": Extension(scheme=base, trained_length=params.length, p=PARTIAL)}
        case name:
            encoding = {"positions": name}
    return ModelConfig(
        kind=kind,
        vocab_size=recall.VOCABULARY + 1,  # the last id is an encoder's mask
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        mlp_width=4 * params.width,
        mlp="gelu",
        max_length=params.length,
        init_std=params.init_std,
        embedding_std=None if base == "sinusoidal" else 1.0,  # a table of sines must not drown in the embedding
        tied=False,
        smear=base.endswith("_smeared"),
        **encoding,
    )


def extended(params: Params, arm: Arm, scale: float, kind: str = "decoder") -> ModelConfig:
    """Return an arm's model for `scale` times the trained length; the weights are its base's."""
    model = base_model(params, arm.base, kind)
    if arm.log_n:
        return model.model_copy(update={"log_n": params.length})
    if arm.scheme is None:
        return model
    scale = scale if arm.scheme in FOLLOWS or arm.scheme == "dynamic_ntk_hf" else 1.0
    extension = Extension(scheme=arm.scheme, scale=scale, trained_length=params.length, **dict(arm.options))
    return model.model_copy(update={"extension": extension})


def base_run(params: Params, base: str, seed: int, lr: float, kind: str = "decoder") -> RunConfig:
    """Return the training of a base: recall from short rows to rows of L tokens, the same tokens for every base."""
    dense, once = Task(name="dense_recall", pairs=4), Task(name="recall", pairs=params.pairs)
    short = params.length // SHORT_SPAN
    lengths = [
        (params.short_steps, short, (Task(name="dense_recall", pairs=3),)),
        (params.dense_steps, 2 * short, (dense,)),
        (params.long_steps, params.length, (dense, once)),
    ]
    stages = tuple(
        Stage(steps=steps, rows=params.step_tokens // length, length=length, tasks=tasks)
        for steps, length, tasks in lengths
    )
    steps = sum(stage.steps for stage in stages)
    return RunConfig(
        model=base_model(params, base, kind),
        batch=Curriculum(stages=stages),
        optimizer=OptimizerConfig(lr=lr, warmup=min(60, steps // 4)),
        steps=steps,
        save_every=max(1, steps // 2),
        seed=seed,
    )


def tuned_run(params: Params, arm: Arm, seed: int, lr: float) -> RunConfig:
    """Return an arm's short fine-tuning: recall at `tune_multiple` times L, the scale set for the longest goal."""
    start = base_run(params, arm.base, seed, lr)
    length = params.length * params.tune_multiple
    model = extended(params, arm, params.goal).model_copy(update={"max_length": length})
    tasks = (Task(name="recall", pairs=params.pairs), Task(name="recall", pairs=params.pairs, span=params.span))
    stage = Stage(steps=params.tune_steps, rows=params.tune_step_tokens // length, length=length, tasks=tasks)
    return RunConfig(
        model=model,
        batch=Curriculum(stages=(stage,)),
        optimizer=OptimizerConfig(lr=params.tune_share * lr, warmup=params.tune_steps // 4),
        steps=params.tune_steps,
        save_every=params.tune_steps,
        seed=seed,
        start=start,
    )


# ---------------------------------------------------------------------------------------------------------- protocol


def recall_by_layout(
    model: Encoder | Decoder,
    *,
    lengths: list[int],
    depths: list[float],
    pairs: int,
    span: int,
    rows: int,
    window: int | None = None,
) -> list[Row]:
    """Return recall with the evidence packed into `span` tokens at each depth, and spread over the whole row."""
    same = {"lengths": lengths, "rows": rows, "window": window, "sinks": SINKS if window else 0}
    packed = evaluation.task_accuracy(
        model, task={"name": "recall", "pairs": pairs, "span": span}, depths=depths, **same
    )
    spread = evaluation.task_accuracy(model, task={"name": "recall", "pairs": pairs}, **same)
    return [{"layout": "packed"} | row for row in packed] + [{"layout": "spread"} | row for row in spread]


def _jobs(params: Params, arm: Arm, run: RunConfig, tuned: bool, kind: str = "decoder") -> list[EvalConfig]:
    """Zero-shot, the scale follows the length asked for; a tuned model keeps the one it was tuned with."""
    lengths = [params.length * multiple for multiple in params.multiples]
    options = {"depths": params.depths, "pairs": params.pairs, "span": params.span, "rows": params.test_rows}
    if arm.window:
        options["window"] = params.length
    if tuned or arm.scheme is None:
        changed = None if tuned else extended(params, arm, 1.0, kind)
        return [EvalConfig(recall_by_layout, run, options | {"lengths": lengths}, changed)]
    return [
        EvalConfig(recall_by_layout, run, options | {"lengths": [n]}, extended(params, arm, n / params.length, kind))
        for n in lengths
    ]


def _scored(jobs: dict[tuple, list[EvalConfig]]) -> dict[tuple, list[Row]]:
    """Return each key's rows of all its evaluations."""
    found = iter(sweep([job for many in jobs.values() for job in many]))
    return {key: [row for _ in many for row in next(found).rows] for key, many in jobs.items()}


# ------------------------------------------------------------------------------------------------------------- study


def run(params: Params) -> pd.DataFrame:
    """Tune, train, fine-tune and score every arm; write and return the table, one row an observation.

    metric: recall (share of answers, by layout, length and depth) · kept (recall at a length over recall at L, by
    layout near, far, spread) · effective_length, reach (tokens; its log2 over L) · score (mean recall at 8× and beyond) ·
    base_recall (of the arm's base, at L) · tuning (recall at L of each rate tried, on seeds of their own).
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
            jobs["encoder", name, "zero_shot", seed] = _jobs(params, ARMS[name], start, False, "encoder")
    rows = tuning
    for (kind, arm, tuned, seed), found in _scored(jobs).items():
        base = {"kind": kind, "arm": arm, "tuned": tuned, "seed": seed}
        rows += [base | row for row in _observations(params, found)]
    rows += _chosen(params, rates, rows)
    table = results.tidy(rows, COLUMNS)
    results.write_table(table, NAME, params, _cost(jobs))
    return table


def tune(params: Params) -> tuple[dict[str, float], list[Row]]:
    """Return each base's learning rate, the one with the best recall at L on the tuning seeds, and all that was tried.

    The same rates for every base: equal tuning, not only equal training.
    """
    bases = list(dict.fromkeys(ARMS[name].base for name in params.arms))
    cases = [(base, lr, seed) for base in bases for lr in params.lrs for seed in params.tuning_seeds]
    options = {"task": {"name": "recall", "pairs": params.pairs}, "lengths": [params.length], "rows": params.test_rows}
    found = sweep([EvalConfig(evaluation.task_accuracy, base_run(params, b, s, lr), options) for b, lr, s in cases])
    rows = [
        {"kind": "decoder", "arm": base, "lr": lr, "seed": seed, "metric": "tuning", "value": result.rows[0]["accuracy"]}
        for (base, lr, seed), result in zip(cases, found, strict=True)
    ]
    means = pd.DataFrame(rows).groupby(["arm", "lr"])["value"].mean()
    # the smallest of the best: equal recall is common once a base has learnt the task
    return {base: float(means[base][means[base] >= means[base].max()].index[0]) for base in bases}, rows


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
        {k: row[k] for k in ("layout", "length", "depth")} | {"metric": "recall", "value": row["accuracy"]}
        for row in frame.to_dict("records")
    ]
    trained = params.length
    for layout, curve in by_layout.items():
        rows += [
            {"layout": layout, "length": n, "metric": "kept", "value": float(value / max(curve[trained], 1e-9))}
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
        {"metric": "score_packed", "value": float((by_layout["far"] + by_layout["near"])[beyond.index].mean() / 2)},
    ]


def _chosen(params: Params, rates: dict[str, float], rows: list[Row]) -> list[Row]:
    """Return the rows of P1's arm again, as arm "chosen": the best tuned one on the tuning seeds, which no verdict reads."""
    cases = [(ARMS[name], seed) for name in params.tuned_arms for seed in params.tuning_seeds]
    jobs = {(arm.name, seed): _jobs(params, arm, tuned_run(params, arm, seed, rates[arm.base]), True) for arm, seed in cases}
    scores: dict[str, list[float]] = {}
    for (name, _), found in _scored(jobs).items():
        (score,) = [row["value"] for row in _observations(params, found) if row["metric"] == "score"]
        scores.setdefault(name, []).append(score)
    best = max(scores, key=lambda name: np.mean(scores[name]))
    return [
        row | {"arm": "chosen"}
        for row in rows
        if (row.get("arm"), row.get("tuned")) == (best, "tuned") and row["metric"] in ("kept", "base_recall", "reach")
    ]


def _cost(jobs: dict[tuple, list[EvalConfig]]) -> pd.DataFrame:
    """Return seconds, tokens and memory of every training behind the table."""
    runs = {(*key[:3], key[3]): many[0].run for key, many in jobs.items()}
    found: list[RunResult] = sweep(list(runs.values()))
    columns = ("kind", "arm", "tuned", "seed")
    return pd.DataFrame([dict(zip(columns, key, strict=True)) | r.cost for key, r in zip(runs, found, strict=True)])
