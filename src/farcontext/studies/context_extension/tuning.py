"""What notebook 07 chooses before its seeds run.

That is learning rates, and P1's arm. `farcontext tune context_extension` records the trials;
params.yaml holds the choice.
"""

from typing import Any

import pandas as pd

from farcontext.measure import losses
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.context_extension.arms import ARMS, base_run
from farcontext.studies.context_extension.params import Params
from farcontext.studies.context_extension.study import MEAN, arms_at, observations, scored
from farcontext.studies.trainings import best_rates, tried_rates
from farcontext.train.runs import EvalConfig, grid, sweep

COLUMNS = ["arm", "lr", "dose", "seed", "metric", "value"]
# Parameters that begin so measure other tables than those of the trials.
UNREAD = (
    "second_",
    "apart_",
    "longer_",
    "checkpoint",
    "real_",
    "gap",
    "needle_",
    "contexts",
    "encoder_arms",
)
DOWNSIDE = 0.02  # Fine-tuning may lose this much recall at L, and that still counts as nothing.


def tune(params: Params) -> pd.DataFrame:
    """Try the rates on every base, then the tuned arms.

    Each tuned arm has the best rate, and is tried after every dose. metric: tuning_loss (final loss
    of each rate tried) · recall (of it, at L) · base_recall, score (of each tuned arm at its base's
    best rate, as in the study's table).

    The same rates for every base: equal tuning, not only equal training. The loss decides, on rows
    never seen before: recall at L is 1 for several rates once a base has learnt the task.
    """
    bases = dict.fromkeys(ARMS[name].base for name in params.arms)
    trials = {
        (base, lr, seed): base_run(params, base, seed, lr)
        for base, lr, seed in grid(base=bases, lr=params.lrs, seed=params.tuning_seeds)
    }
    tried = tried_rates(trials)
    options = {
        "task": {"name": "recall", "pairs": params.pairs},
        "lengths": [params.length],
        "rows": params.test_rows,
    }
    recalled = sweep(
        {name: EvalConfig(losses.task_accuracy, trial, options) for name, trial in trials.items()}
    )
    rows: list[Row] = tried.assign(metric="tuning_loss").to_dict("records")
    rows += [
        {"arm": arm, "lr": lr, "seed": seed, "metric": "recall", "value": x.rows[0]["accuracy"]}
        for (arm, lr, seed), x in recalled.items()
    ]
    best = {base: best_rates(tried[tried["arm"] == base])[:1] for base in bases}
    jobs = arms_at(
        params.model_copy(update={"rates": best}), "first", params.tuned_arms, params.tuning_seeds
    )
    for case, many in scored({case: many for case, many in jobs.items() if case.dose}).items():
        at = {"arm": case.arm, "lr": best[ARMS[case.arm].base][0], "seed": case.seed}
        rows += [
            at | {"dose": case.dose, "metric": row["metric"], "value": row["value"]}
            for row in observations(params.goal, params.length, many)
            if row["metric"] in ("base_recall", "score") and row["layout"] == MEAN
        ]
    return tables.tidy(rows, COLUMNS)


def choices(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the section of params.yaml should hold, from the recorded trials.

    P1's arm has the best mean score over the doses, of those that keep what their base recalls at L
    (DOWNSIDE), unless none does.
    """
    tried = table[table["metric"] == "tuning_loss"]
    rates = {base: best_rates(rows) for base, rows in tried.groupby("arm")}
    mean = table.pivot_table(index=["arm", "lr"], columns="metric", values="value")
    tuned = mean.dropna(subset=["score"]).reset_index("lr")
    bases = [(ARMS[name].base, rates[ARMS[name].base][0]) for name in tuned.index]
    kept = tuned[tuned["base_recall"] >= mean["recall"].loc[bases].to_numpy() - DOWNSIDE]
    best = (tuned if kept.empty else kept)["score"].idxmax()
    return {"rates": {base: list(rates[base]) for base in sorted(rates)}, "chosen": best}
