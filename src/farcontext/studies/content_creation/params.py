"""The section `content_creation` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Positive
from farcontext.studies.stories import Stories, StoryWriter


class Params(Stories):
    """Notebook 11."""

    number: ClassVar[int] = 11

    story_writer: StoryWriter
    length: Count  # The test stories have this T.
    windows: Counts  # The short arms read so many of their last tokens.
    new: Count  # A continuation has so many tokens.
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    real_documents: Annotated[int, Field(ge=2)]  # So many plays are read.
    real_length: Count  # The widest window holds so many tokens of a play.
    real_windows: Counts
    real_new: Count
