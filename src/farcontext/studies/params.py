"""The schema of params.yaml: one section a study, in reading order.

It is importable without torch. It is apart from config.py so that a new study makes no trained
model stale: training imports config.py, never this.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from farcontext.data.config import Corpus, Tokenizer
from farcontext.schema import Count, Counts, DType, Frozen, Names, Positive, Seeds, Shares, read_yaml, validate

# Learning rates are given by arm, and by "layers x width": at least one each.
RatesOf = Annotated[dict[Literal["rnn", "lstm", "gru", "attention"], Positive], Field(min_length=1)]
RatesOfCells = Annotated[
    dict[Annotated[str, Field(pattern="^[1-9][0-9]*x[1-9][0-9]*$")], Positive], Field(min_length=1)
]

Pair = Annotated[tuple[Count, Count], Field(strict=False)]
Wholes = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]


class Study(Frozen):
    """Base of a study's section: the names of its notebook's parameters cell."""

    @classmethod
    def of(cls, names: Mapping[str, Any]) -> Self:
        """Build the section from a notebook's globals(): `params = Params.of(globals())`."""
        return validate(cls, {name: names[name] for name in cls.model_fields if name in names}, "parameters cell")


class AttentionDerivation(Study):
    """Notebook 01."""

    seeds: Seeds
    samples: Count  # draws of q·k for its variance
    head_widths: Counts
    length: Count  # T of the identities
    window: Count  # w, keys a query sees under the window mask
    layers: Counts  # L, depths at which reach is counted


class Recurrence(Study):
    """Notebook 02."""

    seeds: Seeds  # Recall has these.
    flip_flop_seeds: Seeds  # There are more of them: minutes are enough, and its slopes spread more.
    recurrent_width: Count  # D of rnn, lstm and gru; the state's width follows from the number of parameters
    attention_width: Count
    attention_layers: Count
    heads: Count
    recall_parameters: Count  # Every arm has so many on that task, within 3 %.
    flip_flop_parameters: Count
    recall_rates: RatesOf  # These hold where rates are not tuned again.
    flip_flop_rates: RatesOf
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]  # Every arm tries these; empty: no tuning.
    tuning_seeds: Annotated[tuple[int, ...], Field(strict=False)]
    pairs: Count
    span: Count  # tokens that the pairs are packed into
    dense_steps: Count  # Pairs are shown again and again, in rows of dense_length.
    dense_rows: Count
    dense_length: Count
    recall_steps: Counts  # Each further stage shows its pairs once.
    recall_rows: Counts
    recall_lengths: Counts  # T; the last one is tested
    distances: Counts  # tokens between the pairs and the questions, in test rows
    flip_flop_steps: Count
    flip_flop_rows: Count
    flip_flop_length: Count
    test_lengths: Counts  # Flip-flop is tested at these.
    test_ignores: Shares
    test_rows: Count
    gradient_length: Count  # T of the rows whose gradient is taken
    gradient_rows: Count
    fit_from: Count  # The slope is fitted from this distance to 7/8 of gradient_length.


class ModelAnatomy(Study):
    """Notebook 03."""

    seeds: Seeds
    steps: Count  # training steps of the repaired listing and of each defect
    length: Count  # T, tokens to copy or reverse
    parity_steps: Count  # optimiser steps compared with Hugging Face and torch


class EfficientAttention(Study):
    """Notebook 04."""

    seeds: Seeds  # repeats, each with inputs of its own
    heads: Count
    head_width: Count
    plain_lengths: Counts  # T of the plain path, which writes the scores out
    lengths: Counts  # T of the memory-efficient paths; the longest is measured once
    layer_length: Count  # T of one whole layer, forward and backward
    product: Count  # size of the square matrices whose product is timed
    step_lengths: Counts  # T of the cost model's grid
    step_widths: Counts  # D of that grid
    step_layers: Counts  # layers of that grid; all three are crossed
    step_heads: Count
    rows: Count
    vocabulary: Count
    window: Count


class MlmPretraining(Study):
    """Notebook 05."""

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


class DepthWidth(Study):
    """Notebook 06."""

    seeds: Seeds
    rates: RatesOfCells  # Its cells are those that are trained.
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]  # Every cell tries these; empty: no tuning.
    tuning_seeds: Annotated[tuple[int, ...], Field(strict=False)]
    windows: Counts  # trained lengths, crossed with the cells
    furthest: Count  # longest tested length, in trained lengths
    short_steps: Count  # steps at 32 tokens
    long_steps: Count  # steps at the trained length
    train_rows: Count
    pairs: Count
    test_rows: Count
    local_window: Count  # w of the sliding-window arm
    local_depths: Counts
    local_length: Count  # T of the rows whose gradient is taken
    sgd_lengths: Counts  # T of the divergence sweep, shortest first
    sgd_rates: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    sgd_steps: Count
    sgd_tokens: Count  # tokens in a step of the arms with equal tokens
    sgd_rows: Count  # rows in a step of the arms with equal sequences


