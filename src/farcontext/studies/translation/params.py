"""The section `translation` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Frozen, Positive, Seeds
from farcontext.studies.section import Study, Wholes


class Translator(Frozen):
    """The encoder-decoder of notebook 09."""

    width: Count
    layers: Count  # Either side has so many layers.
    heads: Count
    short_conv: Count
    rows: Count  # Rows are kept for training and drawn with replacement.
    step_rows: Count  # A training step has so many rows.
    steps: Count
    lr: Positive
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.


class Params(Study):
    """Notebook 09."""

    number: ClassVar[int] = 9

    seeds: Seeds
    translator: Translator
    # A document has so many sentences; the last one is translated.
    sentences: Annotated[int, Field(ge=2)]
    contexts: Wholes  # So many sentences before it are read.
    distances: Counts  # The sentence that tells stands so many sentences back.
    documents: Count  # So many documents of each kind are tested at each distance.
