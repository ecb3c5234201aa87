"""Two recipes of equal cost for the readers of notebook 08.

Both start from the base that all applications share (`story_reader.base_of`), go on with more
short rows or with long ones, and end with the same fine-tuning on questions, in short rows and then
in long ones.
"""

from farcontext.measure import formulas
from farcontext.studies import story_reader
from farcontext.studies.question_answering.params import Params
from farcontext.studies.question_answering.protocol import make_puzzles
from farcontext.studies.stories import StoryReader
from farcontext.studies.trainings import training
from farcontext.train.config import Curriculum, RunConfig, Stage, Task
from farcontext.train.runs import EvalConfig, prepared_task

RECIPES = ("short", "long")
PHASES = ("base", "more", "tuning")


def steps_of(reader: StoryReader, recipe: str) -> dict[str, tuple[int, int]]:
    """Return the steps on (short, long) rows of each phase.

    A recipe's phases cost together what the other's do.
    """
    more = (0, reader.long_steps)
    if recipe == "short":
        ratio = _step_flop(reader, reader.long_length) / _step_flop(reader, reader.short_length)
        more = (round(reader.long_steps * ratio), 0)
    elif recipe != "long":
        raise ValueError(f"recipe = {recipe}: expected one of {', '.join(RECIPES)}")
    tuning = (reader.tune_steps // 2, reader.tune_steps - reader.tune_steps // 2)
    phases = ((reader.short_steps, 0), more, tuning)
    return dict(zip(PHASES, phases, strict=True))


def flop_of(reader: StoryReader, recipe: str) -> dict[str, float]:
    """Return what each phase costs, forward and backward, by `formulas.flop`."""
    lengths = (reader.short_length, reader.long_length)
    return {
        phase: sum(n * _step_flop(reader, x) for n, x in zip(counts, lengths, strict=True))
        for phase, counts in steps_of(reader, recipe).items()
    }


def _step_flop(reader: StoryReader, length: int) -> float:
    """Return the FLOPs of one step.

    Few tokens of a row are scored, so the output is left out.
    """
    rows, model = reader.step_tokens // length, story_reader.model_of(reader)
    return formulas.training_flop(formulas.flop(model, length, rows, scored=0))


def reader_of(params: Params, recipe: str, seed: int) -> RunConfig:
    """Return a recipe's last run; it starts from those before."""
    reader, steps = params.story_reader, steps_of(params.story_reader, recipe)
    rate = reader.lr * reader.tune_share
    base = story_reader.base_of(reader, seed)
    more = story_reader.phase(reader, ("cloze",), steps["more"], seed, rate, base)
    stages = tuple(
        Stage(steps=n, rows=reader.step_tokens // x, length=x, tasks=(_puzzles(params, x),))
        for n, x in zip(steps["tuning"], (reader.short_length, reader.long_length), strict=True)
    )
    same = {"warmup": reader.warmup, "seed": seed, "start": more}
    return training(story_reader.model_of(reader), Curriculum(stages=stages), lr=rate, **same)


def _puzzles(params: Params, length: int) -> Task:
    """Return the task that draws from puzzles of one length, made once."""
    levels = {axis: list(some) for axis, some in params.trained_levels.items()}
    options = {"length": length, "rows": params.story_reader.rows, "levels": levels}
    options["dealt"] = list(params.dealt)
    return prepared_task(EvalConfig(make_puzzles, None, options), length)
