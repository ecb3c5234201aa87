"""The section `model_anatomy` of params.yaml."""

from typing import ClassVar

from farcontext.schema import Count, Seeds
from farcontext.studies.section import Study


class Params(Study):
    """Notebook 03."""

    number: ClassVar[int] = 3

    seeds: Seeds
    steps: Count  # training steps of the repaired listing and of each defect
    length: Count  # T, tokens to copy or reverse
    parity_steps: Count  # optimiser steps compared with Hugging Face and torch