class ContextExtension(Study):
    """Notebook 07."""

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


class StoryReader(Frozen):
    """The readers that the applications share.

    Each application has the same section, so that they are trained once.
    """

    width: Count
    layers: Count
    heads: Count
    short_conv: Count
    people: Count  # people in a story; the next two are numbers in it too
    things: Count
    changes: Annotated[int, Field(ge=0)]  # changes at most
    rows: Count  # Rows of each length and kind are kept for training and drawn with replacement.
    step_tokens: Count  # tokens in a training step
    short_length: Count  # T of the rows that pre-training begins with
    long_length: Count  # T of the rows that it ends with in the long recipe, and of fine-tuning
    short_steps: Count
    long_steps: Count
    tune_steps: Count
    lr: Positive
    tune_share: Positive  # share of lr in later phases


class Stories(Study):
    """What the notebooks about stories share."""

    seeds: Seeds
    story_reader: StoryReader
    stories: Count  # stories tested in each cell
    checkpoint: str | None  # The real tier reads this folder of the project; null: no real tier.


class QuestionAnswering(Stories):
    """Notebook 08."""

    trained_stories: Count  # Claims are decided on these, at the trained length.
    window: Count  # tokens that the short arms read: the last ones, or what BM25 finds
    lengths: Counts  # T of the test rows
    depths: Shares  # depths of the story in them, 0 first
    real_domains: Annotated[tuple[Literal["manuals", "plays"], ...], Field(strict=False, min_length=1)]
    real_lengths: Counts  # T of the stretches of a document
    real_window: Count
    real_documents: Count  # documents of either kind
    real_questions: Count  # questions about each document, at most


class StoryWriter(Frozen):
    """The writers of summaries and of statements.

    Who writes summaries starts from the readers' base; who writes statements starts from who writes
    summaries. They are trained once, as the readers. Steps are on rows of the readers'
    short_length, then on rows of their long_length.
    """

    summary_steps: Pair
    statement_steps: Pair
    lr: Positive


class Translator(Frozen):
    """The encoder-decoder of notebook 09."""

    width: Count
    layers: Count  # layers on either side
    heads: Count
    short_conv: Count
    rows: Count  # Rows are kept for training and drawn with replacement.
    step_rows: Count  # rows in a training step
    steps: Count
    lr: Positive


class Translation(Study):
    """Notebook 09."""

    seeds: Seeds
    translator: Translator
    sentences: Annotated[int, Field(ge=2)]  # sentences in a document; the last one is translated
    contexts: Wholes  # sentences before it that are read
    distances: Counts  # sentences back to the one that tells
    documents: Count  # documents tested of each kind at each distance


class Summarization(Stories):
    """Notebook 10."""

    story_writer: StoryWriter
    window: Count  # tokens that truncating arms read, and of a chunk
    lengths: Counts  # T of the test stories
    real_length: Count  # tokens of a manual, at most
    real_documents: Annotated[int, Field(ge=2)]
    real_sentences: Count  # sentences of the extractive baselines


class ContentCreation(Stories):
    """Notebook 11."""

    story_writer: StoryWriter
    length: Count  # T of the test stories
    windows: Counts  # The short arms read so many of their last tokens.
    new: Count  # tokens of a continuation
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    real_documents: Annotated[int, Field(ge=2)]  # plays
    real_length: Count  # tokens of a play that the widest window holds
    real_windows: Counts
    real_new: Count


class Params(Frozen):
    """All of params.yaml."""

    profile: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]  # a folder below build/
    corpus: Corpus
    tokenizer: Tokenizer
    attention_derivation: AttentionDerivation
    recurrence: Recurrence
    model_anatomy: ModelAnatomy
    efficient_attention: EfficientAttention
    mlm_pretraining: MlmPretraining
    depth_width: DepthWidth
    context_extension: ContextExtension
    question_answering: QuestionAnswering
    translation: Translation
    summarization: Summarization
    content_creation: ContentCreation


STUDIES: dict[str, type[Study]] = {
    name: field.annotation for name, field in Params.model_fields.items() if issubclass(field.annotation, Study)
}


def read_params(path: Path | str) -> Params:
    """Read and validate params.yaml."""
    return validate(Params, read_yaml(path), str(path))
