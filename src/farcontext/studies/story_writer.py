"""The writers of notebooks 10 and 11.

All go on from the readers' shared first pre-training. One reports whole stories, one reports
chunks, one makes statements and may abstain.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from farcontext.schema import BOS, Row
from farcontext.studies.stories import StoryReader, StoryWriter
from farcontext.studies.story_reader import (
    base_of,
    model_of,
    prose,
    stories,
    story_of,
    vocabulary,
)
from farcontext.studies.trainings import training
from farcontext.tasks import reports, storybook
from farcontext.tasks.sample import Sample
from farcontext.tasks.world import Story
from farcontext.train.config import Curriculum, RunConfig, Stage, Task
from farcontext.train.curriculum import keep_rows
from farcontext.train.runs import EvalConfig, prepared_task


def make_rows(
    *, task: reports.Task, length: int, rows: int, seed: int, people: int, things: int, changes: int
) -> list[Row]:
    """Keep a seed's rows for one task and return their digest."""
    words = vocabulary()
    made = reports.rows(
        np.random.default_rng((seed, length, reports.TASKS.index(task))),
        rows,
        length=length,
        vocabulary=words,
        filler=storybook.sentences_of(prose("train"), words.encode),
        task=task,
        bos=(BOS,),
        people=people,
        things=things,
        changes=changes,
    )
    return [{"digest": keep_rows(*made)}]


def writer_of(params: StoryReader, writer: StoryWriter, task: reports.Task, seed: int) -> RunConfig:
    """Return a writer's run, on short rows and then on long ones.

    The writer of chunks has as many steps as that of whole stories, of as many tokens each, on rows
    of its own length.
    """
    short, long = writer.statement_steps if task == "statements" else writer.report_steps
    steps = {params.short_length: short, params.long_length: long}
    if task == "chunk":
        steps = {writer.chunk_length: short + long}
    stages = []
    for length, count in steps.items():
        at_once = params.step_tokens // length
        kept = min(writer.rows, count * at_once)
        made = _rows(params, task, length, seed, kept)
        stages.append(Stage(steps=count, rows=at_once, length=length, tasks=(made,)))
    return training(
        model_of(params),
        Curriculum(stages=tuple(stages)),
        lr=writer.lr,
        warmup=params.warmup,
        seed=seed,
        start=base_of(params, seed),
    )


def _rows(params: StoryReader, task: reports.Task, length: int, seed: int, rows: int) -> Task:
    sizes = {"people": params.people, "things": params.things, "changes": params.changes}
    options = {"task": task, "length": length, "rows": rows, "seed": seed} | sizes
    return prepared_task(EvalConfig(make_rows, None, options), length)


# ------------------------------------------------------------------------------------------ reading


Span = tuple[int, int]  # The first token, and the one behind the last.


class Told(NamedTuple):
    """A tested story, and how it is laid into prose."""

    story: Story
    sample: Sample


def tested(
    sizes: Mapping[str, int], *, seed: int, length: int, depth: float | None, count: int
) -> list[Told]:
    """Return a seed's own stories of test people in test prose."""
    samples = stories(sizes, length=length, count=count, depth=depth, seed=seed)
    return [Told(story_of(sizes, number, seed), one) for number, one in enumerate(samples)]


def spans_of(sample: Sample) -> list[Span]:
    """Return the sentences of a context, without what stands before the first."""
    return list(pairwise([*sample.blocks, len(sample.context)]))


def excerpt(sample: Sample, spans: Sequence[Span], size: int | None = None) -> np.ndarray:
    """Return spans of a context as one context.

    With a size, other prose before the spans fills it up to so many tokens.

    Raises:
        ValueError: the spans are longer.
    """
    first, pieces = sample.context[: sample.blocks[0]], [sample.context[a:b] for a, b in spans]
    room = 0 if size is None else size - len(first) - sum(map(len, pieces))
    if room < 0:
        raise ValueError(f"size = {size}: expected at least {size - room}")
    return np.concatenate([first, sample.spare[:room], *pieces])
