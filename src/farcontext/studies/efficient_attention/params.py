"""The section `efficient_attention` of params.yaml."""

from typing import ClassVar

from farcontext.schema import Count, Counts, Seeds
from farcontext.studies.section import Study


class Params(Study):
    """Notebook 04."""

    number: ClassVar[int] = 4

    seeds: Seeds  # Each repeat has a seed, and inputs of its own.
    heads: Count
    head_width: Count
    plain_lengths: Counts  # The plain path, which writes the scores out, has these T.
    lengths: Counts  # The memory-efficient paths have these T; the longest is measured once.
    layer_length: Count  # One whole layer has this T, forward and backward.
    product: Count  # The square matrices whose product is timed have this size.
    step_lengths: Counts  # The cost model's grid has these T.
    step_widths: Counts  # That grid has these D.
    step_layers: Counts  # That grid has so many layers; all three are crossed.
    step_heads: Count
    rows: Count
    vocabulary: Count
    window: Count
