"""The section `context_extension` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from farcontext.schema import Count, Counts, Names, Positive, Seeds, Shares
from farcontext.studies.section import Study, Wholes

Texts = Annotated[tuple[str, ...], Field(strict=False)]
Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]
TextKind = Literal["plays", "new_manuals", "sanguo"]
Rates = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]


class Params(Study):
    """Notebook 07."""

    number: ClassVar[int] = 7

    seeds: Seeds
    # `farcontext tune` chooses rates and P1's arm on these seeds; no verdict reads them.
    tuning_seeds: Seeds
    lrs: Rates  # Every base tries these.
    # What was chosen for each base; two, where they were all but tied.
    rates: Annotated[dict[str, Rates], Field(min_length=1)]
    chosen: str  # P1's arm, as `farcontext tune` chose it.
    width: Count
    layers: Count
    heads: Count
    init_std: Positive
    length: Count  # This is L, the trained length.
    step_tokens: Count  # A training step has so many tokens.
    short_steps: Count  # So many steps on rows of L/4 tokens come first.
    dense_steps: Count  # So many steps are on rows of L/2 tokens.
    long_steps: Count  # So many steps on rows of L tokens come last.
    doses: Counts  # Steps of fine-tuning; the model as it is (0) always stands beside them.
    tune_multiple: Count  # Fine-tuning has rows of so many times L.
    tune_step_tokens: Count
    warmup: Count  # Steps to the peak rate; a quarter of all steps at most.
    tune_warmup: Count  # The same of fine-tuning.
    tune_share: Positive  # Fine-tuning has this share of the base's learning rate.
    goal: Count  # Tuned arms are set to this scale, and the score counts from it on.
    multiples: Counts  # These multiples of L are tested.
    depths: Shares  # Packed evidence stands at these depths; 0 is the first place.
    pairs: Count
    span: Count  # Packed evidence takes so many tokens.
    test_rows: Count
    arms: Names
    tuned_arms: Texts
    encoder_arms: Texts
    # Where two rates tied, these arms are run at the second one, too, on these seeds.
    second_arms: Texts
    second_seeds: Numbers
    second_doses: Numbers  # Some of the doses: a second rate is a check, not a second study.
    # Where the loss goes: these arms, as they are, on so many rows.
    apart_arms: Texts
    apart_rows: Count
    # These arms once more, as they are, on bases trained at a longer length; null: none.
    longer_length: Count | None
    longer_steps: Count  # The base goes on for so many steps at each doubling of the length.
    longer_arms: Texts
    longer_seeds: Numbers
    # The real tier reads this folder of the project; null means no real tier.
    checkpoint: str | None
    # So many documents of each kind are read, in pairs: plays, new_manuals, sanguo.
    real_documents: Annotated[dict[TextKind, Count], Field(min_length=1)]
    real_lengths: Counts  # They are in tokens, and the targets are included.
    real_long_documents: Count  # So many plays are read at the longer lengths, too.
    real_long_lengths: Counts
    real_targets: Count
    gap_schemes: Names
    gaps: Wholes  # So many positions are left out.
    gap_half: Count  # So many tokens stand before the gap, and as many after it.
    needle_lengths: Counts
    contexts: Count  # Each length has so many contexts of ten needles.
    apart_lengths: Counts  # Where the loss goes, in the checkpoint: contexts of these lengths,
    apart_contexts: Count  # and so many of each, with a play of its own.
