"""Notebook 13: does a longer row leak more of what was trained on?

A public model learns documents that are cut into rows of T tokens, as many tokens at every T.
Reference models see half of the attacked documents each, and canaries of their own. Claim V1 of
claims.yaml reads the table.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from farcontext.measure.memorization import auc, lira, tpr_at_fpr
from farcontext.measure.privacy import epsilon
from farcontext.nn.config import ModelConfig
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.privacy.learning import Recipe
from farcontext.studies.privacy.params import Params
from farcontext.studies.privacy.protocol import attacked, blind, utility
from farcontext.studies.privacy.texts import PUBLIC
from farcontext.studies.trainings import training
from farcontext.train.config import BatchConfig, RunConfig
from farcontext.train.keys import vocabulary_size
from farcontext.train.runs import EvalConfig, costs, result_of, sweep

NAME = "privacy"
COLUMNS = ["attack", "arm", "length", "seed", "count", "late", "prompt", "metric", "value"]
ARMS = ("none", "deduplicated", "private")
FPR = 0.01


class Cell(NamedTuple):
    """One model: its arm, its row length T and its number."""

    arm: str
    length: int
    model: int


# ---------------------------------------------------------------------------------------- trainings


def cells(params: Params) -> list[Cell]:
    """Return all models; the number stands for the same texts in every arm and at every T."""
    sizes = dict.fromkeys(ARMS, (params.defended_lengths, params.defended_models))
    sizes["none"] = params.lengths, params.models
    return [
        Cell(arm, length, model)
        for arm, (lengths, models) in sizes.items()
        for length in lengths
        for model in range(models)
    ]


def public_run(params: Params) -> RunConfig:
    """Return the training of the public model, on other texts."""
    model = ModelConfig(
        kind="decoder",
        vocab_size=vocabulary_size(),
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        mlp_width=2 * params.width,
        max_length=params.document,
        init_std=0.1,
    )
    rows = BatchConfig(
        objective="clm",
        length=params.document,
        rows=params.step_tokens // params.document,
        domains=(PUBLIC,),
    )
    steps = params.public_steps
    return training(
        model, rows, lr=params.public_lr, warmup=params.warmup, seed=params.seed, steps=steps
    )


def recipe_of(params: Params, arm: str) -> Recipe:
    """Return how an arm's models learn."""
    same = {"steps": params.steps, "step_tokens": params.step_tokens, "warmup": params.warmup}
    if arm == "private":
        return Recipe(lr=params.private_lr, clip=params.clip, noise=params.noise, **same)
    return Recipe(lr=params.lr, **same)


def drawn(params: Params, cell: Cell) -> dict[str, Any]:
    """Return what draws a model's texts."""
    return {
        "seed": params.seed,
        "model": cell.model,
        "models": params.models if cell.arm == "none" else params.defended_models,
        "document": params.document,
        "targets": params.targets,
        "carriers": params.carriers,
        "counts": list(params.counts),
        "canaries_each": params.canaries,
        "candidates": params.candidates,
    }


def job_of(params: Params, cell: Cell) -> EvalConfig:
    """Return one model's learning, and the attacks on it."""
    options = drawn(params, cell) | {
        "length": cell.length,
        "recipe": recipe_of(params, cell.arm).model_dump(),
        "repeated": params.repeated if cell.arm == "deduplicated" else 0,
        "prompts": list(params.prompts),
        "validation": params.validation,
    }
    return EvalConfig(attacked, public_run(params), options)


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train and attack every model; write and return the table.

    - lira: auc and tpr (all targets and models); target_auc, member_loss, other_loss (nats a token)
      and found, the share of the models that saw a target whose score passes the threshold of 1 %
      false positives (seed = the target).
    - canary (seed = the model): exposure (bits) and extracted (share); control_exposure and
      control_extracted of canaries that were never planted.
    - blind: auc. none: validation_loss (nats a token of unseen documents; arm public is the model
      that all others start from); epsilon_row and epsilon_document of arm private.
    """
    jobs = {cell: job_of(params, cell) for cell in cells(params)}
    found = {cell: result.rows for cell, result in sweep(jobs).items()}
    rows = [row for cell, told in found.items() for row in _of_model(cell, told)]
    for arm, length in dict.fromkeys(cell[:2] for cell in found):
        told = [part for cell, part in found.items() if cell[:2] == (arm, length)]
        rows += membership(arm, length, told)
    rows += _promises(params) + _blind(params) + _before(params)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _costs(params, found))
    return table


def _of_model(cell: Cell, told: list[Row]) -> list[Row]:
    """Return one model's canaries, means by count, half and prompt, and its utility."""
    base = {"arm": cell.arm, "length": cell.length, "seed": cell.model}
    frame = pd.DataFrame([row for row in told if row["what"] == "canary"])
    rows: list[Row] = []
    for (count, late, prompt), at in frame.groupby(["count", "late", "prompt"]):
        where = {"attack": "canary", "count": count, "late": late, "prompt": prompt}
        for metric in ("extracted", "exposure"):
            value = at[metric].mean()
            name = metric if count else f"control_{metric}"
            if not np.isnan(value):
                rows.append(base | where | {"metric": name, "value": float(value)})
    (utility,) = (row["loss"] for row in told if row["what"] == "model")
    return [*rows, base | {"attack": "none", "metric": "validation_loss", "value": utility}]


