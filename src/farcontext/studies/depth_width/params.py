"""The section `depth_width` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Positive, Seeds
from farcontext.studies.section import Study

# Learning rates are given by "layers x width", at least one.
RatesOfCells = Annotated[
    dict[Annotated[str, Field(pattern="^[1-9][0-9]*x[1-9][0-9]*$")], Positive], Field(min_length=1)
]


class Params(Study):
    """Notebook 06."""

    number: ClassVar[int] = 6

    seeds: Seeds
    rates: RatesOfCells  # Its cells are those that are trained.
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]  # Every cell tries these; empty: no tuning.
    tuning_seeds: Annotated[tuple[int, ...], Field(strict=False)]
    windows: Counts  # trained lengths, crossed with the cells
    furthest: Count  # longest tested length, in trained lengths
    short_steps: Count  # steps at 32 tokens
    long_steps: Count  # steps at the trained length
    train_rows: Count
    pairs: Count
    test_rows: Count
    local_window: Count  # w of the sliding-window arm
    local_depths: Counts
    local_length: Count  # T of the rows whose gradient is taken
    sgd_lengths: Counts  # T of the divergence sweep, shortest first
    sgd_rates: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    sgd_steps: Count
    sgd_tokens: Count  # tokens in a step of the arms with equal tokens
    sgd_rows: Count  # rows in a step of the arms with equal sequences
