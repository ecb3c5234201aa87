"""How studies train: one builder of runs and one tuner."""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

from farcontext.nn.config import ModelConfig
from farcontext.train.config import BatchConfig, Curriculum, OptimizerConfig, RunConfig
from farcontext.train.runs import final_loss, sweep

Name = TypeVar("Name", bound=Hashable)
Trial = tuple[Name, float, int]  # An arm, a learning rate and a seed.


def training(
    model: ModelConfig,
    batch: Curriculum | BatchConfig,
    *,
    lr: float,
    warmup: int,
    seed: int,
    warmup_share: float = 0.25,
    steps: int | None = None,
    decay: float = 0.2,
    **options: Any,
) -> RunConfig:
    """Return a training run of a model on a study's rows.

    Args:
        model: what is trained.
        batch: a curriculum, whose stages say how long it is, or rows of the corpus.
        lr: the peak learning rate.
        warmup: steps to reach it.
        warmup_share: no more than this share of all steps warm up.
        seed: draws the weights and the rows.
        steps: the number of steps on rows of the corpus.
        decay: the rate falls in this last share of the steps.
        options: further fields of `RunConfig`; it is saved once, at its end, where none says more.
    """
    steps = steps or sum(stage.steps for stage in batch.stages)
    optimizer = OptimizerConfig(lr=lr, warmup=min(warmup, int(warmup_share * steps)), decay=decay)
    options = {"save_every": steps} | options
    return RunConfig(
        model=model, batch=batch, optimizer=optimizer, steps=steps, seed=seed, **options
    )


def best_rates(
    trials: Mapping[Trial[Name], RunConfig],
) -> tuple[dict[Name, float], dict[Trial[Name], float]]:
    """Return the best learning rate of each arm, and each trial's loss.

    The best rate has the least final loss, a mean over the seeds tried. Every arm should have the
    same rates and seeds, and no verdict should use those seeds.

    Args:
        trials: the training of each (arm, rate, seed).
    """
    losses = {trial: final_loss(result) for trial, result in sweep(trials).items()}
    by_rate: dict[Name, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (name, rate, _), loss in losses.items():
        by_rate[name][rate].append(loss)
    best = {
        name: min(sorted(rates), key=lambda rate, rates=rates: float(np.mean(rates[rate])))
        for name, rates in by_rate.items()
    }
    return best, losses
