"""The section `summarization` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts
from farcontext.studies.section import Wholes
from farcontext.studies.stories import Stories, StoryWriter


class Params(Stories):
    """Notebook 10.

    Each dose is varied by itself; the others are then at the readers' long_length, at `chunk` and
    at the middle of `changes`.
    """

    number: ClassVar[int] = 10

    story_writer: StoryWriter
    changes: Wholes  # So many things change in a story.
    chunk: Count  # A chunk has so many tokens, and what the truncating arms read.
    chunks: Counts  # Chunks of these sizes are read too.
    lengths: Counts  # Stories of these T are read whole and in chunks.
    real_length: Count  # At most so many tokens of a manual are read.
    real_documents: Annotated[int, Field(ge=2)]
    real_sentences: Count  # The extractive baselines have so many sentences.
