"""Notebook 05: masked-language-model pretraining, and the worth of a longer window.

An encoder (masked) and a decoder (next token) are trained on real text, some seeds each, and the
encoder is held against n-grams. Claims M1 and M2 of claims.yaml read the table.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from farcontext import files
from farcontext.measure import losses as evaluation
from farcontext.nn.config import ModelConfig
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.mlm_pretraining.params import Params
from farcontext.studies.trainings import training
from farcontext.train import checkpoint
from farcontext.train.config import BatchConfig, RunConfig
from farcontext.train.keys import tokens_folder, vocabulary_size
from farcontext.train.loop import RunResult
from farcontext.train.runs import EvalConfig, costs, grid, result_of, sweep

NAME = "mlm_pretraining"
COLUMNS = [
    "arm",
    "mask_rate",
    "layout",
    "seed",
    "domain",
    "context",
    "far",
    "step",
    "metric",
    "value",
]
DOMAINS = ("plays", "manuals", "sanguo")
NGRAMS = {1: "unigram", 2: "bigram", 3: "trigram", 5: "5-gram"}  # The keys are the orders.
BLANKS = (  # Each is a sentence and the token to guess.
    ("I thank you, good my lord, with all my heart.", " lord"),
    ("The ID of the resource to list the tags for.", " resource"),
    ("却说曹操引兵追赶。", "曹操"),
)
# The table's learning curves have at most so many points: means of equal stretches of steps.
CURVE_POINTS = 40


class Arm(NamedTuple):
    """The name of a training run in the table.

    A decoder has no mask rate or layout.
    """

    name: str
    seed: int
    mask_rate: float | None = None
    layout: str | None = None

    def main(self, params: Params) -> bool:
        """Return whether this arm is one of the verdicts.

        Those are the decoder, and the encoder of the first mask rate and layout.
        """
        return self.name == "decoder" or (self.mask_rate, self.layout) == (
            params.mask_rates[0],
            params.layouts[0],
        )


def _model(params: Params, kind: str) -> ModelConfig:
    window = {"window": params.window, "global_every": 3} if params.window else {}
    modernbert = {"norm": "layer", "mlp": "geglu", "embedding_norm": True, **window}
    llama = {"norm": "rms", "mlp": "swiglu"}
    return ModelConfig(
        kind=kind,
        vocab_size=vocabulary_size(),
        width=params.width,
        layers=params.encoder_layers if kind == "encoder" else params.decoder_layers,
        heads=params.heads,
        mlp_width=2 * params.width,
        max_length=_length(params, kind),
        init_std=params.init_std,
        smear=params.smear,
        **(modernbert if kind == "encoder" else llama),
    )


def _length(params: Params, kind: str) -> int:
    return params.encoder_length if kind == "encoder" else params.decoder_length


def encoder_run(params: Params, seed: int, mask_rate: float, layout: str) -> RunConfig:
    """Return the masked language model of one arm and seed."""
    rows = params.encoder_step_tokens // params.encoder_length
    batch = BatchConfig(
        objective="mlm",
        length=params.encoder_length,
        rows=rows,
        layout=layout,
        mask_rate=mask_rate,
        limit=params.limit,
    )
    return _run(params, "encoder", batch, seed, params.encoder_steps, params.encoder_lr)


def decoder_run(params: Params, seed: int) -> RunConfig:
    """Return the next-token model of one seed."""
    rows = params.decoder_step_tokens // params.decoder_length
    batch = BatchConfig(
        objective="clm",
        length=params.decoder_length,
        rows=rows,
        domains=params.decoder_domains,
        limit=params.limit,
    )
    return _run(params, "decoder", batch, seed, params.decoder_steps, params.decoder_lr)


def _run(
    params: Params, kind: str, batch: BatchConfig, seed: int, steps: int, lr: float
) -> RunConfig:
    return training(
        _model(params, kind),
        batch,
        lr=lr,
        warmup=params.warmup,
        seed=seed,
        steps=steps,
        save_every=max(1, steps // 4),
        evaluate_every=max(1, steps // 10),
        dtype=params.dtype,
    )


def run(params: Params) -> pd.DataFrame:
    """Train and evaluate every arm; write and return the table.

    The table has one row for each observation.

    metric: loss, validation_loss (nats a scored token, by step) · nats_per_byte,
    gain_over_best_ngram, gain_over_uniform (masked targets of the test split) · context_loss,
    context_cost (nats a token, by w and far), context_gain_over_uniform (nats a token).
    """
    arms = runs_of(params)
    trained = sweep(arms)
    rows = [row for arm, result in trained.items() for row in _curve(arm, result)]
    rows += _masked(params, {arm: job for arm, job in arms.items() if arm.name == "encoder"})
    rows += _context(params, {arm: job for arm, job in arms.items() if arm.main(params)})
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(table, NAME, params, _cost(arms))
    tables.write_text(fill_in(params), NAME, "blanks")
    for name in ("encoder", "decoder"):
        _export(next(result for arm, result in trained.items() if arm.name == name), name)
    return table


def runs_of(params: Params) -> dict[Arm, RunConfig]:
    """Return every arm's training run, the longest first."""
    encoders = [
        Arm("encoder", s, r, x)
        for r in params.mask_rates
        for x in params.layouts
        for s in params.seeds
    ]
    return {arm: encoder_run(params, arm.seed, arm.mask_rate, arm.layout) for arm in encoders} | {
        Arm("decoder", seed): decoder_run(params, seed) for seed in params.seeds
    }


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
    return {"arm": arm.name, "seed": arm.seed, "mask_rate": arm.mask_rate, "layout": arm.layout}


