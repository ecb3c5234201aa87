"""What a training run sees and does, as configuration.

The module is importable without torch.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from farcontext.nn.config import RECURRENT, ModelConfig
from farcontext.schema import Count, DType, Frozen, Positive, Share


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
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.98)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[int, Field(ge=0)] = 50
    schedule: Literal["cosine", "wsd", "constant"] = "wsd"
    final: Share = 0.1  # The last step's rate is this share of lr.
    decay: Share = 0.2  # wsd: the rate falls linearly in this last share of the steps.
    clip: Positive = 1.0  # The whole gradient's norm is clipped to this.
    accumulation: Count = 1  # Rows of a step are split into this many forward passes.


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
        if self.parallel == "fsdp" and self.model.kind in RECURRENT:
            # torch's recurrent layers keep references to their weights, which sharding replaces.
            raise ValueError(
                f"parallel = fsdp, model.kind = {self.model.kind}: expected a Transformer, or ddp"
            )
        return self
