"""The section `content_creation` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Positive
from farcontext.studies.stories import Stories, StoryWriter


class Params(Stories):
    """Notebook 11."""

    number: ClassVar[int] = 11

    story_writer: StoryWriter
    length: Count  # T of the test stories
    windows: Counts  # The short arms read so many of their last tokens.
    new: Count  # tokens of a continuation
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    real_documents: Annotated[int, Field(ge=2)]  # plays
    real_length: Count  # tokens of a play that the widest window holds
    real_windows: Counts
    real_new: Count
