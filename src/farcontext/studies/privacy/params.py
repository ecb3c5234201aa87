"""The section `privacy` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Positive
from farcontext.studies.section import Study, Wholes


class Params(Study):
    """Notebook 13."""

    number: ClassVar[int] = 13

    seed: int  # Draws documents, canaries and who has seen what.
    models: Annotated[int, Field(ge=4)]  # Reference models of each row length.
    lengths: Counts  # Rows have these T.
    document: Count  # Tokens of a document; a multiple of every length.
    targets: Count  # So many documents are attacked; each model has seen half of them.
    carriers: Count  # So many more documents hold the canaries; every model sees them.
    counts: Wholes  # Canaries are planted so often.
    canaries: Count  # So many of each count, others in each model.
    candidates: Count  # A secret is two of so many words.
    prompts: Counts  # Secrets are asked for behind so many tokens.
    width: Count
    layers: Count
    heads: Count
    lr: Positive
    warmup: Count  # Steps to the peak rate; a quarter of all at most.
    steps: Count
    step_tokens: Count
