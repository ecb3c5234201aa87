"""The section `context_extension` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Names, Positive, Seeds, Shares
from farcontext.studies.section import Study, Wholes


class Params(Study):
    """Notebook 07."""

    number: ClassVar[int] = 7

    seeds: Seeds
    tuning_seeds: Seeds  # Learning rates and P1's arm are chosen on these; no verdict reads them.
    lrs: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]  # Every base tries these.
    width: Count
    layers: Count
    heads: Count
    init_std: Positive
    length: Count  # L, the trained length
    step_tokens: Count  # tokens in a training step
    short_steps: Count  # steps on rows of L/4 tokens, which come first
    dense_steps: Count  # steps on rows of L/2 tokens
    long_steps: Count  # steps on rows of L tokens, which come last
    tune_steps: Count
    tune_multiple: Count  # Fine-tuning has rows of so many times L.
    tune_step_tokens: Count
    tune_share: Positive  # share of the base's learning rate
    goal: Count  # the scale that tuned arms are set to, and from which on the score counts
    multiples: Counts  # tested multiples of L
    depths: Shares  # depths of packed evidence, 0 first
    pairs: Count
    span: Count  # tokens that packed evidence takes
    test_rows: Count
    arms: Names
    tuned_arms: Annotated[tuple[str, ...], Field(strict=False)]
    encoder_arms: Annotated[tuple[str, ...], Field(strict=False)]
    checkpoint: str | None  # The real tier reads this folder of the project; null: no real tier.
    real_documents: Count  # plays, in pairs
    real_lengths: Counts  # tokens, targets included
    real_targets: Count
    gap_schemes: Names
    gaps: Wholes  # positions left out
    gap_half: Count  # tokens before the gap, and after it
    needle_lengths: Counts
    contexts: Count  # contexts of ten needles, at each length
