"""The section `recurrence` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, Frozen, Positive, Seeds, Shares
from farcontext.studies.section import Study

# Learning rates are given by arm, at least one.
RatesOf = Annotated[
    dict[Literal["rnn", "lstm", "lstm_half", "lstm_state", "gru", "attention"], Positive],
    Field(min_length=1),
]


class Attention(Frozen):
    """The shape of a decoder.

    Its MLP's width follows from the number of parameters.
    """

    width: Count
    layers: Count
    heads: Count
    kv_heads: Count


class Params(Study):
    """Notebook 02."""

    number: ClassVar[int] = 2

    seeds: Seeds  # Recall has these.
    # Flip-flop slopes vary more between seeds, and a run takes seconds: there are more of them.
    flip_flop_seeds: Seeds
    # rnn, lstm and gru have this D; the state's width follows from the number of parameters.
    recurrent_width: Count
    recall_attention: Attention
    flip_flop_attention: Attention
    # Attention and `lstm` have so many on recall, within 3 %; the other LSTMs have their own state.
    recall_parameters: Count
    state_pairs: Count  # `lstm_state` keeps what attention keeps of so many pairs.
    flip_flop_parameters: Count  # Every arm has so many on that task, within 3 %.
    # Every arm of a task tries these; empty means no tuning.
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]
    flip_flop_tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]
    tuning_seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]
    recall_rates: RatesOf  # `farcontext tune` chose these.
    flip_flop_rates: RatesOf
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.
    pairs: Counts  # One model learns rows with any of these numbers of pairs, and is tested on all.
    tokens_a_pair: Count  # The pairs of a row are packed into so many tokens each.
    dense_steps: Count  # The fewest pairs are shown again and again, in rows of dense_length.
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
