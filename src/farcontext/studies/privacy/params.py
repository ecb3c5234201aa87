"""The section `privacy` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from farcontext.schema import Count, Counts, Positive, Share
from farcontext.studies.section import Study, Wholes

Models = Annotated[int, Field(ge=6)]  # Each attack needs two others that saw a text, two that not.


class Params(Study):
    """Notebook 13."""

    number: ClassVar[int] = 13

    seed: int  # It draws documents, canaries and who has seen what.
    lengths: Counts  # Rows have these T.
    models: Models  # Reference models of each row length, without a defence.
    defended_lengths: Counts  # Each defence is trained at these T, some of `lengths`,
    defended_models: Models  # with so many models.
    document: Count  # Tokens of a document; a multiple of every length.
    targets: Count  # So many documents are attacked; each is seen by half of the models.
    carriers: Count  # So many more documents hold the canaries; every model sees them.
    counts: Wholes  # Canaries are planted so often.
    canaries: Count  # So many of each count, others in each model; half early, half late.
    candidates: Count  # A secret is two of so many words.
    prompts: Counts  # Secrets are asked for behind so many tokens, exposure behind the first.
    validation: Count  # So many windows of unseen documents.
    width: Count
    layers: Count
    heads: Count
    public_steps: Count  # All models start from one that was trained on plays.
    public_lr: Positive
    steps: Count
    step_tokens: Count
    lr: Positive
    warmup: Count  # Steps to the peak rate; a quarter of all at most.
    repeated: Count  # De-duplication finds repeated spans of so many tokens.
    clip: Positive  # DP-SGD clips each row's gradient to this norm,
    noise: Positive  # and adds normal noise of so many times it.
    private_lr: Positive
    delta: Share  # The δ of (ε, δ).
