"""The section `interpretability` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Names, Seeds
from farcontext.studies.question_answering.params import Axis, Levels
from farcontext.studies.section import Study
from farcontext.studies.stories import StoryReader


class Params(Study):
    """Notebook 12."""

    number: ClassVar[int] = 12

    seeds: Seeds
    # The readers are those of notebook 08: these three are as there, so that they are trained once.
    story_reader: StoryReader
    dealt: Annotated[tuple[Axis, ...], Field(strict=False, min_length=1)]
    trained_levels: Levels
    axis: Axis  # Contexts are puzzles of this axis and level.
    level: Annotated[int, Field(ge=0)]
    lengths: Counts  # Contexts with a question have these lengths.
    contexts: Count  # Each length has so many a seed.
    ablations: Counts  # Surrogates are fitted on so many ablated rows, at every length.
    path_steps: Count  # Integrated gradients take the gradient at so many places.
    budgets: Counts  # So many sentences are deleted, or inserted.
    head_lengths: Counts  # Heads are knocked out at these lengths,
    head_contexts: Count  # in so many contexts; as many others find them.
    silenced: Count  # So many heads are knocked out at once.
    draws: Count  # So many random sets of heads are knocked out beside them.
    checkpoint: str | None  # A folder of the project; null means none.
    real_length: Count  # Its needles stand in contexts of this length,
    real_needles: Count  # so many in each,
    real_contexts: Count  # and in so many; as many others find the heads.
    real_silenced: Count
    real_draws: Count
    real_schemes: Names  # RoPE as it is ("rope"), and schemes that extend it.
    reactions: str | None  # The atom mapper is kept in this folder of the project; null: none.
    reaction_pairs: Count  # Each left fragment meets so many right ones in each class.
