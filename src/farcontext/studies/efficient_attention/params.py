"""The section `efficient_attention` of params.yaml."""

from typing import ClassVar

from farcontext.schema import Count, Counts, Seeds
from farcontext.studies.section import Study


class Params(Study):
    """Notebook 04."""

    number: ClassVar[int] = 4

    seeds: Seeds  # repeats, each with inputs of its own
    heads: Count
    head_width: Count
    plain_lengths: Counts  # T of the plain path, which writes the scores out
    lengths: Counts  # T of the memory-efficient paths; the longest is measured once
    layer_length: Count  # T of one whole layer, forward and backward
    product: Count  # size of the square matrices whose product is timed
    step_lengths: Counts  # T of the cost model's grid
    step_widths: Counts  # D of that grid
    step_layers: Counts  # layers of that grid; all three are crossed
    step_heads: Count
    rows: Count
    vocabulary: Count
    window: Count
