"""The suite beside the needles: RULER's kinds of task, and counting.

Needles only ask whether one sentence is found. The suite follows a chain of assignments (variable
tracking), counts words of a list (common words), looks up lines of one long table, copies, and
counts lines of which none is a needle. Each task gives so few answers a context that only a fixed
number of contexts is read; intervals say what that supports.
"""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from farcontext.measure.stats import score_interval
from farcontext.schema import Row
from farcontext.tasks import common_words, copying, counting, lookup, tracking
from farcontext.tasks.sample import Encode, Sample

CONTEXTS = 24  # A task has so many contexts a length.
TASKS: dict[str, Callable[..., Sample]] = {
    "variable tracking": partial(tracking.sample, chains=4, hops=1),
    "common words": common_words.sample,
    "look-up": partial(lookup.sample, queries=8),
    "copying": partial(copying.sample, queries=8, cue=6, span=2),
    "counting": counting.sample,
}
ASKS = {
    "variable tracking": "the value at the end of a chain of two assignments, among four chains",
    "common words": "the word that occurs three times as often in a list that fills the context",
    "look-up": "the values of eight lines of a table that fills the context",
    "copying": "how eight stretches of the text went on",
    "counting": "who says most lines and who says fewest, where no line gives the answer",
}


def sample(
    task: str, *, length: int, seed: int, encode: Encode, filler: str, bos: Sequence[int]
) -> Sample:
    """Return one context of a task with its questions.

    Raises:
        ValueError: too short a length for this task; it says what fits.
    """
    given = {"length": length, "seed": seed, "encode": encode, "filler": filler, "bos": bos}
    return TASKS[task](**given)


def summarised(rows: pd.DataFrame) -> list[Row]:
    """Return a row a task and length.

    It has contexts, exact and choice with intervals, and chance.
    """
    found = []
    for task in TASKS:
        for length, part in rows[rows["task"] == task].groupby("length"):
            contexts = part.groupby("context")[["exact", "choice"]].mean()
            row = {"task": task, "asks": ASKS[task], "length": int(length)}
            row |= {"chance": float(part["chance"].mean()), "contexts": len(contexts)}
            for metric in ("exact", "choice"):
                score = score_interval(contexts[metric])
                row |= {metric: score.estimate}
                row |= {f"{metric}_low": score.low, f"{metric}_high": score.high}
            found.append(row)
    return found
