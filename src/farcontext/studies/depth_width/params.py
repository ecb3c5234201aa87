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
    # Every cell tries these; empty means no tuning.
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]
    tuning_seeds: Annotated[tuple[int, ...], Field(strict=False)]
    windows: Counts  # The trained lengths are crossed with the cells.
    furthest: Count  # The longest tested length is so many trained lengths.
    short_steps: Count  # So many steps are at 32 tokens.
    long_steps: Count  # So many steps are at the trained length.
    warmup: Count  # Steps to the peak rate; a third of all steps at most.
    train_rows: Count
    pairs: Count
    test_rows: Count
    local_window: Count  # The sliding-window arm has this w.
    local_depths: Counts
    local_length: Count  # The rows whose gradient is taken have this T.
    sgd_lengths: Counts  # The divergence sweep has these T, the shortest first.
    sgd_rates: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    sgd_steps: Count
    sgd_tokens: Count  # A step of the arms with equal tokens has so many tokens.
    sgd_rows: Count  # A step of the arms with equal sequences has so many rows.
