"""The section `model_anatomy` of params.yaml."""

from typing import ClassVar

from farcontext.schema import Count, Seeds
from farcontext.studies.section import Study


class Params(Study):
    """Notebook 03."""

    number: ClassVar[int] = 3

    seeds: Seeds
    steps: Count  # The repaired listing and each defect have so many training steps.
    length: Count  # This is T: so many tokens are copied or reversed.
    parity_steps: Count  # So many optimiser steps are compared with Hugging Face and torch.
