"""Notebook 05: masked-language-model pretraining on real text, against n-grams, and what a longer window is worth.

An encoder (masked) and a decoder (next token), some seeds each; M1 and M2 of claims.yaml read the table.
"""

import math
import shutil
from collections.abc import Sequence

import numpy as np
import pandas as pd

from longctx import checkpoint, evaluation, files, results
from longctx.config import BatchConfig, ModelConfig, OptimizerConfig, RunConfig
from longctx.params import MlmPretraining as Params
from longctx.runs import EvalConfig, RunResult, sweep
from longctx.tokenizer import vocabulary_size
from longctx.training import Row, tokens_folder

NAME = "mlm_pretraining"
COLUMNS = ["arm", "mask_rate", "layout", "seed", "domain", "context", "far", "step", "metric", "value"]
DOMAINS = ("plays", "manuals", "sanguo")
NGRAMS = {1: "unigram", 2: "bigram", 3: "trigram", 4: "4-gram", 5: "5-gram"}
CURVE_POINTS = 40  # of a learning curve in the table: means over equal stretches of steps


def _model(params: Params, kind: str) -> ModelConfig:
    modernbert = {"norm": "layer", "mlp": "geglu", "embedding_norm": True}
    llama = {"norm": "rms", "mlp": "swiglu"}
    return ModelConfig(
        kind=kind,
        vocab_size=vocabulary_size(tokens_folder()),
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        mlp_width=2 * params.width,
        max_length=params.length,
        init_std=params.init_std,
        **(modernbert if kind == "encoder" else llama),
    )


def encoder_run(params: Params, seed: int, mask_rate: float, layout: str) -> RunConfig:
    """Return the masked language model of one arm and seed."""
    return _run(params, "encoder", seed, steps=params.encoder_steps, lr=params.encoder_lr, mask_rate=mask_rate, layout=layout)


def decoder_run(params: Params, seed: int) -> RunConfig:
    """Return the next-token model of one seed."""
    return _run(params, "decoder", seed, steps=params.decoder_steps, lr=params.decoder_lr, domains=params.decoder_domains)


