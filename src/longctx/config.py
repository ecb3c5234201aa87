"""What can be configured about models, runs and data, the YAML reader, and one-line error messages.

Importable without torch. YAML is read by ruamel.yaml 1.2, the reader that DVC uses, so a value means the same to both.
"""

import io
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from longctx.files import UserError
from longctx.messages import one_line, problems

MAX_YAML_BYTES, MAX_YAML_DEPTH = 1 << 20, 40

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
Counts = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
Shares = Annotated[tuple[Share, ...], Field(strict=False, min_length=1)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]

Positions = Literal["rope", "learned", "sinusoidal", "none", "alibi", "t5"]
RECURRENT = ("rnn", "lstm", "gru")
Model = TypeVar("Model", bound=BaseModel)
DType = Literal["float32", "bfloat16"]

SPECIAL = ("[PAD]", "[MASK]", "[BOS]", "[EOS]")  # in the order of their ids
PAD, MASK, BOS, EOS = range(4)


class Frozen(BaseModel):
    """Base of every configuration: immutable, strict types, no unknown key, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _no_repeated_seed(self) -> Self:
        seeds = getattr(self, "seeds", ())
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds = {list(seeds)}: expected each seed once")
        return self


class Extension(Frozen):
    """A scheme that changes RoPE's frequencies to reach further: what `positions.inverse_frequencies` takes."""

    scheme: str
    scale: Annotated[float, Field(ge=1)] = 1.0  # s, reach over trained length
    trained_length: Count  # L
    beta_fast: Positive | None = None  # None, here and below: the scheme's own default
    beta_slow: Positive | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    p: Share | None = None
    new_theta: Positive | None = None
    short_factor: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    long_factor: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    attention_factor: Positive | None = None  # multiplies cos and sin

    @property
    def options(self) -> dict[str, Any]:
        """The scheme's further keywords, where they are set."""
        common = {"scheme", "scale", "trained_length", "attention_factor"}
        return {name: value for name, value in self if name not in common and value is not None}


class ModelConfig(Frozen):
    """A model's shape. Widths and lengths in tokens or channels; D width, N heads, G kv_heads, M mlp_width."""

    kind: Literal["encoder", "decoder", "encoder_decoder", "rnn", "lstm", "gru"]
    vocab_size: Annotated[int, Field(ge=2)]
    width: Count
    layers: Count
    heads: Count
    kv_heads: Count | None = None  # None: as many as heads
    mlp_width: Count  # of a recurrent kind: its state's width
    norm: Literal["layer", "rms"] = "rms"
    mlp: Literal["geglu", "swiglu", "gelu", "relu"] = "swiglu"
    positions: Positions = "rope"
    pairing: Literal["half", "interleaved"] = "half"  # which channels RoPE turns together: (i, i+F) or (2i, 2i+1)
    theta: Positive = 10_000.0
    local_theta: Positive = 10_000.0
    extension: Extension | None = None  # of RoPE; with a learned table, "linear" reads between its rows
    random_positions: Count | None = None  # RoPE at sorted positions drawn below this (Ruoss et al. 2023)
    log_n: Count | None = None  # L: a query with n > L keys has its logits multiplied by ln n / ln L
    max_length: Count  # the longest trained length; a learned table has this many rows
    window: Count | None = None  # half-width h of local layers: |i - j| <= h; None: every layer is global
    # with a window, layers 0, g, 2g, … stay global (ModernBERT: 3); 0: none does
    global_every: Annotated[int, Field(ge=0)] = 1
    smear: bool = False  # mix each key with its neighbour's, so that one layer can look for "what followed this?"
    short_conv: Count | None = None  # tokens before it that each embedding takes up, by channel (Allen-Zhu 2025)
    embedding_norm: bool = False  # ModernBERT: normalise the embedding, then no attention norm in layer 0
    tied: bool = True
    init_std: Positive = 0.02
    embedding_std: Positive | None = None  # None: init_std
    norm_eps: Positive = 1e-5  # added to the variance; ModernBERT 1e-5, Llama 1e-6 or 1e-5

    @property
    def head_width(self) -> int:
        """H, channels per head."""
        return self.width // self.heads

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kv_heads = self.kv_heads or self.heads
        if self.width % self.heads:
            raise ValueError(f"width = {self.width}, heads = {self.heads}: expected heads to divide width")
        if self.heads % kv_heads:
            raise ValueError(f"heads = {self.heads}, kv_heads = {kv_heads}: expected kv_heads to divide heads")
        if self.positions == "rope" and self.head_width % 2:
            raise ValueError(
                f"width = {self.width}, heads = {self.heads}, positions = rope: expected an even head width, "
                f"not {self.head_width}"
            )
        if self.extension and self.positions not in ("rope", "learned"):
            raise ValueError(
                f"extension.scheme = {self.extension.scheme}, positions = {self.positions}: expected rope, or learned"
            )
        if self.window is not None and self.window > self.max_length:
            raise ValueError(
                f"window = {self.window}, max_length = {self.max_length}: expected window to be at most max_length"
            )
        return self