def membership(arm: str, length: int, told: list[list[Row]]) -> list[Row]:
    """Return the rows of LiRA at one length: of all together, and by target.

    Args:
        arm: its name.
        length: T.
        told: what each model said.
    """
    targets = [[row for row in rows if row["what"] == "target"] for rows in told]
    losses = np.array([[row["loss"] for row in rows] for rows in targets])
    member = np.array([[row["member"] for row in rows] for rows in targets], bool)
    scores = lira(losses, member)
    inside, outside = scores[member], scores[~member]
    bar = np.sort(outside)[::-1][int(FPR * outside.size)]
    base = {"attack": "lira", "arm": arm, "length": length}
    values: list[tuple[int | None, str, float]] = [
        (None, "auc", auc(inside, outside)),
        (None, "tpr", tpr_at_fpr(inside, outside, FPR)),
    ]
    for target, saw in enumerate(member.T):
        values += [
            (target, "found", float((scores[saw, target] > bar).mean())),
            (target, "target_auc", auc(scores[saw, target], scores[~saw, target])),
            (target, "member_loss", float(losses[saw, target].mean())),
            (target, "other_loss", float(losses[~saw, target].mean())),
        ]
    return [base | {"seed": s, "metric": metric, "value": x} for s, metric, x in values]


def _promises(params: Params) -> list[Row]:
    """Return ε of a row and of a document, by T.

    A document is cut into D / T rows. Half of the targets are seen, so a step draws each row with
    the expected share.
    """
    rows: list[Row] = []
    for length in params.defended_lengths:
        pieces = params.document // length
        shown = (params.targets // 2 + params.carriers) * pieces
        rate = params.step_tokens // length / shown
        same = {"noise": params.noise, "rate": rate, "steps": params.steps, "delta": params.delta}
        promised = {"epsilon_row": epsilon(**same)}
        promised |= {"epsilon_document": epsilon(group=pieces, **same)}
        base = {"attack": "none", "arm": "private", "length": length}
        rows += [base | {"metric": name, "value": value} for name, value in promised.items()]
    return rows


def _blind(params: Params) -> list[Row]:
    names = ("seed", "models", "document", "targets", "carriers")
    job = EvalConfig(blind, None, {name: getattr(params, name) for name in names})
    return [
        {"attack": "blind", "seed": row["model"], "metric": "auc", "value": row["auc"]}
        for row in result_of(job).rows
    ]


def _before(params: Params) -> list[Row]:
    """Return the public model's utility, which has learned none of the documents."""
    same = {"document": params.document, "validation": params.validation}
    jobs = {
        length: EvalConfig(utility, public_run(params), same | {"length": length})
        for length in params.lengths
    }
    base = {"attack": "none", "arm": "public", "metric": "validation_loss"}
    return [
        base | {"length": length, "value": result.rows[0]["loss"]}
        for length, result in sweep(jobs).items()
    ]


def _costs(params: Params, found: dict[Cell, list[Row]]) -> pd.DataFrame:
    """Return the seconds of each model, learning and attacks, and of the public one."""
    seconds = [
        {"arm": cell.arm, "length": cell.length, "model": cell.model, "seconds": row["seconds"]}
        for cell, told in found.items()
        for row in told
        if row["what"] == "model"
    ]
    public = costs({public_run(params): {"arm": "public"}})
    return pd.concat([public, pd.DataFrame(seconds)], ignore_index=True)
