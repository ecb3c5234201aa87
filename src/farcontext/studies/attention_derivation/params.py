"""The section `attention_derivation` of params.yaml."""

from typing import ClassVar

from farcontext.schema import Count, Counts, Seeds
from farcontext.studies.section import Study


class Params(Study):
    """Notebook 01."""

    number: ClassVar[int] = 1

    seeds: Seeds
    samples: Count  # The variance of q·k is taken over so many draws.
    head_widths: Counts
    length: Count  # The identities have this T.
    window: Count  # This is w: a query sees so many keys under the window mask.
    layers: Counts  # They are values of L, the depths at which reach is counted.
