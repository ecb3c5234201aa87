"""Sections that the studies about stories share."""

from typing import Annotated

from pydantic import Field

from farcontext.schema import Count, Frozen, Positive, Seeds
from farcontext.studies.section import Pair, Study


class StoryReader(Frozen):
    """The readers that the applications share.

    Each application has the same section, so that they are trained once.
    """

    width: Count
    layers: Count
    heads: Count
    short_conv: Count
    people: Count  # A story has so many people; the next two are numbers in it too.
    things: Count
    changes: Annotated[int, Field(ge=0)]  # A story has at most so many changes.
    rows: Count  # Rows of each length and kind are kept for training and drawn with replacement.
    step_tokens: Count  # A training step has so many tokens.
    short_length: Count  # Pre-training begins with rows of this T.
    long_length: Count  # In the long recipe it ends with rows of this T; fine-tuning has them too.
    short_steps: Count
    long_steps: Count
    tune_steps: Count
    lr: Positive
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.
    tune_share: Positive  # Later phases have this share of lr.


class Stories(Study):
    """What the notebooks about stories share."""

    seeds: Seeds
    story_reader: StoryReader
    stories: Count  # So many stories are tested in each cell.
    # The real tier reads this folder of the project; null means no real tier.
    checkpoint: str | None


class StoryWriter(Frozen):
    """The writers of reports and of statements.

    All start from the readers' base. Steps are on rows of the readers' short_length, then on rows
    of their long_length.
    """

    rows: Count  # A seed keeps at most so many rows of a length and task, drawn with replacement.
    chunk_length: Count  # T of the rows with chunks.
    report_steps: Pair
    statement_steps: Pair
    lr: Positive
