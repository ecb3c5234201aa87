"""What notebook 02 chooses before its seeds run.

That is each arm's learning rate, by task.
"""

from typing import Any

import pandas as pd

from farcontext.results import tables
from farcontext.studies.recurrence.arms import Arm, run_of
from farcontext.studies.recurrence.params import Params
from farcontext.studies.trainings import best_rates, tried_rates
from farcontext.train.runs import grid


def tune(params: Params) -> pd.DataFrame:
    """Return the final loss of each arm at each rate.

    An arm is named "task/arm".
    """
    given = {
        "recall": (params.recall_rates, params.tuning_rates),
        "flip_flop": (params.flip_flop_rates, params.flip_flop_tuning_rates),
    }
    trials = {
        (f"{task}/{name}", rate, seed): run_of(params, Arm(task, name, seed, rate))
        for task, (names, rates) in given.items()
        for name, rate, seed in grid(arm=names, rate=rates, seed=params.tuning_seeds)
    }
    rows = tried_rates(trials).assign(metric="tuning_loss").to_dict("records")
    return tables.tidy(rows, ["arm", "lr", "seed", "metric", "value"])


def choices(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the section of params.yaml should hold, from the recorded trials."""
    rates: dict[str, dict[str, float]] = {"recall_rates": {}, "flip_flop_rates": {}}
    for arm, rows in table.groupby("arm"):
        task, name = arm.split("/")
        rates[f"{task}_rates"][name] = best_rates(rows)[0]
    return rates
