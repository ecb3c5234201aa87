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
    encoder_length: Count  # T, tokens in a row
    decoder_length: Count
    encoder_step_tokens: Count  # tokens in a training step
    decoder_step_tokens: Count
    encoder_steps: Count
    encoder_lr: Positive
    decoder_steps: Count
    decoder_lr: Positive
    init_std: Positive
    window: Count | None  # half-width of the encoder's local layers; every third layer is global
    smear: bool  # Keys are mixed with their neighbour's: models then use far context after minutes of training.
    mask_rates: Shares  # The first is the arm of the verdict.
    layouts: Annotated[tuple[Literal["packed", "padded"], ...], Field(strict=False, min_length=1)]
    decoder_domains: Names  # The decoder is trained on these.
    contexts: Counts  # w, true tokens next to the targets, for M2
    context_domains: Names  # M2 is measured on these.
    test_rows: Count  # rows of `length` tokens scored, per domain
    limit: Count | None = None  # training tokens of each domain (smoke); None: all
    dtype: DType = "float32"
