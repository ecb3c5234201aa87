"""What notebook 06 chooses before its seeds run: learning rates."""

from typing import Any

import pandas as pd

from farcontext.results import tables
from farcontext.studies.depth_width.params import Params
from farcontext.studies.depth_width.trainings import BUDGETS, adamw_run, grid_run, shapes
from farcontext.studies.trainings import best_rates, tried_rates
from farcontext.train.runs import grid

COLUMNS = ["arm", "layers", "width", "window", "length", "lr", "seed", "metric", "value"]


def tune(params: Params) -> pd.DataFrame:
    """Return the final loss at each rate.

    Every shape has one, and AdamW at each length. metric: tuning_loss, in nats a scored token.
    """
    seeds = params.tuning_seeds
    trials = {
        (("grid", *shape, None), lr, seed): grid_run(params, shape, lr=lr, seed=seed)
        for shape, lr, seed in grid(shape=shapes(params), lr=params.tuning_rates, seed=seeds)
    }
    for budget, length, lr, seed in grid(
        budget=BUDGETS, length=params.stable_lengths, lr=params.adamw_tuning_rates, seed=seeds
    ):
        arm = (f"AdamW, {budget}", None, None, None, length)
        trials[arm, lr, seed] = adamw_run(params, budget, length, lr=lr, seed=seed)
    tried = tried_rates(trials)
    named = pd.DataFrame(tried["arm"].tolist(), columns=COLUMNS[:5])
    rows = pd.concat([named, tried.drop(columns="arm")], axis=1).assign(metric="tuning_loss")
    return tables.tidy(rows.to_dict("records"), COLUMNS)


def choices(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the section of params.yaml should hold, from the recorded trials.

    One rate serves all shapes: that of the least loss, averaged over them. AdamW has a rate a
    budget and length.
    """
    grids = table[table["arm"] == "grid"].groupby(["lr", "seed"], as_index=False)["value"].mean()
    adamw = {
        budget: [
            best_rates(rows)[0]
            for _, rows in table[table["arm"] == f"AdamW, {budget}"].groupby("length")
        ]
        for budget in BUDGETS
    }
    return {"rate": best_rates(grids)[0], "adamw_rates": adamw}