# ----------------------------------------------------------------------------------------------- M1


def _masked(params: Params, encoders: dict[Arm, RunConfig]) -> list[Row]:
    """Return nats a byte of encoders and n-grams, and gains.

    All have the same targets; the gains are the encoders'.
    """
    same = {
        "domains": DOMAINS,
        "length": params.encoder_length,
        "rows": params.test_rows,
        "rate": params.mask_rates[0],
    }
    counting = EvalConfig(
        evaluation.ngram_loss, None, same | {"orders": tuple(NGRAMS), "limit": params.limit}
    )
    scored = sweep(
        {"n-grams": counting}
        | {a: EvalConfig(evaluation.masked_loss, r, same) for a, r in encoders.items()}
    )
    counted, rows, ngram = scored.pop("n-grams"), [], {}
    for order, name in NGRAMS.items():
        ngram[name] = _per_byte([row for row in counted.rows if row["order"] == order])
        rows += [
            {"arm": name, "domain": d, "metric": "nats_per_byte", "value": v}
            for d, v in ngram[name].items()
        ]
    uniform = _per_byte(
        [row | {"nats": row["tokens"] * uniform_loss()} for row in next(iter(scored.values())).rows]
    )
    for arm, result in scored.items():
        for domain, value in _per_byte(result.rows).items():
            best = min(values[domain] for values in ngram.values())
            gains = {
                "gain_over_best_ngram": best - value,
                "gain_over_uniform": uniform[domain] - value,
            }
            for metric, number in ({"nats_per_byte": value} | gains).items():
                rows.append(_columns(arm) | {"domain": domain, "metric": metric, "value": number})
    return rows


def uniform_loss() -> float:
    """Return ln V, a uniform guess's loss in nats a token."""
    return math.log(vocabulary_size())


def _per_byte(rows: Sequence[Row]) -> dict[str, float]:
    """Return nats a byte of each domain, and of all together."""
    values = {row["domain"]: row["nats"] / row["bytes"] for row in rows}
    return values | {"all": sum(row["nats"] for row in rows) / sum(row["bytes"] for row in rows)}


# ----------------------------------------------------------------------------------------------- M2


def _context(params: Params, runs: dict[Arm, RunConfig]) -> list[Row]:
    jobs = {
        (arm, domain): EvalConfig(
            evaluation.context_loss, runs[arm], _context_options(params, arm.name, domain)
        )
        for arm, domain in grid(arm=runs, domain=params.context_domains)
    }
    rows = []
    for (arm, domain), result in sweep(jobs).items():
        base = _columns(arm) | {"domain": domain}
        losses = pd.DataFrame(result.rows)
        rows += [base | row for row in _context_rows(losses)]
        whole = losses[losses["far"] == "full"]["loss"].mean()
        rows.append(base | {"metric": "context_gain_over_uniform", "value": uniform_loss() - whole})
    return rows


def _context_options(params: Params, kind: str, domain: str) -> Row:
    """Keep the contexts that leave as many far tokens as targets."""
    length = _length(params, kind)
    contexts = tuple(w for w in params.contexts if w + 2 * evaluation.TARGETS <= length)
    return {"domain": domain, "length": length, "rows": params.test_rows, "contexts": contexts}


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
        "domain": params.context_domains[0],
        "length": params.decoder_length,
        "rows": 4,
        "context": params.contexts[0],
    }
    return result_of(EvalConfig(evaluation.hidden_against_truncated, run, options)).rows[0]


# ------------------------------------------------------------------------------ what is left behind


def fill_in(params: Params) -> pd.DataFrame:
    """Return what the first encoder puts into each of BLANKS.

    A row has the probability of the true token, and the likeliest three.
    """
    run = encoder_run(params, params.seeds[0], params.mask_rates[0], params.layouts[0])
    found = result_of(EvalConfig(evaluation.blanks, run, {"sentences": BLANKS}))
    return pd.DataFrame(found.rows)[["text", "true", "p", "best"]].round(3)


def text_table() -> pd.DataFrame:
    """Return documents, tokens and bytes a token of each domain and split."""
    card = files.read_json(tokens_folder() / "card.json", "domains")["domains"]
    rows = [
        {"domain": d, "split": s} | card[d][s]
        for d in DOMAINS
        for s in ("train", "validation", "test")
    ]
    columns = ["documents", "tokens", "bytes_per_token"]
    return pd.DataFrame(rows).set_index(["domain", "split"])[columns].round(2)


def _cost(arms: dict[Arm, RunConfig]) -> pd.DataFrame:
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
