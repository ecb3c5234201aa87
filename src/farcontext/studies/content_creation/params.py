"""The section `content_creation` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Positive, Shares
from farcontext.studies.section import Wholes
from farcontext.studies.stories import Stories, StoryWriter


class Params(Stories):
    """Notebook 11."""

    number: ClassVar[int] = 11

    story_writer: StoryWriter
    changes: Wholes  # So many things change in a story.
    tokens: Counts  # BM25's sentences, or the story's last tokens, are so many at most.
    coverages: Shares  # Such shares of the statements are made.
    temperature: Positive  # This and the next are those of the real tier.
    top_p: Annotated[float, Field(gt=0, le=1)]
    real_documents: Annotated[int, Field(ge=2)]  # So many plays are read.
    real_length: Count  # The widest window holds so many tokens of a play.
    real_windows: Counts
    real_new: Count
