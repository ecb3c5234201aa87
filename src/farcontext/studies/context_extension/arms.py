"""The arms of notebook 07.

They are ways to encode positions and ways to extend them, and how each is trained.
"""

from typing import NamedTuple

from farcontext.nn.config import Extension, ModelConfig
from farcontext.schema import Row
from farcontext.studies.context_extension.params import Params
from farcontext.studies.trainings import training
from farcontext.tasks import recall
from farcontext.train.config import Curriculum, RunConfig, Stage, Task

SHORT_SPAN = 4  # A row of the first stage has L / SHORT_SPAN tokens.
SMEARED_STEPS = (
    3  # Smeared bases are compared only with one another; they learn in a third of the steps.
)
# The first is the share of pairs that turn, the second that of channels.
P_ROPE, PARTIAL = 0.75, 0.5
TURNS = 4.0  # This is YaRN's fast end of the ramp, in turns: L is too short for the published 32.


class Arm(NamedTuple):
    """A way to reach further.

    An arm has the base it starts from, and RoPE's scheme with its options, if any.
    """

    name: str
    base: str
    scheme: str | None = None
    options: tuple[tuple[str, float], ...] = ()
    log_n: bool = False
    window: bool = False
    remap: str | None = None  # Training-free: other positions by region (nn/remap.py).
    drops: bool = False  # Positions are dropped from the trained model.


ARMS = {
    arm.name: arm
    for arm in (
        Arm("rope", "rope"),
        Arm("linear", "rope", "linear"),
        Arm("ntk", "rope", "ntk"),
        Arm("dynamic_ntk", "rope", "dynamic_ntk"),
        Arm("dynamic_ntk_hf", "rope", "dynamic_ntk_hf"),
        Arm("yarn", "rope", "yarn"),
        Arm("yarn_4_turns", "rope", "yarn", (("beta_fast", TURNS),)),
        Arm("yarn_rotations", "rope", "yarn_rotations"),
        Arm("llama3", "rope", "llama3"),
        Arm("abf", "rope", "abf"),
        Arm("log_n", "rope", log_n=True),
        Arm("window_sinks", "rope", window=True),
        Arm("self_extend", "rope", remap="self_extend"),
        Arm("dual_chunk", "rope", remap="dual_chunk"),
        Arm("lm_infinite", "rope", remap="lm_infinite"),
        Arm("drope", "rope", drops=True),
        Arm("p_rope", "p_rope"),
        Arm("partial_rotary", "partial_rotary"),
        Arm("random", "random"),
        Arm("alibi", "alibi"),
        Arm("alibi_smeared", "alibi_smeared"),
        Arm("nope", "nope"),
        Arm(
            "rope_smeared", "rope_smeared"
        ),  # Keys are mixed with their neighbour's: this base learns in minutes.
        Arm("nope_smeared", "nope_smeared"),
        Arm("t5", "t5"),
        Arm("sinusoidal", "sinusoidal"),
        Arm("learned", "learned", "linear"),
    )
}
# Their scale is set from outside.
FOLLOWS = ("linear", "ntk", "yarn", "yarn_rotations", "llama3", "abf")


def base_model(params: Params, base: str, kind: str = "decoder") -> ModelConfig:
    """Return the model of a base at length L.

    All bases are the same but for their positions.
    """
    match base.removesuffix("_smeared"):
        case "nope":
            encoding: Row = {"positions": "none"}
        case "random":
            encoding = {"random_positions": params.length * max(params.multiples)}
        case "p_rope":
            encoding = {"extension": Extension(scheme=base, trained_length=params.length, p=P_ROPE)}
        case "partial_rotary":
            encoding = {
                "extension": Extension(scheme=base, trained_length=params.length, p=PARTIAL)
            }
        case name:
            encoding = {"positions": name}
    return ModelConfig(
        kind=kind,
        vocab_size=recall.VOCABULARY + 1,  # The last id is an encoder's mask.
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        mlp_width=4 * params.width,
        mlp="gelu",
        max_length=params.length,
        init_std=params.init_std,
        embedding_std=None
        if base == "sinusoidal"
        else 1.0,  # A table of sines must not drown in the embedding.
        tied=False,
        smear=base.endswith("_smeared"),
        **encoding,
    )


