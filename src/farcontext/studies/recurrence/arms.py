"""The arms of notebook 02: models of equal size or state."""

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
# A dense row shows a pair for each so many tokens, so that most of them come back.
DENSE_TOKENS = 6


class Arm(NamedTuple):
    """The name of a training run in the table."""

    task: str
    name: str
    seed: int
    rate: float


# ------------------------------------------------------------------------------------------- models


@functools.cache
def parameter_count(config: ModelConfig) -> int:
    """Return how many numbers a model learns."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config).parameters())


def model_of(params: Params, task: str, arm: str) -> ModelConfig:
    """Return an arm's model.

    Most are sized to the task's number of parameters: the state's width, or the MLP's, is the one
    that comes nearest to it. `lstm_half` has half the state of `lstm`; `lstm_state` keeps as many
    numbers as attention keeps of `state_pairs` pairs.
    """
    if arm == "lstm_half":
        return _of_width(params, task, "lstm", model_of(params, task, "lstm").mlp_width // 2)
    if arm == "lstm_state":
        attention = model_of(params, task, "attention")
        kept = state_numbers(attention, 2 * params.state_pairs)
        return _of_width(params, task, "lstm", kept // 2)  # An LSTM keeps h and c.
    wanted = params.recall_parameters if task == "recall" else params.flip_flop_parameters
    of = functools.partial(_of_width, params, task, arm)
    above = 1 + bisect.bisect_left(
        range(1, wanted), wanted, key=lambda width: parameter_count(of(width))
    )
    return min(
        (of(max(1, width)) for width in (above - 1, above)),
        key=lambda c: abs(parameter_count(c) - wanted),
    )


def _of_width(params: Params, task: str, kind: str, mlp_width: int) -> ModelConfig:
    """Return a model whose state, or whose MLP, is so wide."""
    recalls = task == "recall"
    if kind in RECURRENT:
        shape = {"width": params.recurrent_width, "layers": 1, "heads": 1}
    else:
        # Without smeared keys and its own output matrix, attention may stay on a plateau.
        shape = (params.recall_attention if recalls else params.flip_flop_attention).model_dump()
        shape |= {"mlp": "gelu", "tied": False, "smear": True}
    return ModelConfig(
        kind=kind if kind in RECURRENT else "decoder",
        vocab_size=(recall.VOCABULARY if recalls else flip_flop.VOCABULARY) + 1,
        mlp_width=mlp_width,
        max_length=max(params.recall_lengths) if recalls else params.flip_flop_length,
        init_std=0.1,
        embedding_std=1.0,
        **shape,
    )


def state_numbers(model: ModelConfig, length: int) -> int:
    """Return how many numbers a model keeps from token to token.

    They are a recurrent state, or the keys and values of `length` tokens.
    """
    if model.kind in RECURRENT:
        with torch.device("meta"):
            return build_model(model).state_numbers
    return 2 * model.layers * (model.kv_heads or model.heads) * model.head_width * length


# ---------------------------------------------------------------------------------------- trainings


def packed(params: Params, pairs: int) -> Task:
    """Return recall of so many pairs that stand together."""
    return Task(name="recall", pairs=pairs, span=params.tokens_a_pair * pairs)


def curriculum(params: Params, task: str) -> Curriculum:
    """Return what every arm of a task is trained on.

    Every arm gets the same rows in the same order. Recall begins with few pairs in short rows.
    """
    if task == "flip_flop":
        bits = Task(name="flip_flop", ignores=IGNORES)
        steps, rows, length = params.flip_flop_steps, params.flip_flop_rows, params.flip_flop_length
        return Curriculum(stages=(Stage(steps=steps, rows=rows, length=length, tasks=(bits,)),))
    once = tuple(packed(params, pairs) for pairs in params.pairs)
    stages = [
        Stage(steps=s, rows=rows, length=length, tasks=_dense(params, length))
        for s, rows, length in zip(
            params.dense_steps, params.dense_rows, params.dense_lengths, strict=True
        )
    ]
    further = zip(params.recall_steps, params.recall_rows, params.recall_lengths, strict=True)
    for place, (s, rows, length) in enumerate(further):
        tasks = once if place else (*_dense(params, length), *once)
        stages.append(Stage(steps=s, rows=rows, length=length, tasks=tasks))
    return Curriculum(stages=tuple(stages))


def _dense(params: Params, length: int) -> tuple[Task, ...]:
    """Return dense recall of as many pairs as rows have room for."""
    most = max(min(params.pairs), length // DENSE_TOKENS)
    return tuple(Task(name="dense_recall", pairs=p) for p in params.pairs if p <= most)


def run_of(params: Params, arm: Arm) -> RunConfig:
    """Return an arm's training run."""
    model = model_of(params, arm.task, arm.name)
    rate = {"lr": arm.rate, "warmup": params.warmup, "decay": 0.1}
    return training(model, curriculum(params, arm.task), seed=arm.seed, **rate)
