"""The section `summarization` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts
from farcontext.studies.stories import Stories, StoryWriter


class Params(Stories):
    """Notebook 10."""

    number: ClassVar[int] = 10

    story_writer: StoryWriter
    window: Count  # tokens that truncating arms read, and of a chunk
    lengths: Counts  # T of the test stories
    real_length: Count  # tokens of a manual, at most
    real_documents: Annotated[int, Field(ge=2)]
    real_sentences: Count  # sentences of the extractive baselines
