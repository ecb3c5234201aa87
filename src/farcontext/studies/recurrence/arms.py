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
# The rate falls in this last share of the steps: in recall, while the rows grow longer and hold
# more pairs, since an LSTM at its full rate loses few pairs in learning many.
DECAY = {"recall": 0.3, "flip_flop": 0.1}


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

    Every arm gets the same rows in the same order. Recall begins with the fewest pairs, repeated
    over and over, until a value is bound to its key; then rows show their pairs once, in longer and
    longer rows.
    """
    if task == "flip_flop":
        bits = Task(name="flip_flop", ignores=IGNORES)
        steps, rows, length = params.flip_flop_steps, params.flip_flop_rows, params.flip_flop_length
        return Curriculum(stages=(Stage(steps=steps, rows=rows, length=length, tasks=(bits,)),))
    few = Task(name="dense_recall", pairs=min(params.pairs))
    dense = Stage(
        steps=params.dense_steps, rows=params.dense_rows, length=params.dense_length, tasks=(few,)
    )
    further = zip(params.recall_steps, params.recall_rows, params.recall_lengths, strict=True)
    once = (
        Stage(steps=steps, rows=rows, length=length, tasks=once_told(params, length))
        for steps, rows, length in further
    )
    return Curriculum(stages=(dense, *once))


def once_told(params: Params, length: int) -> tuple[Task, ...]:
    """Return recall of as many pairs as a length has room for.

    Rows are dealt evenly to tasks, and the loss is a mean over questions. So rows with few pairs
    come more often, and each number of pairs gives about as many questions: with as many rows
    each, fifteen questions of sixteen pairs would drown one of two.
    """
    fitting = [pairs for pairs in params.pairs if (params.tokens_a_pair + 2) * pairs <= length]
    times = {pairs: max(fitting) // pairs for pairs in fitting}
    return tuple(packed(params, pairs) for pairs in fitting for _ in range(times[pairs]))


def run_of(params: Params, arm: Arm) -> RunConfig:
    """Return an arm's training run."""
    model = model_of(params, arm.task, arm.name)
    rate = {"lr": arm.rate, "warmup": params.warmup, "decay": DECAY[arm.task]}
    return training(model, curriculum(params, arm.task), seed=arm.seed, **rate)
