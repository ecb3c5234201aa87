"""Notebook 13: does a longer row leak more of what was trained on?

Reference models of each row length T see half of some documents, cut into rows of T tokens, and
canaries in others; all see as many tokens. Claim V1 of claims.yaml reads the table.
"""

from typing import Any

import numpy as np
import pandas as pd

from farcontext.data.tokenizer import load_tokenizer
from farcontext.measure.memorization import auc, lira, tpr_at_fpr
from farcontext.nn.config import ModelConfig
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.privacy.params import Params
from farcontext.studies.privacy.protocol import attack, make_rows
from farcontext.studies.trainings import training
from farcontext.train.config import Curriculum, RunConfig, Stage
from farcontext.train.keys import tokens_folder
from farcontext.train.runs import EvalConfig, costs, grid, prepared_task, sweep

NAME = "privacy"
COLUMNS = ["attack", "length", "seed", "count", "prompt", "metric", "value"]
FPR = 0.01


def told_of(params: Params, model: int) -> dict[str, Any]:
    """Return what draws one model's documents and canaries."""
    return {
        "seed": params.seed,
        "reader": model,
        "models": params.models,
        "document": params.document,
        "targets": params.targets,
        "carriers": params.carriers,
        "counts": list(params.counts),
        "each": params.canaries,
        "candidates": params.candidates,
    }


def run_of(params: Params, length: int, model: int) -> RunConfig:
    """Return the training of one reference model on rows of T tokens."""
    config = ModelConfig(
        kind="decoder",
        vocab_size=load_tokenizer(tokens_folder()).get_vocab_size(),
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        mlp_width=2 * params.width,
        max_length=params.document,
        init_std=0.1,
    )
    task = prepared_task(
        EvalConfig(make_rows, None, told_of(params, model) | {"length": length}), length
    )
    rows = params.step_tokens // length
    stage = Stage(steps=params.steps, rows=rows, length=length, tasks=(task,))
    stages = Curriculum(stages=(stage,))
    return training(config, stages, lr=params.lr, warmup=params.warmup, seed=model)


def run(params: Params) -> pd.DataFrame:
    """Train the reference models, attack them, and return the table, which is also written.

    metric: loss, member, score (LiRA's; seed = the target, count = the model) …
    """
    cells = grid(length=params.lengths, model=range(params.models))
    runs = {cell: run_of(params, *cell) for cell in cells}
    options = {cell: told_of(params, cell.model) for cell in cells}
    jobs = {
        cell: EvalConfig(
            attack,
            runs[cell],
            options[cell] | {"length": cell.length, "prompts": list(params.prompts)},
        )
        for cell in cells
    }
    found = {cell: result.rows for cell, result in sweep(jobs).items()}
    rows = [row for length in params.lengths for row in _membership(params, length, found)]
    rows += _canaries(params, found)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, costs({runs[c]: {"length": c.length} for c in cells}))
    return table


def _membership(params: Params, length: int, found: dict[Any, list[Row]]) -> list[Row]:
    """Return the rows of LiRA at one length: by target, and of all together."""
    told = [
        [row for row in rows if row["what"] == "target"]
        for cell, rows in found.items()
        if cell.length == length
    ]
    losses, member = (
        np.array([[row[key] for row in model] for model in told]) for key in ("loss", "member")
    )
    member = member.astype(bool)
    scores = lira(losses, member)
    base = {"attack": "lira", "length": length}
    inside, outside = scores[member], scores[~member]
    rows = [base | {"metric": "auc", "value": auc(inside, outside)}]
    rows.append(base | {"metric": "tpr", "value": tpr_at_fpr(inside, outside, FPR)})
    threshold = np.sort(outside)[::-1][int(FPR * outside.size)]
    for target in range(member.shape[1]):
        of = member[:, target]
        found_share = float((scores[of, target] > threshold).mean())
        rows.append(base | {"seed": target, "metric": "found", "value": found_share})
        area = auc(scores[of, target], scores[~of, target])
        rows.append(base | {"seed": target, "metric": "target_auc", "value": area})
    return rows


def _canaries(params: Params, found: dict[Any, list[Row]]) -> list[Row]:
    """Return the rows of extraction and exposure: means over a model's canaries."""
    rows = []
    for cell, told in found.items():
        frame = pd.DataFrame([row for row in told if row["what"] == "canary"])
        means = frame.groupby(["count", "prompt"])[["extracted", "exposure"]].mean()
        for (count, prompt), at in means.iterrows():
            base = {"attack": "canary", "length": cell.length, "seed": cell.model}
            base |= {"count": int(count), "prompt": int(prompt)}
            rows += [base | {"metric": name, "value": float(at[name])} for name in at.index]
    return rows
