"""Trainings of notebook 06: shapes, stacks of windows, AdamW on text."""

from typing import NamedTuple

from farcontext.nn.config import ModelConfig
from farcontext.studies.depth_width.params import Params
from farcontext.studies.depth_width.protocol import HEAD_WIDTH, decoder
from farcontext.studies.trainings import training
from farcontext.tasks import recall
from farcontext.train.config import BatchConfig, Curriculum, RunConfig, Stage, Task
from farcontext.train.keys import vocabulary_size

SHORT = 32  # The curriculum's first stage has so many tokens.
LOCAL_WIDTH = 64
LOCAL_RATE = 0.004
BUDGETS = ("equal tokens", "equal sequences")  # What is the same in every step, at any length.


class Shape(NamedTuple):
    """A model's depth and width, and the length it is trained at."""

    layers: int
    width: int
    window: int


def shapes(params: Params) -> list[Shape]:
    """Return the middle shape, then those that differ in one thing."""
    axes = (params.layers, params.widths, params.windows)
    middle = Shape(*(axis[len(axis) // 2] for axis in axes))
    return [middle] + [
        middle._replace(**{name: value})
        for name, axis in zip(Shape._fields, axes, strict=True)
        for value in axis
        if value != getattr(middle, name)
    ]


def _run(
    params: Params, model: ModelConfig, lr: float, seed: int, long: tuple[Stage, ...]
) -> RunConfig:
    short = Stage(
        steps=params.short_steps,
        rows=params.step_tokens // SHORT,
        length=SHORT,
        tasks=(Task(name="dense_recall", pairs=max(1, params.pairs // 2)),),
    )
    stages = Curriculum(stages=(short, *long))
    rate = {"lr": lr, "warmup": params.warmup, "warmup_share": 1 / 3}
    return training(model, stages, seed=seed, **rate)


def grid_run(params: Params, shape: Shape, *, lr: float, seed: int) -> RunConfig:
    """Return a shape's training: recall at 32 tokens, then at its window.

    A step has equally many tokens at every length.
    """
    layers, width, window = shape
    tasks = (Task(name="dense_recall", pairs=params.pairs), Task(name="recall", pairs=params.pairs))
    rows = params.step_tokens // window
    long = Stage(steps=params.long_steps, rows=rows, length=window, tasks=tasks)
    model = decoder(layers, width, max(SHORT, window), recall.VOCABULARY + 1)
    return _run(params, model, lr, seed, (long,))


def local_run(params: Params, layers: int, seed: int) -> RunConfig:
    """Return the training of a stack whose layers all see `local_window` keys."""
    band = {"window": params.local_window, "global_every": 0}
    model = decoder(layers, LOCAL_WIDTH, params.local_length, recall.VOCABULARY + 1, **band)
    return _run(params, model, LOCAL_RATE, seed, ())


def rows_of(params: Params, budget: str, length: int) -> int:
    """Return how many rows a step has.

    At the longest T both budgets have the same.
    """
    fewest = params.stable_tokens // max(params.stable_lengths)
    return fewest if budget == "equal sequences" else params.stable_tokens // length


def adamw_run(params: Params, budget: str, length: int, *, lr: float, seed: int) -> RunConfig:
    """Return a training on text with AdamW, warm-up and clipping."""
    model = decoder(2, HEAD_WIDTH, length, vocabulary_size())
    rows, domains = rows_of(params, budget, length), (params.stable_domain,)
    batch = BatchConfig(objective="clm", length=length, rows=rows, domains=domains)
    same = {"warmup": params.stable_warmup, "steps": params.adamw_steps}
    return training(model, batch, lr=lr, seed=seed, **same)
