"""What notebook 06 chooses before its seeds run: each cell's learning rate."""

from typing import Any

import pandas as pd

from farcontext.results import tables
from farcontext.studies.depth_width.params import Params
from farcontext.studies.depth_width.trainings import cells, grid_run
from farcontext.studies.trainings import best_rates, tried_rates
from farcontext.train.runs import grid


def tune(params: Params) -> pd.DataFrame:
    """Return the final loss of each cell at each rate.

    It is at the longest trained length.
    """
    window = params.windows[-1]
    trials = {
        (f"{layers}x{width}", lr, seed): grid_run(params, layers, width, window, lr=lr, seed=seed)
        for (layers, width), lr, seed in grid(
            cell=cells(params), lr=params.tuning_rates, seed=params.tuning_seeds
        )
    }
    rows = tried_rates(trials).assign(metric="tuning_loss").to_dict("records")
    return tables.tidy(rows, ["arm", "lr", "seed", "metric", "value"])


def choices(table: pd.DataFrame) -> dict[str, Any]:
    """Return what the section of params.yaml should hold, from the recorded trials."""
    return {"rates": {cell: best_rates(rows)[0] for cell, rows in table.groupby("arm")}}
