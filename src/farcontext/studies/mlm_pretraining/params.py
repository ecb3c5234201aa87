"""The section `mlm_pretraining` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, DType, Names, Positive, Seeds, Shares
from farcontext.studies.section import Study


class Params(Study):
    """Notebook 05."""

    number: ClassVar[int] = 5

    seeds: Seeds
    width: Count
    encoder_layers: Count
    decoder_layers: Count
    heads: Count
    encoder_length: Count  # This is T, the tokens in a row.
    decoder_length: Count
    encoder_step_tokens: Count  # A training step has so many tokens.
    decoder_step_tokens: Count
    encoder_steps: Count
    encoder_lr: Positive
    decoder_steps: Count
    decoder_lr: Positive
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.
    init_std: Positive
    # The encoder's local layers see |i − j| < window; every third layer is global.
    window: Count | None
    # Keys are mixed with their neighbour's: models then use far context after minutes of training.
    smear: bool
    mask_rates: Shares  # The first is the arm of the verdict.
    layouts: Annotated[tuple[Literal["packed", "padded"], ...], Field(strict=False, min_length=1)]
    decoder_domains: Names  # The decoder is trained on these.
    contexts: Counts  # These are w: so many true tokens stand next to the targets, for M2.
    context_domains: Names  # M2 is measured on these.
    test_rows: Count  # So many rows of `length` tokens are scored, per domain.
    limit: Count | None = None  # Each domain has so many training tokens (smoke); None means all.
    dtype: DType = "float32"
