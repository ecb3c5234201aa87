"""The section `question_answering` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, Shares
from farcontext.studies.stories import Stories


class Params(Stories):
    """Notebook 08."""

    number: ClassVar[int] = 8

    trained_stories: Count  # Claims are decided on these, at the trained length.
    window: Count  # The short arms read so many tokens: the last ones, or what BM25 finds.
    lengths: Counts  # The test rows have these T.
    depths: Shares  # The story stands at these depths in them; 0 is the first place.
    real_domains: Annotated[
        tuple[Literal["manuals", "plays"], ...], Field(strict=False, min_length=1)
    ]
    real_lengths: Counts  # The stretches of a document have these T.
    real_window: Count
    real_documents: Count  # Either kind has so many documents.
    real_questions: Count  # Each document gets at most so many questions.