class BatchConfig(Frozen):
    """What one training step sees."""

    objective: Literal["mlm", "clm"]
    length: Count  # T, tokens in a row
    rows: Count  # B, rows in a step
    layout: Literal["packed", "padded"] = "packed"
    mask_rate: Share = 0.3  # of real tokens, for objective mlm
    domains: Annotated[tuple[str, ...], Field(strict=False)] = ()  # empty: every domain of the corpus
    limit: Count | None = None  # train on the first `limit` tokens of each domain only (smoke)


class Task(Frozen):
    """A synthetic task of `tasks/`, by the name of its module's function, with the function's options; or rows made before."""

    name: Literal["dense_recall", "recall", "flip_flop", "prepared"]
    pairs: Count | None = None  # recall: key–value pairs in a row
    span: Count | None = None  # recall: tokens that the pairs are packed into; None: spread over the row
    depth: Share | None = None  # recall: where the packed pairs stand, 0 first, 1 last; None: anywhere
    ignores: Share | None = None  # flip_flop: share of instructions that only fill
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None  # prepared: `curriculum.keep_rows`'s

    @property
    def options(self) -> dict[str, Any]:
        """What is set, as keywords."""
        return {name: value for name, value in self if name != "name" and value is not None}


class Stage(Frozen):
    """A stretch of a curriculum: rows of one length, dealt evenly to some tasks."""

    steps: Count
    rows: Count
    length: Count
    tasks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)]
    source: Count | None = None  # first tokens of each row, that an encoder–decoder's encoder reads; PAD fills them up


class Curriculum(Frozen):
    """What a run on synthetic tasks sees; a batch is a pure function of (seed, step) here too."""

    objective: Literal["tasks"] = "tasks"
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]

    @property
    def length(self) -> int:
        """T of the longest stage."""
        return max(stage.length for stage in self.stages)

    def at(self, step: int) -> Stage:
        """Return the stage of a step (0-based); the last one goes on for ever."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]


class OptimizerConfig(Frozen):
    """AdamW with linear warm-up and a cosine or warm-up–stable–decay schedule."""

    lr: Positive
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.98)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[int, Field(ge=0)] = 50
    schedule: Literal["cosine", "wsd", "constant"] = "wsd"
    final: Share = 0.1  # of lr, at the last step
    decay: Share = 0.2  # wsd: the last share of the steps, in which the rate falls linearly
    clip: Positive = 1.0  # norm of the whole gradient
    accumulation: Count = 1  # rows of a step are split into this many forward passes


class RunConfig(Frozen):
    """One training run; with the corpus, code and versions its hash names the run in the cache."""

    model: ModelConfig
    batch: Annotated[BatchConfig | Curriculum, Field(discriminator="objective")]
    optimizer: OptimizerConfig
    steps: Count
    save_every: Count
    evaluate_every: Count | None = None
    seed: Annotated[int, Field(ge=0)]
    dtype: DType = "float32"
    processes: Count = 1  # each takes its share of a step's rows; sums in another order: other bits, so another key
    start: "RunConfig | None" = None  # fine-tuning: a finished run whose weights these are at step 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch.length > self.model.max_length:
            raise ValueError(
                f"batch.length = {self.batch.length}, model.max_length = {self.model.max_length}: "
                "expected batch.length to be at most model.max_length"
            )
        stages = self.batch.stages if isinstance(self.batch, Curriculum) else (self.batch,)
        parts = self.optimizer.accumulation * self.processes
        for rows in (stage.rows for stage in stages if stage.rows % parts):
            given = f"batch.rows = {rows}, optimizer.accumulation = {self.optimizer.accumulation}"
            raise ValueError(f"{given}, processes = {self.processes}: expected accumulation · processes to divide rows")
        return self


class Dataset(Frozen):
    """A Hugging Face data set, streamed: the first documents up to both limits, in the data set's own order."""

    path: str  # a name on the hub, a folder, or a format with `files`: parquet, json, text, …
    name: str | None = None  # the data set's configuration
    files: Annotated[tuple[str, ...], Field(strict=False)] = ()  # patterns, for a format
    split: str = "train"
    column: str = "text"
    revision: str | None = None  # a commit of the hub: the same text tomorrow
    documents: Count = 100_000
    characters: Count = 100_000_000


