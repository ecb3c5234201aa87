"""The section `attention_derivation` of params.yaml."""

from typing import ClassVar

from farcontext.schema import Count, Counts, Seeds
from farcontext.studies.section import Study


class Params(Study):
    """Notebook 01."""

    number: ClassVar[int] = 1

    seeds: Seeds
    samples: Count  # draws of q·k for its variance
    head_widths: Counts
    length: Count  # T of the identities
    window: Count  # w, keys a query sees under the window mask
    layers: Counts  # L, depths at which reach is counted
