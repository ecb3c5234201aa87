"""Notebook 05: what masked-language-model pretraining teaches, and a longer window's worth.

An encoder (masked) and a decoder (next token) are trained on real text, some seeds each. The
encoder learns labelled tasks beside an untrained one and TF-IDF, and is held against n-grams of the
same text. Claims M1, M1-rival, M1-loss and M2 of claims.yaml read the table.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from farcontext import files
from farcontext.measure import losses as evaluation
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.mlm_pretraining import blanks, labels
from farcontext.studies.mlm_pretraining.arms import (
    Arm,
    decoder_run,
    decoders,
    encoders,
    longest,
)
from farcontext.studies.mlm_pretraining.params import Params
from farcontext.train import checkpoint
from farcontext.train.config import RunConfig
from farcontext.train.keys import tokens_folder, vocabulary_size
from farcontext.train.loop import RunResult
from farcontext.train.runs import EvalConfig, costs, grid, result_of, sweep

NAME = "mlm_pretraining"
COLUMNS = [
    "arm",
    "seed",
    "tokens",
    "read",
    "sees",
    "task",
    "labels",
    "domain",
    "context",
    "far",
    "step",
    "metric",
    "value",
]
DOMAINS = ("plays", "manuals", "sanguo")
NGRAMS = {1: "unigram", 2: "bigram", 3: "trigram", 5: "5-gram"}  # The keys are the orders.
# N-grams are counted on the rows that the encoder has read, or on the whole training split.
READ = ("same tokens", "all tokens")
LEARNERS = ("pretrained", "scratch", "tf_idf")
# The table's learning curves have at most so many points: means of equal stretches of steps.
CURVE_POINTS = 40


# -------------------------------------------------------------------------------------------- study


def run(params: Params) -> pd.DataFrame:
    """Train and evaluate every arm; write and return the table.

    The table has one row for each observation.

    metric: loss, validation_loss (nats a scored token, by step) · accuracy (share of tested
    passages, by learner, task and number of labels) · nats_per_byte (masked targets of test text,
    by what an n-gram has read and sees), gain_over_ngrams (of the encoder, over the best n-gram),
    gain_over_uniform; final_… of the longest training, by domain · context_loss, context_cost (nats
    a token, by w and far), context_gain_over_uniform · blank_right, blank_p (share of blanks filled
    right; probability of the word).
    """
    arms = encoders(params) | decoders(params)
    trained = sweep(arms)
    rows = [row for arm, result in trained.items() for row in _curve(arm, result)]
    rows += _labels(params) + _masked(params) + _context(params)
    filled = fill_in(params)
    rows += _filled(filled)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(arms))
    tables.write_text(shown_blanks(filled), NAME, "blanks")
    for arms, name in ((encoders(params), "encoder"), (decoders(params), "decoder")):
        _export(trained[next(iter(arms))], name)
    return table


def _curve(arm: Arm, result: RunResult) -> list[Row]:
    base = _columns(arm)
    stretch = max(1, math.ceil(len(result.rows) / CURVE_POINTS))
    losses = [row["loss"] for row in result.rows]
    rows = [
        base | {"step": start + len(part), "metric": "loss", "value": float(np.mean(part))}
        for start in range(0, len(losses), stretch)
        if (part := losses[start : start + stretch])
    ]
    held_out = [
        (row["step"], row["validation_loss"]) for row in result.rows if "validation_loss" in row
    ]
    return rows + [
        base | {"step": step, "metric": "validation_loss", "value": loss} for step, loss in held_out
    ]


def _columns(arm: Arm) -> Row:
    return {"arm": arm.name, "seed": arm.seed, "tokens": arm.tokens}


# --------------------------------------------------------------------------------------- M1: labels


def learning(
    params: Params, learner: str, task: str, seed: int, rates: Sequence[float]
) -> EvalConfig:
    """Return the evaluation of one learner on one task.

    Args:
        rates: AdamW's of fine-tuning, or C of the logistic regression, for each number of labels.
    """
    options: Row = {"task": task, "items": seed, "labels": params.labels, "tests": params.tests}
    options["rates"] = tuple(rates)
    if learner == "tf_idf":
        return EvalConfig(labels.tf_idf, None, options)
    options |= {"steps": params.tune_steps, "rows": params.tune_rows}
    options |= {"pretrained": learner == "pretrained"}
    return EvalConfig(labels.fine_tuned, longest(params, seed), options)


def _labels(params: Params) -> list[Row]:
    """Return accuracy by learner, task and number of labels."""
    cells = grid(arm=LEARNERS, task=labels.TASKS, seed=params.seeds)
    jobs = {x: learning(params, *x, params.chosen[x.arm]) for x in cells}
    return [
        cell._asdict() | {"labels": row["labels"], "metric": "accuracy", "value": row["accuracy"]}
        for cell, result in sweep(jobs).items()
        for row in result.rows
    ]


# ----------------------------------------------------------------------------------------- M1: loss


def _masked(params: Params) -> list[Row]:
    """Return nats a byte of encoders and n-grams, and the encoders' gains.

    All of a seed have the same targets.
    """
    same = {
        "domains": DOMAINS,
        "length": params.encoder_length,
        "rows": params.test_rows,
        "rate": params.mask_rate,
    }
    arms = encoders(params)
    counted = same | {"orders": tuple(NGRAMS)}
    jobs: dict[Any, EvalConfig] = {
        (arm, READ[0]): EvalConfig(
            evaluation.ngram_loss, None, counted | {"items": [arm.seed], "read": _read(run)}
        )
        for arm, run in arms.items()
    }
    jobs[READ[1]] = EvalConfig(
        evaluation.ngram_loss,
        None,
        counted | {"items": params.seeds, "read": {"limit": params.limit}},
    )
    jobs |= {
        arm: EvalConfig(evaluation.masked_loss, run, same | {"items": arm.seed})
        for arm, run in arms.items()
    }
    scored = sweep(jobs)
    rows = []
    for arm in arms:
        everything = [row for row in scored[READ[1]].rows if row["items"] == arm.seed]
        ngrams = {READ[0]: scored[arm, READ[0]].rows, READ[1]: everything}
        rows += _against_ngrams(arm, scored[arm].rows, ngrams)
    most = max(arm.tokens for arm in arms)
    gains = [row for row in rows if row["metric"].startswith("gain") and row["domain"] != "all"]
    final = [row | {"metric": f"final_{row['metric']}"} for row in gains if row["tokens"] == most]
    return rows + final


def _read(run: RunConfig) -> Row:
    return {"batch": run.batch.model_dump(mode="json"), "seed": run.seed, "steps": run.steps}


def _against_ngrams(arm: Arm, own: Sequence[Row], ngrams: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return an encoder's nats a byte beside the n-grams'.

    All are of one seed and budget.
    """
    value, base = _per_byte(own), _columns(arm)
    uniform = _per_byte([row | {"nats": row["tokens"] * uniform_loss()} for row in own])
    rows = []
    for domain in value:
        at = base | {"domain": domain}
        rows.append(at | {"metric": "nats_per_byte", "value": value[domain]})
        gain = uniform[domain] - value[domain]
        rows.append(at | {"metric": "gain_over_uniform", "value": gain})
    for (read, counted), sees in grid(ngrams=ngrams.items(), sees=evaluation.SEES):
        found = {
            name: _per_byte([r for r in counted if (r["order"], r["sees"]) == (order, sees)])
            for order, name in NGRAMS.items()
        }
        for domain in value:
            at = base | {"read": read, "sees": sees, "domain": domain}
            rows += [
                at | {"arm": name, "metric": "nats_per_byte", "value": each[domain]}
                for name, each in found.items()
            ]
            best = min(each[domain] for each in found.values())
            rows.append(at | {"metric": "gain_over_ngrams", "value": best - value[domain]})
    return rows


