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
    people: Count  # people in a story; the next two are numbers in it too
    things: Count
    changes: Annotated[int, Field(ge=0)]  # changes at most
    rows: Count  # Rows of each length and kind are kept for training and drawn with replacement.
    step_tokens: Count  # tokens in a training step
    short_length: Count  # T of the rows that pre-training begins with
    long_length: Count  # T of the rows that it ends with in the long recipe, and of fine-tuning
    short_steps: Count
    long_steps: Count
    tune_steps: Count
    lr: Positive
    tune_share: Positive  # share of lr in later phases


class Stories(Study):
    """What the notebooks about stories share."""

    seeds: Seeds
    story_reader: StoryReader
    stories: Count  # stories tested in each cell
    checkpoint: str | None  # The real tier reads this folder of the project; null: no real tier.


class StoryWriter(Frozen):
    """The writers of summaries and of statements.

    Who writes summaries starts from the readers' base; who writes statements starts from who writes
    summaries. They are trained once, as the readers. Steps are on rows of the readers'
    short_length, then on rows of their long_length.
    """

    summary_steps: Pair
    statement_steps: Pair
    lr: Positive
