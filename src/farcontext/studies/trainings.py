"""How studies train: one builder of runs and one tuner.

A run never tunes: `farcontext tune` records what was tried in results/tuning, and what it chose
stands in params.yaml.
"""

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import pandas as pd

from farcontext.measure.stats import t_interval
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


def tried_rates(trials: Mapping[Trial[Name], RunConfig]) -> pd.DataFrame:
    """Return the final loss of each trial: columns arm, lr, seed, value.

    Every arm should have the same rates and seeds, and no verdict should use those seeds.

    Args:
        trials: the training of each (arm, rate, seed).
    """
    losses = {trial: final_loss(result) for trial, result in sweep(trials).items()}
    return pd.DataFrame(
        [(*trial, loss) for trial, loss in losses.items()], columns=["arm", "lr", "seed", "value"]
    )


def best_rates(losses: pd.DataFrame) -> tuple[float, ...]:
    """Return an arm's best rate, and the next one if tied.

    The best has the least final loss.

    They tie where the 95 % interval of their paired difference over the tuning seeds holds zero:
    then rounding could choose the other one on another CPU, so a study runs both.

    Args:
        losses: columns lr, seed, value.
    """
    wide = losses.pivot_table(index="seed", columns="lr", values="value")
    first, *rest = wide.mean().sort_values(kind="stable").index
    if not rest:
        return (float(first),)
    gap = t_interval(list(wide[rest[0]] - wide[first]))
    tied = not gap.low > 0
    return (float(first), float(rest[0])) if tied else (float(first),)
