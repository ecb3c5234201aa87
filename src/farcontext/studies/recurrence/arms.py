"""The arms of notebook 02: models of equal size, and trainings."""

import bisect
import functools
from typing import NamedTuple

import torch

from farcontext.nn.config import RECURRENT, ModelConfig
from farcontext.studies.recurrence.params import Params
from farcontext.studies.trainings import training
from farcontext.tasks import flip_flop, recall
from farcontext.train.config import Curriculum, RunConfig, Stage, Task
from farcontext.train.loop import build_model

IGNORES = 0.8  # In training, this share of flip-flop's instructions only fills.


class Arm(NamedTuple):
    """The name of a training run in the table."""

    task: str
    name: str
    seed: int
    rate: float


@functools.cache
def parameter_count(config: ModelConfig) -> int:
    """Return how many numbers a model learns."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config).parameters())


def model_of(params: Params, task: str, arm: str) -> ModelConfig:
    """Return an arm's model, sized to the task's number of parameters.

    The state's width, or the MLP's, is the one that comes nearest to that number.
    """
    wanted = params.recall_parameters if task == "recall" else params.flip_flop_parameters

    def of(mlp_width: int) -> ModelConfig:
        shape = {"width": params.recurrent_width, "layers": 1}
        if (
            arm not in RECURRENT
        ):  # Without smeared keys and its own output matrix, attention may stay on a plateau.
            shape = {"width": params.attention_width, "layers": params.attention_layers}
            shape |= {"mlp": "gelu", "tied": False, "smear": True}
        vocabulary = recall.VOCABULARY if task == "recall" else flip_flop.VOCABULARY
        return ModelConfig(
            kind=arm if arm in RECURRENT else "decoder",
            vocab_size=vocabulary + 1,
            heads=params.heads,
            mlp_width=mlp_width,
            max_length=max(params.recall_lengths) if task == "recall" else params.flip_flop_length,
            init_std=0.1,
            embedding_std=1.0,
            **shape,
        )

    above = 1 + bisect.bisect_left(
        range(1, wanted), wanted, key=lambda width: parameter_count(of(width))
    )
    return min(
        (of(max(1, width)) for width in (above - 1, above)),
        key=lambda c: abs(parameter_count(c) - wanted),
    )


def state_numbers(model: ModelConfig, length: int) -> int:
    """Return how many numbers a model keeps from token to token.

    They are a recurrent state, or the keys and values of `length` tokens.
    """
    if model.kind in RECURRENT:
        with torch.device("meta"):
            return build_model(model).state_numbers
    return 2 * model.layers * (model.kv_heads or model.heads) * model.head_width * length


def curriculum(params: Params, task: str) -> Curriculum:
    """Return what every arm of a task is trained on.

    Every arm gets the same rows in the same order.
    """
    if task == "flip_flop":
        bits = Task(name="flip_flop", ignores=IGNORES)
        steps, rows, length = params.flip_flop_steps, params.flip_flop_rows, params.flip_flop_length
        return Curriculum(stages=(Stage(steps=steps, rows=rows, length=length, tasks=(bits,)),))
    dense = Task(name="dense_recall", pairs=params.pairs)
    once = Task(name="recall", pairs=params.pairs, span=params.span)
    first = Stage(
        steps=params.dense_steps, rows=params.dense_rows, length=params.dense_length, tasks=(dense,)
    )
    further = zip(params.recall_steps, params.recall_rows, params.recall_lengths, strict=True)
    mixed = [
        Stage(steps=s, rows=rows, length=length, tasks=(once,) if place else (dense, once))
        for place, (s, rows, length) in enumerate(further)
    ]
    return Curriculum(stages=(first, *mixed))


def run_of(params: Params, arm: Arm) -> RunConfig:
    """Return an arm's training run."""
    model = model_of(params, arm.task, arm.name)
    rate = {"lr": arm.rate, "warmup": params.warmup, "decay": 0.1}
    return training(model, curriculum(params, arm.task), seed=arm.seed, **rate)