def extended(params: Params, arm: Arm, scale: float, kind: str = "decoder") -> ModelConfig:
    """Return an arm's model for `scale` times the trained length.

    The weights are its base's.
    """
    model = base_model(params, arm.base, kind)
    if arm.drops:
        return model.model_copy(update={"positions": "none"})
    if arm.log_n:
        return model.model_copy(update={"log_n": params.length})
    if arm.scheme is None:
        return model
    scale = scale if arm.scheme in FOLLOWS or arm.scheme == "dynamic_ntk_hf" else 1.0
    extension = Extension(
        scheme=arm.scheme, scale=scale, trained_length=params.length, **dict(arm.options)
    )
    return model.model_copy(update={"extension": extension})


def base_run(params: Params, base: str, seed: int, lr: float, kind: str = "decoder") -> RunConfig:
    """Return the training of a base.

    A base learns recall from short rows to rows of L tokens; every base sees the same tokens.
    """
    dense, once = Task(name="dense_recall", pairs=4), Task(name="recall", pairs=params.pairs)
    short = params.length // SHORT_SPAN
    fewer = SMEARED_STEPS if base.endswith("_smeared") else 1
    lengths = [
        (params.short_steps, short, (Task(name="dense_recall", pairs=3),)),
        (params.dense_steps, 2 * short, (dense,)),
        (params.long_steps, params.length, (dense, once)),
    ]
    stages = tuple(
        Stage(
            steps=max(1, steps // fewer),
            rows=params.step_tokens // length,
            length=length,
            tasks=tasks,
        )
        for steps, length, tasks in lengths
    )
    half = max(1, sum(stage.steps for stage in stages) // 2)
    return training(
        base_model(params, base, kind),
        Curriculum(stages=stages),
        lr=lr,
        warmup=params.warmup,
        seed=seed,
        save_every=half,
    )


def longer_run(params: Params, base: str, seed: int, lr: float) -> RunConfig:
    """Return a base that goes on to rows of `longer_length`.

    They are twice as long at each stage. From nothing, rows of 256 tokens do not teach the task in
    as many steps.
    """
    start = base_run(params, base, seed, lr)
    model = base_model(params.model_copy(update={"length": params.longer_length}), base)
    tasks = (Task(name="dense_recall", pairs=4), Task(name="recall", pairs=params.pairs))
    lengths = [params.longer_length]
    while lengths[0] > 2 * params.length:
        lengths.insert(0, lengths[0] // 2)
    stages = tuple(
        Stage(
            steps=params.longer_steps, rows=params.step_tokens // length, length=length, tasks=tasks
        )
        for length in lengths
    )
    rate = {"lr": params.tune_share * lr, "warmup": params.tune_warmup}
    return training(model, Curriculum(stages=stages), seed=seed, start=start, **rate)


def tuned_run(params: Params, arm: Arm, seed: int, lr: float, dose: int) -> RunConfig:
    """Return an arm's fine-tuning of so many steps.

    It learns recall at `tune_multiple` times L; the scale is set for the longest goal. Dropped
    positions are recalibrated at L, as their paper does (Gelberg et al. 2025, §4), on as many
    tokens.
    """
    start = base_run(params, arm.base, seed, lr)
    length = params.length * (1 if arm.drops else params.tune_multiple)
    model = extended(params, arm, params.goal).model_copy(update={"max_length": length})
    tasks = (
        Task(name="recall", pairs=params.pairs),
        Task(name="recall", pairs=params.pairs, span=params.span),
    )
    stage = Stage(steps=dose, rows=params.tune_step_tokens // length, length=length, tasks=tasks)
    stages = Curriculum(stages=(stage,))
    rate = {"lr": params.tune_share * lr, "warmup": params.tune_warmup}
    return training(model, stages, seed=seed, start=start, **rate)
