"""What a training run sees and does, as configuration.

The module is importable without torch.
"""

import inspect
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from farcontext.nn.config import RECURRENT, ModelConfig
from farcontext.schema import Count, DType, Frozen, Positive, Share

Beta = Annotated[float, Field(ge=0, lt=1)]


class BatchConfig(Frozen):
    """What one training step sees."""

    objective: Literal["mlm", "clm"]
    length: Count  # This is T, the tokens in a row.
    rows: Count  # This is B, the rows in a step.
    layout: Literal["packed", "padded"] = "packed"
    mask_rate: Share = 0.3  # Objective mlm selects this share of the real tokens.
    domains: Annotated[
        tuple[str, ...], Field(strict=False)
    ] = ()  # Empty means every domain of the corpus.
    # Training sees the first `limit` tokens of each domain only (smoke).
    limit: Count | None = None


class Task(Frozen):
    """A synthetic task of `tasks/`, or rows made before.

    It has the name of its module's function, and the function's options.
    """

    name: Literal["dense_recall", "recall", "flip_flop", "prepared"]
    pairs: Count | None = None  # recall: a row has so many key–value pairs.
    # recall: the pairs are packed into so many tokens; None spreads them over the row.
    span: Count | None = None
    # recall: the packed pairs stand here, 0 first, 1 last; None means anywhere.
    depth: Share | None = None
    ignores: Share | None = None  # flip_flop: this share of instructions only fills.
    # prepared: `curriculum.keep_rows` gives this digest.
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that are set, as keywords."""
        return {name: value for name, value in self if name != "name" and value is not None}

    @model_validator(mode="after")
    def _takes_its_options(self) -> Self:
        from farcontext.tasks.rows import MADE  # noqa: PLC0415 (brings in numpy, here and below)

        make = MADE.get(self.name)
        parameters = inspect.signature(make).parameters.values() if make else ()
        known = [x.name for x in parameters if x.kind is x.KEYWORD_ONLY] or ["digest"]
        for name, value in self.options.items():
            if name not in known:
                raise ValueError(
                    f"name = {self.name}, {name} = {value}: "
                    f"expected an option of {self.name} ({', '.join(known)})"
                )
        if make is None and self.digest is None:
            raise ValueError(f"name = {self.name}, digest = null: expected the digest of its rows")
        return self


class Stage(Frozen):
    """A stretch of a curriculum, with rows of one length.

    The rows are dealt evenly to some tasks.
    """

    steps: Count
    rows: Count
    length: Count
    tasks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)]
    # An encoder–decoder's encoder reads so many first tokens of each row; PAD fills them up.
    source: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        import numpy as np  # noqa: PLC0415

        from farcontext.tasks.rows import MADE  # noqa: PLC0415

        for task in self.tasks:
            if self.source is not None and task.name in MADE:
                raise ValueError(
                    f"source = {self.source}, tasks.name = {task.name}: expected prepared: "
                    "a row that is made anew has no part for an encoder"
                )
            if task.name in MADE:  # What fits into a row, a task says itself.
                _ = MADE[task.name](np.random.default_rng(0), 1, self.length, **task.options)
        if self.source is not None and self.source >= self.length:
            raise ValueError(
                f"source = {self.source}, length = {self.length}: expected source below length"
            )
        return self


class Curriculum(Frozen):
    """What a run on synthetic tasks sees.

    A batch is a pure function of (seed, step) here too.
    """

    objective: Literal["tasks"] = "tasks"
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]

    @property
    def length(self) -> int:
        """Return T of the longest stage."""
        return max(stage.length for stage in self.stages)

    def at(self, step: int) -> Stage:
        """Return the stage of a step (0-based).

        The last stage goes on for ever.
        """
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]


class OptimizerConfig(Frozen):
    """AdamW with linear warm-up and a cosine or warm-up–stable–decay schedule."""

    lr: Positive
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.98)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[int, Field(ge=0)] = 50
    schedule: Literal["cosine", "wsd", "constant"] = "wsd"
    final: Share = 0.1  # The last step's rate is this share of lr.
    decay: Share = 0.2  # wsd: the rate falls linearly in this last share of the steps.
    clip: Positive = 1.0  # The whole gradient's norm is clipped to this.
    accumulation: Count = 1  # Rows of a step are split into this many forward passes.
    # Muon's peak rate on the blocks' matrices; the rest has AdamW's. None: AdamW has all.
    muon: Positive | None = Field(default=None, exclude_if=lambda rate: rate is None)


class RunConfig(Frozen):
    """One training run.

    With the corpus, code and versions, its hash names the run in the cache.
    """

    model: ModelConfig
    batch: Annotated[BatchConfig | Curriculum, Field(discriminator="objective")]
    optimizer: OptimizerConfig
    steps: Count
    save_every: Count
    evaluate_every: Count | None = None
    seed: Annotated[int, Field(ge=0)]
    dtype: DType = "float32"
    # Each takes its share of a step's rows. Sums in another order have other bits: another key.
    processes: Count = 1
    # ddp: each process keeps all weights; fsdp: its share of weights, gradients and moments.
    parallel: Literal["ddp", "fsdp"] = "ddp"
    # Fine-tuning starts at step 0 from the weights of this finished run.
    start: "RunConfig | None" = None

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
            raise ValueError(
                f"{given}, processes = {self.processes}: "
                "expected accumulation · processes to divide rows"
            )
        if self.parallel == "fsdp" and self.processes == 1:
            raise ValueError("parallel = fsdp, processes = 1: expected 2 processes or more")
        if self.parallel == "fsdp" and self.optimizer.muon:
            # A step of Muon needs whole matrices, and sharding cuts them.
            raise ValueError(
                f"parallel = fsdp, optimizer.muon = {self.optimizer.muon}: expected null, or ddp"
            )
        if self.parallel == "fsdp" and self.model.kind in RECURRENT:
            # torch's recurrent layers keep references to their weights, which sharding replaces.
            raise ValueError(
                f"parallel = fsdp, model.kind = {self.model.kind}: expected a Transformer, or ddp"
            )
        return self

    @model_validator(mode="after")
    def _kind_reads_batch(self) -> Self:
        kind, batch = f"model.kind = {self.model.kind}", self.batch
        if isinstance(batch, Curriculum):
            for stage in batch.stages:
                if (stage.source is None) == (self.model.kind == "encoder_decoder"):
                    source = "null" if stage.source is None else stage.source
                    raise ValueError(
                        f"{kind}, batch.stages.source = {source}: "
                        "expected a source for encoder_decoder, and for no other kind"
                    )
        elif self.model.kind not in ("encoder", "decoder"):
            raise ValueError(
                f"{kind}, batch.objective = {batch.objective}: "
                "expected kind encoder or decoder, or objective tasks"
            )
        elif (self.model.kind, batch.objective) == ("encoder", "clm"):
            raise ValueError(
                f"{kind}, batch.objective = clm: "
                "expected objective mlm: an encoder sees the token that it predicts"
            )
        if self.model.kind in RECURRENT and self.dtype != "float32":
            raise ValueError(
                f"{kind}, dtype = {self.dtype}: expected float32, a recurrent state loses digits"
            )
        return self

    @model_validator(mode="after")
    def _model_holds_batch(self) -> Self:
        from farcontext.tasks.rows import VOCABULARY  # noqa: PLC0415

        model, length, extension = self.model, self.batch.length, self.model.extension
        if model.random_positions and length > model.random_positions:
            raise ValueError(
                f"batch.length = {length}, model.random_positions = {model.random_positions}: "
                "expected batch.length to be at most model.random_positions"
            )
        if model.positions == "learned" and extension:
            rows = math.floor(extension.trained_length * extension.scale)
            if length > rows:
                raise ValueError(
                    f"batch.length = {length}, model.extension.trained_length = "
                    f"{extension.trained_length}, scale = {extension.scale}: "
                    f"expected batch.length to be at most {rows}"
                )
        stages = self.batch.stages if isinstance(self.batch, Curriculum) else ()
        for name in (task.name for stage in stages for task in stage.tasks):
            ids = VOCABULARY.get(name, 0) + (model.kind == "encoder")
            if model.vocab_size < ids:
                raise ValueError(
                    f"model.vocab_size = {model.vocab_size}, model.kind = {model.kind}, "
                    f"batch.stages.tasks.name = {name}: expected at least {ids} ids"
                )
        return self
