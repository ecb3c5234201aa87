"""The section `depth_width` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, Positive, Seeds
from farcontext.studies.section import Study

Rates = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
# Learning rates by budget, one for each length.
RatesOfLengths = Annotated[
    dict[Literal["equal tokens", "equal sequences"], Rates], Field(min_length=1)
]


class Params(Study):
    """Notebook 06."""

    number: ClassVar[int] = 6

    seeds: Seeds
    # Every shape tries these, and AdamW tries its own at every length; empty means no tuning.
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]
    adamw_tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]
    tuning_seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]
    rate: Positive  # One for all shapes, since a rate of its own moves the length as well.
    # The middle value of each is the middle shape's; the others differ from it in one thing.
    layers: Counts
    widths: Counts
    windows: Counts  # These are the trained lengths.
    furthest: Count  # The longest tested length is so many trained lengths.
    short_steps: Count  # So many steps are at 32 tokens.
    long_steps: Count  # So many steps are at the trained length.
    step_tokens: Count  # A step has so many tokens at every length.
    warmup: Count  # Steps to the peak rate; a third of all steps at most.
    pairs: Count
    test_rows: Count
    local_window: Count  # The sliding-window arm has this w.
    local_depths: Counts
    local_length: Count  # The rows whose gradient is taken have this T.
    # Training on text, plain SGD and AdamW: T, the shortest first.
    stable_lengths: Counts
    stable_tokens: Count  # A step with equal tokens has so many.
    stable_domain: str
    sgd_rates: Rates  # Between the rates at which no run diverges and all do.
    sgd_steps: Count
    adamw_rates: RatesOfLengths  # `farcontext tune` chose these.
    adamw_steps: Count
    stable_warmup: Count  # Steps to AdamW's peak rate; a quarter of all steps at most.