def _run(params: Params, kind: str, seed: int, *, steps: int, lr: float, **batch: object) -> RunConfig:
    objective = "mlm" if kind == "encoder" else "clm"
    return RunConfig(
        model=_model(params, kind),
        batch=BatchConfig(objective=objective, length=params.length, rows=params.rows, limit=params.limit, **batch),
        optimizer=OptimizerConfig(lr=lr, warmup=min(50, steps // 4)),
        steps=steps,
        save_every=max(1, steps // 4),
        evaluate_every=max(1, steps // 10),
        seed=seed,
        dtype=params.dtype,
    )


def run(params: Params) -> pd.DataFrame:
    """Train and evaluate every arm; write and return the table, one row an observation.

    metric: loss, validation_loss (nats a scored token, by step) · nats_per_byte, gain_over_best_ngram,
    gain_over_uniform (masked targets of the test split) · context_loss, context_cost (nats a token, by w and far).
    """
    arms = [(rate, layout) for rate in params.mask_rates for layout in params.layouts]
    encoders = {(seed, *arm): encoder_run(params, seed, *arm) for arm in arms for seed in params.seeds}
    decoders = {seed: decoder_run(params, seed) for seed in params.seeds}
    trained = sweep([*encoders.values(), *decoders.values()])
    keys = [("encoder", *key) for key in encoders] + [("decoder", seed, None, None) for seed in decoders]
    rows = [row for key, result in zip(keys, trained, strict=True) for row in _curve(key, result)]
    rows += _masked(params, encoders)
    rows += _context(params, encoders, decoders)
    table = results.tidy(rows, COLUMNS)
    results.write_table(table, NAME, params, _cost(keys, trained))
    _export(trained[0], "encoder")
    _export(trained[len(encoders)], "decoder")
    return table


def _curve(key: tuple, result: RunResult) -> list[Row]:
    arm, seed, rate, layout = key
    base = {"arm": arm, "seed": seed, "mask_rate": rate, "layout": layout}
    stretch = max(1, math.ceil(len(result.rows) / CURVE_POINTS))
    losses = [row["loss"] for row in result.rows]
    rows = [
        base | {"step": start + len(part), "metric": "loss", "value": float(np.mean(part))}
        for start in range(0, len(losses), stretch)
        if (part := losses[start : start + stretch])
    ]
    held_out = (row for row in result.rows if "validation_loss" in row)
    return rows + [base | {"step": r["step"], "metric": "validation_loss", "value": r["validation_loss"]} for r in held_out]


# ------------------------------------------------------------------------------------------------------------- M1


def _masked(params: Params, encoders: dict[tuple, RunConfig]) -> list[Row]:
    """Loss in nats a byte of every encoder and n-gram on the same masked targets; then the encoder's gains."""
    same = {"domains": DOMAINS, "length": params.length, "rows": params.test_rows, "rate": params.mask_rates[0]}
    jobs = [EvalConfig(evaluation.masked_loss, run, same) for run in encoders.values()]
    *scored, counted = sweep([*jobs, EvalConfig(evaluation.ngram_loss, None, same | {"orders": tuple(NGRAMS)})])
    rows, ngram = [], {}
    for order, name in NGRAMS.items():
        found = [row for row in counted.rows if row["order"] == order]
        ngram[name] = _per_byte(found)
        rows += [{"arm": name, "domain": d, "metric": "nats_per_byte", "value": v} for d, v in ngram[name].items()]
    best = {domain: min(values[domain] for values in ngram.values()) for domain in (*DOMAINS, "all")}
    for (seed, rate, layout), result in zip(encoders, scored, strict=True):
        base = {"arm": "encoder", "seed": seed, "mask_rate": rate, "layout": layout}
        uniform = _per_byte([row | {"nats": row["tokens"] * math.log(_model(params, "encoder").vocab_size)} for row in result.rows])
        for domain, value in _per_byte(result.rows).items():
            at = base | {"domain": domain}
            rows.append(at | {"metric": "nats_per_byte", "value": value})
            rows.append(at | {"metric": "gain_over_best_ngram", "value": best[domain] - value})
            rows.append(at | {"metric": "gain_over_uniform", "value": uniform[domain] - value})
    return rows


def _per_byte(rows: Sequence[Row]) -> dict[str, float]:
    """Return nats a byte of each domain, and of all their bytes together."""
    values = {row["domain"]: row["nats"] / row["bytes"] for row in rows}
    return values | {"all": sum(row["nats"] for row in rows) / sum(row["bytes"] for row in rows)}


# ------------------------------------------------------------------------------------------------------------- M2


def _context(params: Params, encoders: dict[tuple, RunConfig], decoders: dict[int, RunConfig]) -> list[Row]:
    first = (params.mask_rates[0], params.layouts[0])
    runs = [("encoder", seed, run) for (seed, *arm), run in encoders.items() if tuple(arm) == first]
    runs += [("decoder", seed, run) for seed, run in decoders.items()]
    cases = [(arm, seed, run, domain) for arm, seed, run in runs for domain in params.context_domains]
    options = {"length": params.length, "rows": params.test_rows, "contexts": params.contexts}
    found = sweep([EvalConfig(evaluation.context_loss, run, options | {"domain": d}) for _, _, run, d in cases])
    uniform = math.log(_model(params, "decoder").vocab_size)
    rows = []
    for (arm, seed, _, domain), result in zip(cases, found, strict=True):
        base = {"arm": arm, "seed": seed, "domain": domain}
        rows += [base | row for row in _context_rows(pd.DataFrame(result.rows))]
        whole = next(row["value"] for row in rows[::-1] if row["metric"] == "context_loss" and row["far"] == "full")
        rows.append(base | {"metric": "gain_over_uniform", "value": uniform - whole})
    return rows


def _context_rows(losses: pd.DataFrame) -> list[Row]:
    """Return mean loss by w and far, and its cost: paired with the same rows under full context, then averaged."""
    wide = losses.pivot(index=["context", "row"], columns="far", values="loss")
    rows = []
    for (context, far), loss in losses.groupby(["context", "far"])["loss"].mean().items():
        at = {"context": int(context), "far": far}
        rows.append(at | {"metric": "context_loss", "value": float(loss)})
        cost = (wide[far] - wide["full"]).xs(context).mean()
        rows.append(at | {"metric": "context_cost", "value": float(cost)})
    return rows


# ---------------------------------------------------------------------------------------------- what is left behind


def _cost(keys: list[tuple], trained: list[RunResult]) -> pd.DataFrame:
    costs = ({"arm": key[0], "seed": key[1]} | result.cost for key, result in zip(keys, trained, strict=True))
    return pd.DataFrame(costs).assign(tokens_per_second=lambda frame: frame["tokens"] / frame["seconds"])


def _export(result: RunResult, name: str) -> None:
    """Copy a run's last checkpoint and its config to where DVC tracks it and readers find it."""
    target = files.build("models", NAME, name)
    found = checkpoint.latest(result.folder)
    with files.folder_atomic(target) as folder:
        for path in sorted(found.folder.iterdir()):
            if path.name.startswith(("model", "state")):
                files.write_atomic(folder / path.name, path.read_bytes())
        shutil.copy(result.folder / "config.json", folder / "config.json")
        shutil.copy(tokens_folder() / "tokenizer.json", folder / "tokenizer.json")
