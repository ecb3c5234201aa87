"""The section `mlm_pretraining` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, DType, Names, Positive, Seeds, Share
from farcontext.studies.section import Study

Learner = Literal["pretrained", "scratch", "tf_idf"]
Tried = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
ByLearner = Annotated[dict[Learner, Tried], Field(min_length=1)]


class Params(Study):
    """Notebook 05."""

    number: ClassVar[int] = 5

    seeds: Seeds
    # `farcontext tune` chooses how each learner learns on these seeds; no verdict reads them.
    tuning_seeds: Seeds
    width: Count
    encoder_layers: Count
    decoder_layers: Count
    heads: Count
    encoder_length: Count  # This is T, the tokens in a row.
    decoder_length: Count
    encoder_step_tokens: Count  # A training step has so many tokens.
    decoder_step_tokens: Count
    # Each is a training of its own, whose rate falls at its end; M1 reads the longest.
    encoder_steps: Counts
    encoder_lr: Positive  # AdamW's rate
    encoder_muon: Positive  # Muon's rate, on the blocks' matrices
    decoder_steps: Count
    decoder_lr: Positive
    decoder_muon: Positive
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.
    init_std: Positive
    # The encoder's local layers see |i − j| < window; every third layer is global.
    window: Count | None
    # Keys are mixed with their neighbour's: models then use far context after minutes of training.
    smear: bool
    mask_rate: Share
    decoder_domains: Names  # The decoder is trained on these.
    contexts: Counts  # These are w: so many true tokens stand before the targets, for M2.
    context_domain: str  # M2 is measured on this.
    test_rows: Count  # So many rows of `length` tokens are scored, per domain.
    context_rows: Count  # The same of M2.
    labels: Counts  # So many labelled passages are learned from.
    tests: Count  # So many passages are tested, of each task.
    # Every learner tries three: AdamW's rate of fine-tuning, or C of the logistic regression.
    tuning_rates: ByLearner
    # What `farcontext tune` chose of them, for each number of labels.
    chosen: ByLearner
    tune_steps: Count
    tune_rows: Count  # Passages in a step of fine-tuning.
    blanks: Count  # So many words are blanked, per domain.
    limit: Count | None = None  # Each domain has so many training tokens (smoke); None means all.
    dtype: DType = "float32"