def uniform_loss() -> float:
    """Return ln V, a uniform guess's loss in nats a token."""
    return math.log(vocabulary_size())


def _per_byte(rows: Sequence[Row]) -> dict[str, float]:
    """Return nats a byte of each domain, and of all together."""
    values = {row["domain"]: row["nats"] / row["bytes"] for row in rows}
    return values | {"all": sum(row["nats"] for row in rows) / sum(row["bytes"] for row in rows)}


# ----------------------------------------------------------------------------------------------- M2


def _context(params: Params) -> list[Row]:
    options = {
        "domain": params.context_domain,
        "length": params.decoder_length,
        "rows": params.context_rows,
        "contexts": params.contexts,
    }
    jobs = {
        arm: EvalConfig(evaluation.context_loss, run, options | {"items": arm.seed})
        for arm, run in decoders(params).items()
    }
    rows = []
    for arm, result in sweep(jobs).items():
        base = _columns(arm) | {"domain": params.context_domain}
        losses = pd.DataFrame(result.rows)
        rows += [base | row for row in _context_rows(losses)]
        whole = losses[losses["far"] == "full"]["loss"].mean()
        rows.append(base | {"metric": "context_gain_over_uniform", "value": uniform_loss() - whole})
    return rows


def _context_rows(losses: pd.DataFrame) -> list[Row]:
    """Return mean loss by w and far, and its cost.

    The cost is paired with the same rows under full context, then averaged.
    """
    wide = losses.pivot(index=["context", "row"], columns="far", values="loss")
    rows = []
    for (context, far), loss in losses.groupby(["context", "far"])["loss"].mean().items():
        at = {"context": int(context), "far": far}
        rows.append(at | {"metric": "context_loss", "value": float(loss)})
        cost = (wide[far] - wide["full"]).xs(context).mean()
        rows.append(at | {"metric": "context_cost", "value": float(cost)})
    return rows


