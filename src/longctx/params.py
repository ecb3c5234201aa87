"""The schema of params.yaml: one section a study, in reading order. Importable without torch.

Apart from config.py so that a new study makes no trained model stale: training imports config.py, never this.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from longctx.config import (
    Corpus,
    Count,
    Counts,
    DType,
    Frozen,
    Names,
    Positive,
    Seeds,
    Shares,
    Tokenizer,
    read_yaml,
    validate,
)

# learning rates by arm, and by "layers x width": at least one each
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

    seeds: Seeds  # of recall
    flip_flop_seeds: Seeds  # more of them: minutes are enough, and its slopes spread more
    recurrent_width: Count  # D of rnn, lstm and gru; the state's width follows from the number of parameters
    attention_width: Count
    attention_layers: Count
    heads: Count
    recall_parameters: Count  # of every arm on that task, within 3 %
    flip_flop_parameters: Count
    recall_rates: RatesOf  # where they are not tuned again
    flip_flop_rates: RatesOf
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]  # the same for every arm; empty: not tuned again
    tuning_seeds: Annotated[tuple[int, ...], Field(strict=False)]
    pairs: Count
    span: Count  # tokens that the pairs are packed into
    dense_steps: Count  # pairs shown again and again, in rows of dense_length
    dense_rows: Count
    dense_length: Count
    recall_steps: Counts  # of each further stage: pairs shown once
    recall_rows: Counts
    recall_lengths: Counts  # T; the last one is tested
    distances: Counts  # tokens between the pairs and the questions, in test rows
    flip_flop_steps: Count
    flip_flop_rows: Count
    flip_flop_length: Count
    test_lengths: Counts  # of flip-flop
    test_ignores: Shares
    test_rows: Count
    gradient_length: Count  # T of the rows whose gradient is taken
    gradient_rows: Count
    fit_from: Count  # the slope is fitted from this distance to 7/8 of gradient_length


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
    plain_lengths: Counts  # T, where the scores are written out
    lengths: Counts  # T of the memory-efficient paths; the longest is measured once
    layer_length: Count  # T of one whole layer, forward and backward
    product: Count  # size of the square matrices whose product is timed
    step_lengths: Counts  # the cost model's grid: T,
    step_widths: Counts  # D,
    step_layers: Counts  # and layers, crossed
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
    encoder_step_tokens: Count  # in a training step
    decoder_step_tokens: Count
    encoder_steps: Count
    encoder_lr: Positive
    decoder_steps: Count
    decoder_lr: Positive
    init_std: Positive
    window: Count | None  # half-width of the encoder's local layers; every third layer is global
    smear: bool  # keys mixed with their neighbour's: the models then use far context after minutes of training
    mask_rates: Shares  # the first is the arm of the verdict
    layouts: Annotated[tuple[Literal["packed", "padded"], ...], Field(strict=False, min_length=1)]
    decoder_domains: Names  # what the decoder is trained on
    contexts: Counts  # w, true tokens next to the targets, for M2
    context_domains: Names  # where M2 is measured
    test_rows: Count  # rows of `length` tokens scored, per domain
    limit: Count | None = None  # training tokens of each domain (smoke); None: all
    dtype: DType = "float32"


class DepthWidth(Study):
    """Notebook 06."""

    seeds: Seeds
    rates: RatesOfCells  # the cells that are trained
    tuning_rates: Annotated[tuple[Positive, ...], Field(strict=False)]  # tried for every cell; empty: not tuned again
    tuning_seeds: Annotated[tuple[int, ...], Field(strict=False)]
    windows: Counts  # trained lengths, crossed with the cells
    furthest: Count  # longest tested length, in trained lengths
    short_steps: Count  # at 32 tokens
    long_steps: Count  # at the trained length
    train_rows: Count
    pairs: Count
    test_rows: Count
    local_window: Count  # w of the sliding-window arm
    local_depths: Counts
    local_length: Count  # T of the rows whose gradient is taken
    sgd_lengths: Counts  # T of the divergence sweep, shortest first
    sgd_rates: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    sgd_steps: Count
    sgd_tokens: Count  # in a step, where tokens are equal
    sgd_rows: Count  # in a step, where sequences are equal


class ContextExtension(Study):
    """Notebook 07."""

    seeds: Seeds
    tuning_seeds: Seeds  # of the learning rates and of P1's chosen arm; in no verdict
    lrs: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]  # tried for every base
    width: Count
    layers: Count
    heads: Count
    init_std: Positive
    length: Count  # L, the trained length
    step_tokens: Count  # in a training step
    short_steps: Count  # rows of L/4 tokens, then
    dense_steps: Count  # of L/2, then
    long_steps: Count  # of L
    tune_steps: Count
    tune_multiple: Count  # fine-tuning at so many times L
    tune_step_tokens: Count
    tune_share: Positive  # of the base's learning rate
    goal: Count  # the scale that tuned arms are set to, and from which on the score counts
    multiples: Counts  # of L, tested
    depths: Shares  # of packed evidence, 0 first
    pairs: Count
    span: Count  # tokens that packed evidence takes
    test_rows: Count
    arms: Names
    tuned_arms: Annotated[tuple[str, ...], Field(strict=False)]
    encoder_arms: Annotated[tuple[str, ...], Field(strict=False)]
    checkpoint: str | None  # the real tier's, a folder of the project; null: no real tier
    real_documents: Count  # plays, in pairs
    real_lengths: Counts  # tokens, targets included
    real_targets: Count
    gap_schemes: Names
    gaps: Wholes  # positions left out
    gap_half: Count  # tokens before the gap, and after it
    needle_lengths: Counts
    contexts: Count  # of ten needles, at each length


class StoryReader(Frozen):
    """The readers that the applications share: the same section in each of them, so that they are trained once."""

    width: Count
    layers: Count
    heads: Count
    short_conv: Count
    people: Count  # in a story, as the next two
    things: Count
    changes: Annotated[int, Field(ge=0)]  # at most
    rows: Count  # kept for training, of each length and kind; drawn with replacement
    step_tokens: Count  # in a training step
    short_length: Count  # T of the rows that pre-training begins with
    long_length: Count  # T that it ends with in the long recipe, and of fine-tuning
    short_steps: Count
    long_steps: Count
    tune_steps: Count
    lr: Positive
    tune_share: Positive  # of it, in later phases


class Stories(Study):
    """What the notebooks about stories share."""

    seeds: Seeds
    story_reader: StoryReader
    stories: Count  # tested in each cell
    checkpoint: str | None  # the real tier's, a folder of the project; null: no real tier


class QuestionAnswering(Stories):
    """Notebook 08."""

    trained_stories: Count  # at the trained length, where claims are decided
    window: Count  # tokens that the short arms read: the last ones, or what BM25 finds
    lengths: Counts  # T of the test rows
    depths: Shares  # of the story in them: 0 first
    real_domains: Annotated[tuple[Literal["manuals", "plays"], ...], Field(strict=False, min_length=1)]
    real_lengths: Counts  # T of the stretches of a document
    real_window: Count
    real_documents: Count  # of either kind
    real_questions: Count  # about each, at most


class StoryWriter(Frozen):
    """Who writes summaries starts from the readers' base; who writes statements starts from them. Trained once, as the readers.

    Steps on rows of the readers' short_length, then on rows of their long_length.
    """

    summary_steps: Pair
    statement_steps: Pair
    lr: Positive


class Translator(Frozen):
    """The encoder-decoder of notebook 09."""

    width: Count
    layers: Count  # on either side
    heads: Count
    short_conv: Count
    rows: Count  # kept for training; drawn with replacement
    step_rows: Count  # in a training step
    steps: Count
    lr: Positive


class Translation(Study):
    """Notebook 09."""

    seeds: Seeds
    translator: Translator
    sentences: Annotated[int, Field(ge=2)]  # in a document; the last one is translated
    contexts: Wholes  # sentences before it that are read
    distances: Counts  # sentences back to the one that tells
    documents: Count  # tested of each kind at each distance


class Summarization(Stories):
    """Notebook 10."""

    story_writer: StoryWriter
    window: Count  # tokens that truncating arms read, and of a chunk
    lengths: Counts  # T of the test stories
    real_length: Count  # tokens of a manual, at most
    real_documents: Annotated[int, Field(ge=2)]
    real_sentences: Count  # of the extractive baselines


class ContentCreation(Stories):
    """Notebook 11."""

    story_writer: StoryWriter
    length: Count  # T of the test stories
    windows: Counts  # their last tokens, that the short arms read
    new: Count  # tokens of a continuation
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    real_documents: Annotated[int, Field(ge=2)]  # plays
    real_length: Count  # tokens of them that the widest window holds
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
