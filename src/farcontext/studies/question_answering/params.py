"""The section `question_answering` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, Shares
from farcontext.studies.stories import Stories


class Params(Stories):
    """Notebook 08."""

    number: ClassVar[int] = 8

    trained_stories: Count  # Claims are decided on these, at the trained length.
    window: Count  # tokens that the short arms read: the last ones, or what BM25 finds
    lengths: Counts  # T of the test rows
    depths: Shares  # depths of the story in them, 0 first
    real_domains: Annotated[tuple[Literal["manuals", "plays"], ...], Field(strict=False, min_length=1)]
    real_lengths: Counts  # T of the stretches of a document
    real_window: Count
    real_documents: Count  # documents of either kind
    real_questions: Count  # questions about each document, at most
