"""What notebook 05 chooses before its seeds run.

That is how each learner of M1 learns from labels. `farcontext tune mlm_pretraining` records the
trials; params.yaml holds the choice.
"""

from typing import Any

import pandas as pd

from farcontext.results import tables
from farcontext.studies.mlm_pretraining import labels
from farcontext.studies.mlm_pretraining.params import Params
from farcontext.studies.mlm_pretraining.study import learning
from farcontext.train.runs import grid, sweep


def tune(params: Params) -> pd.DataFrame:
    """Return each learner's accuracy at each of its rates.

    It is by task and number of labels.

    Every learner has as many trials, on the same passages. The rate of TF-IDF's logistic regression
    is its C.
    """
    trials = [
        (learner, task, seed, rate)
        for learner, rates in params.tuning_rates.items()
        for task, seed, rate in grid(task=labels.TASKS, seed=params.tuning_seeds, rate=rates)
    ]
    every = len(params.labels)
    found = sweep({trial: learning(params, *trial[:3], every * trial[3:]) for trial in trials})
    rows = [
        {"arm": learner, "task": task, "seed": seed, "lr": rate, "labels": row["labels"]}
        | {"metric": "accuracy", "value": row["accuracy"]}
        for (learner, task, seed, rate), result in found.items()
        for row in result.rows
    ]
    return tables.tidy(rows, ["arm", "task", "lr", "labels", "seed", "metric", "value"])


def choices(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the section of params.yaml should hold, from the recorded trials.

    For each number of labels that is the rate with the best mean accuracy over tasks and seeds.
    """
    mean = table.pivot_table(index="lr", columns=["arm", "labels"], values="value").idxmax()
    return {"chosen": {arm: list(best) for arm, best in mean.groupby(level="arm")}}
