"""The section `question_answering` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, Names, Share
from farcontext.studies.section import Wholes
from farcontext.studies.stories import Stories

Axis = Literal["updates", "mentions", "namesakes", "words", "pronouns", "counting", "hops"]
Levels = Annotated[dict[Axis, Wholes], Field(min_length=1)]


class Params(Stories):
    """Notebook 08."""

    number: ClassVar[int] = 8

    # Rows of fine-tuning are dealt to these axes in turn; one may stand here twice.
    dealt: Annotated[tuple[Axis, ...], Field(strict=False, min_length=1)]
    trained_levels: Levels  # Puzzles of fine-tuning have these levels.
    levels: Levels  # These are tested, at the long length.
    retrieval: Names  # Forms of BM25 and the tokens that they may fill ("twice_128").
    # The one that was strongest on pilot seeds, by axis.
    rivals: Annotated[dict[Axis | Literal["length"], str], Field(min_length=1)]
    lengths: Counts  # Contexts with `length_updates` changes have these lengths.
    length_updates: Count
    # The recipes are compared on contexts of this length, with so many changes; what is told
    # stands in this first share of them, further from the question than a short row is long.
    far_length: Count
    far_share: Share
    far_updates: Wholes
    real_domains: Annotated[
        tuple[Literal["manuals", "plays"], ...], Field(strict=False, min_length=1)
    ]
    real_lengths: Counts  # The stretches of a document have these T.
    real_window: Count
    real_documents: Count  # Either kind has so many documents.
    real_questions: Count  # Each document gets at most so many questions.
