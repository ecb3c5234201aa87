"""The section `translation` of params.yaml."""

from typing import ClassVar

from farcontext.schema import Count, Counts, Frozen, Positive, Seeds, Shares
from farcontext.studies.section import Study


class Translator(Frozen):
    """The translator of notebook 09, and how it learns."""

    width: Count
    layers: Count
    heads: Count
    short_conv: Count
    rows: Count  # Rows of each length are kept for training, and drawn with replacement.
    step_tokens: Count  # A training step has so many tokens.
    # Learning begins with short documents that ask for so many last sentences at once; on the
    # tested lengths, then, half of the rows ask for one.
    asked: Count
    dense_length: Count
    dense_steps: Count
    steps: Counts  # So many steps are on documents of each tested length.
    lr: Positive
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.


class Params(Study):
    """Notebook 09."""

    number: ClassVar[int] = 9

    seeds: Seeds
    translator: Translator
    lengths: Counts  # Documents have so many tokens at most; the last sentence is translated.
    tellings: Counts  # So many sentences of a document tell; a fourth of them of what is asked for.
    shares: Shares  # What is read holds these shares of the sentences that tell.
    documents: Count  # So many documents of each kind, length and number of tellings are tested.
