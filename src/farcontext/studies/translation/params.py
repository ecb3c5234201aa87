"""The section `translation` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Frozen, Positive, Seeds
from farcontext.studies.section import Study, Wholes


class Translator(Frozen):
    """The encoder-decoder of notebook 09."""

    width: Count
    layers: Count  # layers on either side
    heads: Count
    short_conv: Count
    rows: Count  # Rows are kept for training and drawn with replacement.
    step_rows: Count  # rows in a training step
    steps: Count
    lr: Positive


class Params(Study):
    """Notebook 09."""

    number: ClassVar[int] = 9

    seeds: Seeds
    translator: Translator
    sentences: Annotated[int, Field(ge=2)]  # sentences in a document; the last one is translated
    contexts: Wholes  # sentences before it that are read
    distances: Counts  # sentences back to the one that tells
    documents: Count  # documents tested of each kind at each distance