class Corpus(Frozen):
    """Stage `corpus`: which sources become documents, and how they are split."""

    sources: Annotated[tuple[str, ...], Field(strict=False)]  # may be empty when one of the next two is given
    folder: str | None = None  # your own .txt, .md, .jsonl and .parquet files, added as one more source
    dataset: Dataset | None = None  # one more source
    manuals: Count  # characters of API manuals kept (whole documents, by hash order)
    test_share: Share
    validation_share: Share
    near_duplicate: Share  # Jaccard similarity above which two documents count as one
    skip_bad: bool = False  # skip a file that is not UTF-8 instead of stopping

    @model_validator(mode="after")
    def _some_text(self) -> Self:
        if not self.sources and self.folder is None and self.dataset is None:
            raise ValueError("sources = [], folder = null: expected at least one source, a folder or a dataset")
        return self


class Tokenizer(Frozen):
    """Stage `tokenizer`: byte-level BPE on the training split."""

    vocab_size: Annotated[int, Field(ge=261)]
    characters: Count  # of each domain's training text that the merges are learned from


# ------------------------------------------------------------------------------------------------------- reading


def _too_deep(text: str) -> bool:
    """Cheap bound on nesting before the parser recurses: flow brackets and indentation."""
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    indent = max((len(line) - len(line.lstrip(" ")) for line in text.splitlines()), default=0)
    return deepest > MAX_YAML_DEPTH or indent > 2 * MAX_YAML_DEPTH


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML 1.2 mapping into plain Python values, running nothing.

    Raises:
        UserError: missing, too large, too deep, aliased, tagged, a key given twice, or not a mapping.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise UserError(f"{path}: expected at most {MAX_YAML_BYTES} bytes of YAML")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: expected a file here") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: expected UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Parse YAML 1.2 text; `name` stands for the file in messages. Raises UserError as `read_yaml` does."""
    if _too_deep(text):
        raise UserError(f"{name}: expected at most {MAX_YAML_DEPTH} levels of nesting")
    reader = YAML(typ="safe", pure=True)
    reader.max_depth = MAX_YAML_DEPTH
    try:
        if any(type(token).__name__ in ("AliasToken", "TagToken") for token in YAML(typ="safe", pure=True).scan(text)):
            raise UserError(f"{name}: expected plain values: no alias (*), no tag (!)")
        value = reader.load(io.StringIO(text))
    except DuplicateKeyError as error:
        raise UserError(_repeated_key(name, text, error)) from None
    except MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise UserError(f"{name}:{line} expected YAML: {one_line(error.problem)}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: expected YAML: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{name}: expected a mapping of keys to values")
    return value


def _repeated_key(name: str, text: str, error: DuplicateKeyError) -> str:
    """Name the key and both of its lines: the second from the reader, the first by walking back at its indentation."""
    mark = error.problem_mark
    key = str(error.problem).split('"')[1]
    lines = text.splitlines()
    above = (n + 1 for n in range(mark.line - 1, -1, -1) if lines[n][mark.column :].startswith(f"{key}:"))
    return f"{name}: {key}: lines {next(above, '?')} and {mark.line + 1}: expected each key once"


def validate(model: type[Model], value: object, name: str) -> Model:
    """Validate a value against a model.

    Raises:
        UserError: one line, `name: KEY = VALUE: expected …`, for the first problem found.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first, *others = problems(error, model, value)
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{name}: {first}{more}") from None
