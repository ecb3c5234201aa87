"""The section `summarization` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts
from farcontext.studies.stories import Stories, StoryWriter


class Params(Stories):
    """Notebook 10."""

    number: ClassVar[int] = 10

    story_writer: StoryWriter
    window: Count  # Truncating arms read so many tokens, and a chunk has so many.
    lengths: Counts  # The test stories have these T.
    real_length: Count  # At most so many tokens of a manual are read.
    real_documents: Annotated[int, Field(ge=2)]
    real_sentences: Count  # The extractive baselines have so many sentences.
