"""The section `recurrence` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, Positive, Seeds, Shares
from farcontext.studies.section import Study

# Learning rates are given by arm, at least one.
RatesOf = Annotated[dict[Literal["rnn", "lstm", "gru", "attention"], Positive], Field(min_length=1)]


class Params(Study):
    """Notebook 02."""

    number: ClassVar[int] = 2

    seeds: Seeds  # Recall has these.
    flip_flop_seeds: (
        Seeds  # There are more of them: minutes are enough, and its slopes spread more.
    )
    # rnn, lstm and gru have this D; the state's width follows from the number of parameters.
    recurrent_width: Count
    attention_width: Count
    attention_layers: Count
    heads: Count
    recall_parameters: Count  # Every arm has so many on that task, within 3 %.
    flip_flop_parameters: Count
    recall_rates: RatesOf  # These hold where rates are not tuned again.
    flip_flop_rates: RatesOf
    # Every arm tries these; empty means no tuning.
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]
    tuning_seeds: Annotated[tuple[int, ...], Field(strict=False)]
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.
    pairs: Count
    span: Count  # The pairs are packed into so many tokens.
    dense_steps: Count  # Pairs are shown again and again, in rows of dense_length.
    dense_rows: Count
    dense_length: Count
    recall_steps: Counts  # Each further stage shows its pairs once.
    recall_rows: Counts
    recall_lengths: Counts  # These are T; the last one is tested.
    distances: Counts  # So many tokens stand between the pairs and the questions, in test rows.
    flip_flop_steps: Count
    flip_flop_rows: Count
    flip_flop_length: Count
    test_lengths: Counts  # Flip-flop is tested at these.
    test_ignores: Shares
    test_rows: Count
    gradient_length: Count  # The rows whose gradient is taken have this T.
    gradient_rows: Count
    fit_from: Count  # The slope is fitted from this distance to 7/8 of gradient_length.
