"""Trainings of notebook 06: its grid, and stacks of windows."""

from farcontext.nn.config import ModelConfig
from farcontext.studies.depth_width.params import Params
from farcontext.studies.trainings import training
from farcontext.tasks import recall
from farcontext.train.config import Curriculum, RunConfig, Stage, Task

SHORT = 32  # The curriculum's first stage has so many tokens.
HEAD_WIDTH = 32  # It is the same at every width, so that RoPE's frequencies are the same too.
LOCAL_WIDTH = 64


def cells(params: Params) -> dict[tuple[int, int], float]:
    """Return (layers, width) → learning rate."""
    return {
        tuple(int(part) for part in name.split("x")): rate for name, rate in params.rates.items()
    }


def _model(layers: int, width: int, length: int, **changes: object) -> ModelConfig:
    return ModelConfig(
        kind="decoder",
        vocab_size=recall.VOCABULARY + 1,
        width=width,
        layers=layers,
        heads=max(1, width // HEAD_WIDTH),
        mlp_width=2 * width,
        mlp="gelu",
        max_length=length,
        init_std=0.1,
        embedding_std=1.0,
        smear=True,
        **changes,
    )


def _run(
    params: Params, model: ModelConfig, lr: float, seed: int, long: tuple[Stage, ...]
) -> RunConfig:
    short = Stage(
        steps=params.short_steps,
        rows=params.train_rows,
        length=SHORT,
        tasks=(Task(name="dense_recall", pairs=max(1, params.pairs // 2)),),
    )
    stages = Curriculum(stages=(short, *long))
    rate = {"lr": lr, "warmup": params.warmup, "warmup_share": 1 / 3}
    return training(model, stages, seed=seed, **rate)


def grid_run(
    params: Params, layers: int, width: int, window: int, *, lr: float, seed: int
) -> RunConfig:
    """Return a cell's training: recall at 32 tokens, then at `window`."""
    tasks = (Task(name="dense_recall", pairs=params.pairs), Task(name="recall", pairs=params.pairs))
    # The window is the trained length.
    long = Stage(steps=params.long_steps, rows=params.train_rows, length=window, tasks=tasks)
    return _run(params, _model(layers, width, max(SHORT, window)), lr, seed, (long,))


def local_run(params: Params, layers: int, seed: int) -> RunConfig:
    """Return the training of a stack whose layers all see `local_window` keys."""
    model = _model(
        layers, LOCAL_WIDTH, params.local_length, window=params.local_window, global_every=0
    )
    return _run(params, model, 0.004, seed, ())