def context_check(params: Params) -> Row:
    """Return how far hiding far tokens is from cutting them off.

    Hidden tokens leave the positions unchanged; the difference is in logits.
    """
    run = decoder_run(params, params.seeds[0])
    options = {
        "domain": params.context_domain,
        "length": params.decoder_length,
        "rows": 4,
        "context": params.contexts[0],
    }
    return result_of(EvalConfig(evaluation.hidden_against_truncated, run, options)).rows[0]


# ------------------------------------------------------------------------------ what is left behind


def fill_in(params: Params) -> pd.DataFrame:
    """Return what each seed's encoder puts into the blanks of each domain."""
    jobs = {
        (seed, domain): EvalConfig(
            blanks.fill_in, longest(params, seed), {"domain": domain, "count": params.blanks}
        )
        for seed, domain in grid(seed=params.seeds, domain=DOMAINS)
    }
    rows = [
        {"seed": seed} | row for (seed, _), result in sweep(jobs).items() for row in result.rows
    ]
    return pd.DataFrame(rows)


def _filled(filled: pd.DataFrame) -> list[Row]:
    """Return how well blanks are filled, by seed and domain."""
    rows = []
    for (seed, domain), at in filled.groupby(["seed", "domain"]):
        base = {"arm": "encoder", "seed": int(seed), "domain": domain}
        rows += [
            base | {"metric": "blank_right", "value": float(at["right"].mean())},
            base | {"metric": "blank_p", "value": float(at["p"].mean())},
            base | {"arm": "unigram", "metric": "blank_p", "value": float(at["unigram"].mean())},
        ]
    return rows


def shown_blanks(filled: pd.DataFrame, words: int = 4) -> pd.DataFrame:
    """Return each domain's first blanks, as the first seed fills them."""
    own = filled[filled["seed"] == filled["seed"].iloc[0]]
    return own.groupby("domain").head(words).drop(columns=["seed", "right"]).round(3)


def _cost(arms: Mapping[Arm, RunConfig]) -> pd.DataFrame:
    each = costs({run: _columns(arm) for arm, run in arms.items()})
    return each.assign(tokens_per_second=each["tokens"] / each["seconds"])


def _export(result: RunResult, name: str) -> None:
    """Copy a run's last checkpoint, its config and the tokenizer.

    They go to where DVC tracks them and readers find them.
    """
    found = checkpoint.latest(result.folder)
    wanted = (
        found.folder / "model.safetensors",
        result.folder / "config.json",
        tokens_folder() / "tokenizer.json",
    )
    with files.folder_atomic(files.build("studies", NAME, "models", name)) as folder:
        for path in wanted:
            files.write_atomic(folder / path.name, path.read_bytes())
