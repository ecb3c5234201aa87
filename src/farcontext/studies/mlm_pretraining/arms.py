"""What notebook 05 trains: encoders of several budgets, and decoders."""

from typing import Any, NamedTuple

from farcontext.nn.config import ModelConfig
from farcontext.studies.mlm_pretraining.params import Params
from farcontext.studies.trainings import training
from farcontext.train.config import BatchConfig, RunConfig
from farcontext.train.keys import vocabulary_size
from farcontext.train.runs import grid


class Arm(NamedTuple):
    """A training run, as the table names it."""

    name: str
    seed: int
    tokens: int  # It is trained on so many.


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
        max_length=params.encoder_length if kind == "encoder" else params.decoder_length,
        init_std=params.init_std,
        smear=params.smear,
        **(modernbert if kind == "encoder" else llama),
    )


def encoder_run(params: Params, seed: int, steps: int) -> RunConfig:
    """Return the masked language model of one seed and budget."""
    batch = BatchConfig(
        objective="mlm",
        length=params.encoder_length,
        rows=params.encoder_step_tokens // params.encoder_length,
        mask_rate=params.mask_rate,
        limit=params.limit,
    )
    rates = {"lr": params.encoder_lr, "muon": params.encoder_muon}
    return _run(params, "encoder", batch, seed=seed, steps=steps, **rates)


def decoder_run(params: Params, seed: int) -> RunConfig:
    """Return the next-token model of one seed."""
    batch = BatchConfig(
        objective="clm",
        length=params.decoder_length,
        rows=params.decoder_step_tokens // params.decoder_length,
        domains=params.decoder_domains,
        limit=params.limit,
    )
    rates = {"lr": params.decoder_lr, "muon": params.decoder_muon}
    return _run(params, "decoder", batch, seed=seed, steps=params.decoder_steps, **rates)


def _run(
    params: Params, kind: str, batch: BatchConfig, *, muon: float, steps: int, **options: Any
) -> RunConfig:
    run = training(
        _model(params, kind),
        batch,
        warmup=params.warmup,
        steps=steps,
        save_every=max(1, steps // 4),
        evaluate_every=max(1, steps // 10),
        dtype=params.dtype,
        **options,
    )
    return run.model_copy(update={"optimizer": run.optimizer.model_copy(update={"muon": muon})})


def encoders(params: Params) -> dict[Arm, RunConfig]:
    """Return the encoders of every seed and budget, the longest first."""
    budgets = sorted(params.encoder_steps, reverse=True)
    return {
        Arm("encoder", seed, steps * params.encoder_step_tokens): encoder_run(params, seed, steps)
        for steps, seed in grid(steps=budgets, seed=params.seeds)
    }


def longest(params: Params, seed: int) -> RunConfig:
    """Return the encoder of a seed that was trained longest."""
    return encoder_run(params, seed, max(params.encoder_steps))


def decoders(params: Params) -> dict[Arm, RunConfig]:
    """Return the decoder of every seed."""
    tokens = params.decoder_steps * params.decoder_step_tokens
    return {Arm("decoder", seed, tokens): decoder_run(params, seed) for seed in params.seeds}
